//! A connection to NATS.

use std::{collections::HashSet, sync::atomic::Ordering::Relaxed, time::Duration};

use async_nats::{
    Client, ConnectOptions,
    connection::State,
    jetstream::{
        self,
        kv::{Operation, Store},
        stream::{self, DiscardPolicy},
    },
};
use futures::StreamExt;
use gvpn_model::NodeId;

use super::{Fleet, Outbox, Shelf, Verdict};

/// How long NATS may take to answer.
const ANSWER: Duration = Duration::from_secs(5);
/// How often it is looked whether the connection stands.
const LOOK: Duration = Duration::from_millis(500);
/// Writes that wait for their answers at a time.
const WRITES: usize = 32;
/// The pause after a write that failed.
const PAUSE: Duration = Duration::from_millis(500);
/// After so many failures in a row the buckets are looked for again.
const FAILURES: usize = 10;

impl<R: Shelf, O: Shelf> Fleet<R, O> {
    /// Shares until something is wrong; says what.
    pub(super) async fn session(&self) -> Result<(), String> {
        let options = ConnectOptions::new()
            .name("gvpn relay")
            .connection_timeout(ANSWER)
            .request_timeout(Some(ANSWER))
            .ping_interval(ANSWER);
        let servers: Vec<_> = self.config.servers.split(',').map(str::trim).collect();
        let client = options.connect(servers).await.map_err(|e| e.to_string())?;
        let (records, offers) =
            tokio::try_join!(self.bucket::<R>(&client), self.bucket::<O>(&client))?;
        self.set_connected(true, "");
        self.records.outbox().add_all(self.records.own());
        self.offers.outbox().add_all(self.offers.own());
        tokio::try_join!(
            self.learn(&*self.records, &records),
            self.learn(&*self.offers, &offers),
            self.share(&*self.records, &records),
            self.share(&*self.offers, &offers),
            self.watch(&client),
        )?;
        Ok(())
    }

    async fn bucket<S: Shelf>(&self, client: &Client) -> Result<Store, String> {
        let bucket = format!("{}-{}", self.config.name, S::NAME);
        // A bucket is a stream of this form (NATS ADR-8). Made as such, since older servers do
        // not answer what the client asks before it makes a bucket.
        let stream = stream::Config {
            name: format!("KV_{bucket}"),
            description: Some("Golem VPN relays".to_owned()),
            subjects: vec![format!("$KV.{bucket}.>")],
            max_messages_per_subject: 1,
            max_age: S::KEPT,
            discard: DiscardPolicy::New,
            allow_rollup: true,
            deny_delete: true,
            allow_direct: true,
            num_replicas: 1,
            ..stream::Config::default()
        };
        let failed = |error: String| {
            format!(
                "bucket {bucket}: {error}; the server must run with JetStream (nats-server -js)"
            )
        };
        let jetstream = jetstream::new(client.clone());
        jetstream.get_or_create_stream(stream).await.map_err(|e| failed(e.to_string()))?;
        jetstream.get_key_value(&bucket).await.map_err(|e| failed(e.to_string()))
    }

    /// Takes in what others share.
    async fn learn<S: Shelf>(&self, shelf: &S, store: &Store) -> Result<(), String> {
        let watched = store.watch_with_history(">").await;
        let mut changes = watched.map_err(|e| e.to_string())?;
        while let Some(entry) = changes.next().await {
            let entry = entry.map_err(|e| e.to_string())?;
            if entry.operation != Operation::Put {
                continue;
            }
            let Ok(node) = entry.key.parse::<NodeId>() else {
                self.counts.refused.fetch_add(1, Relaxed);
                continue;
            };
            match shelf.take(node, &entry.value) {
                Verdict::Learnt => drop(self.counts.learnt.fetch_add(1, Relaxed)),
                Verdict::Refused => drop(self.counts.refused.fetch_add(1, Relaxed)),
                Verdict::Outdated => shelf.outbox().add(node),
                Verdict::Known => {}
            }
        }
        Err("the subscription ended".to_owned())
    }

    /// Shares what changes here.
    async fn share<S: Shelf>(&self, shelf: &S, store: &Store) -> Result<(), String> {
        let mut failures = 0;
        loop {
            let outbox = shelf.outbox();
            let nodes = outbox.take().await;
            let mut unsent = Unsent { outbox, nodes: nodes.iter().copied().collect() };
            let write = async |node: NodeId| {
                let Some(bytes) = shelf.get(node) else { return (node, Ok(())) };
                let written = store.put(node.to_string(), bytes.into()).await;
                (node, written.map(drop).map_err(|e| e.to_string()))
            };
            let mut writes = futures::stream::iter(nodes).map(write).buffer_unordered(WRITES);
            let mut failed = None;
            while let Some((node, written)) = writes.next().await {
                match written {
                    Ok(()) => {
                        failures = 0;
                        unsent.nodes.remove(&node);
                        self.counts.shared.fetch_add(1, Relaxed);
                    }
                    Err(error) => failed = Some(error),
                }
            }
            if let Some(error) = failed {
                failures += 1;
                if failures >= FAILURES {
                    return Err(error);
                }
                drop(unsent);
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Notices when the connection is lost, and when it is back.
    async fn watch(&self, client: &Client) -> Result<(), String> {
        loop {
            let connected = client.connection_state() == State::Connected;
            self.set_connected(connected, "the connection is lost");
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// What was not written goes back to where it came from, whatever happens.
struct Unsent<'a> {
    outbox: &'a Outbox,
    nodes: HashSet<NodeId>,
}

impl Drop for Unsent<'_> {
    fn drop(&mut self) {
        if !self.nodes.is_empty() {
            self.outbox.add_all(self.nodes.drain());
        }
    }
}

/// Servers as they may be written into a log.
pub(super) fn without_passwords(servers: &str) -> String {
    let hide = |server: &str| match (server.split_once("://"), server.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
        (None, Some((_, host))) => host.to_owned(),
        _ => server.to_owned(),
    };
    servers.split(',').map(|s| hide(s.trim())).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_logged() {
        let text = without_passwords("nats://a:secret@h:4222, tls://t@i, plain:1");
        assert_eq!(text, "nats://h:4222,tls://i,plain:1");
    }
}
