//! vNICs from namespaces and ExeUnits, as the data path takes them.

use gvpn_dataplane::{AttachError, Nic};
use gvpn_vnic::NicKind;

use crate::{ErrorKind, NodeError};

/// The same descriptor in the data path's terms.
pub(crate) fn nic(nic: gvpn_vnic::Nic) -> Nic {
    match nic.kind {
        NicKind::TunVnet if nic.queues.is_empty() => Nic::TunVnet(nic.fd),
        NicKind::TunVnet => Nic::TunQueues(std::iter::once(nic.fd).chain(nic.queues).collect()),
        NicKind::Tun => Nic::Tun(nic.fd),
        NicKind::Stream => Nic::Stream(nic.fd),
        NicKind::Stream2 => Nic::Stream2(nic.fd),
        NicKind::Dgram => Nic::Dgram(nic.fd),
        NicKind::VhostUser => Nic::VhostUser(nic.fd),
    }
}

impl From<AttachError> for NodeError {
    fn from(error: AttachError) -> Self {
        let kind = match error {
            AttachError::Taken { .. } => ErrorKind::Conflict,
            AttachError::Unusable { .. } | AttachError::Ended => ErrorKind::Internal,
        };
        Self::new(kind, error)
    }
}
