//! A provider that bargains by itself: what it offers, and how it answers.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{Demand, Draft, Properties};

/// The counters that prices are for, in the order of their coefficients.
pub const USAGE_VECTOR: [&str; 2] = ["golem.usage.duration_sec", "golem.usage.cpu_sec"];
/// The version of the payment protocol that is spoken.
pub const PROTOCOL_VERSION: u32 = 3;

/// A price list. With the driver that moves no money the prices are shown and never asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Preset {
    /// Its name, unique on the node.
    pub name: String,
    /// The runtime that it is for.
    pub runtime: String,
    /// For an agreement, whatever it uses.
    pub start: f64,
    /// For an hour of an activity's life.
    pub per_hour: f64,
    /// For an hour of CPU time.
    pub per_cpu_hour: f64,
    /// Whether it is offered.
    pub active: bool,
}

impl Default for Preset {
    fn default() -> Self {
        Self {
            name: "default".to_owned(),
            runtime: "sandbox".to_owned(),
            start: 0.0,
            per_hour: 0.0,
            per_cpu_hour: 0.0,
            active: true,
        }
    }
}

/// What the host and a runtime can do, as probed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Capabilities {
    /// The node's name for people.
    pub node_name: String,
    /// The market segment; only demands of the same one are met. `public` by custom.
    pub subnet: String,
    /// The name under which clients ask for the runtime, such as `vm`.
    pub runtime: String,
    /// Its version.
    pub version: String,
    /// What it can do, such as `vpn`.
    pub features: Vec<String>,
    /// CPU cores for a payload.
    pub cpu_cores: u32,
    /// Hardware threads for a payload.
    pub cpu_threads: u32,
    /// Such as `x86_64`.
    pub cpu_architecture: String,
    /// The CPU's name.
    pub cpu_brand: String,
    /// Memory for a payload, GiB.
    pub mem_gib: f64,
    /// Storage for a payload, GiB.
    pub storage_gib: f64,
    /// From where files can be transferred.
    pub transfer: Vec<String>,
    /// Payment platforms, and the address where money would go.
    pub platforms: Vec<String>,
    /// That address.
    pub address: String,
    /// Whether other nodes can reach this one at a public address.
    pub public: bool,
    /// Further properties.
    pub more: Properties,
}

impl Preset {
    /// Checks that the prices are prices.
    ///
    /// # Errors
    /// A message that says which is not.
    pub fn check(&self) -> Result<(), String> {
        if self.name.is_empty() || self.name.len() > 64 {
            return Err("a preset's name has 1 to 64 characters".to_owned());
        }
        for (what, price) in [
            ("start", self.start),
            ("per_hour", self.per_hour),
            ("per_cpu_hour", self.per_cpu_hour),
        ] {
            if !price.is_finite() || price < 0.0 {
                return Err(format!("the price {what} is {price}: prices are 0 or more"));
            }
        }
        Ok(())
    }

    /// The offer of a runtime at these prices.
    pub fn offer(&self, can: &Capabilities) -> Draft {
        let coefficients = [self.per_hour / 3600.0, self.per_cpu_hour / 3600.0, self.start];
        let mut properties: Properties = [
            ("golem.node.id.name", json!(can.node_name)),
            ("golem.node.debug.subnet", json!(can.subnet)),
            ("golem.node.net.is-public", json!(can.public)),
            ("golem.inf.mem.gib", json!(can.mem_gib)),
            ("golem.inf.storage.gib", json!(can.storage_gib)),
            ("golem.inf.cpu.cores", json!(can.cpu_cores)),
            ("golem.inf.cpu.threads", json!(can.cpu_threads)),
            ("golem.inf.cpu.architecture", json!(can.cpu_architecture)),
            ("golem.inf.cpu.brand", json!(can.cpu_brand)),
            ("golem.runtime.name", json!(can.runtime)),
            ("golem.runtime.version", json!(can.version)),
            ("golem.runtime.capabilities", json!(can.features)),
            ("golem.activity.caps.transfer.protocol", json!(can.transfer)),
            ("golem.com.scheme", json!("payu")),
            ("golem.com.scheme.payu.debit-note.interval-sec?", json!(120)),
            ("golem.com.scheme.payu.payment-timeout-sec?", json!(120)),
            ("golem.com.payment.debit-notes.accept-timeout?", json!(240)),
            ("golem.com.payment.protocol.version", json!(PROTOCOL_VERSION)),
            ("golem.com.pricing.model", json!("linear")),
            ("golem.com.pricing.model.linear.coeffs", json!(coefficients)),
            ("golem.com.usage.vector", json!(USAGE_VECTOR)),
            ("golem.srv.caps.multi-activity", json!(true)),
            ("golem.srv.caps.payload-manifest", json!(true)),
        ]
        .into_iter()
        .collect();
        for platform in &can.platforms {
            let name = format!("golem.com.payment.platform.{platform}.address");
            properties.set(name, can.address.clone());
        }
        for (name, value) in can.more.iter() {
            properties.set(name, value.clone());
        }
        let constraints = format!(
            "(&\n  (golem.srv.comp.expiration>1)\n  (golem.node.debug.subnet={})\n)",
            crate::constraint::Literal::plain(&can.subnet)
        );
        Draft { properties, constraints }
    }
}

