//! Images from a registry (OCI distribution-spec 1.1, pull).
//!
//! [`Registry::resolve`] finds out what a reference means today; what it gives belongs into the lock file.
//! [`Registry::fetch`] gets exactly that. Every blob is verified by size and digest before it is used, so that nobody on the
//! way, and not the registry either, can give anything else than what is locked.

pub(crate) mod auth;
mod blob;
mod http;
pub(crate) mod reference;

use crate::Error;
use crate::archive::digest_error;
use crate::oci::document::{
    self, DOCKER_INDEX, DOCKER_MANIFEST, Descriptor, INDEX, MANIFEST, MAX_DOCUMENT, Platform, parse_index,
};
use crate::oci::{self, Image, ImageOptions, Store};
use ashlar_cache::{Cache, CacheError};
use ashlar_image::digest::Digest;
use auth::{Challenge, Credentials, Login, parse_challenges, parse_token};
use http::{Answer, Failure, Http, escape, is_loopback, message, origin};
use reference::Reference;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Waiting time before each further attempt.
const PAUSES: [Duration; 2] = [Duration::from_millis(300), Duration::from_millis(1500)];
/// Deepest chain of indexes behind a tag.
const MAX_INDEXES: usize = 2;
/// Largest answer of a token server, in bytes.
const MAX_TOKEN_ANSWER: u64 = 1 << 20;

/// How a registry is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Transport {
    /// TLS, but none for this machine itself (`localhost`, 127.0.0.0/8, `::1`) unless a CA file is given.
    #[default]
    Auto,
    /// TLS.
    Https,
    /// No TLS: digests still hold, but logins and contents can be read on the way.
    Http,
}

/// How registries are asked.
#[derive(Clone)]
pub struct RegistryOptions {
    /// With or without TLS.
    pub transport: Transport,
    /// CA certificates (PEM) that are trusted beside the system's.
    pub ca_file: Option<PathBuf>,
    /// Who asks.
    pub credentials: Credentials,
    /// Only the cache is used.
    pub offline: bool,
    /// Longest time to connect, and longest silence.
    pub patience: Duration,
}

impl Default for RegistryOptions {
    fn default() -> Self {
        Self {
            transport: Transport::Auto,
            ca_file: None,
            credentials: Credentials::default(),
            offline: false,
            patience: Duration::from_secs(20),
        }
    }
}

/// What a reference means: for the lock file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Locked {
    /// Registry, name and (if there was one) tag.
    pub reference: String,
    /// SHA-256 of what the tag leads to: an index of platforms, or a manifest.
    pub digest: Digest,
    /// SHA-256 of the manifest for the platform.
    pub manifest: Digest,
    /// For which machine.
    pub platform: Platform,
}

/// Asks registries.
pub struct Registry {
    http: Http,
    options: RegistryOptions,
    /// What was sent as authorization with success or is about to, by registry and repository.
    authorizations: Mutex<BTreeMap<String, String>>,
}

impl Registry {
    /// Asks with these options.
    ///
    /// # Errors
    /// [`Error::Settings`] when the CA file cannot be used.
    pub fn new(options: RegistryOptions) -> Result<Self, Error> {
        let http = Http::new(options.ca_file.as_deref(), options.patience)?;
        Ok(Self { http, options, authorizations: Mutex::default() })
    }

    /// Finds out which image the reference means for the platform. A reference with a digest needs the network only when its
    /// manifests are not in the cache.
    ///
    /// # Errors
    /// [`Error::Registry`] when it does not answer, [`Error::Refused`] when it lets nobody in, [`Error::NoImage`] when there is none
    /// for the platform.
    pub fn resolve(
        &self,
        reference: &Reference,
        platform: &Platform,
        cache: &Cache,
    ) -> Result<Locked, Error> {
        let (digest, mut bytes) = match (reference.digest, &reference.tag) {
            (Some(digest), _) => (digest, self.manifest(reference, digest, cache)?),
            (None, Some(tag)) => {
                let bytes = self.get_manifest(reference, tag, None)?;
                let digest = Digest::of(&bytes);
                cache.put_blob(bytes.as_slice(), &digest.to_string())?;
                (digest, bytes)
            }
            (None, None) => {
                let why = "neither a tag nor a digest is given";
                return Err(Error::Reference { text: reference.to_string(), why });
            }
        };
        let options = ImageOptions { platform: platform.clone(), ..ImageOptions::default() };
        let name = reference.to_string();
        let mut manifest = digest;
        let mut indexes = 0;
        while document::is_index(&bytes, &name)? {
            indexes += 1;
            if indexes > MAX_INDEXES {
                return Err(document::bad(
                    &name,
                    format!("more than {MAX_INDEXES} indexes lead to the image"),
                ));
            }
            manifest = oci::choose(&parse_index(&bytes, &name)?, &options, &name, false)?.digest;
            bytes = self.manifest(reference, manifest, cache)?;
        }
        document::parse_manifest(&bytes, &name)?;
        let plain = Reference { digest: None, ..reference.clone() };
        Ok(Locked { reference: plain.to_string(), digest, manifest, platform: platform.clone() })
    }

