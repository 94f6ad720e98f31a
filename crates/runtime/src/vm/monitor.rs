//! QEMU's monitor (QMP), by which network cards are plugged into a running machine and pulled out again.

use std::{
    io::{self, BufRead, BufReader, IoSlice, Read},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde_json::{Value, json};

use super::card::{Plug, mac};

/// How long QEMU may take for an answer, and a machine to let go of a card.
const PATIENCE: Duration = Duration::from_secs(30);
/// The longest message that is read.
const LONGEST: u64 = 1 << 20;
/// The bus that takes cards while the machine runs.
pub(super) const BUS: &str = "later";

/// The line to it.
#[derive(Debug, Clone)]
pub(super) struct Monitor(Arc<Mutex<Wire>>);

#[derive(Debug)]
struct Wire {
    reader: BufReader<UnixStream>,
    greeted: bool,
    /// Devices that have gone.
    gone: Vec<String>,
}

impl Monitor {
    pub(super) fn new(socket: UnixStream) -> io::Result<Self> {
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        let wire = Wire { reader: BufReader::new(socket), greeted: false, gone: vec![] };
        Ok(Self(Arc::new(Mutex::new(wire))))
    }

    /// Plugs a card in, which somebody serves already.
    pub(super) async fn plug(&self, number: usize, plug: Plug) -> Result<(), String> {
        self.talk(move |wire| {
            let plugged = wire.plug(number, plug);
            if plugged.is_err() {
                wire.forget(number);
            }
            plugged
        })
        .await
    }

    /// Pulls a card out; the machine has to let go of it.
    pub(super) async fn pull(&self, number: usize) -> Result<(), String> {
        self.talk(move |wire| wire.pull(number)).await
    }

    async fn talk(
        &self,
        how: impl FnOnce(&mut Wire) -> Result<(), String> + Send + 'static,
    ) -> Result<(), String> {
        let wire = self.0.clone();
        let talked = tokio::task::spawn_blocking(move || {
            let mut wire = wire.lock().unwrap_or_else(PoisonError::into_inner);
            wire.greet().and_then(|()| how(&mut wire))
        });
        talked.await.map_err(|e| e.to_string())?
    }
}

impl Wire {
    fn greet(&mut self) -> Result<(), String> {
        if !self.greeted {
            self.read()?;
            self.order("qmp_capabilities", json!({}), None)?;
            self.greeted = true;
        }
        Ok(())
    }

    fn plug(&mut self, number: usize, plug: Plug) -> Result<(), String> {
        let (card, net) = (format!("card{number}"), format!("net{number}"));
        let mut device = json!({
            "driver": "virtio-net-pci", "id": card, "netdev": net, "mac": mac(number), "bus": BUS,
            "romfile": "",
        });
        let netdev = match plug {
            Plug::Dgram(fd) => {
                self.order("getfd", json!({"fdname": net}), Some(fd))?;
                json!({"type": "dgram", "id": net, "local": {"type": "fd", "str": net}})
            }
            Plug::Stream(fd) => {
                self.order("getfd", json!({"fdname": net}), Some(fd))?;
                // The same frames; `stream` itself looks for its descriptor where no monitor is known.
                json!({"type": "socket", "id": net, "fd": net})
            }
            Plug::Vhost(path) => {
                let address = json!({"type": "unix", "data": {"path": path}});
                let socket = json!({"type": "socket", "data": {"addr": address, "server": false}});
                self.order("chardev-add", json!({"id": card, "backend": socket}), None)?;
                device["rx_queue_size"] = json!(1024);
                device["tx_queue_size"] = json!(1024);
                json!({"type": "vhost-user", "id": net, "chardev": card})
            }
        };
        self.order("netdev_add", netdev, None)?;
        self.order("device_add", device, None)
    }

    fn pull(&mut self, number: usize) -> Result<(), String> {
        let card = format!("card{number}");
        self.gone.clear();
        self.order("device_del", json!({"id": card}), None)?;
        let deadline = Instant::now() + PATIENCE;
        while !self.gone.contains(&card) {
            if Instant::now() > deadline {
                return Err("it does not let go of the card".to_owned());
            }
            self.read()?;
        }
        self.forget(number);
        Ok(())
    }

    /// Takes away what a card was connected to.
    fn forget(&mut self, number: usize) {
        let _ = self.order("netdev_del", json!({"id": format!("net{number}")}), None);
        let _ = self.order("chardev-remove", json!({"id": format!("card{number}")}), None);
    }

    /// Gives an order, with a descriptor, and waits for its answer.
    fn order(&mut self, name: &str, words: Value, fd: Option<OwnedFd>) -> Result<(), String> {
        let text = json!({"execute": name, "arguments": words}).to_string();
        let fds: Vec<_> = fd.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&fds)];
        let rights = if fds.is_empty() { &[][..] } else { &rights };
        let socket = self.reader.get_ref().as_raw_fd();
        let parts = [IoSlice::new(text.as_bytes())];
        let sent = sendmsg::<()>(socket, &parts, rights, MsgFlags::MSG_NOSIGNAL, None);
        if sent.map_err(|e| format!("its monitor: {e}"))? != text.len() {
            return Err("its monitor does not listen".to_owned());
        }
        loop {
            let answer = self.read()?;
            if let Some(error) = answer.get("error") {
                let reason = error["desc"].as_str().unwrap_or_default();
                return Err(format!("{name}: {reason}"));
            }
            if answer.get("return").is_some() {
                return Ok(());
            }
        }
    }

    /// The next message; events are taken note of.
    fn read(&mut self) -> Result<Value, String> {
        let mut line = String::new();
        let read = (&mut self.reader).take(LONGEST).read_line(&mut line);
        if read.map_err(|e| format!("its monitor: {e}"))? == 0 {
            return Err("its monitor is gone".to_owned());
        }
        let message: Value =
            serde_json::from_str(&line).map_err(|_| "its monitor sent nonsense".to_owned())?;
        if message["event"] == "DEVICE_DELETED"
            && let Some(device) = message["data"]["device"].as_str()
            && self.gone.len() < 100
        {
            self.gone.push(device.to_owned());
        }
        Ok(message)
    }
}
