//! Identifiers, each with one text form and one byte form.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Why a text is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// A node id without its `0x` prefix.
    #[error("`{0}` is not a node id: expected 0x and 40 hexadecimal digits")]
    NodeId(String),
    /// An identifier of the wrong length or with characters that are not hexadecimal digits.
    #[error("`{text}` is not {what}: expected {digits} hexadecimal digits")]
    Hex {
        /// The offending text.
        text: String,
        /// What it should have been, with its article.
        what: &'static str,
        /// How many digits it should have had.
        digits: usize,
    },
}

macro_rules! byte_id {
    ($(#[doc = $doc:literal])* $name:ident, $len:literal, $prefix:literal, $error:expr) => {
        $(#[doc = $doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $len]);

        impl $name {
            /// The identifier with these bytes.
            pub const fn from_bytes(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// The bytes of the identifier.
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }

        #[cfg(feature = "openapi")]
        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
                utoipa::openapi::ObjectBuilder::new()
                    .schema_type(utoipa::openapi::schema::Type::String)
                    .description(Some(concat!($($doc),*).trim()))
                    .pattern(Some(format!("^{}[0-9a-fA-F]{{{}}}$", $prefix, 2 * $len)))
                    .into()
            }
        }

        #[cfg(feature = "openapi")]
        impl utoipa::ToSchema for $name {}

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str($prefix)?;
                self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let mut bytes = [0; $len];
                text.strip_prefix($prefix)
                    .and_then(|digits| hex::decode_to_slice(digits, &mut bytes).ok())
                    .map(|()| Self(bytes))
                    .ok_or_else(|| $error(text.to_owned()))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                if s.is_human_readable() {
                    s.collect_str(self)
                } else {
                    self.0.serialize(s)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                if d.is_human_readable() {
                    String::deserialize(d)?.parse().map_err(de::Error::custom)
                } else {
                    <[u8; $len]>::deserialize(d).map(Self)
                }
            }
        }
    };
}

macro_rules! random_id {
    ($(#[doc = $doc:literal])* $name:ident, $what:literal) => {
        byte_id!($(#[doc = $doc])* $name, 16, "", |text| IdError::Hex { text, what: $what, digits: 32 });

        impl $name {
            /// A fresh random identifier from the operating system's generator.
            ///
            /// # Panics
            /// If the operating system has no randomness to give.
            pub fn random() -> Self {
                let mut bytes = [0; 16];
                getrandom::fill(&mut bytes).expect("the operating system gives randomness");
                Self(bytes)
            }
        }
    };
}

byte_id!(
    /// A node: the last 20 bytes of the Keccak-256 of its secp256k1 public key, written as `0x`
    /// and 40 lower-case hexadecimal digits (an Ethereum address without the mixed-case checksum).
    NodeId, 20, "0x", IdError::NodeId
);
random_id!(
    /// A virtual private network: 16 random bytes, 32 hexadecimal digits.
    NetworkId, "a network id"
);
random_id!(
    /// One running payload under an agreement.
    ActivityId, "an activity id"
);
random_id!(
    /// A requestor's contract with one provider.
    AgreementId, "an agreement id"
);
random_id!(
    /// One ExeScript sent to an activity.
    BatchId, "a batch id"
);

/// A member's number within its network. Numbers are given by the owner, never used twice in a
/// network, and stay with the member through every change of address, name or node.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default,
)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct MemberId(pub u32);

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_id_text_round_trips_and_folds_case() {
        let id: NodeId = "0x00aABBccDDEEff00112233445566778899aabbcc".parse().unwrap();
        assert_eq!(id.to_string(), "0x00aabbccddeeff00112233445566778899aabbcc");
        assert_eq!(id.to_string().parse::<NodeId>().unwrap(), id);
    }

    #[test]
    fn nonsense_is_refused_with_the_text_in_the_message() {
        for text in ["", "0x", "00aabbccddeeff00112233445566778899aabbcc", "0xzz", "provider-1"] {
            let message = text.parse::<NodeId>().unwrap_err().to_string();
            assert!(message.contains(text) && message.contains("40"), "{message}");
        }
        assert!("12".parse::<NetworkId>().is_err());
    }
}
