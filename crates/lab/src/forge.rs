//! The thread that starts processes.
//!
//! A process that shall die with its parent (`PR_SET_PDEATHSIG`) dies with the *thread* that
//! started it. So one thread, as old as the lab, starts them all.

use std::{
    io,
    process::{Child, Command},
    sync::mpsc,
    thread,
};

struct Order {
    command: Command,
    reply: mpsc::Sender<io::Result<Child>>,
}

#[derive(Debug, Clone)]
pub(crate) struct Forge(mpsc::Sender<Order>);

impl Forge {
    pub(crate) fn start() -> io::Result<Self> {
        let (orders, inbox) = mpsc::channel::<Order>();
        thread::Builder::new().name("lab-forge".into()).spawn(move || {
            while let Ok(mut order) = inbox.recv() {
                // The one who asked may have gone; then the child is dropped and runs on until
                // this thread ends.
                let _ = order.reply.send(order.command.spawn());
            }
        })?;
        Ok(Self(orders))
    }

    pub(crate) fn spawn(&self, command: Command) -> io::Result<Child> {
        let gone = || io::Error::other("the lab's process starter is gone");
        let (reply, answer) = mpsc::channel();
        self.0.send(Order { command, reply }).map_err(|_| gone())?;
        answer.recv().map_err(|_| gone())?
    }
}
