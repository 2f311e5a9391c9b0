//! Keys that a token makes itself, and keys that are put on one.

use super::{Token, TokenEd25519, TokenRsa};
use crate::access::Access;
use crate::pkcs11::TokenKey;
use crate::places::TokenPlace;
use crate::signer::{
    Ed25519Key, Ed25519PublicKey, Ed25519Signer as _, RsaPrivateKey, Signer as _, SigningKey, ed25519_seed,
};
use crate::uri::{ObjectType, Pkcs11Uri};
use crate::{KeyError, Role};
use cryptoki::error::Error;
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use der::asn1::OctetStringRef;
use der::{Decode as _, Encode as _};
use pkcs8::PrivateKeyInfoRef;
use zeroize::Zeroize as _;

/// Size of new RSA keys in bits: what firmware everywhere accepts.
const RSA_BITS: u64 = 2048;
/// Ed25519 as `CKA_EC_PARAMS`: its object identifier (PKCS #11 3.1, section 2.3.3), and the name that version
/// 3.0 had before.
const ED25519_PARAMETERS: [&[u8]; 2] = [b"\x06\x03\x2b\x65\x70", b"\x13\x0cedwards25519"];
/// What a key that was put on a token signs to show that it is there whole.
const TRIAL: &[u8] = b"Ashlar: trial of a key that was put on a token";

/// A key that a token made.
pub struct NewTokenKey {
    /// It signs.
    pub key: AnyTokenKey,
    /// Where it is, for `keys.toml`.
    pub place: TokenPlace,
}

/// Both halves of a key on a token, to remove them again if what they were made for fails.
pub(crate) struct Made {
    token: Token,
    objects: Vec<ObjectHandle>,
}

impl Made {
    /// Removes them. That one stays behind is not worth hiding the error that led here.
    pub fn remove(&self) {
        for object in &self.objects {
            let _ = self.token.session.destroy_object(*object);
        }
    }
}

/// Either kind of key.
pub enum AnyTokenKey {
    /// RSA.
    Rsa(TokenRsa),
    /// Ed25519.
    Ed25519(TokenEd25519),
}

/// Makes the key of a role on the token that `place` names; the private half never leaves it. Its label is the
/// `object` of the URI, or the role's name.
pub fn generate(place: &TokenPlace, role: Role, access: &Access) -> Result<NewTokenKey, KeyError> {
    generate_removable(place, role, access).map(|(key, _)| key)
}

/// As [`generate`], with what is needed to undo it.
pub(crate) fn generate_removable(
    place: &TokenPlace,
    role: Role,
    access: &Access,
) -> Result<(NewTokenKey, Made), KeyError> {
    let token = Token::open(place, role, access, true)?;
    let (new, label, id) = token.free(place, role)?;
    let mut public = vec![Attribute::Token(true), Attribute::Private(false), Attribute::Verify(true)];
    let mut private = vec![
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Sign(true),
    ];
    for template in [&mut public, &mut private] {
        template.extend([Attribute::Label(label.clone().into_bytes()), Attribute::Id(id.clone())]);
    }
    let made = if role.is_rsa() {
        public.extend([Attribute::ModulusBits(RSA_BITS.into()), Attribute::PublicExponent(vec![1, 0, 1])]);
        token.session.generate_key_pair(&Mechanism::RsaPkcsKeyPairGen, &public, &private)
    } else {
        let with = |parameters: &[u8]| {
            let mut public = public.clone();
            public.push(Attribute::EcParams(parameters.to_vec()));
            token.session.generate_key_pair(&Mechanism::EccEdwardsKeyPairGen, &public, &private)
        };
        let [by_identifier, by_name] = ED25519_PARAMETERS;
        with(by_identifier).or_else(|_| with(by_name))
    };
    let (public, private) = made.map_err(|error| token.refused("make", &label, &error))?;
    let made = Made { token, objects: vec![public, private] };
    let key = Token::open(&new, role, access, false)
        .map(|token| TokenKey::new(token, private, new.uri.to_string()))
        .and_then(|key| {
            Ok(if role.is_rsa() {
                AnyTokenKey::Rsa(key.rsa()?)
            } else {
                AnyTokenKey::Ed25519(key.ed25519(None)?)
            })
        });
    match key {
        Ok(key) => Ok((NewTokenKey { key, place: new }, made)),
        Err(error) => {
            made.remove();
            Err(error)
        }
    }
}

/// Puts a private key (PKCS#8 in DER) on the token that `place` names, with its public half, and lets it sign
/// once to see that it is the same key. Gives its place for `keys.toml`. The file it came from is left as it is.
pub fn import(place: &TokenPlace, role: Role, pkcs8: &[u8], access: &Access) -> Result<TokenPlace, KeyError> {
    let token = Token::open(place, role, access, true)?;
    let (new, label, id) = token.free(place, role)?;
    let (mut public, mut private) = if role.is_rsa() { rsa_halves(pkcs8)? } else { ed25519_halves(pkcs8)? };
    public.extend([
        Attribute::Class(ObjectClass::PUBLIC_KEY),
        Attribute::Private(false),
        Attribute::Verify(true),
    ]);
    private.extend([
        Attribute::Class(ObjectClass::PRIVATE_KEY),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Sign(true),
    ]);
    let kind = if role.is_rsa() { KeyType::RSA } else { KeyType::EC_EDWARDS };
    for template in [&mut public, &mut private] {
        template.extend([
            Attribute::KeyType(kind),
            Attribute::Token(true),
            Attribute::Label(label.clone().into_bytes()),
            Attribute::Id(id.clone()),
        ]);
    }
    let refused = |error: Error| token.refused("take", &label, &error);
    let created = token.session.create_object(&private).map_err(refused);
    private.iter_mut().for_each(erase);
    let private = created?;
    let mut objects = vec![private];
    let outcome = token.session.create_object(&public).map_err(refused).and_then(|public| {
        objects.push(public);
        let token = Token::open(&new, role, access, false)?;
        let key = TokenKey::new(token, private, new.uri.to_string());
        if role.is_rsa() {
            let wanted = SigningKey::from_pkcs8_der(pkcs8)?;
            wanted.public_key().verify(TRIAL, &key.rsa()?.sign(TRIAL)?)
        } else {
            let wanted = *Ed25519Key::from_pkcs8_der(pkcs8)?.public_key();
            wanted.verify(TRIAL, &key.ed25519(Some(wanted))?.sign(TRIAL)?)
        }
    });
    if let Err(error) = outcome {
        Made { token, objects }.remove();
        return Err(error);
    }
    Ok(new)
}

