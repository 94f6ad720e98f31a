//! Properties: what an offer or a demand says about itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Most properties that one document may have.
pub const MAX_PROPERTIES: usize = 1024;
/// Most bytes of one document's properties, as JSON.
pub const MAX_BYTES: usize = 64 * 1024;
const MAX_DEPTH: usize = 32;
/// In nested form, the key of a value whose name also has values below it.
const TAG: &str = "@tag";

/// Why a JSON value is not a set of properties.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PropertyError {
    /// Something else than an object.
    #[error("properties must be a JSON object, such as {{\"golem.runtime.name\": \"vm\"}}")]
    NotAnObject,
    /// An empty or overlong name.
    #[error("`{0}` is not a property name: use 1 to 255 characters such as golem.runtime.name")]
    Name(String),
    /// A name that is given twice, once nested and once flat.
    #[error("property `{0}` is given twice")]
    Twice(String),
    /// More than a document may have.
    #[error(
        "too many or too large properties: at most {MAX_PROPERTIES} of together {MAX_BYTES} bytes"
    )]
    TooLarge,
}

/// Property names and their values, flat: `golem.runtime.name` and not an object within an object.
///
/// Clients send either form, or both mixed; both are read. Values are text, numbers, truth values
/// or lists of these.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = Object))]
pub struct Properties(BTreeMap<String, Value>);

impl Properties {
    /// Reads properties, nested or flat.
    ///
    /// # Errors
    /// [`PropertyError`] for anything that is not an object of plain values, or is too large.
    pub fn from_json(json: &Value) -> Result<Self, PropertyError> {
        let object = json.as_object().ok_or(PropertyError::NotAnObject)?;
        let mut flat = BTreeMap::new();
        let mut bytes = 0;
        for (name, value) in object {
            flatten(name, value, 0, &mut flat, &mut bytes)?;
        }
        Ok(Self(flat))
    }

    /// The flat JSON object.
    pub fn to_json(&self) -> Value {
        Value::Object(self.0.iter().map(|(k, v)| (k.clone(), v.clone())).collect())
    }

    /// The value of one property.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// The text of one property; `None` if it is absent or no text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name)?.as_str()
    }

    /// The number of one property, also where it was sent as text.
    pub fn number(&self, name: &str) -> Option<f64> {
        match self.get(name)? {
            Value::Number(n) => n.as_f64(),
            Value::String(s) => s.trim().parse().ok().filter(|n: &f64| n.is_finite()),
            _ => None,
        }
    }

    /// Sets a property.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<Value>) {
        self.0.insert(name.into(), value.into());
    }

    /// All properties, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(k, v)| (k.as_str(), v))
    }

    /// The names that begin with `prefix`, with their values.
    pub fn below<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a Value)> {
        self.0
            .range(prefix.to_owned()..)
            .take_while(move |(name, _)| name.starts_with(prefix))
            .map(|(name, value)| (name.as_str(), value))
    }
}

impl TryFrom<Value> for Properties {
    type Error = PropertyError;

    fn try_from(json: Value) -> Result<Self, PropertyError> {
        Self::from_json(&json)
    }
}

impl From<Properties> for Value {
    fn from(properties: Properties) -> Self {
        Value::Object(properties.0.into_iter().collect())
    }
}

impl<K: Into<String>, V: Into<Value>> FromIterator<(K, V)> for Properties {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        Self(pairs.into_iter().map(|(k, v)| (k.into(), v.into())).collect())
    }
}

fn flatten(
    name: &str,
    value: &Value,
    depth: usize,
    flat: &mut BTreeMap<String, Value>,
    bytes: &mut usize,
) -> Result<(), PropertyError> {
    if name.is_empty() || name.len() > 255 {
        return Err(PropertyError::Name(name.chars().take(64).collect()));
    }
    if depth > MAX_DEPTH {
        return Err(PropertyError::TooLarge);
    }
    if let Value::Object(object) = value {
        for (key, value) in object {
            if key == TAG {
                flatten(name, value, depth + 1, flat, bytes)?;
            } else {
                flatten(&format!("{name}.{key}"), value, depth + 1, flat, bytes)?;
            }
        }
        return Ok(());
    }
    *bytes += name.len() + size(value);
    if *bytes > MAX_BYTES || flat.len() >= MAX_PROPERTIES {
        return Err(PropertyError::TooLarge);
    }
    match flat.insert(name.to_owned(), value.clone()) {
        None => Ok(()),
        Some(_) => Err(PropertyError::Twice(name.to_owned())),
    }
}

fn size(value: &Value) -> usize {
    match value {
        Value::String(s) => s.len() + 2,
        Value::Array(list) => list.iter().map(|v| size(v) + 1).sum::<usize>() + 2,
        Value::Object(object) => object.iter().map(|(k, v)| k.len() + size(v) + 4).sum(),
        _ => 8,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nested_and_flat_forms_are_one() {
        let flat = json!({"golem.com.pricing.model": "linear", "golem.com.pricing.model.linear.coeffs": [0.1, 0.0],
            "golem.runtime.name": "vm"});
        let nested = json!({"golem": {"com": {"pricing": {"model": {"@tag": "linear", "linear": {"coeffs": [0.1, 0.0]}}}}},
            "golem.runtime": {"name": "vm"}});
        let read = Properties::from_json(&nested).unwrap();
        assert_eq!(read, Properties::from_json(&flat).unwrap());
        assert_eq!(read.to_json(), flat);
        assert_eq!(read.below("golem.com.").count(), 2);
    }

    #[test]
    fn nonsense_is_refused() {
        assert_eq!(Properties::from_json(&json!([1])), Err(PropertyError::NotAnObject));
        assert!(Properties::from_json(&json!({"": 1})).is_err());
        assert_eq!(
            Properties::from_json(&json!({"a.b": 1, "a": {"b": 2}})),
            Err(PropertyError::Twice("a.b".into()))
        );
        assert!(Properties::from_json(&json!({"a": "x".repeat(MAX_BYTES)})).is_err());
        let many: Properties = (0..=MAX_PROPERTIES).map(|i| (format!("p{i}"), i)).collect();
        assert_eq!(Properties::from_json(&many.to_json()), Err(PropertyError::TooLarge));
    }
}
