//! Who asks: challenges (RFC 9110, section 11), tokens (distribution-spec, token authentication) and the files in which
//! `docker login`, `podman login` and `skopeo login` keep credentials.

use super::reference::Reference;
use crate::Error;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Longest header with challenges that is read, in bytes.
const MAX_HEADER: usize = 16 << 10;
/// Longest token, in bytes.
const MAX_TOKEN: usize = 64 << 10;
/// Largest file with credentials, in bytes.
const MAX_FILE: u64 = 4 << 20;

/// Where credentials come from.
#[derive(Clone, Default)]
pub enum Credentials {
    /// Nobody asks.
    Anonymous,
    /// A name and a password.
    Basic {
        /// User.
        user: String,
        /// Password.
        password: String,
    },
    /// This file alone, as `docker login` or `podman login` write it.
    File(PathBuf),
    /// The first of `$REGISTRY_AUTH_FILE`, `$XDG_RUNTIME_DIR/containers/auth.json`, `~/.config/containers/auth.json`,
    /// `$DOCKER_CONFIG/config.json` and `~/.docker/config.json` that knows the registry.
    #[default]
    Environment,
}

/// What to prove oneself with.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Login {
    Basic(String),
    /// A token that is good for getting tokens (OAuth 2.0 refresh token).
    Identity(String),
}

impl Login {
    /// The value of a header.
    pub(crate) fn basic(user: &str, password: &str) -> Self {
        Self::Basic(STANDARD.encode(format!("{user}:{password}")))
    }
}

/// One way that a server offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// `basic` or `bearer`, in lower case.
    pub scheme: String,
    /// Parameters, names in lower case.
    pub parameters: BTreeMap<String, String>,
}

/// Reads a `WWW-Authenticate` header. None when it is not well-formed or longer than 16 KiB.
pub fn parse_challenges(header: &str) -> Option<Vec<Challenge>> {
    if header.len() > MAX_HEADER {
        return None;
    }
    let mut challenges: Vec<Challenge> = Vec::new();
    let mut rest = header.trim_start_matches([' ', '\t', ',']);
    while !rest.is_empty() {
        let (word, after) = split_token(rest)?;
        let trimmed = after.trim_start_matches([' ', '\t']);
        match trimmed.strip_prefix('=') {
            Some(value) if !challenges.is_empty() => {
                let (value, after) = split_value(value.trim_start_matches([' ', '\t']))?;
                challenges.last_mut()?.parameters.insert(word.to_ascii_lowercase(), value);
                rest = after;
            }
            Some(_) => return None,
            None => {
                let scheme = word.to_ascii_lowercase();
                challenges.push(Challenge { scheme, parameters: BTreeMap::new() });
                rest = after;
            }
        }
        rest = rest.trim_start_matches([' ', '\t', ',']);
    }
    Some(challenges)
}

/// A token of HTTP and what follows it.
fn split_token(text: &str) -> Option<(&str, &str)> {
    let good = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~/".contains(c);
    let end = text.find(|c| !good(c)).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

/// A token or quoted string and what follows it. What is neither (`==` at the end of a bare credential) is passed over.
fn split_value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let (value, rest) = split_token(text).unwrap_or(("", text));
        return Some((value.to_owned(), rest.trim_start_matches('=')));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return Some((value, quoted.get(at + 1..)?)),
            '\\' => value.push(characters.next()?.1),
            _ => value.push(c),
        }
    }
    None
}

