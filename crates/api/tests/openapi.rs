//! The OpenAPI document and the daemon say the same. The other tests of this directory hold every
//! exchange against it as well.

mod world;

use std::collections::BTreeSet;

use hyper::Method;
use serde_json::{Value, json};
use world::World;

/// A path of the document with its parameters filled in.
fn filled(path: &str) -> String {
    let words = path.split('/').map(|word| match word {
        "{node}" => "0x0101010101010101010101010101010101010101",
        "{port}" => "80",
        "{ip}" | "{src}" | "{dst}" => "10.0.0.1",
        word if word.starts_with('{') => "0123456789abcdef0123456789abcdef",
        word => word,
    });
    words.collect::<Vec<_>>().join("/")
}

#[tokio::test]
async fn every_schema_is_one_and_every_id_is_unique() {
    let world = World::requestor().await;
    let contract = world.contract();
    let mut ids = BTreeSet::new();
    for (method, path, operation) in contract.operations() {
        let what = format!("{method} {path}");
        assert!(ids.insert(operation["operationId"].as_str().unwrap()), "{what}: id twice");
        let described: BTreeSet<_> = operation["parameters"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|parameter| parameter["in"] == "path")
            .map(|parameter| format!("{{{}}}", parameter["name"].as_str().unwrap()))
            .collect();
        let named = path.split('/').filter(|w| w.starts_with('{')).map(str::to_owned).collect();
        assert_eq!(described, named, "{what}");
        for schema in schemas(operation) {
            contract.validator(schema);
            assert_ne!(*schema, json!({ "type": "object" }), "{what} has a body without a schema");
        }
    }
    assert!(ids.len() > 100, "{} operations", ids.len());
}

/// Every schema of an operation's bodies.
fn schemas(operation: &Value) -> Vec<&Value> {
    let responses = operation["responses"].as_object().unwrap().values();
    let bodies = responses.chain([&operation["requestBody"]]);
    let contents = bodies.filter_map(|body| body["content"].as_object());
    contents.flat_map(|content| content.values().filter_map(|media| media.get("schema"))).collect()
}

#[tokio::test]
async fn what_is_described_is_served_and_nothing_else() {
    let world = World::requestor().await;
    let contract = world.contract();
    let operations: BTreeSet<_> =
        contract.operations().map(|(m, path, _)| (m.to_uppercase(), path.to_owned())).collect();
    let paths: BTreeSet<_> = operations.iter().map(|(_, path)| path).collect();
    for path in paths {
        for method in [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            let described = operations.contains(&(method.to_string(), path.clone()));
            // A body that no endpoint takes for its own: nothing is changed by asking.
            let url = format!("{}?timeout=0", filled(path));
            let asked = world.call(method.clone(), &url, Some("nonsense".into()));
            if path.ends_with("/metrics") && method == Method::GET {
                assert!(described);
                continue;
            }
            let (status, answer) = asked.await;
            let unknown =
                answer["message"].as_str().is_some_and(|m| m.contains("there is nothing"));
            assert_eq!(described, status != 405 && !unknown, "{method} {path}: {status} {answer}");
        }
    }
}

#[tokio::test]
async fn what_a_daemon_tells_of_itself_is_as_described() {
    let world = World::provider(gvpn_node::ProviderPolicy::default()).await;
    let id = world.network("10.30.0.0/24").await;
    for (method, path, operation) in world.contract().operations() {
        let streamed =
            path.ends_with("/capture") || path.contains("/raw/") || path.contains("/tcp/");
        if method != "get" || streamed {
            continue;
        }
        let key = operation.get("security").is_none();
        assert_eq!(!key, path.starts_with("/registry/") || path == "/version/get", "{path}");
        // The rig holds every answer against the document.
        let path = path.replace("/net/{id}", &format!("/net/{id}"));
        let path = filled(&path);
        let (status, answer) = world.get(&format!("{path}?timeout=0")).await;
        assert!(matches!(status, 200 | 400 | 404 | 503 | 504), "{path}: {status} {answer}");
    }
}
