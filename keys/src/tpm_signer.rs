//! RSA keys that a TPM keeps, by tpm2-tss: a persistent key, or one in a file `TSS2 PRIVATE KEY` that the TPM's
//! storage root key wraps ("TPM 2.0 Key File Format", draft-bottomley-tpm2-keys). The key must not be restricted:
//! what it signs is hashed here.

use crate::access::{Access, Question, Secret, SecretKind};
use crate::places::{TpmKey, TpmPlace};
use crate::signer::{RsaPublicKey, Signer};
use crate::{KeyError, Role, files};
use der::asn1::OctetString;
use der::{Any, Decode as _, SecretDocument, Sequence};
use ring::digest;
use std::path::Path;
use std::str::FromStr as _;
use std::sync::{Arc, Mutex, PoisonError};
use tss_esapi::attributes::ObjectAttributesBuilder;
use tss_esapi::constants::tss::{TPM2_RH_NULL, TPM2_ST_HASHCHECK};
use tss_esapi::handles::{KeyHandle, ObjectHandle, PersistentTpmHandle, TpmHandle};
use tss_esapi::interface_types::algorithm::{HashingAlgorithm, PublicAlgorithm};
use tss_esapi::interface_types::ecc::EccCurve;
use tss_esapi::interface_types::resource_handles::Hierarchy;
use tss_esapi::structures::{
    Auth, Digest, EccPoint, EccScheme, HashScheme, HashcheckTicket, KeyDerivationFunctionScheme, Private,
    Public, PublicBuilder, PublicEccParametersBuilder, Signature, SignatureScheme, SymmetricDefinitionObject,
};
use tss_esapi::traits::UnMarshall as _;
use tss_esapi::tss2_esys::{TPM2B_DIGEST, TPMT_TK_HASHCHECK};
use tss_esapi::{Context, TctiNameConf};
use x509_cert::spki::ObjectIdentifier;

/// `id-loadablekey`: a key that is loaded under its parent.
const LOADABLE_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.10.1.3");
/// Parent of a key in a file: the storage root key that is made anew in the owner's hierarchy.
const OWNER: u32 = 0x4000_0001;
/// A TPM's exponent 0 stands for this one.
const F4: u32 = 65537;

/// `TPMKey` of the file format. Its truth values are not read as such: tpm2-tools write them in BER.
#[derive(Sequence)]
struct KeyFile {
    kind: ObjectIdentifier,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    empty_auth: Option<Any>,
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", optional = "true")]
    policy: Option<Any>,
    #[asn1(context_specific = "2", tag_mode = "EXPLICIT", optional = "true")]
    secret: Option<Any>,
    #[asn1(context_specific = "3", tag_mode = "EXPLICIT", optional = "true")]
    auth_policy: Option<Any>,
    #[asn1(context_specific = "4", tag_mode = "EXPLICIT", optional = "true")]
    description: Option<Any>,
    #[asn1(context_specific = "5", tag_mode = "EXPLICIT", optional = "true")]
    rsa_parent: Option<Any>,
    parent: u32,
    public: OctetString,
    private: OctetString,
}

/// An open way to a TPM and the key in it.
struct Opened {
    context: Context,
    key: KeyHandle,
}

/// An RSA key in a TPM.
struct TpmSigner {
    opened: Mutex<Opened>,
    public: RsaPublicKey,
    tcti: String,
    name: String,
}

/// Opens the key.
pub(crate) fn open(place: &TpmPlace, role: Role, access: &Access) -> Result<Arc<dyn Signer>, KeyError> {
    let name = match &place.key {
        TpmKey::Handle(handle) => format!("{handle:#010x}"),
        TpmKey::File(path) => path.display().to_string(),
    };
    let refused =
        |action, why: String| KeyError::Tpm { tcti: place.tcti.clone(), action, key: name.clone(), why };
    let authorization = match &place.authorization {
        None => None,
        Some(source) => {
            let question = Question { role, kind: SecretKind::Authorization, place: name.clone() };
            Some(access.secret(source, &question)?)
        }
    };
    let mut context = TctiNameConf::from_str(&place.tcti)
        .and_then(Context::new)
        .map_err(|error| refused("let us reach", error.to_string()))?;
    let key = match &place.key {
        TpmKey::Handle(handle) => persistent(&mut context, *handle),
        TpmKey::File(path) => {
            let file = read(path)?;
            load(&mut context, &file)
        }
    };
    let key = key.map_err(|error| refused("open", error.to_string()))?;
    let public = prepare(&mut context, key, authorization.as_ref())
        .map_err(|error| refused("show the public half of", error.to_string()))?;
    let public = rsa(&public).ok_or_else(|| refused("sign with", "it is no RSA key".to_owned()))?;
    Ok(Arc::new(TpmSigner {
        opened: Mutex::new(Opened { context, key }),
        public,
        tcti: place.tcti.clone(),
        name,
    }))
}

fn persistent(context: &mut Context, handle: u32) -> tss_esapi::Result<KeyHandle> {
    let handle = TpmHandle::Persistent(PersistentTpmHandle::new(handle)?);
    Ok(context.execute_without_session(|context| context.tr_from_tpm_public(handle))?.into())
}

