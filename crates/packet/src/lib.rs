//! Packets as bytes: super-packets with virtio_net_hdr metadata, headers, checksums, segmentation, coalescing. Pure.
