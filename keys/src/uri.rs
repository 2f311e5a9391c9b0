//! PKCS#11 URIs (RFC 7512): which object on which token, and which module leads there.

use crate::KeyError;
use crate::access::Secret;
use std::fmt;
use std::str::FromStr;

/// Longest URI that is read, in bytes.
const LIMIT: usize = 4096;

/// The class of an object, the attribute `type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectType {
    /// `public`
    Public,
    /// `private`
    Private,
    /// `cert`
    Certificate,
    /// `secret-key`
    SecretKey,
    /// `data`
    Data,
}

impl ObjectType {
    const ALL: [Self; 5] = [Self::Public, Self::Private, Self::Certificate, Self::SecretKey, Self::Data];

    const fn name(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Private => "private",
            Self::Certificate => "cert",
            Self::SecretKey => "secret-key",
            Self::Data => "data",
        }
    }
}

/// A PKCS#11 URI. An attribute that is absent says nothing; one that is there must match.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pkcs11Uri {
    /// Label of the token.
    pub token: Option<String>,
    /// Manufacturer of the token.
    pub manufacturer: Option<String>,
    /// Serial number of the token.
    pub serial: Option<String>,
    /// Model of the token.
    pub model: Option<String>,
    /// Manufacturer of the module.
    pub library_manufacturer: Option<String>,
    /// Description of the module.
    pub library_description: Option<String>,
    /// Version of the module: major and minor.
    pub library_version: Option<(u8, u8)>,
    /// Label of the object.
    pub object: Option<String>,
    /// Class of the object.
    pub object_type: Option<ObjectType>,
    /// `CKA_ID` of the object, any bytes.
    pub id: Option<Vec<u8>>,
    /// Manufacturer of the slot.
    pub slot_manufacturer: Option<String>,
    /// Description of the slot.
    pub slot_description: Option<String>,
    /// Number of the slot.
    pub slot_id: Option<u64>,
    /// Where the PIN is read from.
    pub pin_source: Option<String>,
    /// The PIN. It is not part of what is printed.
    pub pin_value: Option<Secret>,
    /// Name of the module without path, `lib` and `.so`.
    pub module_name: Option<String>,
    /// Path of the module.
    pub module_path: Option<String>,
}

/// Characters that may stand for themselves everywhere (RFC 7512, section 2.3: `unreserved` and
/// `pk11-res-avail`).
const fn plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'-' | b'.'
                | b'_'
                | b'~'
                | b':'
                | b'['
                | b']'
                | b'@'
                | b'!'
                | b'$'
                | b'\''
                | b'('
                | b')'
                | b'*'
                | b'+'
                | b','
                | b'='
        )
}

fn wrong(why: impl Into<String>) -> KeyError {
    KeyError::Uri(why.into())
}

/// Undoes percent-encoding; `extra` are the characters that the part allows besides those of all parts. Values
/// are never repeated in errors: one of them may be a PIN.
fn decode(name: &str, text: &str, extra: &[u8]) -> Result<Vec<u8>, KeyError> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
            let value = digit(bytes.next()).zip(digit(bytes.next()));
            let (high, low) =
                value.ok_or_else(|| wrong(format!("in `{name}` two hexadecimal digits must follow `%`")))?;
            decoded.push((high << 4 | low) as u8);
        } else if plain(byte) || extra.contains(&byte) {
            decoded.push(byte);
        } else if name == "pin-value" {
            return Err(wrong("`pin-value` has a character that must be written as `%` and two digits"));
        } else {
            return Err(wrong(format!("in `{name}` the byte {byte:#04x} must be written as `%{byte:02X}`")));
        }
    }
    Ok(decoded)
}

fn text(name: &str, bytes: Vec<u8>) -> Result<String, KeyError> {
    String::from_utf8(bytes).map_err(|_| wrong(format!("`{name}` is not UTF-8")))
}

fn once<T>(name: &str, field: &mut Option<T>, value: T) -> Result<(), KeyError> {
    if field.replace(value).is_some() { Err(wrong(format!("`{name}` stands twice"))) } else { Ok(()) }
}

/// `2` or `2.40`.
fn version(value: &str) -> Option<(u8, u8)> {
    let (major, minor) = value.split_once('.').unwrap_or((value, "0"));
    let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    Some((number(major)?, number(minor)?))
}

