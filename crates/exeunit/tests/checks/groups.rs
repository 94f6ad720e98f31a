//! Groups that a payload joins: by IGMP and by MLD.

use std::sync::atomic::{AtomicBool, Ordering};

use super::{Subject, Verdict, in_shell};
use crate::{
    Named,
    rig::{Activity, assert_ok},
};

/// How a group is joined, for socat, and how it is sent to.
const GROUPS: [[&str; 2]; 2] = [
    ["UDP4-RECVFROM:7007,ip-add-membership=239.7.7.7:eth0", "UDP4-DATAGRAM:239.7.7.7:7007"],
    ["UDP6-RECVFROM:7007,ipv6-join-group=[ff15::77]:eth0", "UDP6-DATAGRAM:[ff15::77]:7007"],
];

pub(super) async fn joined(subject: &Subject) -> Verdict {
    if matches!(subject.candidate.runtime, Named::Program(_)) {
        return Some(
            "its one interface is in two networks; a kernel reports a group in one of them",
        );
    }
    let (payload, near) = (&subject.payload, &subject.neighbour);
    for group in GROUPS {
        hears(payload, near, group).await;
        hears(near, payload, group).await;
    }
    None
}

/// Who joins a group hears what another one says to it.
async fn hears(listener: &Activity, speaker: &Activity, [join, to]: [&str; 2]) {
    let listen = in_shell(&format!("busybox timeout 90 socat -u {join} -"));
    let say = in_shell(&format!("echo spoken | socat -u - {to},so-bindtodevice=eth0"));
    let heard = AtomicBool::new(false);
    let listening = async {
        let results = listener.script(&listen, vec![]).await;
        heard.store(true, Ordering::Relaxed);
        results
    };
    // What is said before the group is joined is not heard.
    let speaking = async {
        while !heard.load(Ordering::Relaxed) {
            assert_ok(&speaker.script(&say, vec![]).await);
        }
    };
    let (results, ()) = tokio::join!(listening, speaking);
    assert_ok(&results);
    assert_eq!(results[0].stdout.as_deref(), Some("spoken\n"), "{join}");
}
