//! Where a node can be reached, in its own signed words.

use std::net::SocketAddr;

use gvpn_identity::{Identity, Signature};
use gvpn_model::NodeId;
use serde::{Deserialize, Serialize};

const DOMAIN: &str = "gvpn node record v1";
/// The most addresses, and the most relays, in a record.
pub const MAX_RECORD_ADDRS: usize = 16;
/// The largest record in bytes.
pub const MAX_RECORD_BYTES: usize = 2048;

/// Where a node can be reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// The node.
    pub node: NodeId,
    /// A later record has a larger number: milliseconds since 1970 by the node's clock.
    pub sequence: u64,
    /// Its addresses, its own and those that others observed.
    pub addrs: Vec<SocketAddr>,
    /// Relays that it is registered with, its home first.
    pub relays: Vec<SocketAddr>,
}

/// Why a record is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Not a record.
    #[error("not a node record")]
    Malformed,
    /// Signed by somebody else.
    #[error("the node record is not signed by the node it speaks of")]
    Signature,
}

/// A record and its node's signature over exactly these bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedRecord {
    bytes: Vec<u8>,
    signature: Signature,
}

impl SignedRecord {
    /// Signs a record. The record's node must be the identity's.
    pub fn sign(identity: &Identity, record: &NodeRecord) -> Self {
        let bytes = postcard::to_stdvec(record).unwrap_or_default();
        let signature = identity.sign(DOMAIN, &bytes);
        Self { bytes, signature }
    }

    /// Checks the signature and gives the record.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn open(&self) -> Result<NodeRecord, RecordError> {
        if self.bytes.len() > MAX_RECORD_BYTES {
            return Err(RecordError::Malformed);
        }
        let (record, rest): (NodeRecord, _) =
            postcard::take_from_bytes(&self.bytes).map_err(|_| RecordError::Malformed)?;
        let long = record.addrs.len().max(record.relays.len()) > MAX_RECORD_ADDRS;
        if long || !rest.is_empty() {
            return Err(RecordError::Malformed);
        }
        self.signature
            .verify(record.node, DOMAIN, &self.bytes)
            .map_err(|_| RecordError::Signature)?;
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(node: NodeId) -> NodeRecord {
        let addrs = vec!["192.0.2.1:7".parse().unwrap(), "[2001:db8::1]:7".parse().unwrap()];
        NodeRecord { node, sequence: 1, addrs, relays: vec![] }
    }

    #[test]
    fn only_the_node_itself_can_say_where_it_is() {
        let (me, other) = (Identity::generate(), Identity::generate());
        let mine = record(me.node_id());
        assert_eq!(SignedRecord::sign(&me, &mine).open(), Ok(mine.clone()));
        assert_eq!(SignedRecord::sign(&other, &mine).open(), Err(RecordError::Signature));
        let good = SignedRecord::sign(&me, &mine);
        for at in 0..good.bytes.len() {
            let mut bad = good.clone();
            bad.bytes[at] ^= 1;
            assert!(bad.open().is_err(), "{at}");
        }
    }

    #[test]
    fn oversized_and_malformed_records_are_refused() {
        let me = Identity::generate();
        let mut long = record(me.node_id());
        long.addrs = vec!["192.0.2.1:7".parse().unwrap(); MAX_RECORD_ADDRS + 1];
        assert_eq!(SignedRecord::sign(&me, &long).open(), Err(RecordError::Malformed));
        for bytes in [vec![], vec![0; 10], vec![0xff; 100], vec![1; MAX_RECORD_BYTES + 1]] {
            let signature = me.sign(DOMAIN, &bytes);
            assert_eq!(SignedRecord { bytes, signature }.open(), Err(RecordError::Malformed));
        }
    }

    proptest! {
        #[test]
        fn no_other_bytes_pass_for_a_record(
            at in any::<prop::sample::Index>(), flip in 1u8.., cut in any::<prop::sample::Index>(),
            rubbish in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let me = Identity::generate();
            let good = SignedRecord::sign(&me, &record(me.node_id()));
            let bytes = postcard::to_stdvec(&good).unwrap();
            let mut changed = bytes.clone();
            changed[at.index(bytes.len())] ^= flip;
            let short = &bytes[..cut.index(bytes.len())];
            for wire in [&changed[..], short, &rubbish[..]] {
                if let Ok(read) = postcard::from_bytes::<SignedRecord>(wire) {
                    // A signature has more than one form; what is signed has not.
                    prop_assert!(read.open().is_err() || read.bytes == good.bytes);
                }
            }
        }
    }
}
