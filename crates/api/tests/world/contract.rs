//! The OpenAPI document as a contract: what a daemon really answers is held against it.

use jsonschema::Validator;
use serde_json::{Value, json};

/// A daemon's OpenAPI document.
pub(crate) struct Contract {
    document: Value,
}

impl Contract {
    pub(crate) fn new(document: Value) -> Self {
        Self { document }
    }

    /// Every operation: method, path and description.
    pub(crate) fn operations(&self) -> impl Iterator<Item = (&str, &str, &Value)> {
        let paths = self.document["paths"].as_object().unwrap().iter();
        paths.flat_map(|(path, item)| {
            let operations = item.as_object().unwrap().iter();
            operations.map(move |(method, operation)| (method.as_str(), path.as_str(), operation))
        })
    }

    /// Holds an exchange against the document.
    ///
    /// # Panics
    /// When the document does not describe it, or describes it otherwise.
    pub(crate) fn check(
        &self,
        method: &str,
        path: &str,
        request: Option<&Value>,
        status: u16,
        kind: &str,
        answer: &Value,
    ) {
        let what = format!("{method} {path}");
        let path = path.split('?').next().unwrap();
        let Some(operation) = self.operation(method, path) else {
            assert!(
                matches!(status, 401 | 404 | 405) || path == "/openapi.json",
                "{what} answers {status} and is not in the document"
            );
            return;
        };
        let responses = &operation["responses"];
        let response = responses.get(status.to_string()).or_else(|| responses.get("default"));
        let response = response.unwrap_or_else(|| panic!("{what}: {status} is not described"));
        if status < 400 {
            assert!(responses.get(status.to_string()).is_some(), "{what}: {status} not described");
            let described = operation.pointer("/requestBody/content/application~1json/schema");
            if let (Some(schema), Some(request)) = (described, request) {
                self.hold(schema, request, &format!("{what}: request"));
            }
        }
        if let Some(content) = response["content"].as_object() {
            let kind = kind.split(';').next().unwrap();
            assert!(content.contains_key(kind), "{what}: {status} is of the type `{kind}`");
        }
        match response.pointer("/content/application~1json/schema") {
            Some(schema) => self.hold(schema, answer, &format!("{what}: {status}")),
            None => assert!(
                response.get("content").is_some() || *answer == json!(""),
                "{what}: {status} has a body that is not described: {answer}"
            ),
        }
    }

    /// The schemas that `schema` refers to are found in the document's components.
    pub(crate) fn hold(&self, schema: &Value, value: &Value, what: &str) {
        let faults: Vec<_> =
            self.validator(schema).iter_errors(value).map(|e| e.to_string()).collect();
        assert!(faults.is_empty(), "{what}: {faults:?} in {value}; the document says {schema}");
    }

    /// # Panics
    /// When the schema is none, or refers to what is not there.
    pub(crate) fn validator(&self, schema: &Value) -> Validator {
        let whole = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "components": self.document["components"],
            "allOf": [schema],
        });
        jsonschema::validator_for(&whole).unwrap_or_else(|e| panic!("{schema}: {e}"))
    }

    fn operation(&self, method: &str, path: &str) -> Option<&Value> {
        let words: Vec<_> = path.split('/').collect();
        let mut found: Vec<_> = self
            .operations()
            .filter(|(m, _, _)| m.eq_ignore_ascii_case(method))
            .filter(|(_, template, _)| fits(template, &words))
            .collect();
        // A literal word goes before a parameter, as in the router.
        found.sort_by_key(|(_, template, _)| template.matches('{').count());
        found.first().map(|(_, _, operation)| *operation)
    }
}

fn fits(template: &str, words: &[&str]) -> bool {
    let parts: Vec<_> = template.split('/').collect();
    parts.len() == words.len()
        && parts.iter().zip(words).all(|(part, word)| part.starts_with('{') || part == word)
}
