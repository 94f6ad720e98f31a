//! vNICs: unprivileged network namespaces with TUN devices, socket vNICs, and their configuration by netlink.
