//! The payload's network: a TAP device in a network namespace, and a socket that its frames go through.

use std::{
    fs::File,
    io::{self, Read, Write},
    net::{TcpListener, UdpSocket},
    os::fd::AsRawFd,
    os::unix::net::UnixListener,
    path::Path,
    process::Command,
    sync::{Arc, Mutex, OnceLock},
    thread,
};

use ya_runtime_sdk::{runtime_api::server::Network, server::ContainerEndpoint};

static TAP: OnceLock<Arc<File>> = OnceLock::new();
/// Sockets of the namespace outside, where the ExeUnit is.
static OUTSIDE: OnceLock<(UdpSocket, TcpListener)> = OnceLock::new();

/// Enters a network namespace of one's own; before any thread exists.
pub fn prepare() -> io::Result<()> {
    let udp = UdpSocket::bind("127.0.0.1:0")?;
    let tcp = TcpListener::bind("127.0.0.1:0")?;
    let _ = OUTSIDE.set((udp, tcp));
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let tap = File::options().read(true).write(true).open("/dev/net/tun")?;
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"eth0") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as i16;
    if unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETIFF, &request) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let _ = TAP.set(Arc::new(tap));
    ip(&["link", "set", "lo", "up"])?;
    ip(&["link", "set", "eth0", "mtu", "1400", "up"])
}

/// Gives the interface its addresses.
pub fn configure(networks: &[Network]) -> io::Result<()> {
    for network in networks {
        let mask: std::net::Ipv4Addr = network.mask.parse().map_err(io::Error::other)?;
        let bits = u32::from(mask).count_ones();
        ip(&["addr", "replace", &format!("{}/{bits}", network.if_addr), "dev", "eth0"])?;
    }
    Ok(())
}

/// Opens an endpoint of this kind and carries frames between it and the interface.
pub fn serve(kind: &str, workdir: &Path) -> io::Result<ContainerEndpoint> {
    let tap = TAP.get().expect("prepared").clone();
    let (udp, tcp) = OUTSIDE.get().expect("prepared");
    match kind {
        "udp" => {
            let socket = Arc::new(udp.try_clone()?);
            let address = socket.local_addr()?;
            thread::spawn(move || datagrams(&socket, &tap));
            Ok(ContainerEndpoint::UdpDatagram(address))
        }
        "tcp" => {
            let listener = tcp.try_clone()?;
            let address = listener.local_addr()?;
            thread::spawn(move || -> io::Result<()> {
                let (stream, _) = listener.accept()?;
                let writer = stream.try_clone()?;
                frames(stream, writer, &tap, true)
            });
            Ok(ContainerEndpoint::TcpStream(address))
        }
        _ => {
            let path = workdir.join("vpn.sock");
            let listener = UnixListener::bind(&path)?;
            thread::spawn(move || -> io::Result<()> {
                let (stream, _) = listener.accept()?;
                let writer = stream.try_clone()?;
                frames(stream, writer, &tap, false)
            });
            Ok(ContainerEndpoint::UnixStream(path))
        }
    }
}

fn frames(
    mut reader: impl Read,
    mut writer: impl Write + Send + 'static,
    tap: &Arc<File>,
    wide: bool,
) -> io::Result<()> {
    let from = tap.clone();
    thread::spawn(move || -> io::Result<()> {
        let mut frame = vec![0; 65_536];
        loop {
            let length = (&*from).read(&mut frame)?;
            let mut bytes = match wide {
                true => (length as u32).to_be_bytes().to_vec(),
                false => (length as u16).to_ne_bytes().to_vec(),
            };
            bytes.extend_from_slice(&frame[..length]);
            writer.write_all(&bytes)?;
        }
    });
    let mut frame = vec![0; 65_536];
    loop {
        let mut head = [0; 4];
        reader.read_exact(&mut head[..if wide { 4 } else { 2 }])?;
        let length = match wide {
            true => u32::from_be_bytes(head) as usize,
            false => u16::from_ne_bytes([head[0], head[1]]).into(),
        };
        reader.read_exact(&mut frame[..length])?;
        (&**tap).write_all(&frame[..length])?;
    }
}

fn datagrams(socket: &Arc<UdpSocket>, tap: &Arc<File>) -> io::Result<()> {
    let peer = Arc::new(Mutex::new(None));
    let (out, from, to) = (socket.clone(), tap.clone(), peer.clone());
    thread::spawn(move || -> io::Result<()> {
        let mut frame = vec![0; 65_536];
        loop {
            let length = (&*from).read(&mut frame)?;
            if let Some(peer) = *to.lock().unwrap() {
                out.send_to(&frame[..length], peer)?;
            }
        }
    });
    let mut frame = vec![0; 65_536];
    loop {
        let (length, sender) = socket.recv_from(&mut frame)?;
        *peer.lock().unwrap() = Some(sender);
        if length > 0 {
            (&**tap).write_all(&frame[..length])?;
        }
    }
}

fn ip(args: &[&str]) -> io::Result<()> {
    match Command::new("ip").args(args).status()?.success() {
        true => Ok(()),
        false => Err(io::Error::other(format!("ip {}", args.join(" ")))),
    }
}
