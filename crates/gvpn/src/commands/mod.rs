//! The commands that talk to a daemon.

pub(crate) mod activity;
pub(crate) mod agreement;
pub(crate) mod doctor;
pub(crate) mod gate;
pub(crate) mod image;
pub(crate) mod inside;
pub(crate) mod keys;
pub(crate) mod live;
pub(crate) mod look;
pub(crate) mod member;
pub(crate) mod net;
pub(crate) mod node;
pub(crate) mod progress;
pub(crate) mod provider;
pub(crate) mod rule;
pub(crate) mod status;