/// Erases what a template holds of a private key.
fn erase(attribute: &mut Attribute) {
    match attribute {
        Attribute::PrivateExponent(value)
        | Attribute::Prime1(value)
        | Attribute::Prime2(value)
        | Attribute::Exponent1(value)
        | Attribute::Exponent2(value)
        | Attribute::Coefficient(value)
        | Attribute::Value(value) => value.zeroize(),
        _ => {}
    }
}

type Halves = (Vec<Attribute>, Vec<Attribute>);

fn rsa_halves(pkcs8: &[u8]) -> Result<Halves, KeyError> {
    let wrong = |_| KeyError::NotAKey("an RSA key of 2048 to 4096 bits");
    SigningKey::from_pkcs8_der(pkcs8)?;
    let info = PrivateKeyInfoRef::from_der(pkcs8).map_err(wrong)?;
    let key = RsaPrivateKey::from_der(info.private_key.as_bytes()).map_err(wrong)?;
    let both =
        [Attribute::Modulus(key.n.as_bytes().to_vec()), Attribute::PublicExponent(key.e.as_bytes().to_vec())];
    let mut private = both.to_vec();
    private.extend([
        Attribute::PrivateExponent(key.d.as_bytes().to_vec()),
        Attribute::Prime1(key.p.as_bytes().to_vec()),
        Attribute::Prime2(key.q.as_bytes().to_vec()),
        Attribute::Exponent1(key.dp.as_bytes().to_vec()),
        Attribute::Exponent2(key.dq.as_bytes().to_vec()),
        Attribute::Coefficient(key.qinv.as_bytes().to_vec()),
    ]);
    Ok((both.to_vec(), private))
}

fn ed25519_halves(pkcs8: &[u8]) -> Result<Halves, KeyError> {
    let public = Ed25519Key::from_pkcs8_der(pkcs8)?.public_key().0;
    let parameters = Attribute::EcParams(ED25519_PARAMETERS[0].to_vec());
    let point = OctetStringRef::new(&public)?.to_der()?;
    let seed = ed25519_seed(pkcs8)?;
    Ok((
        vec![parameters.clone(), Attribute::EcPoint(point)],
        vec![parameters, Attribute::Value(seed.to_vec())],
    ))
}

impl Token {
    /// Place, label and id of a new key; refused if one with that label is there.
    fn free(&self, place: &TokenPlace, role: Role) -> Result<(TokenPlace, String, Vec<u8>), KeyError> {
        let label = place.uri.object.clone().unwrap_or_else(|| role.name().to_owned());
        let template =
            [Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::Label(label.clone().into_bytes())];
        let found = self
            .session
            .find_objects(&template)
            .map_err(|error| self.refused("search for", &label, &error))?;
        if !found.is_empty() {
            return Err(KeyError::TokenInUse { token: self.label().to_owned(), object: label });
        }
        let mut id = vec![0; 8];
        getrandom::fill(&mut id).map_err(KeyError::Random)?;
        let id = place.uri.id.clone().unwrap_or(id);
        let uri = Pkcs11Uri {
            token: Some(self.label().to_owned()),
            serial: Some(self.info.serial_number().to_owned()),
            object: Some(label.clone()),
            object_type: Some(ObjectType::Private),
            id: Some(id.clone()),
            module_name: place.uri.module_name.clone(),
            module_path: place.uri.module_path.clone(),
            ..Pkcs11Uri::default()
        };
        Ok((TokenPlace { uri, module: place.module.clone(), pin: place.pin.clone() }, label, id))
    }

    /// The public half that lies beside a private key, with the same id.
    pub(super) fn ed25519_public(
        &self,
        private: ObjectHandle,
        name: &str,
    ) -> Result<Ed25519PublicKey, KeyError> {
        let refused = |error: Error| self.refused("show the public half of", name, &error);
        let id = self.session.get_attributes(private, &[AttributeType::Id]).map_err(refused)?;
        let mut template = super::template(Role::Channel, ObjectClass::PUBLIC_KEY);
        template.extend(id);
        let mut found = self.session.find_objects(&template).map_err(refused)?;
        let missing = || KeyError::NoObject {
            token: self.label().to_owned(),
            uri: name.to_owned(),
            found: "its public half, with the same id, is missing or there several times".to_owned(),
        };
        let (Some(object), true) = (found.pop(), found.is_empty()) else { return Err(missing()) };
        for attribute in self.session.get_attributes(object, &[AttributeType::EcPoint]).map_err(refused)? {
            let Attribute::EcPoint(point) = attribute else { continue };
            // In an OCTET STRING since version 2.20 of PKCS #11, bare in some tokens.
            let bare = <&OctetStringRef>::from_der(&point).map_or(point.as_slice(), OctetStringRef::as_bytes);
            if let Ok(key) = bare.try_into() {
                return Ok(Ed25519PublicKey(key));
            }
        }
        Err(missing())
    }
}