/// Reads the answer of a token server: the token, which goes into a header.
///
/// # Errors
/// Says what is wrong; the token itself is never part of the message.
pub fn parse_token(body: &[u8]) -> Result<String, &'static str> {
    #[derive(Deserialize)]
    struct Answer {
        token: Option<String>,
        access_token: Option<String>,
    }
    let answer: Answer = serde_json::from_slice(body).map_err(|_| "its answer is not the expected JSON")?;
    let filled = |token: Option<String>| token.filter(|token| !token.is_empty());
    let token = filled(answer.token).or(filled(answer.access_token)).ok_or("its answer has no token")?;
    if token.len() > MAX_TOKEN || !token.bytes().all(|c| c.is_ascii_graphic()) {
        return Err("its token cannot be used in a header");
    }
    Ok(token)
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct AuthFile {
    auths: BTreeMap<String, AuthEntry>,
    creds_store: Option<String>,
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct AuthEntry {
    auth: Option<String>,
    identitytoken: Option<String>,
    username: Option<String>,
    password: Option<String>,
}

impl Credentials {
    /// The login for the registry of `reference`, and, if there is none, why a refusal may have been met.
    pub(crate) fn find(&self, reference: &Reference) -> Result<(Option<Login>, Option<String>), Error> {
        match self {
            Self::Anonymous => Ok((None, None)),
            Self::Basic { user, password } => Ok((Some(Login::basic(user, password)), None)),
            Self::File(path) => from_file(path, reference, true),
            Self::Environment => {
                let mut why = None;
                for path in default_files(|name| std::env::var_os(name).map(PathBuf::from)) {
                    let (login, hint) = from_file(&path, reference, false)?;
                    if login.is_some() {
                        return Ok((login, None));
                    }
                    why = why.or(hint);
                }
                Ok((None, why))
            }
        }
    }
}

fn default_files(variable: impl Fn(&str) -> Option<PathBuf>) -> Vec<PathBuf> {
    let home = variable("HOME");
    let below = |folder: Option<PathBuf>, rest: &str| folder.map(|folder| folder.join(rest));
    let docker = variable("DOCKER_CONFIG").or_else(|| below(home.clone(), ".docker"));
    let config = variable("XDG_CONFIG_HOME").or_else(|| below(home, ".config"));
    [
        variable("REGISTRY_AUTH_FILE"),
        below(variable("XDG_RUNTIME_DIR"), "containers/auth.json"),
        below(config, "containers/auth.json"),
        below(docker, "config.json"),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn from_file(
    path: &Path,
    reference: &Reference,
    required: bool,
) -> Result<(Option<Login>, Option<String>), Error> {
    let Some(bytes) = ashlar_cache::read_if_there(path, MAX_FILE)? else {
        return if required { Err(bad(path, "it is not there")) } else { Ok((None, None)) };
    };
    // The error of the parser could quote a password.
    let file: AuthFile =
        serde_json::from_slice(&bytes).map_err(|_| bad(path, "it is not the JSON of a login"))?;
    // The registry alone, or with the beginning of the name: the longest counts (containers-auth.json(5)).
    let mut keys = vec![format!("{}/{}", reference.registry, reference.repository)];
    while let Some((shorter, _)) = keys.last().and_then(|key| key.rsplit_once('/')) {
        keys.push(shorter.to_owned());
    }
    if reference.registry == "docker.io" {
        keys.push("index.docker.io".into());
    }
    let entry = keys
        .iter()
        .find_map(|key| file.auths.iter().find(|(name, _)| normalised(name) == key).map(|(_, entry)| entry));
    let login = entry.map(|entry| login(entry, path)).transpose()?.flatten();
    let helper = file.cred_helpers.get(&reference.registry).or(file.creds_store.as_ref());
    let why = helper.map(|helper| {
        format!(
            "the credentials are with the helper `docker-credential-{helper}`, which is not asked; log in with \
             REGISTRY_AUTH_FILE set to a file"
        )
    });
    Ok(if login.is_some() { (login, None) } else { (None, why) })
}

/// `https://registry.example/v1/`, as old files have it, is `registry.example`.
fn normalised(key: &str) -> &str {
    let (host, schemed) = match key.split_once("://") {
        Some((_, rest)) => (rest, true),
        None => (key, false),
    };
    match host.split_once('/') {
        Some((host, rest)) if schemed || rest.is_empty() => host,
        _ => host,
    }
}

fn login(entry: &AuthEntry, path: &Path) -> Result<Option<Login>, Error> {
    if let Some(token) = entry.identitytoken.as_ref().filter(|token| !token.is_empty()) {
        return Ok(Some(Login::Identity(token.clone())));
    }
    if let Some(auth) = entry.auth.as_ref().filter(|auth| !auth.is_empty()) {
        let decoded = STANDARD.decode(auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let (user, password) = decoded
            .as_deref()
            .and_then(|text| text.split_once(':'))
            .ok_or_else(|| bad(path, "a login in it is not base64 of `user:password`"))?;
        return Ok(Some(Login::basic(user, password.trim_end_matches('\0'))));
    }
    Ok(match (&entry.username, &entry.password) {
        (Some(user), Some(password)) => Some(Login::basic(user, password)),
        _ => None,
    })
}

fn bad(path: &Path, why: &str) -> Error {
    Error::Settings { path: path.to_owned(), why: why.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(header: &str) -> (String, Vec<(String, String)>) {
        let challenges = parse_challenges(header).unwrap();
        assert_eq!(challenges.len(), 1, "{challenges:?}");
        let challenge = challenges.into_iter().next().unwrap();
        (challenge.scheme, challenge.parameters.into_iter().collect())
    }

    #[test]
    fn challenges_are_read() {
        let (scheme, parameters) = one(
            r#"Bearer realm="https://a.example/token",service="r \"x\"",scope="repository:a/b:pull,push""#,
        );
        assert_eq!(scheme, "bearer");
        assert_eq!(parameters[0], ("realm".into(), "https://a.example/token".into()));
        assert_eq!(parameters[1].1, "repository:a/b:pull,push");
        assert_eq!(parameters[2].1, "r \"x\"");
        assert_eq!(one("Basic realm=x , charset = UTF-8").1.len(), 2);
        let two = parse_challenges(r#"Negotiate, Basic realm="a, b=c", Digest qop=auth"#).unwrap();
        let schemes: Vec<_> = two.iter().map(|challenge| challenge.scheme.as_str()).collect();
        assert_eq!(schemes, ["negotiate", "basic", "digest"]);
        assert_eq!(two[1].parameters["realm"], "a, b=c");
        assert!(parse_challenges("Negotiate YWJj==").is_some());
        for bad in ["=x", "Basic realm=\"open", "Basic realm=\"x\\", "a=b", "\u{e9}"] {
            assert!(parse_challenges(bad).is_none(), "{bad}");
        }
        assert!(parse_challenges(&"a,".repeat(9000)).is_none());
    }

    #[test]
    fn damaged_challenges_never_panic() {
        let good =
            r#"Bearer realm="https://ä.example/t\"oken",service=s, Basic realm="x" , Negotiate YWJj=="#;
        for at in 0..good.len() {
            if let Some(cut) = good.get(..at) {
                let _ = parse_challenges(cut);
            }
            for byte in [b'"', b'\\', b'=', b',', b' ', 0] {
                let mut bytes = good.as_bytes().to_vec();
                bytes[at] = byte;
                let _ = parse_challenges(&String::from_utf8_lossy(&bytes));
            }
        }
    }

    #[test]
    fn tokens_are_read() {
        assert_eq!(parse_token(br#"{"token":"","access_token":"a.b"}"#), Ok("a.b".into()));
        assert!(parse_token(br#"{"token":"a\nb"}"#).unwrap_err().contains("header"));
        assert!(parse_token(b"{}").unwrap_err().contains("no token"));
        assert!(parse_token(b"<html>").unwrap_err().contains("JSON"));
    }

    #[test]
    fn logins_are_found_by_the_longest_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("auth.json");
        let b64 = |text: &str| STANDARD.encode(text);
        let json = format!(
            r#"{{"auths": {{"r.example": {{"auth": "{}"}}, "r.example/team": {{"auth": "{}"}},
                "https://old.example/v1/": {{"username": "o", "password": "p"}}, "helped.example": {{}},
                "id.example": {{"auth": "{}", "identitytoken": "refresh"}}}}, "credHelpers": {{"helped.example": "pass"}}}}"#,
            b64("all:a"),
            b64("team:t:t"),
            b64("00000000-0000-0000-0000-000000000000:")
        );
        std::fs::write(&path, json).unwrap();
        let find =
            |text: &str| Credentials::File(path.clone()).find(&format!("{text}:1").parse().unwrap()).unwrap();
        assert!(find("r.example/other/x").0 == Some(Login::basic("all", "a")));
        assert!(find("r.example/team/x").0 == Some(Login::basic("team", "t:t")));
        assert!(find("old.example/x").0 == Some(Login::basic("o", "p")));
        assert!(find("id.example/x").0 == Some(Login::Identity("refresh".into())));
        assert!(find("none.example/x").0.is_none());
        let (login, why) = find("helped.example/x");
        assert!(login.is_none() && why.unwrap().contains("docker-credential-pass"));
    }

    #[test]
    fn messages_do_not_quote_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("auth.json");
        let reference: Reference = "r.example/x:1".parse().unwrap();
        for text in
            [r#"{"auths": {"r.example": {"auth": "c2VjcmV0"}}}"#, r#"{"auths": {"r.example": "secret"}}"#]
        {
            std::fs::write(&path, text).unwrap();
            let Err(error) = Credentials::File(path.clone()).find(&reference) else { panic!() };
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    #[test]
    fn files_are_looked_for_in_order() {
        let files = default_files(|name| match name {
            "HOME" => Some("/h".into()),
            "XDG_RUNTIME_DIR" => Some("/run/u".into()),
            _ => None,
        });
        let files: Vec<_> = files.iter().map(|path| path.to_str().unwrap()).collect();
        assert_eq!(
            files,
            ["/run/u/containers/auth.json", "/h/.config/containers/auth.json", "/h/.docker/config.json"]
        );
    }
}