impl Pkcs11Uri {
    fn path_attribute(&mut self, name: &str, value: &str) -> Result<(), KeyError> {
        let bytes = decode(name, value, b"&")?;
        if name == "id" {
            return once(name, &mut self.id, bytes);
        }
        let value = text(name, bytes)?;
        let field = match name {
            "token" => &mut self.token,
            "manufacturer" => &mut self.manufacturer,
            "serial" => &mut self.serial,
            "model" => &mut self.model,
            "library-manufacturer" => &mut self.library_manufacturer,
            "library-description" => &mut self.library_description,
            "object" => &mut self.object,
            "slot-manufacturer" => &mut self.slot_manufacturer,
            "slot-description" => &mut self.slot_description,
            "library-version" => {
                let version = version(&value).ok_or_else(|| wrong("`library-version` is not like `2.40`"))?;
                return once(name, &mut self.library_version, version);
            }
            "type" => {
                let found = ObjectType::ALL.into_iter().find(|class| class.name() == value);
                let class = found.ok_or_else(|| {
                    wrong("`type` is none of `public`, `private`, `cert`, `secret-key`, `data`")
                })?;
                return once(name, &mut self.object_type, class);
            }
            "slot-id" => {
                let digits = value.bytes().all(|byte| byte.is_ascii_digit());
                let number = digits.then(|| value.parse().ok()).flatten();
                return once(name, &mut self.slot_id, number.ok_or_else(|| wrong("`slot-id` is no number"))?);
            }
            // An attribute that is not understood would let another key match.
            _ => return Err(wrong(format!("the attribute `{}` is not known", name.escape_default()))),
        };
        once(name, field, value)
    }

    fn query_attribute(&mut self, name: &str, value: &str) -> Result<(), KeyError> {
        let field = match name {
            "pin-source" => &mut self.pin_source,
            "module-name" => &mut self.module_name,
            "module-path" => &mut self.module_path,
            "pin-value" => {
                let pin = Secret::new(text(name, decode(name, value, b"/?|")?)?);
                return once(name, &mut self.pin_value, pin);
            }
            _ => return Err(wrong(format!("the attribute `{}` is not known", name.escape_default()))),
        };
        once(name, field, text(name, decode(name, value, b"/?|")?)?)
    }
}

/// Name and value of each attribute of a part.
fn attributes(part: &str, separator: char) -> impl Iterator<Item = Result<(&str, &str), KeyError>> {
    part.split(separator).filter(move |_| !part.is_empty()).map(|attribute| {
        attribute.split_once('=').ok_or_else(|| wrong("every attribute is a name, `=` and a value"))
    })
}

impl FromStr for Pkcs11Uri {
    type Err = KeyError;

    fn from_str(uri: &str) -> Result<Self, KeyError> {
        if uri.len() > LIMIT {
            return Err(wrong("it is longer than 4096 bytes"));
        }
        // The scheme of a URI is not case-sensitive (RFC 3986, section 3.1).
        let rest = match uri.split_once(':') {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("pkcs11") => rest,
            _ => return Err(wrong("it does not begin with `pkcs11:`")),
        };
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut parsed = Self::default();
        for attribute in attributes(path, ';') {
            let (name, value) = attribute?;
            parsed.path_attribute(name, value)?;
        }
        for attribute in attributes(query, '&') {
            let (name, value) = attribute?;
            parsed.query_attribute(name, value)?;
        }
        if parsed.pin_source.is_some() && parsed.pin_value.is_some() {
            return Err(wrong("it has both `pin-source` and `pin-value`"));
        }
        Ok(parsed)
    }
}

/// Percent-encodes what does not stand for itself.
fn encode(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| match byte {
        // `=` would do, but some readers split at it.
        b'=' => f.write_str("%3D"),
        byte if plain(*byte) => write!(f, "{}", char::from(*byte)),
        byte => write!(f, "%{byte:02X}"),
    })
}

