//! The guest agent: the first process of a virtual machine.

#![allow(missing_docs, reason = "a program")]

mod agent;

fn main() {
    agent::main();
}
