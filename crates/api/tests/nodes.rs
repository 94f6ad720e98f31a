//! Several real nodes on loopback: rosters, agreements and files between them.

mod world;

use gvpn_model::NetworkId;
use gvpn_node::{
    ErrorKind, NodeError, ProviderPolicy,
    proto::{self, RosterReply, RosterRequest, UpdateKind},
};
use serde_json::{Value, json};
use world::{World, eventually};

#[tokio::test]
async fn a_roster_reaches_its_members_and_leaves_them() {
    let (owner, member) = (World::requestor().await, World::requestor().await);
    owner.introduce(&member);
    let id = owner.network("10.20.0.0/24").await;
    let network: NetworkId = id.parse().unwrap();
    let nodes = format!("/net-api/v1/net/{id}/nodes");
    let row = json!({ "id": member.id().to_string(), "ip": "10.20.0.2" });
    assert_eq!(owner.post(&nodes, row).await.0, 200);
    let hash = async || owner.get(&format!("/gvpn/v1/net/{id}")).await.1["hash"].clone();
    let follows = async || match member.node.networks().in_force(network) {
        Some(roster) => hash().await == json!(hex(roster.hash().as_bytes())),
        None => false,
    };
    eventually("the member has the roster", follows).await;
    for ip in 3..30 {
        let row = json!({ "id": member.id().to_string(), "ip": format!("10.20.0.{ip}") });
        assert_eq!(owner.post(&nodes, row).await.0, 200);
    }
    eventually("the member has the last of many changes", follows).await;
    let progress = format!("/gvpn/v1/net/{id}/progress");
    eventually("the owner knows", async || {
        owner.get(&progress).await.1[0]["current"] == json!(true)
    })
    .await;
    // To the member it is someone else's network.
    assert_eq!(member.get(&format!("/net-api/v1/net/{id}")).await.0, 403);
    assert_eq!(member.delete(&format!("/net-api/v1/net/{id}")).await.0, 403);
    assert_eq!(member.get("/net-api/v1/net").await, (200, json!([])));
    let one = format!("{nodes}/{}", member.id());
    assert_eq!(owner.delete(&one).await.0, 200);
    eventually("the member has left", async || member.node.networks().in_force(network).is_none())
        .await;
    assert_eq!(member.get(&format!("/net-api/v1/net/{id}")).await.0, 404);
}

#[tokio::test]
async fn changes_wait_for_members_that_are_away() {
    let (owner, member) = (World::requestor().await, World::requestor().await);
    let (id, gone) = (owner.network("10.21.0.0/24").await, owner.network("10.22.0.0/24").await);
    let network: NetworkId = id.parse().unwrap();
    for id in [&id, &gone] {
        let net: NetworkId = id.parse().unwrap();
        let ip = if id == &gone { "10.22.0.2" } else { "10.21.0.2" };
        let row = json!({ "id": member.id().to_string(), "ip": ip });
        assert_eq!(owner.post(&format!("/net-api/v1/net/{id}/nodes"), row).await.0, 200);
        assert!(member.node.networks().in_force(net).is_none());
    }
    owner.introduce(&member);
    let gone_id: NetworkId = gone.parse().unwrap();
    eventually("the member is told once it is found", async || {
        member.node.networks().in_force(network).is_some()
            && member.node.networks().in_force(gone_id).is_some()
    })
    .await;
    // While the owner is away the member keeps what it has, also through a restart of its own.
    let (owner_id, addresses) = (owner.id(), owner.node.status().listen);
    let member = member.restart().await;
    let kept = member.node.networks().in_force(network).map(|roster| roster.epoch);
    assert!(kept.is_some());
    member.node.net().add_peer_addrs(owner_id, addresses);
    owner.introduce(&member);
    assert_eq!(owner.delete(&format!("/net-api/v1/net/{gone}")).await.0, 200);
    let row = json!({ "id": member.id().to_string(), "ip": "10.21.0.3" });
    assert_eq!(owner.post(&format!("/net-api/v1/net/{id}/nodes"), row).await.0, 200);
    eventually("the member catches up", async || {
        member.node.networks().in_force(network).map(|roster| roster.epoch) > kept
            && member.node.networks().in_force(gone_id).is_none()
    })
    .await;
}

#[tokio::test]
async fn only_the_owner_gives_orders() {
    let (owner, member, stranger) =
        (World::requestor().await, World::requestor().await, World::requestor().await);
    owner.introduce(&member);
    stranger.introduce(&member);
    let id = owner.network("10.23.0.0/24").await;
    let network: NetworkId = id.parse().unwrap();
    let row = json!({ "id": member.id().to_string(), "ip": "10.23.0.2" });
    assert_eq!(owner.post(&format!("/net-api/v1/net/{id}/nodes"), row).await.0, 200);
    eventually("the member has the roster", async || {
        member.node.networks().in_force(network).is_some()
    })
    .await;
    let before = member.node.networks().in_force(network).unwrap();

    let forget = RosterRequest::Forget { network };
    let refused = ask(&stranger, &member, &forget, None).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Forbidden, "{refused}");
    // Not even with the owner's own signed bytes may another node speak for it; and what nobody
    // signed is refused whoever brings it.
    let push = |kind| RosterRequest::Push { network, kind };
    for (kind, bytes) in [(UpdateKind::Snapshot, vec![0; 64]), (UpdateKind::Delta, vec![1; 64])] {
        let refused = ask(&stranger, &member, &push(kind), Some(&bytes)).await.unwrap_err();
        assert_eq!(refused.kind, ErrorKind::Forbidden, "{refused}");
        let refused = ask(&owner, &member, &push(kind), Some(&bytes)).await.unwrap_err();
        assert_eq!(refused.kind, ErrorKind::Invalid, "{refused}");
    }
    let theirs = stranger.network("10.24.0.0/24").await;
    let rows = json!({ "id": owner.id().to_string(), "ip": "10.24.0.9" });
    assert_eq!(stranger.post(&format!("/net-api/v1/net/{theirs}/nodes"), rows).await.0, 200);
    // A network of a stranger that the member is not in is none of its business.
    let roster = stranger.node.networks().roster(theirs.parse().unwrap()).unwrap();
    assert!(!roster.has_node(member.id()));
    assert_eq!(*member.node.networks().in_force(network).unwrap(), *before);
}

