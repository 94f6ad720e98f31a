//! The hash of a roster, kept up to date in a time that hardly grows with its size.
//!
//! Members are hashed one by one; the hashes of up to 64 members with consecutive ids make a
//! bucket; the root covers the settings and every bucket. A change costs one bucket and the root.

use std::{collections::BTreeMap, fmt};

use gvpn_model::MemberId;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{Member, Roster, Settings};

/// SHA-256 tree hash of a roster.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RosterHash([u8; 32]);

impl RosterHash {
    /// The bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for RosterHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for RosterHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

const BUCKET: u32 = 64;

/// The tree behind a [`RosterHash`].
#[derive(Debug, Clone)]
pub(crate) struct Digest {
    identity: [u8; 32],
    settings: [u8; 32],
    leaves: BTreeMap<MemberId, [u8; 32]>,
    buckets: BTreeMap<u32, [u8; 32]>,
}

impl Digest {
    pub(crate) fn of(roster: &Roster) -> Self {
        let identity = Sha256::new()
            .chain_update(b"gvpn roster v1")
            .chain_update(roster.network.as_bytes())
            .chain_update(roster.owner.as_bytes())
            .chain_update(roster.salt)
            .finalize()
            .into();
        let leaves: BTreeMap<_, _> = roster.members.iter().map(|m| (m.id, leaf(m))).collect();
        let mut digest = Self {
            identity,
            settings: settings_hash(&roster.settings),
            leaves,
            buckets: BTreeMap::new(),
        };
        let mut last = None;
        for member in &roster.members {
            let bucket = member.id.0 / BUCKET;
            if last != Some(bucket) {
                digest.rehash(bucket);
                last = Some(bucket);
            }
        }
        digest
    }

    pub(crate) fn set_member(&mut self, member: &Member) {
        self.leaves.insert(member.id, leaf(member));
        self.rehash(member.id.0 / BUCKET);
    }

    pub(crate) fn remove_member(&mut self, id: MemberId) {
        self.leaves.remove(&id);
        self.rehash(id.0 / BUCKET);
    }

    pub(crate) fn set_settings(&mut self, settings: &Settings) {
        self.settings = settings_hash(settings);
    }

    pub(crate) fn root(&self, epoch: u64) -> RosterHash {
        let mut hash = Sha256::new()
            .chain_update(self.identity)
            .chain_update(epoch.to_le_bytes())
            .chain_update(self.settings);
        for (bucket, digest) in &self.buckets {
            hash.update(bucket.to_le_bytes());
            hash.update(digest);
        }
        RosterHash(hash.finalize().into())
    }

    fn rehash(&mut self, bucket: u32) {
        let first = bucket * BUCKET;
        let mut leaves =
            self.leaves.range(MemberId(first)..=MemberId(first + (BUCKET - 1))).peekable();
        if leaves.peek().is_none() {
            self.buckets.remove(&bucket);
            return;
        }
        let mut hash = Sha256::new();
        for (id, leaf) in leaves {
            hash.update(id.0.to_le_bytes());
            hash.update(leaf);
        }
        self.buckets.insert(bucket, hash.finalize().into());
    }
}

fn leaf(member: &Member) -> [u8; 32] {
    hash_of("member", member)
}

fn settings_hash(settings: &Settings) -> [u8; 32] {
    hash_of("settings", settings)
}

fn hash_of(kind: &str, value: &impl Serialize) -> [u8; 32] {
    let bytes = postcard::to_stdvec(value).expect("rosters are plain data");
    Sha256::new().chain_update(kind).chain_update(bytes).finalize().into()
}
