//! ya-client against a daemon: the Net API whole, and a rental from demand to invoice.

use std::{env, time::Duration};

use anyhow::{bail, ensure, Context, Result};
use awc::ws::{Frame, Message};
use bigdecimal::BigDecimal;
use chrono::Utc;
use futures::{SinkExt, StreamExt};
use serde_json::json;
use ya_client::{
    activity::ActivityRequestorApi,
    identity::IdentityApi,
    market::MarketRequestorApi,
    model::{
        activity::ExeScriptRequest,
        market::{AgreementProposal, NewDemand, Reason, RequestorEvent},
        net::{Address, NewNetwork, Node},
        payment::{allocation::PaymentPlatformEnum, Acceptance, NewAllocation},
    },
    net::{NetApi, NetVpnApi},
    payment::PaymentApi,
    web::WebClient,
    Error,
};

struct Apis {
    me: String,
    net: NetVpnApi,
    market: MarketRequestorApi,
    activity: ActivityRequestorApi,
    payment: PaymentApi,
}

fn check(what: &str, good: bool) -> Result<()> {
    ensure!(good, "{what}");
    println!("ok   {what}");
    Ok(())
}

fn status<T>(result: std::result::Result<T, Error>) -> u16 {
    match result {
        Ok(_) => 200,
        Err(Error::HttpError { code, .. }) => code.as_u16(),
        Err(_) => 0,
    }
}

fn network(ip: &str, mask: Option<&str>, gateway: Option<&str>) -> NewNetwork {
    NewNetwork { ip: ip.into(), mask: mask.map(Into::into), gateway: gateway.map(Into::into) }
}

fn node(id: &str, ip: &str) -> Node {
    Node { id: id.into(), ip: ip.into() }
}

async fn net_api(client: &WebClient, apis: &Apis) -> Result<()> {
    let status_of = client.interface::<NetApi>()?.get_status().await?;
    check("status names the node", status_of.node_id.to_string() == apis.me)?;
    let net = &apis.net;
    let made = net.create_network(&network("10.7.0.0", Some("255.255.0.0"), None)).await?;
    check("a network is made", made.ip == "10.7.0.0/16" && made.mask == "255.255.0.0")?;
    check("its gateway is the first host", made.gateway == "10.7.0.1")?;
    check("it is shown", net.get_network(&made.id).await? == made)?;
    check("and listed", net.get_networks().await?.contains(&made))?;
    let mine = Address { ip: "10.7.0.1".into() };
    net.add_address(&made.id, &mine).await?;
    let addresses = net.get_addresses(&made.id).await?;
    check("the owner's address", addresses.iter().any(|a| a.ip.starts_with("10.7.0.1/")))?;
    let other = format!("0x{:040x}", 0xabcd);
    for _ in 0..2 {
        net.add_node(&made.id, &node(&other, "10.7.0.9")).await?;
    }
    check(
        "a node is added, twice the same",
        net.get_nodes(&made.id).await?.contains(&node(&other, "10.7.0.9")),
    )?;
    let third = format!("0x{:040x}", 0xabce);
    check(
        "a taken address",
        status(net.add_node(&made.id, &node(&third, "10.7.0.9")).await) == 409,
    )?;
    check(
        "an address outside",
        status(net.add_node(&made.id, &node(&third, "10.8.0.9")).await) == 400,
    )?;
    check("no node id", status(net.add_node(&made.id, &node("me", "10.7.0.10")).await) == 400)?;
    check(
        "no prefix",
        status(net.create_network(&network("10.7.0.0/33", None, None)).await) == 400,
    )?;
    let unknown = status(net.get_network(&"0".repeat(32)).await);
    check("an unknown network", unknown == 404 || unknown == 403)?;
    check("no connections yet", net.list_tcp(&made.id).await?.is_empty())?;
    net.remove_node(&made.id, &other).await?;
    check("the node is removed", !net.get_nodes(&made.id).await?.iter().any(|n| n.id == other))?;
    check("nobody is at that address", net.connect_tcp(&made.id, "10.7.0.9", 80).await.is_err())?;
    net.remove_network(&made.id).await?;
    check("the network is gone", status(net.get_network(&made.id).await) != 200)
}

