//! Payment platforms: driver, network and token, written `erc20-holesky-tglm`.

use serde::{Deserialize, Serialize};

/// The platform that clients mean when they name none.
pub const DEFAULT_PLATFORM: &str = "erc20-holesky-tglm";

/// The platforms that Golem's clients ask for; a provider offers all of them, for none moves money.
pub const KNOWN_PLATFORMS: [&str; 10] = [
    DEFAULT_PLATFORM,
    "erc20-hoodi-tglm",
    "erc20-amoy-tglm",
    "erc20-sepolia-tglm",
    "erc20-goerli-tglm",
    "erc20-rinkeby-tglm",
    "erc20-mumbai-tglm",
    "erc20-polygon-glm",
    "erc20-mainnet-glm",
    "erc20next-holesky-tglm",
];

/// A platform as a client names it: whole, or in parts of which any may be missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(untagged)]
pub enum PlatformName {
    /// `erc20-holesky-tglm`.
    Whole(String),
    /// Its parts.
    Parts {
        /// Such as `erc20`.
        driver: Option<String>,
        /// Such as `holesky`.
        network: Option<String>,
        /// Such as `tglm`.
        token: Option<String>,
    },
}

impl PlatformName {
    /// The whole name.
    pub fn resolve(&self) -> String {
        match self {
            Self::Whole(name) if name.trim().is_empty() => DEFAULT_PLATFORM.to_owned(),
            Self::Whole(name) => name.trim().to_lowercase(),
            Self::Parts { driver, network, token } => {
                let part = |given: &Option<String>, default: &str| {
                    given.as_deref().unwrap_or(default).to_lowercase()
                };
                let network = part(network, "holesky");
                let real = matches!(network.as_str(), "mainnet" | "polygon");
                let token = part(token, if real { "glm" } else { "tglm" });
                format!("{}-{network}-{token}", part(driver, "erc20"))
            }
        }
    }
}

/// Driver, network and token of a whole name; what is missing is empty.
pub fn split(platform: &str) -> (&str, &str, &str) {
    let mut parts = platform.splitn(3, '-');
    let mut next = || parts.next().unwrap_or_default();
    (next(), next(), next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_parts_are_completed() {
        for (json, want) in [
            (r#""erc20-hoodi-tglm""#, "erc20-hoodi-tglm"),
            (r#""""#, DEFAULT_PLATFORM),
            (r#"{"driver": null, "network": null, "token": null}"#, DEFAULT_PLATFORM),
            (r#"{"network": "polygon"}"#, "erc20-polygon-glm"),
            (r#"{"driver": "X", "network": "y", "token": "z"}"#, "x-y-z"),
        ] {
            assert_eq!(serde_json::from_str::<PlatformName>(json).unwrap().resolve(), want);
        }
        assert_eq!(split("erc20-holesky-tglm"), ("erc20", "holesky", "tglm"));
        assert_eq!(split("odd"), ("odd", "", ""));
    }
}
