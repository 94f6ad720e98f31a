//! The agent's life: make the machine ready, say so, obey until told to stop.

mod boot;
mod file;
mod line;
mod network;
mod program;

use std::sync::Arc;

use gvpn_guest::{Done, FromGuest, Order, Request, VERSION};

use boot::Settings;
use file::Files;
use line::Line;
use network::Network;
use program::Programs;

pub(crate) fn main() {
    if std::process::id() != 1 {
        eprintln!(
            "gvpn-guest is the first process of a virtual machine; it does nothing elsewhere"
        );
        std::process::exit(2);
    }
    if let Err(reason) = live() {
        eprintln!("gvpn-guest: {reason}");
    }
    boot::power_off();
}

fn live() -> Result<(), String> {
    boot::mount_basics()?;
    let settings = Settings::read()?;
    boot::load_modules();
    let mut line = Line::open(&settings)?;
    let sender = line.sender();
    let ready = boot::enter_root(&settings).and_then(|()| Network::open());
    let mut network = match ready {
        Ok(network) => network,
        Err(reason) => {
            sender.send(&FromGuest::Failed { reason: reason.clone() }, &[]);
            return Err(reason);
        }
    };
    let interfaces = network.names();
    sender.send(&FromGuest::Hello { version: VERSION, interfaces }, &[]);
    let programs = Programs::start(sender.clone());
    let mut files = Files::default();
    while let Some((Request { id, order }, data)) = line.receive()? {
        let outcome = match order {
            Order::Configure(interface) => network.configure(&interface),
            Order::Adopt { name, mac } => network.adopt(&name, &mac),
            Order::Clear { name } => network.clear(&name),
            Order::Rename { hostname, hosts, resolv_conf } => {
                network::rename(&hostname, &hosts, &resolv_conf)
            }
            Order::Run(program) => {
                Programs::run(&programs, id, &program);
                continue;
            }
            Order::Read { path } => {
                file::read(Arc::clone(&programs), id, path);
                continue;
            }
            Order::Credit { stream, bytes } => {
                programs.credit(id, stream, bytes);
                continue;
            }
            Order::Kill => {
                programs.kill(id);
                continue;
            }
            Order::Write { path } => match files.create(id, &path) {
                Ok(()) => continue,
                Err(reason) => Err(reason),
            },
            Order::Chunk => match files.append(id, &data) {
                Ok(false) => continue,
                Ok(true) => Ok(()),
                Err(reason) => Err(reason),
            },
            Order::Answer => Ok(()),
            Order::Stop => return Ok(()),
        };
        let outcome = outcome.map(|()| Done::Nothing);
        sender.send(&FromGuest::Answer { id, outcome }, &[]);
    }
    Ok(())
}
