//! From a wish to an agreement that a provider has approved.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use gvpn_model::{AgreementId, NodeId};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::{Client, Error, Wish, files::encode};

/// Golem's test platform; the daemon knows every name, and moves no money.
const PLATFORM: &str = "erc20-holesky-tglm";
/// How long one request waits at the daemon, in seconds.
const POLL: f64 = 5.0;
/// How long a provider has to approve, in seconds.
const APPROVAL: u32 = 30;
/// How long the invoice of an agreement that is over may take.
const INVOICE: Duration = Duration::from_secs(30);

/// An agreement in force, and what pays for it.
#[derive(Debug, Clone)]
pub(crate) struct Deal {
    pub(crate) agreement: AgreementId,
    pub(crate) provider: NodeId,
    allocation: String,
}

impl Client {
    /// Finds a provider for a wish.
    pub(crate) async fn bargain(&self, wish: &Wish) -> Result<Deal, Error> {
        let package = match &wish.image {
            Some(image) => Some(self.package(image).await?),
            None => None,
        };
        let allocation = self.allocate().await?;
        let agreed = self.agree_on_market(wish, package, &allocation).await;
        if agreed.is_err() {
            self.release(&allocation).await;
        }
        let (agreement, provider) = agreed?;
        Ok(Deal { agreement, provider, allocation })
    }

    /// Ends an agreement of the market and accepts its invoice.
    pub(crate) async fn conclude(&self, deal: &Deal, reason: &str) -> Result<(), Error> {
        let path = format!("/market-api/v1/agreements/{}/terminate", deal.agreement);
        let ended: Result<(), Error> = self.http().post(&path, &json!({ "message": reason })).await;
        let settled = self.settle(deal).await;
        self.release(&deal.allocation).await;
        match ended {
            // The provider may have ended it before.
            Err(Error::NotFound(_) | Error::Conflict(_)) | Ok(()) => settled,
            Err(error) => Err(error),
        }
    }

    async fn agree_on_market(
        &self,
        wish: &Wish,
        package: Option<String>,
        allocation: &str,
    ) -> Result<(AgreementId, NodeId), Error> {
        let decorations = format!("/payment-api/v1/demandDecorations?allocationIds={allocation}");
        let decorations: Decorations = self.http().get(&decorations).await?;
        let draft = draft(wish, package, decorations);
        let id: String = self.http().post("/market-api/v1/demands", &draft).await?;
        let path = format!("/market-api/v1/demands/{id}");
        let bargain = Bargain { client: self, draft, path: &path, refusals: Vec::new() };
        let agreed = bargain.until(&id, Instant::now() + wish.patience).await;
        // It ends by itself otherwise.
        let _: Result<Value, Error> = self.http().delete(&path).await;
        agreed
    }

    /// The package of an image, as a demand names it: tags and hashes are looked up in the daemon's
    /// registry.
    async fn package(&self, image: &str) -> Result<String, Error> {
        #[derive(Deserialize)]
        struct Info {
            http: String,
            sha3: String,
        }
        if ["http://", "https://", "gftp://", "hash:"].iter().any(|s| image.starts_with(s)) {
            return Ok(image.to_owned());
        }
        let hashed = image.len() == 56 && image.bytes().all(|b| b.is_ascii_hexdigit());
        let kind = if hashed { "hash" } else { "tag" };
        let path = format!("/registry/v1/image/info?{kind}={}&count=true", encode(image));
        let info: Info = self.http().get(&path).await?;
        Ok(format!("hash:sha3:{}:{}", info.sha3, info.http))
    }

    async fn allocate(&self) -> Result<String, Error> {
        let new = json!({ "totalAmount": "1", "paymentPlatform": PLATFORM, "makeDeposit": false });
        let made: Value = self.http().post("/payment-api/v1/allocations", &new).await?;
        made["allocationId"]
            .as_str()
            .map(str::to_owned)
            .ok_or_else(|| Error::answer("the new allocation", "it has no allocationId"))
    }

    async fn release(&self, allocation: &str) {
        // It ends with its time otherwise; it holds no money.
        let path = format!("/payment-api/v1/allocations/{allocation}");
        let _: Result<Value, Error> = self.http().delete(&path).await;
    }

    /// Waits for the agreement's invoice and accepts it.
    async fn settle(&self, deal: &Deal) -> Result<(), Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Event {
            event_date: String,
            invoice_id: String,
        }
        let deadline = Instant::now() + INVOICE;
        let mut after = String::new();
        while Instant::now() < deadline {
            let path = format!("/payment-api/v1/invoiceEvents?timeout={POLL}{after}");
            let events: Vec<Event> = self.http().get(&path).await?;
            for event in events {
                after = format!("&afterTimestamp={}", encode(&event.event_date));
                let path = format!("/payment-api/v1/invoices/{}", event.invoice_id);
                let invoice: Value = self.http().get(&path).await?;
                if invoice["agreementId"] == json!(deal.agreement) {
                    let acceptance = json!({
                        "totalAmountAccepted": invoice["amount"], "allocationId": deal.allocation,
                    });
                    return self.http().post(&format!("{path}/accept"), &acceptance).await;
                }
            }
        }
        Err(Error::Timeout(format!("no invoice came for agreement {}", deal.agreement)))
    }
}

