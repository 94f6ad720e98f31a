//! Messages of the net's own protocols: frames of postcard.

use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};
use tokio::sync::mpsc;

use crate::{NetError, StreamReader, StreamWriter, stream::bad_message};

/// The largest message in bytes.
const MAX_BYTES: usize = 64 << 10;
/// How many messages may wait to be handled.
const BACKLOG: usize = 32;

/// The last field of a message that older nodes do not send, and do not read: what is not there is the
/// default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Last<T>(pub T);

impl<'de, T: Deserialize<'de> + Default> Deserialize<'de> for Last<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(T::deserialize(deserializer).unwrap_or_default()))
    }
}

/// Sends a message.
///
/// # Errors
/// [`NetError`] if the stream has ended.
pub async fn send<T: Serialize>(stream: &mut StreamWriter, message: &T) -> Result<(), NetError> {
    let body = postcard::to_stdvec(message).map_err(|e| bad_message(stream.peer(), &e))?;
    stream.send_frame(&body).await
}

/// Receives the messages of a stream in a task of their own: a receiver that may be polled beside
/// others without losing half of a message. The channel ends after an error or the stream's end.
pub fn inbox<T: DeserializeOwned + Send + 'static>(
    mut stream: StreamReader,
) -> mpsc::Receiver<Result<T, NetError>> {
    let (sender, receiver) = mpsc::channel(BACKLOG);
    tokio::spawn(async move {
        loop {
            let message = tokio::select! {
                message = receive(&mut stream) => message.transpose(),
                () = sender.closed() => None,
            };
            let Some(message) = message else { return };
            let last = message.is_err();
            if sender.send(message).await.is_err() || last {
                return;
            }
        }
    });
    receiver
}

async fn receive<T: DeserializeOwned>(stream: &mut StreamReader) -> Result<Option<T>, NetError> {
    let Some(body) = stream.recv_frame(MAX_BYTES).await? else { return Ok(None) };
    postcard::from_bytes(&body).map(Some).map_err(|e| bad_message(stream.peer(), &e))
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use gvpn_identity::Identity;
    use gvpn_model::NodeId;
    use proptest::prelude::*;

    use super::*;
    use crate::{
        NodeRecord, SignedRecord,
        control::{self, Control},
        relay_protocol::{ToClient, ToRelay},
    };

    /// What can be read of bytes means what it would be written as.
    fn read_back<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) {
        if let Ok(message) = postcard::from_bytes::<T>(bytes) {
            let again = postcard::to_stdvec(&message).unwrap();
            assert_eq!(postcard::from_bytes::<T>(&again).unwrap(), message);
        }
    }

    fn read_all(bytes: &[u8]) {
        read_back::<ToRelay>(bytes);
        read_back::<ToClient>(bytes);
        read_back::<Control>(bytes);
    }

    fn samples(node: NodeId, record: &SignedRecord) -> Vec<Vec<u8>> {
        let record = Some(record.clone());
        let to_client = [
            ToClient::Registered { observed: Some("192.0.2.1:7".parse().unwrap()) },
            ToClient::Found {
                request: 7,
                record: record.clone(),
                session: Some(9),
                seen: Last(Some("192.0.2.1:7".parse().unwrap())),
            },
            ToClient::Session { session: 9, peer: node, record },
            ToClient::Refused { reason: "no".into() },
        ];
        let to_relay = [
            ToRelay::Find { request: 7, node, session: true },
            ToRelay::Resume { sessions: vec![(1, node), (2, node)] },
        ];
        let control = [
            Control::Hello { aes: true, knows: Last(control::KNOWS) },
            Control::Lane { network: None, index: 7 },
            Control::Punch { addrs: vec!["[2001:db8::1]:7".parse().unwrap()] },
        ];
        let to_client = to_client.iter().map(postcard::to_stdvec);
        let rest = to_relay.iter().map(postcard::to_stdvec);
        let control = control.iter().map(postcard::to_stdvec);
        to_client.chain(rest).chain(control).map(Result::unwrap).collect()
    }

    #[test]
    fn a_last_field_may_be_missing_and_need_not_be_read() {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        enum Older {
            Hello { aes: bool },
        }
        let newer = Control::Hello { aes: true, knows: Last(control::KNOWS) };
        let bytes = postcard::to_stdvec(&newer).unwrap();
        assert_eq!(postcard::from_bytes::<Control>(&bytes).unwrap(), newer);
        let older = Older::Hello { aes: true };
        assert_eq!(postcard::from_bytes::<Older>(&bytes).unwrap(), older);
        let bytes = postcard::to_stdvec(&older).unwrap();
        let read = postcard::from_bytes::<Control>(&bytes).unwrap();
        assert_eq!(read, Control::Hello { aes: true, knows: Last(0) });
    }

    proptest! {
        #[test]
        fn rubbish_is_refused_or_a_message(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            read_all(&bytes);
            // Lengths that are not there.
            read_all(&[&bytes[..], &[0xff, 0xff, 0xff, 0xff, 0x0f]].concat());
        }

        #[test]
        fn broken_messages_are_refused_or_others(
            at in any::<prop::sample::Index>(), to in any::<u8>(), cut in any::<prop::sample::Index>(),
        ) {
            let me = Identity::generate();
            let node = me.node_id();
            let record = NodeRecord { node, sequence: 1, addrs: vec![], relays: vec![] };
            for sample in samples(node, &SignedRecord::sign(&me, &record)) {
                let mut changed = sample.clone();
                changed[at.index(sample.len())] = to;
                read_all(&changed);
                read_all(&sample[..cut.index(sample.len())]);
            }
        }
    }
}
