//! The agent process: makes the namespaces, then serves requests from its standard input until the
//! other end closes.

mod identity;
mod socket;
mod tun;

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    process::exit,
};

use crate::{
    channel::Channel,
    protocol::{Done, Order, Refusal, Request, Response, Setup, Started},
};
use gvpn_link::{Bounds, Netlink, quiet_ipv6};

/// Entry point of an agent process: call it first thing in `main`, before any thread exists.
/// Standard input must be a socket of [`channel`](crate::channel).
pub fn agent_main() -> ! {
    exit(match serve() {
        Ok(()) => 0,
        Err(e) => {
            eprintln!("namespace agent: {e}");
            1
        }
    })
}

type Outcome = Result<(Done, Vec<OwnedFd>), Refusal>;

fn serve() -> io::Result<()> {
    let mut channel = Channel::new(io::stdin().as_fd().try_clone_to_owned()?);
    let Some((setup, _)) = channel.receive::<Setup>()? else { return Ok(()) };
    let entered = match identity::enter(setup.ids) {
        Ok(entered) => entered,
        Err(reason) => return channel.send(&Started::Forbidden(reason), vec![]),
    };
    let mut netlink = Netlink::open()?;
    prepare(&mut netlink)?;
    let identity::Entered { ids, root, own_user_namespace } = entered;
    let up = Started::Up { ids, root, own_user_namespace };
    channel.send(&up, vec![])?;
    while let Some((request, _)) = channel.receive::<Request>()? {
        let (outcome, fds) = match obey(request.order, &setup.tun_device, &mut netlink) {
            Ok((done, fds)) => (Ok(done), fds),
            Err(refusal) => (Err(refusal), vec![]),
        };
        channel.send(&Response { id: request.id, outcome }, fds)?;
    }
    Ok(())
}

fn obey(order: Order, tun_device: &Path, netlink: &mut Netlink) -> Outcome {
    match order {
        Order::CreateTun(spec) => {
            let tun = tun::create(tun_device, &spec)?;
            netlink.limit(
                &spec.name,
                &Bounds {
                    mtu: spec.mtu,
                    queue: spec.queue,
                    gso_max_segs: spec.gso_max_segs,
                    gso_max_size: spec.gso_max_size,
                },
            )?;
            if !tun.queues.is_empty() {
                // The device's own queues do; the kernel would make 256 more that hold nothing.
                let _ = netlink.without_discipline(&spec.name);
            }
            quiet_ipv6(&spec.name);
            let done = Done::Tun { vnet_hdr: tun.vnet_hdr, uso: tun.uso };
            Ok((done, std::iter::once(tun.fd).chain(tun.queues).collect()))
        }
        Order::Configure(interface) => {
            netlink.configure(&interface)?;
            Ok((Done::Nothing, vec![]))
        }
        Order::Remove { name } => {
            let removed = netlink.remove(&name);
            removed.map_err(|e| Refusal::new(format!("remove interface {name}"), &e))?;
            Ok((Done::Nothing, vec![]))
        }
        Order::Socket(order) => Ok((Done::Socket, vec![socket::open(&order)?])),
    }
}

/// What every namespace has from the start: loopback, no autoconfiguration, ordinary rights to
/// ports and to `ping`.
fn prepare(netlink: &mut Netlink) -> io::Result<()> {
    netlink.set_up("lo")?;
    for conf in ["all", "default"] {
        quiet_ipv6(conf);
        set(&format!("net/ipv4/conf/{conf}/promote_secondaries"), "1");
    }
    set("net/ipv4/ip_unprivileged_port_start", "0");
    // A queue that stands is told of by marks, not by loss (RFC 3168).
    set("net/ipv4/tcp_ecn", "1");
    // Both ends of the range must be ids that exist.
    for range in ["0 0", "0 65535"] {
        set("net/ipv4/ping_group_range", range);
    }
    Ok(())
}

/// Sets a sysctl where the host allows it; a host that does not leaves its default, which works.
fn set(key: &str, value: &str) {
    let _ = std::fs::write(format!("/proc/sys/{key}"), value);
}