/// Reads a file `TSS2 PRIVATE KEY`.
fn read(path: &Path) -> Result<KeyFile, KeyError> {
    let wrong = |wanted| KeyError::Malformed { path: path.to_owned(), wanted };
    let content = files::read(path, true)?;
    let text = std::str::from_utf8(&content).map(SecretDocument::from_pem);
    let Ok(Ok(("TSS2 PRIVATE KEY", der))) = text else {
        return Err(wrong("a `TSS2 PRIVATE KEY` in PEM"));
    };
    let file = KeyFile::from_der(der.as_bytes())
        .map_err(|_| wrong("a `TSS2 PRIVATE KEY` as tpm2-tools write it"))?;
    if file.kind != LOADABLE_KEY || file.secret.is_some() {
        return Err(wrong("a key that can be loaded: import it into the TPM first"));
    }
    if file.policy.is_some() || file.auth_policy.is_some() {
        return Err(wrong("a key without a policy"));
    }
    if file.rsa_parent.as_ref().is_some_and(|value| value.value() != [0]) {
        return Err(wrong("a key whose parent is the ECC storage root key"));
    }
    Ok(file)
}

/// The ECC storage root key as the file format wants it: TCG's template H-2 of the EK Credential Profile.
fn root_template() -> tss_esapi::Result<Public> {
    let attributes = ObjectAttributesBuilder::new()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_sensitive_data_origin(true)
        .with_user_with_auth(true)
        .with_no_da(true)
        .with_restricted(true)
        .with_decrypt(true)
        .build()?;
    PublicBuilder::new()
        .with_public_algorithm(PublicAlgorithm::Ecc)
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(attributes)
        .with_ecc_parameters(
            PublicEccParametersBuilder::new()
                .with_symmetric(SymmetricDefinitionObject::AES_128_CFB)
                .with_ecc_scheme(EccScheme::Null)
                .with_curve(EccCurve::NistP256)
                .with_key_derivation_function_scheme(KeyDerivationFunctionScheme::Null)
                .with_restricted(true)
                .with_is_decryption_key(true)
                .build()?,
        )
        .with_ecc_unique_identifier(EccPoint::default())
        .build()
}

fn load(context: &mut Context, file: &KeyFile) -> tss_esapi::Result<KeyHandle> {
    // Both are a size of two bytes and what follows.
    let private = Private::try_from(file.private.as_bytes().get(2..).unwrap_or_default().to_vec())?;
    let public = tss_esapi::structures::PublicBuffer::unmarshall(file.public.as_bytes())?;
    let public = Public::try_from(public)?;
    if file.parent != OWNER {
        let parent = persistent(context, file.parent)?;
        return context.execute_with_nullauth_session(|context| context.load(parent, private, public));
    }
    let template = root_template()?;
    context.execute_with_nullauth_session(|context| {
        let root = context.create_primary(Hierarchy::Owner, template, None, None, None, None)?.key_handle;
        let key = context.load(root, private, public);
        context.flush_context(ObjectHandle::from(root))?;
        key
    })
}

/// Hands the authorization value over and reads the public half.
fn prepare(context: &mut Context, key: KeyHandle, secret: Option<&Secret>) -> tss_esapi::Result<Public> {
    if let Some(secret) = secret {
        let auth = Auth::try_from(secret.expose().as_bytes())?;
        context.tr_set_auth(key.into(), auth)?;
    }
    Ok(context.execute_without_session(|context| context.read_public(key))?.0)
}

fn rsa(public: &Public) -> Option<RsaPublicKey> {
    let Public::Rsa { parameters, unique, .. } = public else { return None };
    let exponent = match parameters.exponent().value() {
        0 => F4,
        exponent => exponent,
    };
    RsaPublicKey::new(unique.value(), &exponent.to_be_bytes()).ok()
}

impl Signer for TpmSigner {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        let Opened { context, key } = &mut *opened;
        sign(context, *key, message).map_err(|error| KeyError::Tpm {
            tcti: self.tcti.clone(),
            action: "sign with",
            key: self.name.clone(),
            why: error.to_string(),
        })
    }

    fn public_key(&self) -> &RsaPublicKey {
        &self.public
    }
}

fn sign(context: &mut Context, key: KeyHandle, message: &[u8]) -> tss_esapi::Result<Vec<u8>> {
    let hash = Digest::try_from(digest::digest(&digest::SHA256, message).as_ref())?;
    let scheme = SignatureScheme::RsaSsa { hash_scheme: HashScheme::new(HashingAlgorithm::Sha256) };
    // No ticket: the TPM did not hash the message itself.
    let ticket = HashcheckTicket::try_from(TPMT_TK_HASHCHECK {
        tag: TPM2_ST_HASHCHECK,
        hierarchy: TPM2_RH_NULL,
        digest: TPM2B_DIGEST::default(),
    })?;
    // An HMAC session: the authorization value does not pass over the bus.
    let signature =
        context.execute_with_nullauth_session(|context| context.sign(key, hash, scheme, ticket))?;
    match signature {
        Signature::RsaSsa(signature) => Ok(signature.signature().value().to_vec()),
        _ => Err(tss_esapi::Error::WrapperError(tss_esapi::WrapperErrorKind::InconsistentParams)),
    }
}