    /// Gets the locked image: from the cache what is there, the rest from the registry.
    /// [`ImageOptions::platform`], `name` and `digest` are those of the lock.
    ///
    /// # Errors
    /// As [`Registry::resolve`]; [`Error::Digest`] or [`Error::TooLarge`] names a blob that is not what it should be;
    /// [`Error::Offline`] what would have to be fetched.
    pub fn fetch(&self, locked: &Locked, options: &ImageOptions, cache: &Cache) -> Result<Image, Error> {
        let reference: Reference = match locked.reference.parse() {
            Ok(reference) => reference,
            // Without tag it is no reference by itself.
            Err(_) => format!("{}@sha256:{}", locked.reference, locked.manifest).parse()?,
        };
        let store = RemoteStore { registry: self, reference: &reference, cache };
        let options = ImageOptions { platform: locked.platform.clone(), ..options.clone() };
        let chosen = Descriptor {
            media_type: MANIFEST.into(),
            digest: locked.manifest,
            size: 0,
            platform: None,
            annotations: BTreeMap::new(),
        };
        let mut image = oci::load(&store, &chosen, &options, cache)?;
        image.pinned = true;
        Ok(image)
    }

    /// A manifest or index by its digest: from the cache, or from the registry and then kept.
    fn manifest(&self, reference: &Reference, digest: Digest, cache: &Cache) -> Result<Vec<u8>, Error> {
        match cache.blob(&digest.to_string()) {
            Ok(Some(file)) => return read_document(file, &reference.to_string()),
            // It was removed, so it is fetched again.
            Ok(None) | Err(CacheError::Damaged { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let bytes = self.get_manifest(reference, &format!("sha256:{digest}"), Some(digest))?;
        cache.put_blob(bytes.as_slice(), &digest.to_string())?;
        Ok(bytes)
    }

    /// A manifest as the registry gives it for a tag or digest, verified if there is something to verify it by.
    fn get_manifest(
        &self,
        reference: &Reference,
        which: &str,
        digest: Option<Digest>,
    ) -> Result<Vec<u8>, Error> {
        let accept = [INDEX, MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST].join(", ");
        let what = format!("{}/manifests/{which}", reference.repository);
        let name = format!("the manifest `{what}` of {}", reference.registry);
        attempts(reference, &what, || {
            let mut answer = self.get(reference, &what, &[("accept", &accept)])?;
            let told = answer.headers().get("docker-content-digest").and_then(|v| v.to_str().ok());
            let told = told.map(str::to_owned);
            let mut bytes = Vec::new();
            let body = answer.body_mut().as_reader();
            body.take(MAX_DOCUMENT + 1)
                .read_to_end(&mut bytes)
                .map_err(|error| Failure::Passing(error.to_string()))?;
            if bytes.len() as u64 > MAX_DOCUMENT {
                return Err(Error::TooLarge { name: name.clone(), limit: MAX_DOCUMENT, ours: true }.into());
            }
            let got = Digest::of(&bytes);
            // What the registry says of a tag is no proof, but a difference is an error on the way.
            let expected =
                digest.or_else(|| document::digest(told.as_deref().unwrap_or_default(), &name).ok());
            match expected.filter(|expected| *expected != got) {
                Some(expected) => Err(digest_error(&name, expected, got).into()),
                None => Ok(bytes),
            }
        })
    }

    /// The URL of the registry's API.
    fn base(&self, reference: &Reference) -> String {
        let host = match reference.registry.as_str() {
            "docker.io" => "registry-1.docker.io",
            other => other,
        };
        let name =
            host.rsplit_once(':').filter(|(_, port)| !port.contains(']')).map_or(host, |(name, _)| name);
        let plain = match self.options.transport {
            Transport::Https => false,
            Transport::Http => true,
            Transport::Auto => is_loopback(name) && self.options.ca_file.is_none(),
        };
        format!("{}://{host}/v2/", if plain { "http" } else { "https" })
    }

    /// Asks for something below the API, logging in when that is wanted.
    fn get(&self, reference: &Reference, what: &str, headers: &[(&str, &str)]) -> Result<Answer, Failure> {
        if self.options.offline {
            return Err(Error::Offline(format!("{}/{what}", reference.registry)).into());
        }
        let url = format!("{}{what}", self.base(reference));
        let key = format!("{}/{}", reference.registry, reference.repository);
        let known = || self.authorizations.lock().unwrap_or_else(PoisonError::into_inner);
        let mut authorization = known().get(&key).cloned();
        let mut login_is_new = false;
        loop {
            let mut answer = self.http.get(&url, authorization.as_deref(), headers)?;
            let status = answer.status();
            match status.as_u16() {
                200 | 206 => return Ok(answer),
                401 if !login_is_new => {
                    let value = self.log_in(reference, what, &answer)?;
                    known().insert(key.clone(), value.clone());
                    authorization = Some(value);
                    login_is_new = true;
                }
                401 | 403 => {
                    known().remove(&key);
                    let why = format!("{}; is the login right, and may it read this?", message(&mut answer));
                    return Err(refused(reference, what, why).into());
                }
                408 | 429 | 500..=599 => return Err(Failure::Passing(message(&mut answer))),
                _ => return Err(Failure::Final(message(&mut answer))),
            }
        }
    }

    /// The value of the header that the registry asks for.
    fn log_in(&self, reference: &Reference, what: &str, answer: &Answer) -> Result<String, Failure> {
        let refuse = |why: String| Failure::Ours(refused(reference, what, why));
        let challenges: Vec<Challenge> = answer
            .headers()
            .get_all("www-authenticate")
            .iter()
            .filter_map(|value| parse_challenges(value.to_str().ok()?))
            .flatten()
            .collect();
        let of_scheme = |scheme| challenges.iter().find(|challenge: &&Challenge| challenge.scheme == scheme);
        let (login, hint) = self.options.credentials.find(reference)?;
        if let Some(bearer) = of_scheme("bearer") {
            return self.token(reference, what, bearer, login.as_ref());
        }
        if of_scheme("basic").is_none() {
            return Err(refuse("it asks for a kind of login that is not known".into()));
        }
        match login {
            Some(Login::Basic(value)) => Ok(format!("Basic {value}")),
            _ => Err(refuse(match hint {
                Some(hint) => format!("it wants a login, and {hint}"),
                None => format!("it wants a login; make one with `skopeo login {}`", reference.registry),
            })),
        }
    }

    /// A token from the server that the registry names. Only the right to read this repository is asked for, whatever the
    /// registry says.
    fn token(
        &self,
        reference: &Reference,
        what: &str,
        bearer: &Challenge,
        login: Option<&Login>,
    ) -> Result<String, Failure> {
        let refuse = |why: String| Failure::Ours(refused(reference, what, why));
        let realm = bearer.parameters.get("realm").map_or("", String::as_str);
        let base = origin(&self.base(reference));
        let safe = match (origin(realm), base) {
            (Some((scheme, ..)), _) if scheme == "https" => true,
            // Without TLS only as the registry itself, and to the same host or this machine.
            (Some((scheme, host, _)), Some((base_scheme, base_host, _))) => {
                scheme == "http" && base_scheme == "http" && (host == base_host || is_loopback(&host))
            }
            _ => false,
        };
        if !safe {
            return Err(refuse(format!(
                "it sends for a token to `{realm}`, which cannot be trusted with a login"
            )));
        }
        let scope = format!("repository:{}:pull", reference.repository);
        let mut query = format!("scope={}", escape(&scope));
        if let Some(service) = bearer.parameters.get("service") {
            query = format!("service={}&{query}", escape(service));
        }
        let mut answer = match login {
            Some(Login::Identity(token)) => {
                let form = format!(
                    "grant_type=refresh_token&client_id=ashlar&{query}&refresh_token={}",
                    escape(token)
                );
                self.http.send(realm, &[], Some(&form))?
            }
            other => {
                let separator = if realm.contains('?') { '&' } else { '?' };
                let basic = match other {
                    Some(Login::Basic(value)) => Some(format!("Basic {value}")),
                    _ => None,
                };
                let headers: Vec<(&str, &str)> =
                    basic.iter().map(|value| ("authorization", value.as_str())).collect();
                self.http.send(&format!("{realm}{separator}{query}"), &headers, None)?
            }
        };
        match answer.status().as_u16() {
            200 => {}
            401 | 403 => {
                let why =
                    format!("the token server `{realm}` does not accept the login: {}", message(&mut answer));
                return Err(refuse(why));
            }
            408 | 429 | 500..=599 => {
                return Err(Failure::Passing(format!("the token server: {}", message(&mut answer))));
            }
            _ => return Err(Failure::Final(format!("the token server `{realm}`: {}", message(&mut answer)))),
        }
        let mut body = Vec::new();
        let reader = answer.body_mut().as_reader();
        reader
            .take(MAX_TOKEN_ANSWER)
            .read_to_end(&mut body)
            .map_err(|error| Failure::Passing(format!("the token server: {error}")))?;
        let token = parse_token(&body).map_err(|why| refuse(format!("the token server `{realm}`: {why}")))?;
        Ok(format!("Bearer {token}"))
    }
}

/// Tries, and tries again while failures may pass.
fn attempts<T>(
    reference: &Reference,
    what: &str,
    mut attempt: impl FnMut() -> Result<T, Failure>,
) -> Result<T, Error> {
    let mut pauses = PAUSES.iter();
    loop {
        let fail = |why| Error::Registry { registry: reference.registry.clone(), what: what.to_owned(), why };
        match attempt() {
            Ok(result) => return Ok(result),
            Err(Failure::Ours(error)) => return Err(error),
            Err(Failure::Final(why)) => return Err(fail(why)),
            Err(Failure::Passing(why)) => match pauses.next() {
                Some(pause) => std::thread::sleep(*pause),
                None => return Err(fail(why)),
            },
        }
    }
}

fn refused(reference: &Reference, what: &str, why: String) -> Error {
    Error::Refused { registry: reference.registry.clone(), what: what.to_owned(), why }
}

fn read_document(file: File, name: &str) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    file.take(MAX_DOCUMENT + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| document::bad(name, format!("it cannot be read from the cache: {error}")))?;
    if bytes.len() as u64 > MAX_DOCUMENT {
        return Err(Error::TooLarge { name: name.to_owned(), limit: MAX_DOCUMENT, ours: true });
    }
    Ok(bytes)
}

/// The blobs of one repository.
struct RemoteStore<'a> {
    registry: &'a Registry,
    reference: &'a Reference,
    cache: &'a Cache,
}

impl Store for RemoteStore<'_> {
    fn name(&self) -> String {
        format!("{}/{}", self.reference.registry, self.reference.repository)
    }

    fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>, Error> {
        self.registry.manifest(self.reference, descriptor.digest, self.cache)
    }

    fn config(&self, descriptor: &Descriptor) -> Result<Vec<u8>, Error> {
        let name = format!("the configuration sha256:{} of {}", descriptor.digest, self.name());
        if descriptor.size > MAX_DOCUMENT {
            return Err(Error::TooLarge { name, limit: MAX_DOCUMENT, ours: true });
        }
        oci::verified(self.registry.blob(self.reference, descriptor, self.cache)?, descriptor, &name)
    }

    fn layer(&self, descriptor: &Descriptor) -> Result<Box<dyn Read>, Error> {
        Ok(Box::new(self.registry.blob(self.reference, descriptor, self.cache)?))
    }

    fn unpacked(&self, descriptor: &Descriptor) {
        // Only the tar is used from now on. If the packed layer stays, it takes room and does no harm.
        let _ = std::fs::remove_file(self.cache.blob_path(&descriptor.digest.to_string()));
    }
}
