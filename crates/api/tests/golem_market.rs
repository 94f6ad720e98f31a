//! The market and payment APIs as Golem's clients use them: a requestor and providers that find
//! each other through a relay and agree by themselves.

mod world;

use std::time::{Duration, Instant};

use gvpn_identity::Identity;
use gvpn_node::ProviderPolicy;
use gvpn_relay::{Relay, RelayConfig};
use serde_json::{Value, json};
use world::{World, eventually};

const PLATFORM: &str = "erc20-holesky-tglm";

async fn relay() -> Relay {
    let listen = vec![([127, 0, 0, 1], 0).into()];
    let mut config = RelayConfig::new(Identity::generate(), listen);
    config.workers = 1;
    Relay::start(config).await.unwrap()
}

/// A demand as yapapi writes it.
fn demand(more: &str) -> Value {
    let expires = chrono::Utc::now().timestamp_millis() + 600_000;
    json!({
        "properties": {
            "golem.srv.comp.expiration": expires, "golem.srv.caps.multi-activity": true,
            "golem.node.debug.subnet": "public",
            format!("golem.com.payment.platform.{PLATFORM}.address"): "0x01",
            "golem.com.payment.protocol.version": "3",
            "golem.com.payment.debit-notes.accept-timeout?": 240,
            "golem.com.payment.chosen-platform": PLATFORM,
        },
        "constraints": format!("(&(golem.node.debug.subnet=public)\n\t\
            (golem.com.payment.platform.{PLATFORM}.address=*)\n\t\
            (golem.com.payment.protocol.version>1)\n\t(golem.com.pricing.model=linear)\n\t\
            (&(golem.inf.mem.gib>=0.5)\n\t(golem.runtime.name=vm)){more})"),
    })
}

async fn events(world: &World, path: &str) -> Vec<Value> {
    let (status, events) = world.get(path).await;
    assert_eq!(status, 200, "{events}");
    events.as_array().unwrap().clone()
}

/// Collects until there is an event.
async fn next_event(world: &World, path: &str) -> Value {
    for _ in 0..8 {
        let mut found = events(world, path).await;
        if !found.is_empty() {
            return found.remove(0);
        }
    }
    panic!("no event at {path}");
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value}")).to_owned()
}

fn time(value: &Value) -> chrono::DateTime<chrono::Utc> {
    text(value).parse().unwrap()
}

/// From a demand to an agreement that the provider has approved.
async fn agree(requestor: &World, demand: &Value) -> (String, String) {
    let (status, id) = requestor.post("/market-api/v1/demands", demand.clone()).await;
    assert_eq!(status, 201, "{id}");
    let id = text(&id);
    (agree_on(requestor, demand, &id).await, id)
}

async fn agree_on(requestor: &World, demand: &Value, id: &str) -> String {
    let path = format!("/market-api/v1/demands/{id}/events?timeout=5&maxEvents=10");
    let initial = next_event(requestor, &path).await;
    assert_eq!(initial["eventType"], "ProposalEvent");
    assert_eq!(initial["proposal"]["state"], "Initial");
    let proposal = text(&initial["proposal"]["proposalId"]);
    let path_of = |p: &str| format!("/market-api/v1/demands/{id}/proposals/{p}");
    let (status, mine) = requestor.post(&path_of(&proposal), demand.clone()).await;
    assert_eq!(status, 200, "{mine}");
    let draft = next_event(requestor, &path).await;
    assert_eq!(draft["proposal"]["state"], "Draft", "{draft}");
    assert_eq!(draft["proposal"]["prevProposalId"], mine);
    let proposal = text(&draft["proposal"]["proposalId"]);
    let valid_to = chrono::Utc::now() + chrono::TimeDelta::hours(1);
    let new = json!({ "proposalId": proposal, "validTo": valid_to });
    let (status, agreement) = requestor.post("/market-api/v1/agreements", new).await;
    assert_eq!(status, 200, "{agreement}");
    let agreement = text(&agreement);
    let path = format!("/market-api/v1/agreements/{agreement}");
    let confirm = format!("{path}/confirm?appSessionId=s");
    assert_eq!(requestor.post(&confirm, Value::Null).await.0, 204);
    let (status, answer) = requestor.post(&format!("{path}/wait?timeout=15"), Value::Null).await;
    assert_eq!(status, 204, "{answer}");
    agreement
}

