//! How an image wants its programs to be run.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

/// How an image wants its programs to be run: `config` of an OCI image configuration, as far as it is
/// heeded here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageConfig {
    /// The program that the image is for, and its first arguments.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// Further arguments of the entry point, unless others are given; without one, the program.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    /// Environment, as `NAME=VALUE`.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// `user`, `uid`, `user:group`, `uid:gid`; empty for root.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// Where programs start; empty for the root.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
}

impl ImageConfig {
    /// The environment by name. What is no `NAME=VALUE` is left out.
    pub fn env(&self) -> BTreeMap<String, String> {
        let pairs = self.env.iter().filter_map(|text| text.split_once('='));
        pairs
            .filter(|(name, _)| !name.is_empty())
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }

    /// The program that the image is for, with its arguments; `args`, if there are any, in the place of
    /// the image's own. Nothing when the image names none.
    pub fn command(&self, args: &[String]) -> Vec<String> {
        let args = if args.is_empty() { &self.cmd } else { args };
        self.entrypoint.iter().chain(args).cloned().collect()
    }
}

/// Docker writes `null` where it means nothing.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_read() {
        let text = r#"{"Entrypoint": ["/serve"], "Cmd": null, "Env": ["A=1=2", "odd", "=x"],
            "User": "", "WorkingDir": "/srv", "Volumes": {"/x": {}}}"#;
        let config: ImageConfig = serde_json::from_str(text).unwrap();
        assert_eq!(config.env(), [("A".to_owned(), "1=2".to_owned())].into());
        assert_eq!(config.command(&[]), ["/serve"]);
        assert_eq!(config.command(&["-v".to_owned()]), ["/serve", "-v"]);
        assert_eq!(config.working_dir, "/srv");
    }
}