#[derive(Deserialize)]
struct Decorations {
    properties: Vec<Property>,
    constraints: Vec<String>,
}

#[derive(Deserialize)]
struct Property {
    key: String,
    value: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    proposal: Option<Proposal>,
    reason: Option<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Proposal {
    proposal_id: String,
    issuer_id: NodeId,
    state: String,
}

/// A demand on the market.
struct Bargain<'a> {
    client: &'a Client,
    draft: Value,
    path: &'a str,
    refusals: Vec<String>,
}

impl Bargain<'_> {
    async fn until(mut self, id: &str, deadline: Instant) -> Result<(AgreementId, NodeId), Error> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now()).as_secs_f64();
            if left <= 0.0 {
                return Err(self.why(id).await?);
            }
            let path = format!("{}/events?timeout={:.2}&maxEvents=10", self.path, left.min(POLL));
            let events: Vec<Event> = self.client.http().get(&path).await?;
            for event in events {
                if let Some(agreed) = self.answer(event).await? {
                    return Ok(agreed);
                }
            }
        }
    }

    async fn answer(&mut self, event: Event) -> Result<Option<(AgreementId, NodeId)>, Error> {
        let Some(proposal) = event.proposal else {
            let reason = event.reason.unwrap_or_default();
            self.refusals.push(reason["message"].as_str().unwrap_or("no reason given").to_owned());
            return Ok(None);
        };
        if proposal.state == "Initial" {
            let path = format!("{}/proposals/{}", self.path, proposal.proposal_id);
            let answered: Result<Value, Error> = self.client.http().post(&path, &self.draft).await;
            // The offer may be gone meanwhile.
            return answered.map(|_| None).or_else(|e| self.refused(e));
        }
        match self.sign(&proposal.proposal_id).await {
            Ok(agreement) => Ok(Some((agreement, proposal.issuer_id))),
            Err(error) => self.refused(error),
        }
    }

    async fn sign(&self, proposal: &str) -> Result<AgreementId, Error> {
        let valid_to: DateTime<Utc> = Utc::now() + TimeDelta::minutes(10);
        let new = json!({ "proposalId": proposal, "validTo": valid_to });
        let http = self.client.http();
        let id: AgreementId = http.post("/market-api/v1/agreements", &new).await?;
        let path = format!("/market-api/v1/agreements/{id}");
        let _: Value = http.post(&format!("{path}/confirm"), &Value::Null).await?;
        let wait = format!("{path}/wait?timeout={APPROVAL}");
        let _: Value = http.post(&wait, &Value::Null).await?;
        Ok(id)
    }

    /// A provider's no leaves the others; a daemon that does not answer ends the search.
    fn refused<T>(&mut self, error: Error) -> Result<Option<T>, Error> {
        match error {
            Error::Unreachable { .. } | Error::Unauthorized(_) | Error::Answer { .. } => Err(error),
            other => {
                self.refusals.push(other.to_string());
                Ok(None)
            }
        }
    }

    async fn why(mut self, id: &str) -> Result<Error, Error> {
        let path = format!("/gvpn/v1/market/demands/{id}/report");
        let report: Value = self.client.http().get(&path).await?;
        self.refusals.sort_unstable();
        self.refusals.dedup();
        Ok(Error::NoProvider {
            summary: report["summary"].as_str().unwrap_or_default().to_owned(),
            refusals: self.refusals,
        })
    }
}

/// The demand of a wish, in the words of the market.
fn draft(wish: &Wish, package: Option<String>, decorations: Decorations) -> Value {
    let expires = Utc::now() + wish.lasts;
    let mut properties = Map::from_iter([
        ("golem.srv.comp.expiration".to_owned(), json!(expires.timestamp_millis())),
        ("golem.srv.caps.multi-activity".to_owned(), json!(true)),
        ("golem.node.debug.subnet".to_owned(), json!(wish.subnet)),
        ("golem.com.payment.chosen-platform".to_owned(), json!(PLATFORM)),
    ]);
    properties.extend(decorations.properties.into_iter().map(|p| (p.key, p.value)));
    if let Some(package) = package {
        properties.insert("golem.srv.comp.task_package".to_owned(), json!(package));
        let format = json!("gvmkit-squash");
        properties.insert("golem.srv.comp.vm.package_format".to_owned(), format);
    }
    let clauses = [
        format!("(golem.runtime.name={})", wish.runtime),
        format!("(golem.node.debug.subnet={})", wish.subnet),
        format!("(golem.inf.mem.gib>={})", wish.mem_gib),
        format!("(golem.inf.storage.gib>={})", wish.storage_gib),
        format!("(golem.inf.cpu.threads>={})", wish.cpu_threads),
    ];
    let capabilities =
        wish.capabilities.iter().map(|c| format!("(golem.runtime.capabilities={c})"));
    let all: String =
        clauses.into_iter().chain(capabilities).chain(decorations.constraints).collect();
    json!({ "properties": properties, "constraints": format!("(&{all})") })
}