/// One runtime, one offer.
fn policy() -> ProviderPolicy {
    ProviderPolicy { runtimes: vec!["sandbox".to_owned()], ..ProviderPolicy::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_requestor_finds_contracts_and_pays_a_provider() {
    let relay = relay().await;
    let at = relay.local_addrs()[0];
    let provider = World::registered(Some(policy()), at).await;
    let requestor = World::registered(None, at).await;

    let allocation = json!({"totalAmount": "1", "paymentPlatform": PLATFORM, "makeDeposit": false,
        "address": requestor.id().to_string(), "allocationId": "", "spentAmount": "",
        "remainingAmount": "", "timestamp": "2026-11-23T03:31:41.252581+00:00"});
    let (status, allocation) = requestor.post("/payment-api/v1/allocations", allocation).await;
    assert_eq!(status, 201, "{allocation}");
    let allocation = text(&allocation["allocationId"]);
    let path = format!("/payment-api/v1/demandDecorations?allocationIds={allocation}");
    let (_, decorations) = requestor.get(&path).await;
    assert_eq!(decorations["properties"][1]["value"], "3", "{decorations}");

    let (agreement, demand_id) = agree(&requestor, &demand("")).await;
    let path = format!("/market-api/v1/agreements/{agreement}");
    for world in [&requestor, &provider] {
        let (_, seen) = world.get(&path).await;
        assert_eq!(seen["state"], "Approved", "{seen}");
        assert_eq!(seen["demand"]["demandId"], demand_id);
        assert_eq!(seen["demand"]["requestorId"], requestor.id().to_string());
        assert_eq!(seen["offer"]["providerId"], provider.id().to_string());
        let offered = &seen["offer"]["properties"];
        assert_eq!(offered["golem.com.payment.debit-notes.accept-timeout?"], 240);
        assert!(offered.get("golem.com.scheme.payu.payment-timeout-sec?").is_none());
    }
    let approved = next_event(&requestor, "/market-api/v1/agreementEvents?appSessionId=s").await;
    assert_eq!(approved["eventType"], "AgreementApprovedEvent");
    // The contract that activities run under is there before the client can ask for one.
    let (_, contract) = provider.get(&format!("/gvpn/v1/agreements/{agreement}")).await;
    assert_eq!(contract["state"], "Approved", "{contract}");

    let end = json!({"message": "Finished", "golem.requestor.code": "Success"});
    assert_eq!(requestor.post(&format!("{path}/terminate"), end).await, (200, Value::Null));
    let after = approved["eventDate"].as_str().unwrap();
    let events = format!("/market-api/v1/agreementEvents?appSessionId=s&afterTimestamp={after}");
    let ended = next_event(&requestor, &events).await;
    assert_eq!(ended["terminator"], "Requestor", "{ended}");
    assert_eq!(ended["reason"]["golem.requestor.code"], "Success");

    let received = next_event(&requestor, "/payment-api/v1/invoiceEvents?timeout=5").await;
    assert_eq!(received["eventType"], "InvoiceReceivedEvent");
    let invoice = format!("/payment-api/v1/invoices/{}", text(&received["invoiceId"]));
    let (_, document) = requestor.get(&invoice).await;
    assert_eq!((&document["amount"], &document["status"]), (&json!("0"), &json!("RECEIVED")));
    assert_eq!(document["agreementId"], agreement);
    assert_eq!(document["paymentPlatform"], PLATFORM);
    let acceptance = json!({"totalAmountAccepted": "0", "allocationId": allocation});
    let accepted = requestor.post(&format!("{invoice}/accept?timeout=5"), acceptance).await;
    assert_eq!(accepted, (200, Value::Null));
    for world in [&requestor, &provider] {
        eventually("both see it settled", async || {
            world.get(&invoice).await.1["status"] == "SETTLED"
        })
        .await;
    }
    let (_, contract) = requestor.get(&format!("/gvpn/v1/agreements/{agreement}")).await;
    assert_eq!(contract["state"], "Terminated", "{contract}");
    let release = format!("/payment-api/v1/allocations/{allocation}");
    assert_eq!(requestor.delete(&release).await, (200, Value::Null));
    // The provider is to be had again, under the same demand: it offers anew.
    eventually("what is offered since the end is known", async || {
        let (_, published) = provider.get("/gvpn/v1/provider/offers").await;
        let (_, known) = requestor.get("/gvpn/v1/market/offers").await;
        let since = |offer: &Value| time(&offer["timestamp"]) > time(&ended["eventDate"]);
        let offers = published.as_array().unwrap();
        known == published && !offers.is_empty() && offers.iter().all(since)
    })
    .await;
    agree_on(&requestor, &demand(""), &demand_id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn polls_wait_and_end_with_what_they_wait_for() {
    let requestor = World::requestor().await;
    let (_, id) = requestor.post("/market-api/v1/demands", demand("")).await;
    let path = format!("/market-api/v1/demands/{}", text(&id));
    for (path, seconds) in [
        (format!("{path}/events?timeout=1"), 1.0),
        ("/market-api/v1/agreementEvents?timeout=0.5".to_owned(), 0.5),
        ("/payment-api/v1/invoiceEvents?timeout=0.5".to_owned(), 0.5),
        ("/payment-api/v1/debitNoteEvents?timeout=0.5".to_owned(), 0.5),
    ] {
        let start = Instant::now();
        assert!(events(&requestor, &path).await.is_empty());
        assert!(start.elapsed() >= Duration::from_secs_f64(seconds), "{path}");
    }
    let start = Instant::now();
    let waits = format!("{path}/events?timeout=60");
    let (waiting, ended) = tokio::join!(requestor.get(&waits), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        requestor.delete(&path).await
    });
    assert_eq!((waiting.0, ended.0), (404, 204));
    assert!(start.elapsed() < Duration::from_secs(30), "it ended at once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demand_that_nobody_meets_is_told_why() {
    let relay = relay().await;
    let at = relay.local_addrs()[0];
    let provider = World::registered(Some(policy()), at).await;
    let requestor = World::registered(None, at).await;
    let draft = demand("(golem.runtime.capabilities=teleport)(golem.inf.mem.gib>=9000)");
    let (_, id) = requestor.post("/market-api/v1/demands", draft).await;
    let path = format!("/gvpn/v1/market/demands/{}/report", text(&id));
    eventually("the offer is known", async || requestor.get(&path).await.1["offers"] == 1).await;
    let (_, report) = requestor.get(&path).await;
    assert_eq!(report["matching"], 0);
    let summary = text(&report["summary"]);
    for part in
        ["0 of 1 offers match", "(golem.runtime.capabilities=teleport) excludes 1", ">=9000"]
    {
        assert!(summary.contains(part), "{summary}");
    }
    // A price list makes a new offer; an inactive one takes it away.
    let preset = json!({"name": "sandbox", "runtime": "sandbox", "per_hour": 3.6, "active": true});
    let presets = "/gvpn/v1/provider/presets";
    assert_eq!(provider.post(presets, preset).await.0, 200);
    eventually("the new price is known", async || {
        let (_, offers) = requestor.get("/gvpn/v1/market/offers").await;
        offers[0]["properties"]["golem.com.pricing.model.linear.coeffs"][0] == json!(0.001)
    })
    .await;
    let preset = json!({"name": "sandbox", "runtime": "sandbox", "active": false});
    assert_eq!(provider.post(presets, preset).await.0, 200);
    eventually("nothing is offered", async || requestor.get(&path).await.1["offers"] == 0).await;
    assert_eq!(provider.post(presets, json!({"name": "x", "per_hour": -1})).await.0, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_are_told_what_is_wrong() {
    let requestor = World::requestor().await;
    let unknown = "4ecb738e9d43110b1da60946f1139564";
    for (path, body, status) in [
        ("/market-api/v1/demands", json!({"properties": {}, "constraints": "(a=1"}), 400),
        ("/market-api/v1/demands", json!({"properties": [], "constraints": ""}), 400),
        (
            "/market-api/v1/agreements",
            json!({"proposalId": "R-1", "validTo": "2033-01-01T00:00:00Z"}),
            404,
        ),
        (&format!("/market-api/v1/agreements/{unknown}/confirm"), json!(null), 404),
        ("/market-api/v1/agreements/xyz/terminate", json!({"message": "m"}), 404),
        ("/payment-api/v1/allocations", json!({"totalAmount": "-1"}), 400),
        (
            "/payment-api/v1/allocations",
            json!({"totalAmount": "1", "timeout": "2001-01-01T00:00:00Z"}),
            400,
        ),
        (
            "/payment-api/v1/invoices/none/accept",
            json!({"totalAmountAccepted": "0", "allocationId": "x"}),
            404,
        ),
        ("/market-api/v1/scan", json!({"type": "demand"}), 400),
        ("/gsb-api/v1/services", json!({"listen": {"on": "/private/x", "components": []}}), 400),
        ("/gvpn/v1/images", json!({"path": "/does/not/exist"}), 400),
    ] {
        let (got, answer) = requestor.post(path, body).await;
        assert_eq!(got, status, "{path}: {answer}");
    }
    assert_eq!(requestor.get("/payment-api/v1/demandDecorations").await.0, 400);
    let path = "/payment-api/v1/invoiceEvents?afterTimestamp=yesterday";
    assert_eq!(requestor.get(path).await.0, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn scans_show_offers_without_a_demand() {
    let relay = relay().await;
    let at = relay.local_addrs()[0];
    let provider = World::registered(Some(policy()), at).await;
    let requestor = World::registered(None, at).await;
    let scan = json!({"type": "offer", "constraints": "(golem.runtime.name=vm)"});
    let (status, id) = requestor.post("/market-api/v1/scan", scan).await;
    assert_eq!(status, 201);
    let path = format!("/market-api/v1/scan/{}", text(&id));
    let offer = next_event(&requestor, &format!("{path}/events?timeout=10")).await;
    assert_eq!(offer["providerId"], provider.id().to_string());
    assert!(events(&requestor, &format!("{path}/events?timeout=0.2")).await.is_empty(), "once");
    assert_eq!(requestor.delete(&path).await.0, 204);
    assert_eq!(requestor.get(&format!("{path}/events")).await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_requestor_still_has_its_agreements_and_invoices() {
    let relay = relay().await;
    let at = relay.local_addrs()[0];
    let provider = World::registered(Some(policy()), at).await;
    let requestor = World::registered(None, at).await;
    let (agreement, _) = agree(&requestor, &demand("")).await;
    let requestor = requestor.restart().await;
    let path = format!("/market-api/v1/agreements/{agreement}");
    assert_eq!(requestor.get(&path).await.1["state"], "Approved");
    assert_eq!(requestor.post(&format!("{path}/terminate"), json!({"message": "m"})).await.0, 200);
    let received = next_event(&requestor, "/payment-api/v1/invoiceEvents?timeout=10").await;
    let requestor = requestor.restart().await;
    let (_, invoice) =
        requestor.get(&format!("/payment-api/v1/invoices/{}", text(&received["invoiceId"]))).await;
    assert_eq!(invoice["status"], "RECEIVED", "{invoice}");
    drop(provider);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agreement_that_waits_for_a_providers_client_is_refused_when_the_provider_starts_anew() {
    let relay = relay().await;
    let at = relay.local_addrs()[0];
    let (provider, requestor) =
        (World::registered(None, at).await, World::registered(None, at).await);
    let offer = json!({"properties": {"golem.runtime.name": "by-hand"}, "constraints": "()"});
    let (status, offered) = provider.post("/market-api/v1/offers", offer.clone()).await;
    assert_eq!(status, 201, "{offered}");
    let offers = format!("/market-api/v1/offers/{}", text(&offered));
    let demand = json!({"properties": {}, "constraints": "(golem.runtime.name=by-hand)"});
    let (_, wanted) = requestor.post("/market-api/v1/demands", demand.clone()).await;
    let demands = format!("/market-api/v1/demands/{}", text(&wanted));
    let proposed = async |world: &World, path: &str| {
        let event = next_event(world, &format!("{path}/events?timeout=5")).await;
        format!("{path}/proposals/{}", text(&event["proposal"]["proposalId"]))
    };
    let initial = proposed(&requestor, &demands).await;
    assert_eq!(requestor.post(&initial, demand).await.0, 200);
    let theirs = proposed(&provider, &offers).await;
    assert_eq!(provider.post(&theirs, offer).await.0, 200);
    let draft = proposed(&requestor, &demands).await;
    let valid_to = chrono::Utc::now() + chrono::TimeDelta::hours(1);
    let new = json!({ "proposalId": draft.rsplit_once('/').unwrap().1, "validTo": valid_to });
    let (_, agreement) = requestor.post("/market-api/v1/agreements", new).await;
    let path = format!("/market-api/v1/agreements/{}", text(&agreement));
    assert_eq!(requestor.post(&format!("{path}/confirm"), Value::Null).await.0, 204);
    let asked = next_event(&provider, &format!("{offers}/events?timeout=5")).await;
    assert_eq!(asked["eventType"], "AgreementEvent", "{asked}");
    // The client lets the requestor wait, for as long as it likes to.
    let start = Instant::now();
    assert_eq!(requestor.post(&format!("{path}/wait?timeout=1"), Value::Null).await.0, 408);
    assert!(start.elapsed() >= Duration::from_secs(1));
    let waiting = format!("{path}/wait?timeout=60");
    let (provider, (status, answer)) =
        tokio::join!(provider.restart(), requestor.post(&waiting, Value::Null));
    assert!(status >= 400 && status != 408, "{status} {answer}");
    let (_, seen) = requestor.get(&path).await;
    assert_eq!(seen["state"], "Rejected", "{seen}");
    drop(provider);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_has_all_it_can_do_offers_nothing() {
    let relay = relay().await;
    let at = relay.local_addrs()[0];
    let policy = ProviderPolicy { max_activities: 1, ..policy() };
    let provider = World::registered(Some(policy), at).await;
    let (first, second) = (World::registered(None, at).await, World::registered(None, at).await);
    let (agreement, _) = agree(&first, &demand("")).await;
    // The first learns from the relay, so what it no longer sees the relay no longer gives.
    let offers = "/gvpn/v1/market/offers";
    eventually("the offer is gone", async || first.get(offers).await.1 == json!([])).await;
    let (_, id) = second.post("/market-api/v1/demands", demand("")).await;
    let path = format!("/market-api/v1/demands/{}/events?timeout=1", text(&id));
    let seen = events(&second, &path).await;
    assert!(seen.is_empty(), "{seen:?}");
    let path = format!("/market-api/v1/agreements/{agreement}/terminate");
    assert_eq!(provider.post(&path, json!({"message": "enough"})).await.0, 200);
    agree_on(&second, &demand(""), &text(&id)).await;
    let ended = next_event(&first, "/market-api/v1/agreementEvents").await;
    assert!(ended["eventType"].is_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_served_by_hash_and_tag() {
    let node = World::requestor().await;
    let file = node.dir().join("image");
    std::fs::write(&file, b"not really an image").unwrap();
    let new = json!({"path": file, "tag": "golem/alpine"});
    let (status, image) = node.post("/gvpn/v1/images", new).await;
    assert_eq!(status, 200, "{image}");
    let sha3 = text(&image["sha3"]);
    assert_eq!(sha3.len(), 56);
    let info = "/registry/v1/image/info?count=true";
    for query in [format!("&hash={sha3}"), "&tag=golem/alpine:latest".to_owned()] {
        // Clients ask registries without a key.
        let (status, found) =
            node.raw(hyper::Method::GET, &format!("{info}{query}"), None, None).await;
        assert_eq!((status, &found["sha3"]), (200, &json!(sha3)), "{found}");
        assert_eq!(found["size"], 19);
        let url = text(&found["http"]);
        let path = url.split_once("/registry").unwrap().1.to_owned();
        let (_, body) = node.raw(hyper::Method::GET, &format!("/registry{path}"), None, None).await;
        assert_eq!(body, "not really an image");
    }
    assert_eq!(node.get(&format!("{info}&tag=none")).await.0, 404);
    let node = node.restart().await;
    assert_eq!(node.get("/gvpn/v1/images").await.1[0]["tags"], json!(["golem/alpine:latest"]));
    assert_eq!(node.delete("/gvpn/v1/images?name=golem/alpine").await.0, 200);
    assert_eq!(node.get(&format!("{info}&hash={sha3}")).await.0, 404);
}