#[tokio::test]
async fn agreements_are_accepted_and_refused_with_reasons() {
    let requestor = World::requestor().await;
    let plain = World::requestor().await;
    let open = World::provider(ProviderPolicy { mem_gib: 2.0, ..ProviderPolicy::default() }).await;
    let choosy = World::provider(ProviderPolicy {
        requestors: Some(vec![open.id()]),
        ..ProviderPolicy::default()
    })
    .await;
    for other in [&plain, &open, &choosy] {
        requestor.introduce(other);
    }
    let ask = async |provider: &World, more: Value| {
        let mut body = json!({ "provider": provider.id().to_string() });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        requestor.post("/gvpn/v1/agreements", body).await
    };
    for (provider, more, word) in [
        (&plain, json!({}), "not a provider"),
        (&choosy, json!({}), "does not work for"),
        (&open, json!({ "runtime": "vm-of-dreams" }), "vm-of-dreams"),
        (&open, json!({ "memGib": 64.0 }), "64"),
    ] {
        let (status, answer) = ask(provider, more).await;
        let message = answer["message"].as_str().unwrap();
        assert!(status == 403 && message.contains(word), "{status} {message}");
    }
    let (status, agreement) = ask(&open, json!({ "memGib": 1.0 })).await;
    assert_eq!((status, &agreement["state"]), (200, &json!("Approved")));
    assert_eq!(agreement["spec"]["runtime"], "sandbox");
    let id = agreement["id"].as_str().unwrap();
    let path = format!("/gvpn/v1/agreements/{id}");
    assert_eq!(open.get(&path).await.1["role"], "provider");
    assert_eq!(
        requestor.post(&format!("{path}/terminate"), json!({ "reason": "done" })).await.0,
        200
    );
    assert_eq!(requestor.post(&format!("{path}/terminate"), json!({})).await.0, 200);
    eventually("the provider knows the end", async || {
        open.get(&path).await.1["state"] == json!("Terminated")
    })
    .await;
    let (status, answer) =
        requestor.post("/activity-api/v1/activity", json!({ "agreementId": id })).await;
    assert_eq!(status, 410, "{answer}");
    assert_eq!(requestor.post("/activity-api/v1/activity", json!("nonsense")).await.0, 404);
    let requestor = requestor.restart().await;
    assert_eq!(requestor.get(&path).await.1["reason"], "done");
}

#[tokio::test]
async fn files_go_from_node_to_node_and_are_checked() {
    let (a, b) = (World::requestor().await, World::requestor().await);
    a.introduce(&b);
    let source = a.dir().join("file");
    let content: Vec<u8> = (0..3_000_000u32).flat_map(|n| n.to_le_bytes()).collect();
    std::fs::write(&source, &content).unwrap();
    let (status, answer) = a.post("/gvpn/v1/files", json!({ "path": source })).await;
    assert_eq!(status, 200, "{answer}");
    let url = answer["url"].as_str().unwrap();
    let target = b.dir().join("copy");
    assert_eq!(b.node.files().fetch(url, &target).await.unwrap(), content.len() as u64);
    assert!(std::fs::read(&target).unwrap() == content);
    // The file was changed after it was published.
    std::fs::write(&source, b"changed").unwrap();
    let refused = b.node.files().fetch(url, &target).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Refused, "{refused}");
    a.post("/gvpn/v1/files/close", json!({ "url": url })).await;
    let refused = b.node.files().fetch(url, &target).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::NotFound, "{refused}");
    for url in ["gftp://x/y", "http://a/b", "gftp://0x00/../../etc/passwd", ""] {
        assert_eq!(b.node.files().fetch(url, &target).await.unwrap_err().kind, ErrorKind::Invalid);
    }
    for path in ["/no/such/file", "/"] {
        assert_eq!(a.post("/gvpn/v1/files", json!({ "path": path })).await.0, 400);
    }
}

/// One roster request as `from` would send it, followed by a frame where one belongs.
async fn ask(
    from: &World,
    to: &World,
    request: &RosterRequest,
    frame: Option<&[u8]>,
) -> Result<RosterReply, NodeError> {
    let mut stream = from.node.net().open(to.id(), proto::ROSTER).await.unwrap();
    proto::send(&mut stream, request).await.unwrap();
    if let Some(frame) = frame {
        proto::send_frame(&mut stream, frame).await.unwrap();
    }
    proto::receive::<Result<RosterReply, NodeError>>(&mut stream).await.unwrap().unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
