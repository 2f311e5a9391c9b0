//! The tokens of a state volume (section 3.5): what belongs to opening it and is no keyslot.
//!
//! cryptsetup shows tokens of types that it does not know and keeps them. They carry nothing secret. 64-bit numbers are
//! texts of decimal digits and bytes are base64, as everywhere in LUKS2's JSON.

use super::json::decimal;
use crate::error::{Refusal, shown};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Type of [`Tpm2Token`].
pub const TPM2: &str = "ashlar-tpm2";
/// Type of [`RecoveryToken`].
pub const RECOVERY: &str = "ashlar-recovery";
/// Type of [`StateToken`].
pub const STATE: &str = "ashlar-state";
/// What the types of tokens begin with that a later release may add; they are kept as they are.
const OURS: &str = "ashlar-";

/// The volume's key, sealed to the machine's TPM for one generation of releases.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tpm2Token {
    /// The generation that the policy names.
    #[serde(with = "number")]
    pub generation: u64,
    /// The value of the counter that the policy demands.
    #[serde(with = "number")]
    pub counter: u64,
    /// Name of the storage root key that the object lies under.
    #[serde(with = "base64_bytes")]
    pub srk_name: Vec<u8>,
    /// The object's public area.
    #[serde(with = "base64_bytes")]
    pub public: Vec<u8>,
    /// The object's private area, encrypted by the TPM.
    #[serde(with = "base64_bytes")]
    pub private: Vec<u8>,
    /// Fingerprint of the owner's PCR key that the policy trusts.
    pub pcr_key: String,
}

/// The recovery key, encrypted to the owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecoveryToken {
    /// What only the owner's private key opens.
    #[serde(with = "base64_bytes")]
    pub ciphertext: Vec<u8>,
    /// Fingerprint of the owner's key.
    pub key: String,
}

/// How far the making of the volume has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateToken {
    /// Of its file system.
    pub filesystem: Filesystem,
}

/// Whether there is a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Filesystem {
    /// It is to be made, again if need be: nothing was told to be stored yet.
    Pending,
    /// It is there and must never be made again.
    Ready,
}

/// A token.
#[derive(Debug, Clone, PartialEq)]
pub enum Token {
    /// `ashlar-tpm2`.
    Tpm2(Tpm2Token),
    /// `ashlar-recovery`.
    Recovery(RecoveryToken),
    /// `ashlar-state`.
    State(StateToken),
    /// One of a later release, `ashlar-…`, kept as it is: an older release must still open the volume.
    Other(Value),
}

impl From<Tpm2Token> for Token {
    fn from(token: Tpm2Token) -> Self {
        Self::Tpm2(token)
    }
}

impl From<RecoveryToken> for Token {
    fn from(token: RecoveryToken) -> Self {
        Self::Recovery(token)
    }
}

impl From<StateToken> for Token {
    fn from(token: StateToken) -> Self {
        Self::State(token)
    }
}

impl Token {
    /// Reads the token of this number.
    pub fn from_value(number: u8, value: Value) -> Result<Self, Refusal> {
        let odd = |what: String| Refusal::Token(number, what.escape_debug().take(200).collect());
        let Value::Object(mut fields) = value else { return Err(odd("it is no object".to_owned())) };
        let kind = match fields.get("type") {
            Some(Value::String(kind)) => kind.clone(),
            _ => return Err(odd("it has no type".to_owned())),
        };
        // Which keyslots it is for; cryptsetup changes that, and nothing here depends on it.
        let keyslots = fields.get("keyslots").and_then(Value::as_array);
        let slot = |value: &Value| value.as_str().and_then(decimal).is_some_and(|slot| slot < 32);
        if !keyslots.is_some_and(|slots| slots.len() <= 32 && slots.iter().all(slot)) {
            return Err(odd("its keyslots are no list of numbers".to_owned()));
        }
        if !matches!(kind.as_str(), TPM2 | RECOVERY | STATE) {
            let known = kind.starts_with(OURS) && kind.len() <= 64;
            return if known {
                Ok(Self::Other(Value::Object(fields)))
            } else {
                Err(Refusal::TokenType(number, shown(&kind)))
            };
        }
        fields.remove("type");
        fields.remove("keyslots");
        let body = Value::Object(fields);
        let token = match kind.as_str() {
            TPM2 => serde_json::from_value(body).map(Self::Tpm2),
            RECOVERY => serde_json::from_value(body).map(Self::Recovery),
            _ => serde_json::from_value(body).map(Self::State),
        };
        token.map_err(|error| odd(error.to_string()))
    }