/// A provider's answer to a demand: its offer, with the requestor's wish for every property that can
/// be negotiated (names that end in `?`). What the requestor does not mention falls away.
pub fn counter_offer(offer: &Draft, demand: &Draft) -> Draft {
    let properties = offer
        .properties
        .iter()
        .filter_map(|(name, value)| {
            let value = if name.ends_with('?') { demand.properties.get(name)? } else { value };
            Some((name, value.clone()))
        })
        .collect();
    Draft { properties, constraints: offer.constraints.clone() }
}

/// What an activity of an agreement is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Package {
    /// An image, by URL; `sha3` is the SHA3-224 that it must have, if the demand says so.
    Image {
        /// Where it is.
        url: String,
        /// Its hash, 56 hexadecimal digits.
        sha3: Option<String>,
    },
    /// Nothing: the runtime brings its own.
    None,
}

/// The package that a demand names, itself or in its payload manifest.
///
/// # Errors
/// A message that says why the manifest cannot be used.
pub fn package(demand: &Demand) -> Result<Package, String> {
    let properties = &demand.draft.properties;
    if let Some(manifest) = properties.text("golem.srv.comp.payload") {
        return manifest_package(manifest);
    }
    let Some(text) = properties.text("golem.srv.comp.task_package") else {
        return Ok(Package::None);
    };
    // hash:sha3:HEX:URL, or a plain URL.
    let parts: Vec<_> = text.splitn(4, ':').collect();
    Ok(match parts.as_slice() {
        ["hash", "sha3", hash, url] => {
            Package::Image { url: (*url).to_owned(), sha3: Some((*hash).to_lowercase()) }
        }
        _ => Package::Image { url: text.to_owned(), sha3: None },
    })
}

/// The first payload of a manifest: Base64 of JSON.
fn manifest_package(manifest: &str) -> Result<Package, String> {
    #[derive(Deserialize)]
    struct Manifest {
        payload: Vec<Payload>,
    }
    #[derive(Deserialize)]
    struct Payload {
        urls: Vec<String>,
        hash: Option<String>,
    }
    let bytes = BASE64_STANDARD
        .decode(manifest.trim())
        .map_err(|e| format!("the payload manifest is not Base64: {e}"))?;
    let manifest: Manifest = serde_json::from_slice(&bytes)
        .map_err(|e| format!("the payload manifest is not valid: {e}"))?;
    let payload = manifest.payload.first().ok_or("the payload manifest names no payload")?;
    let url = payload.urls.first().ok_or("the payload manifest names no URL of an image")?;
    // sha3:HEX or sha3-224:HEX.
    let sha3 = match payload.hash.as_deref().map(|h| h.split_once(':')) {
        None => None,
        Some(Some(("sha3" | "sha3-224", hash))) => Some(hash.to_lowercase()),
        Some(_) => return Err("the payload manifest's hash is not sha3:HEX".to_owned()),
    };
    Ok(Package::Image { url: url.clone(), sha3 })
}

/// The payment platform that both sides settled on, and the requestor's address on it.
pub fn chosen_platform(demand: &Demand) -> Option<(String, String)> {
    const PREFIX: &str = "golem.com.payment.platform.";
    let properties = &demand.draft.properties;
    let address =
        |platform: &str| properties.text(&format!("{PREFIX}{platform}.address")).map(str::to_owned);
    if let Some(chosen) = properties.text("golem.com.payment.chosen-platform") {
        return Some((chosen.to_owned(), address(chosen).unwrap_or_default()));
    }
    let mut named = properties.below(PREFIX).filter_map(|(name, value)| {
        let platform = name.strip_prefix(PREFIX)?.strip_suffix(".address")?;
        Some((platform.to_owned(), value.as_str().unwrap_or_default().to_owned()))
    });
    named.next()
}