fn demand(image: &str, expires: i64, decoration: &[(String, String)]) -> NewDemand {
    let mut properties = json!({
        "golem.srv.comp.expiration": expires,
        "golem.srv.caps.multi-activity": true,
        "golem.node.debug.subnet": "public",
        "golem.srv.comp.task_package": image,
        "golem.srv.comp.vm.package_format": "gvmkit-squash",
        "golem.com.scheme.payu.debit-note.interval-sec?": 5,
    });
    for (key, value) in decoration {
        properties[key] = json!(value);
    }
    let constraints =
        "(&(golem.runtime.name=vm)(golem.runtime.capabilities=vpn)(golem.inf.mem.gib>=0.25))";
    NewDemand::new(properties, constraints.into())
}

/// The next proposal: an initial one, or an answer to one's own. Other providers' go by.
async fn next_proposal(
    apis: &Apis,
    demand: &str,
    answer: bool,
) -> Result<ya_client::model::market::Proposal> {
    for _ in 0..20 {
        for event in apis.market.collect(demand, Some(5.0), Some(1)).await? {
            match event {
                RequestorEvent::ProposalEvent { proposal, .. }
                    if proposal.prev_proposal_id.is_some() == answer =>
                {
                    return Ok(proposal)
                }
                RequestorEvent::ProposalEvent { .. } => {}
                other => eprintln!("{other:?}"),
            }
        }
    }
    bail!("no proposal came")
}

async fn rental(apis: &Apis) -> Result<()> {
    let image = env::var("CONFORMANCE_IMAGE")?;
    let new = NewAllocation {
        address: None,
        payment_platform: Some(PaymentPlatformEnum::PaymentPlatformName(
            "erc20-holesky-tglm".into(),
        )),
        total_amount: BigDecimal::from(5),
        timeout: None,
        deposit: None,
        make_deposit: false,
    };
    let allocation = apis.payment.create_allocation(&new).await?;
    check("an allocation", allocation.remaining_amount == BigDecimal::from(5))?;
    let decorations =
        apis.payment.get_demand_decorations(vec![allocation.allocation_id.clone()]).await?;
    let decoration: Vec<_> = decorations.properties.into_iter().map(|p| (p.key, p.value)).collect();
    let expires = (Utc::now() + chrono::Duration::minutes(20)).timestamp_millis();
    let wanted = demand(&image, expires, &decoration);
    let id = apis.market.subscribe(&wanted).await?;
    check(
        "the demand is listed",
        apis.market.get_demands().await?.iter().any(|d| d.demand_id == id),
    )?;
    let initial = next_proposal(apis, &id, false).await?;
    apis.market.counter_proposal(&wanted, &id, &initial.proposal_id).await?;
    let draft = next_proposal(apis, &id, true).await?;
    check("the provider answers", draft.prev_proposal_id.is_some())?;
    let proposal =
        AgreementProposal::new(draft.proposal_id, Utc::now() + chrono::Duration::minutes(10));
    let agreement = apis.market.create_agreement(&proposal).await?;
    apis.market.confirm_agreement(&agreement, Some("session".into())).await?;
    apis.market.wait_for_approval(&agreement, Some(30.0)).await?;
    let details = apis.market.get_agreement(&agreement).await?;
    check("the agreement is approved", details.approved_date.is_some())?;
    let provider = details.provider_id().to_string();

    let made = apis.net.create_network(&network("10.9.0.0/24", None, None)).await?;
    apis.net.add_address(&made.id, &Address { ip: "10.9.0.1".into() }).await?;
    let activity = apis.activity.control().create_activity(&agreement).await?;
    apis.net.add_node(&made.id, &node(&provider, "10.9.0.2")).await?;
    let text = json!([
        {"deploy": {"net": [{"id": made.id, "ip": "10.9.0.0", "mask": "255.255.255.0", "nodeIp": "10.9.0.2",
            "nodes": {"10.9.0.1": apis.me, "10.9.0.2": provider}}]}},
        {"start": {"args": []}},
        {"run": {"entry_point": "/bin/sh", "args": ["-c", "mkdir -p /tmp/www && echo hi > /tmp/www/f && busybox httpd -p 80 -h /tmp/www"],
            "capture": {"stdout": {"atEnd": {"format": "string"}}}}},
        {"run": {"entry_point": "/bin/sh", "args": ["-c", "echo done; sleep 7"], "capture": {"stdout": {"stream": {}}}}},
    ]);
    let batch =
        apis.activity.control().exec(ExeScriptRequest::new(text.to_string()), &activity).await?;
    let events = apis.activity.control().stream_exec_batch_results(&activity, &batch).await?;
    let events: Vec<_> = events.take(9).collect().await;
    check("runtime events are streamed", events.len() == 9)?;
    let results =
        apis.activity.control().get_exec_batch_results(&activity, &batch, Some(60.0), None).await?;
    check("the script ran", results.len() == 4 && results[3].is_batch_finished)?;
    let state = apis.activity.state().get_state(&activity).await?;
    check("the activity is ready", state.alive())?;

    http_through_gate(apis, &made.id).await?;

    let notes = apis
        .payment
        .get_debit_note_events::<Utc>(None, Some(Duration::from_secs(15)), None, None)
        .await?;
    check("debit notes come", !notes.is_empty())?;
    let note = apis.payment.get_debit_note(&notes[0].debit_note_id).await?;
    let accept = Acceptance {
        total_amount_accepted: note.total_amount_due,
        allocation_id: allocation.allocation_id.clone(),
    };
    apis.payment.accept_debit_note(&note.debit_note_id, &accept).await?;

    apis.activity.control().destroy_activity(&activity).await?;
    apis.market.terminate_agreement(&agreement, &Some(Reason::new("done"))).await?;
    let events = apis
        .payment
        .get_invoice_events::<Utc>(
            None,
            Some(Duration::from_secs(30)),
            None,
            Some("session".into()),
        )
        .await?;
    check("an invoice comes", events.len() == 1)?;
    let invoice = apis.payment.get_invoice(&events[0].invoice_id).await?;
    check(
        "about nothing",
        invoice.amount == BigDecimal::from(0) && invoice.activity_ids == [activity],
    )?;
    let accept = Acceptance {
        total_amount_accepted: invoice.amount,
        allocation_id: allocation.allocation_id.clone(),
    };
    apis.payment.accept_invoice(&invoice.invoice_id, &accept).await?;
    apis.payment.release_allocation(&allocation.allocation_id).await?;
    apis.net.remove_network(&made.id).await?;
    apis.market.unsubscribe(&id).await?;
    check("the demand is gone", status(apis.market.collect(&id, Some(1.0), None).await) == 404)
}

