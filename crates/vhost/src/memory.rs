//! The machine's memory, as far as its monitor shares it.

use std::{fs::File, io, os::fd::OwnedFd};

use nix::{
    fcntl::{FcntlArg, SealFlag, fcntl},
    sys::{
        stat::fstat,
        statfs::{TMPFS_MAGIC, fstatfs},
    },
};
use vm_memory::{FileOffset, GuestAddress, GuestMemoryMmap, GuestRegionMmap, mmap::MmapRegion};

use crate::message::{Region, wrong};

/// Mapped memory.
#[derive(Debug)]
pub(crate) struct Memory {
    pub(crate) map: GuestMemoryMmap,
    regions: Vec<Region>,
}

impl Memory {
    /// Maps a memory table.
    ///
    /// # Errors
    /// When a region cannot be mapped so that it stays.
    pub(crate) fn new(mut regions: Vec<Region>, files: Vec<OwnedFd>) -> io::Result<Self> {
        if regions.len() != files.len() {
            return Err(wrong("each region of memory needs one descriptor"));
        }
        let mut maps = regions
            .iter()
            .zip(files)
            .map(|(region, file)| map(region, file))
            .collect::<io::Result<Vec<_>>>()?;
        maps.sort_by_key(vm_memory::GuestMemoryRegion::start_addr);
        regions.sort_by_key(|region| region.machine);
        let map = GuestMemoryMmap::from_regions(maps).map_err(io::Error::other)?;
        Ok(Self { map, regions })
    }

    /// The machine's address of something that the monitor names by its own.
    pub(crate) fn of_monitor(&self, address: u64) -> Option<u64> {
        let of = |region: &Region| {
            let at = address.checked_sub(region.monitor)?;
            (at < region.len).then(|| region.machine.checked_add(at))?
        };
        self.regions.iter().find_map(of)
    }
}

fn map(region: &Region, file: OwnedFd) -> io::Result<GuestRegionMmap> {
    stays(&file)?;
    let end = region.offset.checked_add(region.len);
    if end.is_none_or(|end| fstat(&file).is_ok_and(|file| end > file.st_size.cast_unsigned())) {
        return Err(wrong("a region of memory is larger than its file"));
    }
    let len = usize::try_from(region.len).map_err(io::Error::other)?;
    let file = FileOffset::new(File::from(file), region.offset);
    let mapped = MmapRegion::from_file(file, len).map_err(io::Error::other)?;
    let placed = GuestRegionMmap::new(mapped, GuestAddress(region.machine));
    placed.ok_or_else(|| wrong("a region of memory goes beyond the end of all addresses"))
}

/// Memory that its file no longer covers would end the process that touches it. A memory file that is
/// sealed against shrinking covers it for good; one of huge pages may run out of them all the same.
fn stays(file: &OwnedFd) -> io::Result<()> {
    let sealed = fcntl(file, FcntlArg::F_GET_SEALS).map(SealFlag::from_bits_truncate);
    if !sealed.is_ok_and(|seals| seals.contains(SealFlag::F_SEAL_SHRINK)) {
        return Err(wrong("memory must be a memory file that is sealed against shrinking"));
    }
    if fstatfs(file)?.filesystem_type() != TMPFS_MAGIC {
        return Err(wrong("memory must not be of huge pages"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use nix::sys::memfd::{MFdFlags, memfd_create};
    use vm_memory::Bytes;

    use super::*;

    fn file(len: i64, seals: SealFlag) -> OwnedFd {
        let file = memfd_create("memory", MFdFlags::MFD_ALLOW_SEALING).unwrap();
        nix::unistd::ftruncate(&file, len).unwrap();
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).unwrap();
        file
    }

    #[test]
    fn memory_is_mapped_where_it_stays() {
        let region = Region { machine: 0x10000, len: 8192, monitor: 0x7000_0000, offset: 4096 };
        let shared = file(12288, SealFlag::F_SEAL_SHRINK);
        let memory = Memory::new(vec![region], vec![shared]).unwrap();
        assert_eq!(memory.of_monitor(0x7000_1fff), Some(0x11fff));
        assert_eq!(memory.of_monitor(0x7000_2000), None);
        assert_eq!(memory.of_monitor(0x6fff_ffff), None);
        memory.map.write_obj(7u8, GuestAddress(0x11fff)).unwrap();
        memory.map.write_obj(7u8, GuestAddress(0x12000)).unwrap_err();
        let refused = |region: Region, file| Memory::new(vec![region], vec![file]).unwrap_err();
        // It could be made smaller below its users.
        refused(region, file(12288, SealFlag::F_SEAL_GROW));
        // It does not cover the region.
        refused(region, file(8192, SealFlag::F_SEAL_SHRINK));
        refused(Region { offset: 1, ..region }, file(12288, SealFlag::F_SEAL_SHRINK));
        refused(Region { len: u64::MAX, ..region }, file(12288, SealFlag::F_SEAL_SHRINK));
        refused(Region { machine: u64::MAX, ..region }, file(12288, SealFlag::F_SEAL_SHRINK));
        refused(region, tempfile());
        assert!(Memory::new(vec![region], vec![]).is_err());
    }

    fn tempfile() -> OwnedFd {
        let (read, _write) = nix::unistd::pipe().unwrap();
        read
    }
}