/// The price by an offer's own terms for this usage, in the order of its usage vector.
pub fn price(offer: &Properties, usage: &[f64]) -> Option<f64> {
    let coefficients = offer.get("golem.com.pricing.model.linear.coeffs")?.as_array()?;
    let coefficients: Vec<f64> = coefficients.iter().filter_map(Value::as_f64).collect();
    let (fixed, per_unit) = coefficients.split_last()?;
    Some(per_unit.iter().zip(usage).map(|(c, u)| c * u).sum::<f64>() + fixed)
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;
    use crate::{Constraint, SubscriptionId};

    fn capabilities() -> Capabilities {
        Capabilities {
            subnet: "public".into(),
            runtime: "vm".into(),
            features: vec!["inet".into(), "vpn".into()],
            mem_gib: 4.0,
            storage_gib: 20.0,
            cpu_cores: 2,
            cpu_threads: 4,
            platforms: vec!["erc20-holesky-tglm".into()],
            address: "0x01".into(),
            ..Capabilities::default()
        }
    }

    fn demand(properties: Value) -> Demand {
        Demand {
            demand_id: SubscriptionId::from("d"),
            requestor_id: gvpn_identity::NodeId::from_bytes([1; 20]),
            timestamp: DateTime::from_timestamp_nanos(0),
            draft: Draft {
                properties: Properties::from_json(&properties).unwrap(),
                constraints: String::new(),
            },
        }
    }

    #[test]
    fn the_offer_meets_what_the_clients_ask_for() {
        let offer =
            Preset { per_hour: 0.1, start: 1.0, ..Preset::default() }.offer(&capabilities());
        // As yapapi and golem-js write them.
        for text in [
            "(&(golem.node.debug.subnet=public)\n\t(golem.com.payment.platform.erc20-holesky-tglm.address=*)\n\t(golem.com.payment.protocol.version>1)\n\t(golem.com.pricing.model=linear)\n\t(&(golem.inf.mem.gib>=0.5)\n\t(golem.inf.storage.gib>=2.0)\n\t(golem.inf.cpu.threads>=1)\n\t(golem.runtime.capabilities=vpn)\n\t(golem.runtime.name=vm)))",
            "(golem.srv.caps.multi-activity=true)",
        ] {
            let constraint = Constraint::parse(text).unwrap();
            assert_eq!(constraint.exclusions(&offer.properties), []);
        }
        let json = offer.properties.to_json();
        let coefficients = json["golem.com.pricing.model.linear.coeffs"].as_array().unwrap();
        assert!(coefficients.iter().all(Value::is_f64), "JSON floats: {coefficients:?}");
        assert_eq!(price(&offer.properties, &[7200.0, 50.0]), Some(1.2));
        let wants = Constraint::parse(&offer.constraints).unwrap();
        let fits = json!({"golem.srv.comp.expiration": 1795405261518_u64, "golem.node.debug.subnet": "public"});
        assert!(wants.is_met_by(&Properties::from_json(&fits).unwrap()));
    }

    #[test]
    fn what_is_negotiable_is_as_the_requestor_wants_it() {
        let offer = Preset::default().offer(&capabilities());
        let demand = demand(json!({"golem.com.payment.debit-notes.accept-timeout?": 60}));
        let counter = counter_offer(&offer, &demand.draft);
        let name = "golem.com.payment.debit-notes.accept-timeout?";
        assert_eq!(counter.properties.get(name), Some(&json!(60)));
        let negotiable = counter.properties.iter().filter(|(n, _)| n.ends_with('?')).count();
        assert_eq!(negotiable, 1);
    }

    #[test]
    fn packages_and_platforms() {
        for (json, want) in [
            (
                json!({"golem.srv.comp.task_package": "hash:sha3:AB12:http://r/x:1"}),
                Package::Image { url: "http://r/x:1".into(), sha3: Some("ab12".into()) },
            ),
            (
                json!({"golem.srv.comp.task_package": "http://r/x"}),
                Package::Image { url: "http://r/x".into(), sha3: None },
            ),
            (
                json!({"golem.srv.comp.payload": BASE64_STANDARD.encode(
                    r#"{"version": "0.1.0", "payload": [{"urls": ["http://r/x"], "hash": "sha3:AB"}]}"#)}),
                Package::Image { url: "http://r/x".into(), sha3: Some("ab".into()) },
            ),
            (json!({}), Package::None),
        ] {
            assert_eq!(package(&demand(json)), Ok(want));
        }
        for bad in ["%", "e30=", "eyJwYXlsb2FkIjogW119"] {
            assert!(package(&demand(json!({"golem.srv.comp.payload": bad}))).is_err());
        }
        let platform = |json| chosen_platform(&demand(json));
        assert_eq!(platform(json!({})), None);
        assert_eq!(
            platform(json!({"golem.com.payment.platform.p-q-r.address": "0x1"})),
            Some(("p-q-r".into(), "0x1".into()))
        );
        assert_eq!(
            platform(
                json!({"golem.com.payment.platform.a.address": "0x1", "golem.com.payment.platform.b.address": "0x2",
                "golem.com.payment.chosen-platform": "b"})
            ),
            Some(("b".into(), "0x2".into()))
        );
    }

    #[test]
    fn presets_are_checked() {
        assert!(Preset::default().check().is_ok());
        for bad in [-1.0, f64::NAN, f64::INFINITY] {
            assert!(Preset { per_hour: bad, ..Preset::default() }.check().is_err());
        }
        assert!(Preset { name: String::new(), ..Preset::default() }.check().is_err());
    }
}
