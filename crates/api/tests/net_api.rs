//! The Net API over real HTTP, with one real node.

mod world;

use hyper::Method;
use serde_json::{Value, json};
use world::World;

const OTHER: &str = "0x0101010101010101010101010101010101010101";
const THIRD: &str = "0x0202020202020202020202020202020202020202";

#[tokio::test]
async fn nothing_is_answered_without_a_key() {
    let world = World::requestor().await;
    for path in ["/net-api/v1/net", "/net-api/v2/vpn/net", "/gvpn/v1/status", "/metrics", "/me"] {
        for auth in [None, Some("Bearer wrong"), Some("Basic dGVzdA=="), Some("Bearer ")] {
            let (status, body) = world.raw(Method::GET, path, None, auth).await;
            assert_eq!(status, 401, "{path} {auth:?} {body}");
        }
        let with_token = format!("{path}?authToken={}", world.key);
        assert_eq!(world.raw(Method::GET, &with_token, None, None).await.0, 200, "{path}");
    }
    assert_eq!(world.raw(Method::GET, "/version/get", None, None).await.0, 200);
    assert_eq!(world.raw(Method::GET, "/openapi.json", None, None).await.0, 200);
}

#[tokio::test]
async fn a_network_lives_the_same_under_both_versions() {
    let world = World::requestor().await;
    for (base, other) in [("/net-api/v1", "/net-api/v2/vpn"), ("/net-api/v2/vpn", "/net-api/v1")] {
        let body = json!({ "ip": "192.168.7.0", "mask": "255.255.255.0", "unknownField": [1] });
        let (status, network) = world.post(&format!("{base}/net"), body).await;
        assert_eq!(status, 200);
        let id = network["id"].as_str().unwrap();
        assert!(id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
        assert_eq!(
            network,
            json!({"id": id, "ip": "192.168.7.0/24", "mask": "255.255.255.0", "gateway": "192.168.7.1"})
        );
        assert_eq!(world.get(&format!("{other}/net/{id}")).await, (200, network.clone()));
        assert_eq!(world.get(&format!("{other}/net")).await, (200, json!([network])));
        assert_eq!(world.delete(&format!("{other}/net/{id}")).await, (200, Value::Null));
        assert_eq!(world.get(&format!("{base}/net/{id}")).await.0, 404);
        assert_eq!(world.delete(&format!("{base}/net/{id}")).await.0, 404);
    }
    let (status, net) = world.get("/net-api/v2/net/status").await;
    assert_eq!((status, net["nodeId"].as_str()), (200, Some(world.id().to_string().as_str())));
    assert!(net["listenIp"].as_str().unwrap().starts_with("127.0.0.1:") && net["sessions"] == 0);
}

#[tokio::test]
async fn networks_that_cannot_be_are_refused() {
    let world = World::requestor().await;
    for body in [
        json!({ "ip": "" }),
        json!({ "ip": "nonsense" }),
        json!({ "ip": "300.1.1.0/24" }),
        json!({ "ip": "10.0.0.0/33" }),
        json!({ "ip": "10.0.0.0/31" }),
        json!({ "ip": "10.0.0.0", "mask": "255.0.255.0" }),
        json!({ "ip": "10.0.0.0", "mask": "nonsense" }),
        json!({ "ip": "127.0.0.0/8" }),
        json!({ "ip": "10.0.0.0/24", "gateway": "10.0.1.1" }),
        json!({ "ip": "10.0.0.0/24", "gateway": "10.0.0.255" }),
        json!({ "ip": "10.0.0.0/24", "gateway": "x" }),
        json!({ "ip": 5 }),
        json!({ "mask": "255.255.255.0" }),
        json!([]),
    ] {
        let (status, answer) = world.post("/net-api/v1/net", body.clone()).await;
        assert_eq!(status, 400, "{body} {answer}");
    }
    for text in ["", "{", "null", "{\"ip\": \"10.0.0.0/24\"", "\u{0}\u{1}"] {
        let (status, _) = world.call(Method::POST, "/net-api/v1/net", Some(text.to_owned())).await;
        assert_eq!(status, 400, "{text}");
    }
    assert_eq!(world.get("/net-api/v1/net").await, (200, json!([])));
}

#[tokio::test]
async fn the_owner_has_the_first_host_until_it_says_otherwise() {
    let world = World::requestor().await;
    let id = world.network("10.5.0.0/24").await;
    let addresses = format!("/net-api/v1/net/{id}/addresses");
    let nodes = format!("/net-api/v1/net/{id}/nodes");
    assert_eq!(world.get(&addresses).await, (200, json!([{ "ip": "10.5.0.1/24" }])));
    // As one client does it, twice.
    for _ in 0..2 {
        assert_eq!(world.post(&addresses, json!({ "ip": "10.5.0.1" })).await, (200, Value::Null));
    }
    // As the other does it.
    let me = world.id().to_string();
    let id = world.network("10.6.0.0/24").await;
    let addresses_6 = format!("/net-api/v1/net/{id}/addresses");
    let nodes_6 = format!("/net-api/v1/net/{id}/nodes");
    assert_eq!(
        world.post(&nodes_6, json!({ "id": me, "ip": "10.6.0.9" })).await,
        (200, Value::Null)
    );
    assert_eq!(world.get(&addresses_6).await, (200, json!([{ "ip": "10.6.0.9/24" }])));
    // The automatic address is free again; the first network is as it was.
    assert_eq!(world.post(&nodes_6, json!({ "id": OTHER, "ip": "10.6.0.1" })).await.0, 200);
    assert_eq!(world.post(&nodes, json!({ "id": OTHER, "ip": "10.5.0.1" })).await.0, 409);
    assert_eq!(world.get(&addresses).await, (200, json!([{ "ip": "10.5.0.1/24" }])));
}

#[tokio::test]
async fn nodes_are_added_idempotently_and_removed_whole() {
    let world = World::requestor().await;
    let id = world.network("10.7.0.0/24").await;
    let nodes = format!("/net-api/v1/net/{id}/nodes");
    for _ in 0..3 {
        let answer = world.post(&nodes, json!({ "id": OTHER, "ip": "10.7.0.2" })).await;
        assert_eq!(answer, (200, Value::Null));
    }
    assert_eq!(world.post(&nodes, json!({ "id": OTHER, "ip": "10.7.0.3" })).await.0, 200);
    assert_eq!(world.post(&nodes, json!({ "id": THIRD, "ip": "10.7.0.2" })).await.0, 409);
    let rows = world.get(&nodes).await.1;
    let mine: Vec<_> = rows.as_array().unwrap().iter().filter(|row| row["id"] == OTHER).collect();
    assert_eq!(
        mine,
        [&json!({"id": OTHER, "ip": "10.7.0.2"}), &json!({"id": OTHER, "ip": "10.7.0.3"})]
    );
    let one = format!("{nodes}/{OTHER}");
    assert_eq!(world.delete(&one).await, (200, Value::Null));
    assert_eq!(world.delete(&one).await.0, 404);
    // One published client removes with POST.
    assert_eq!(world.post(&nodes, json!({ "id": THIRD, "ip": "10.7.0.2/24" })).await.0, 200);
    let answer = world.call(Method::POST, &format!("{nodes}/{THIRD}"), None).await;
    assert_eq!(answer, (200, Value::Null));
    assert_eq!(world.get(&nodes).await.1.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn impossible_addresses_change_nothing() {
    let world = World::requestor().await;
    let id = world.network("10.8.0.0/24").await;
    let nodes = format!("/net-api/v1/net/{id}/nodes");
    let before = world.get(&format!("/gvpn/v1/net/{id}")).await;
    for (node, ip, want) in [
        (OTHER, "10.8.0.0", 400),
        (OTHER, "10.8.0.255", 400),
        (OTHER, "10.9.0.1", 400),
        (OTHER, "nonsense", 400),
        (OTHER, "", 400),
        (OTHER, "fd00::1", 400),
        (OTHER, "10.8.0.1", 409),
        ("provider-1", "10.8.0.2", 400),
        ("0x01", "10.8.0.2", 400),
        ("", "10.8.0.2", 400),
    ] {
        let (status, answer) = world.post(&nodes, json!({ "id": node, "ip": ip })).await;
        assert_eq!(status, want, "{node} {ip} {answer}");
    }
    let addresses = format!("/net-api/v1/net/{id}/addresses");
    assert_eq!(world.post(&addresses, json!({ "ip": "10.8.0.255" })).await.0, 400);
    assert_eq!(world.post(&addresses, json!({ "ip": "11.8.0.2" })).await.0, 400);
    assert_eq!(world.get(&format!("/gvpn/v1/net/{id}")).await, before);
    for path in ["net/0123", "net/00000000000000000000000000000000", "net/x/nodes", "net/x/tcp"] {
        assert_eq!(world.get(&format!("/net-api/v1/{path}")).await.0, 404, "{path}");
    }
}

#[tokio::test]
async fn the_http_surface_is_civil_to_nonsense() {
    let world = World::requestor().await;
    assert_eq!(world.get("/no/such/thing").await.0, 404);
    assert_eq!(world.call(Method::PUT, "/net-api/v1/net", None).await.0, 405);
    let large = json!({ "ip": "x".repeat(9 << 20) }).to_string();
    let (status, _) = world.call(Method::POST, "/net-api/v1/net", Some(large)).await;
    assert_eq!(status, 413);
    let id = world.network("10.9.0.0/24").await;
    for (path, want) in [
        ("tcp/10.9.0.2/80", 400),
        ("tcp/nonsense/80", 400),
        ("tcp/10.9.0.2/0", 400),
        ("tcp/10.9.0.2/99999", 400),
        ("raw/from/10.9.0.1/to/10.9.0.2", 400),
    ] {
        let (status, answer) = world.get(&format!("/net-api/v1/net/{id}/{path}")).await;
        assert_eq!(status, want, "{path} {answer}");
    }
    assert_eq!(world.get(&format!("/net-api/v1/net/{id}/tcp")).await, (200, json!([])));
}

#[tokio::test]
async fn websockets_are_refused_before_the_upgrade() {
    use tokio_tungstenite::{connect_async, tungstenite::Error};
    let world = World::requestor().await;
    let id = world.network("10.10.0.0/24").await;
    let unknown = "0".repeat(32);
    for (path, want) in [
        (format!("net/{unknown}/tcp/10.10.0.2/80"), 404),
        (format!("net/{id}/tcp/10.10.0.2/80"), 404),
        (format!("net/{id}/tcp/11.10.0.2/80"), 404),
        (format!("net/{id}/tcp/10.10.0.2/0"), 400),
    ] {
        let url = format!("ws://{}/net-api/v2/vpn/{path}?authToken={}", world.api, world.key);
        match connect_async(url).await {
            Err(Error::Http(response)) => assert_eq!(response.status().as_u16(), want, "{path}"),
            other => panic!("{path}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn keys_are_made_shown_once_and_removed() {
    let world = World::requestor().await;
    let (status, made) = world.post("/gvpn/v1/keys", json!({ "name": "second" })).await;
    assert_eq!(status, 200);
    let key = made["key"].as_str().unwrap().to_owned();
    let auth = format!("Bearer {key}");
    assert_eq!(world.raw(Method::GET, "/me", None, Some(&auth)).await.1["name"], "second");
    assert_eq!(world.post("/gvpn/v1/keys", json!({ "name": "second" })).await.0, 409);
    assert_eq!(world.post("/gvpn/v1/keys", json!({ "name": " " })).await.0, 400);
    assert!(!world.get("/gvpn/v1/keys").await.1.to_string().contains(&key));
    assert_eq!(world.delete("/gvpn/v1/keys/second").await.0, 200);
    assert_eq!(world.delete("/gvpn/v1/keys/second").await.0, 404);
    assert_eq!(world.raw(Method::GET, "/me", None, Some(&auth)).await.0, 401);
}

#[tokio::test]
async fn networks_and_keys_survive_a_restart() {
    let world = World::requestor().await;
    let id = world.network("10.11.0.0/24").await;
    let nodes = format!("/net-api/v1/net/{id}/nodes");
    assert_eq!(world.post(&nodes, json!({ "id": OTHER, "ip": "10.11.0.5" })).await.0, 200);
    let gone = world.network("10.12.0.0/24").await;
    assert_eq!(world.delete(&format!("/net-api/v1/net/{gone}")).await.0, 200);
    let key = world.post("/gvpn/v1/keys", json!({ "name": "k" })).await.1["key"].clone();
    let before = (world.get(&format!("/gvpn/v1/net/{id}")).await, world.get(&nodes).await);
    let world = world.restart().await;
    assert_eq!((world.get(&format!("/gvpn/v1/net/{id}")).await, world.get(&nodes).await), before);
    assert_eq!(world.get("/net-api/v1/net").await.1.as_array().unwrap().len(), 1);
    let auth = format!("Bearer {}", key.as_str().unwrap());
    assert_eq!(world.raw(Method::GET, "/me", None, Some(&auth)).await.0, 200);
    let state = world.dir().join("data/state.db");
    let mode = std::os::unix::fs::PermissionsExt::mode(&state.metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn our_own_endpoints_change_a_network_while_it_runs() {
    let world = World::requestor().await;
    let spec =
        json!({ "ip": "10.13.0.0/24", "name": "lab", "prefixes": ["fd00:13::/64"], "mtu": 1300 });
    let (status, network) = world.post("/gvpn/v1/net", spec).await;
    assert_eq!((status, &network["epoch"]), (200, &json!(1)));
    let base = format!("/gvpn/v1/net/{}", network["id"].as_str().unwrap());
    let (status, member) =
        world.post(&format!("{base}/members"), json!({ "node": OTHER, "name": "Web" })).await;
    assert_eq!((status, &member["name"]), (200, &json!("web")), "{member}");
    assert_eq!(member["ips"], json!(["10.13.0.2", "fd00:13::2"]));
    let path = format!("{base}/members/{}", member["id"]);
    let (status, member) =
        world.patch(&path, json!({ "ips": ["10.13.0.77"], "quarantined": true })).await;
    assert_eq!((status, &member["quarantined"]), (200, &json!(true)));
    assert_eq!(world.patch(&path, json!({ "ips": ["10.14.0.77"] })).await.0, 400);
    assert_eq!(world.patch(&path, json!({ "speed": 1 })).await.0, 400);
    assert_eq!(world.patch(&base, json!({ "mtu": 1290, "name": null })).await.1["mtu"], 1290);
    assert_eq!(world.patch(&base, json!({ "mtu": 10 })).await.0, 400);
    let prefixes = format!("{base}/prefixes");
    assert_eq!(world.post(&prefixes, json!({ "prefix": "10.13.0.0/16" })).await.0, 409);
    assert_eq!(world.post(&prefixes, json!({ "prefix": "172.16.0.0/24" })).await.0, 200);
    assert_eq!(world.delete(&format!("{prefixes}?prefix=172.16.0.0/24")).await.0, 200);
    assert_eq!(world.delete(&path).await.0, 200);
    assert_eq!(world.get(&path).await.0, 404);
    assert_eq!(world.delete(&format!("{base}/members/0")).await.0, 409);
}