async fn http_through_gate(apis: &Apis, network: &str) -> Result<()> {
    let mut socket = apis.net.connect_tcp(network, "10.9.0.2", 80).await?;
    let connections = apis.net.list_tcp(network).await?;
    check(
        "the connection is listed",
        connections.iter().any(|c| c.remote_ip == "10.9.0.2" && c.remote_port == 80),
    )?;
    socket.send(Message::Binary("GET /f HTTP/1.0\r\n\r\n".into())).await.context("send")?;
    let mut got = Vec::new();
    while let Some(frame) = socket.next().await {
        match frame? {
            Frame::Binary(bytes) => got.extend_from_slice(&bytes),
            Frame::Close(_) => break,
            _ => {}
        }
    }
    let text = String::from_utf8_lossy(&got);
    check(
        "the payload answers through the gate",
        text.contains("200 OK") && text.ends_with("hi\n"),
    )?;
    let refused = apis.net.connect_tcp(network, "10.9.0.2", 81).await;
    check("a refused port is refused", refused.is_err())
}

#[actix_rt::main]
async fn main() {
    let run = async {
        let client = WebClient::with_token(&env::var("YAGNA_APPKEY")?);
        let me = client.interface::<IdentityApi>()?.me().await?.identity.to_string();
        let apis = Apis {
            me,
            net: client.interface()?,
            market: client.interface()?,
            activity: client.interface()?,
            payment: client.interface()?,
        };
        net_api(&client, &apis).await?;
        rental(&apis).await
    };
    if let Err(error) = run.await {
        println!("FAIL {error:#}");
        std::process::exit(1);
    }
}