    /// As LUKS2 holds it.
    pub fn to_value(&self) -> Result<Value, serde_json::Error> {
        let (kind, body) = match self {
            Self::Tpm2(token) => (TPM2, serde_json::to_value(token)?),
            Self::Recovery(token) => (RECOVERY, serde_json::to_value(token)?),
            Self::State(token) => (STATE, serde_json::to_value(token)?),
            Self::Other(value) => return Ok(value.clone()),
        };
        let mut fields = Map::new();
        fields.insert("type".to_owned(), kind.into());
        fields.insert("keyslots".to_owned(), Value::Array(Vec::new()));
        if let Value::Object(body) = body {
            fields.extend(body);
        }
        Ok(Value::Object(fields))
    }
}

mod number {
    use crate::luks::json::Decimal;
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    #[allow(clippy::trivially_copy_pass_by_ref)] // the form that serde calls
    pub fn serialize<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        Decimal(*value).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        Decimal::deserialize(deserializer).map(|decimal| decimal.0)
    }
}

mod base64_bytes {
    use base64::Engine as _;
    use base64::prelude::BASE64_STANDARD;
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(value: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64_STANDARD.encode(value))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        BASE64_STANDARD.decode(text).map_err(|_| D::Error::custom("a text is not in base64"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn tpm2() -> Tpm2Token {
        let bytes = |byte| vec![byte; 40];
        Tpm2Token {
            generation: u64::MAX,
            counter: 7,
            srk_name: bytes(1),
            public: bytes(2),
            private: bytes(3),
            pcr_key: "ab".repeat(32),
        }
    }

    #[test]
    fn there_and_back() {
        let tokens: [Token; 3] = [
            tpm2().into(),
            RecoveryToken { ciphertext: vec![9; 512], key: "cd".repeat(32) }.into(),
            StateToken { filesystem: Filesystem::Pending }.into(),
        ];
        for token in tokens {
            let value = token.to_value().unwrap();
            assert_eq!(value["keyslots"], json!([]));
            assert_eq!(Token::from_value(0, value).unwrap(), token);
        }
        let value = Token::from(tpm2()).to_value().unwrap();
        assert_eq!(value["generation"], json!("18446744073709551615"), "64 bits are text");
        let later = json!({"type": "ashlar-later", "keyslots": ["0"], "x": [1, {"y": null}]});
        assert_eq!(Token::from_value(3, later.clone()).unwrap().to_value().unwrap(), later);
    }

    #[test]
    fn refused() {
        let refusal = |value| Token::from_value(4, value).unwrap_err().to_string();
        let other = refusal(json!({"type": "systemd-tpm2", "keyslots": []}));
        assert!(other.contains("systemd-tpm2") && other.contains("--token-id 4"), "{other}");
        assert!(refusal(json!(1)).contains("no object"));
        assert!(refusal(json!({"keyslots": []})).contains("no type"));
        assert!(refusal(json!({"type": STATE, "filesystem": "ready"})).contains("keyslots"));
        assert!(refusal(json!({"type": STATE, "keyslots": [0], "filesystem": "ready"})).contains("keyslots"));
        assert!(refusal(json!({"type": STATE, "keyslots": [], "filesystem": "gone"})).contains("gone"));
        assert!(
            refusal(json!({"type": STATE, "keyslots": [], "filesystem": "ready", "x": 1}))
                .contains("unknown field")
        );
        assert!(
            refusal(json!({"type": RECOVERY, "keyslots": [], "ciphertext": "*", "key": ""}))
                .contains("base64")
        );
        let mut value = Token::from(tpm2()).to_value().unwrap();
        value["counter"] = json!(7);
        assert!(Token::from_value(0, value.clone()).is_err(), "a number that is none in LUKS2");
        value["counter"] = json!("07");
        assert!(Token::from_value(0, value).is_err());
    }
}