/// The URI with all attributes but the PIN.
impl fmt::Display for Pkcs11Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = self.library_version.map(|(major, minor)| format!("{major}.{minor}"));
        let slot = self.slot_id.map(|id| id.to_string());
        let text = |value: &'_ Option<String>| value.clone().map(String::into_bytes);
        let path = [
            ("token", text(&self.token)),
            ("manufacturer", text(&self.manufacturer)),
            ("serial", text(&self.serial)),
            ("model", text(&self.model)),
            ("library-manufacturer", text(&self.library_manufacturer)),
            ("library-description", text(&self.library_description)),
            ("library-version", text(&version)),
            ("slot-manufacturer", text(&self.slot_manufacturer)),
            ("slot-description", text(&self.slot_description)),
            ("slot-id", text(&slot)),
            ("object", text(&self.object)),
            ("type", self.object_type.map(|class| class.name().as_bytes().to_vec())),
            ("id", self.id.clone()),
        ];
        let query = [
            ("pin-source", text(&self.pin_source)),
            ("module-name", text(&self.module_name)),
            ("module-path", text(&self.module_path)),
        ];
        f.write_str("pkcs11:")?;
        for (attributes, first, next) in [(&path[..], "", ";"), (&query[..], "?", "&")] {
            let mut separator = first;
            for (name, value) in attributes {
                if let Some(value) = value {
                    write!(f, "{separator}{name}=")?;
                    // Every byte of an id, so that nobody takes it for text.
                    if *name == "id" {
                        value.iter().try_for_each(|byte| write!(f, "%{byte:02X}"))?;
                    } else {
                        encode(f, value)?;
                    }
                    separator = next;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(uri: &str) -> Pkcs11Uri {
        uri.parse().unwrap()
    }

    fn refused(uri: &str) -> String {
        uri.parse::<Pkcs11Uri>().unwrap_err().to_string()
    }

    /// The examples of RFC 7512, section 3, that hold no attribute of a vendor.
    #[test]
    fn the_examples_of_the_specification() {
        assert_eq!(parse("pkcs11:"), Pkcs11Uri::default());
        let uri = parse(
            "pkcs11:token=The%20Software%20PKCS%2311%20Softtoken;\
             manufacturer=Snake%20Oil,%20Inc.;model=1.0;object=my-certificate;type=cert;\
             id=%69%95%3E%5C%F4%BD%EC%91;serial=?pin-source=file:/etc/token_pin",
        );
        assert_eq!(uri.token.as_deref(), Some("The Software PKCS#11 Softtoken"));
        assert_eq!(uri.manufacturer.as_deref(), Some("Snake Oil, Inc."));
        assert_eq!(uri.id.as_deref(), Some(&b"\x69\x95\x3e\x5c\xf4\xbd\xec\x91"[..]));
        assert_eq!(uri.object_type, Some(ObjectType::Certificate));
        assert_eq!(uri.serial.as_deref(), Some(""));
        assert_eq!(uri.pin_source.as_deref(), Some("file:/etc/token_pin"));
        let uri = parse("pkcs11:object=my-sign-key;type=private?module-name=mypkcs11");
        assert_eq!(uri.module_name.as_deref(), Some("mypkcs11"));
        let uri = parse("pkcs11:slot-description=Sun%20Metaslot");
        assert_eq!(uri.slot_description.as_deref(), Some("Sun Metaslot"));
        let uri = parse("pkcs11:library-manufacturer=Snake%20Oil,%20Inc.;library-version=1.3");
        assert_eq!(uri.library_version, Some((1, 3)));
        let uri = parse("PKCS11:token=a&b;slot-id=327?pin-value=the-pin&module-path=/usr/lib/x?y.so");
        assert_eq!((uri.token.as_deref(), uri.slot_id), (Some("a&b"), Some(327)));
        assert_eq!(uri.module_path.as_deref(), Some("/usr/lib/x?y.so"));
        assert!(!format!("{uri} {uri:?}").contains("the-pin"));
    }

    #[test]
    fn what_is_no_pkcs11_uri() {
        for (uri, why) in [
            ("token=a", "begin with `pkcs11:`"),
            ("pkcs12:token=a", "begin with `pkcs11:`"),
            ("pkcs11:token", "a name, `=` and a value"),
            ("pkcs11:token=a;", "a name, `=` and a value"),
            ("pkcs11:token=a;token=b", "`token` stands twice"),
            ("pkcs11:tokens=a", "`tokens` is not known"),
            ("pkcs11:x-vendor=a", "`x-vendor` is not known"),
            ("pkcs11:token=a%2", "two hexadecimal digits"),
            ("pkcs11:token=a%+1", "two hexadecimal digits"),
            ("pkcs11:token=a b", "written as `%20`"),
            ("pkcs11:token=%FF", "`token` is not UTF-8"),
            ("pkcs11:type=key", "`type` is none of"),
            ("pkcs11:slot-id=+1", "`slot-id` is no number"),
            ("pkcs11:slot-id=99999999999999999999", "`slot-id` is no number"),
            ("pkcs11:library-version=1.2.3", "`library-version`"),
            ("pkcs11:?pin-value=a&pin-source=b", "both `pin-source` and `pin-value`"),
            ("pkcs11:pin-value=1234", "`pin-value` is not known"),
        ] {
            assert!(refused(uri).contains(why), "{uri}: {}", refused(uri));
        }
        assert!(!refused("pkcs11:?pin-value=12é34").contains("34"));
        assert!(refused(&format!("pkcs11:token={}", "a".repeat(LIMIT))).contains("4096"));
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(
            token in prop::option::of(".{0,20}"),
            object in prop::option::of("[ -~]{0,20}"),
            id in prop::option::of(prop::collection::vec(any::<u8>(), 0..20)),
            slot_id in prop::option::of(any::<u64>()),
            library_version in prop::option::of(any::<(u8, u8)>()),
            module_path in prop::option::of("/.{0,20}"),
        ) {
            let uri = Pkcs11Uri {
                token, library_version, object, id, slot_id, module_path, ..Pkcs11Uri::default()
            };
            prop_assert_eq!(uri.to_string().parse::<Pkcs11Uri>().unwrap(), uri);
        }

        #[test]
        fn any_text_is_survived(text in "(pkcs11:)?[a-z=;?&%0-9-]{0,40}.{0,10}") {
            let _ = text.parse::<Pkcs11Uri>();
        }
    }
}
