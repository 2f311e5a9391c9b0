//! Passphrases and PINs: where they come from, and that they leave no trace.

use crate::files;
use crate::{KeyError, Role};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use zeroize::Zeroizing;

/// Longest passphrase or PIN, in bytes.
const SECRET_LIMIT: usize = 1024;

/// A passphrase or PIN. It is erased from memory when dropped and is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes what a person or program gave.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The first line of a file that nobody else may read.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let content = files::read(path, true)?;
        let text = std::str::from_utf8(&content).ok().and_then(|text| text.lines().next());
        match text {
            Some(line) if (1..=SECRET_LIMIT).contains(&line.len()) => Ok(Self::new(line.to_owned())),
            _ => Err(KeyError::SecretFile(path.to_owned())),
        }
    }

    /// The value of an environment variable.
    pub fn from_environment(name: &str) -> Result<Self, KeyError> {
        match std::env::var(name) {
            Ok(value) if (1..=SECRET_LIMIT).contains(&value.len()) => Ok(Self::new(value)),
            Ok(value) => {
                drop(Self::new(value));
                Err(KeyError::SecretVariable(name.to_owned()))
            }
            Err(_) => Err(KeyError::SecretVariable(name.to_owned())),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Where a passphrase or PIN comes from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum SecretSource {
    /// A person is asked.
    #[default]
    Ask,
    /// The first line of a file.
    File(PathBuf),
    /// An environment variable.
    Environment(String),
    /// It is here already.
    Given(Secret),
}

/// What kind of secret is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretKind {
    /// Of an encrypted key file.
    Passphrase,
    /// Of a token's user.
    Pin,
    /// Of a key in a TPM.
    Authorization,
}

impl fmt::Display for SecretKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Passphrase => "passphrase",
            Self::Pin => "PIN",
            Self::Authorization => "authorization value",
        })
    }
}

/// What a person is asked.
#[derive(Debug, Clone)]
pub struct Question {
    /// Which key is to be opened.
    pub role: Role,
    /// What is wanted.
    pub kind: SecretKind,
    /// Of what: the path of a key file, the label of a token.
    pub place: String,
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of `{}` (key {})", self.kind, self.place, self.role)
    }
}

type Ask = dyn Fn(&Question) -> io::Result<Secret> + Send + Sync;

/// How private halves of keys are opened: who is asked for passphrases and PINs. What was answered is
/// remembered, so that one passphrase for all files, and one PIN for a token, are asked for once.
#[derive(Clone, Default)]
pub struct Access {
    ask: Option<Arc<Ask>>,
    remembered: Arc<Mutex<Vec<(SecretKind, String, Secret)>>>,
}

impl Access {
    /// Nobody is asked: what `keys.toml` does not tell is an error.
    pub fn unattended() -> Self {
        Self::default()
    }

    /// Asks by calling `ask`, which shows the question and reads the answer without showing it.
    pub fn asking(ask: impl Fn(&Question) -> io::Result<Secret> + Send + Sync + 'static) -> Self {
        Self { ask: Some(Arc::new(ask)), remembered: Arc::default() }
    }

    /// The secret from its source. A person's answer is not remembered before it was found right.
    pub(crate) fn secret(&self, source: &SecretSource, question: &Question) -> Result<Secret, KeyError> {
        match source {
            SecretSource::File(path) => Secret::read(path),
            SecretSource::Environment(name) => Secret::from_environment(name),
            SecretSource::Given(secret) => Ok(secret.clone()),
            SecretSource::Ask => {
                let Some(ask) = &self.ask else { return Err(KeyError::Unattended(question.clone())) };
                ask(question).map_err(|source| KeyError::Ask { question: question.clone(), source })
            }
        }
    }

    /// Keeps an answer that was right.
    pub(crate) fn remember(&self, kind: SecretKind, place: &str, secret: &Secret) {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = (kind, place.to_owned(), secret.clone());
        if !remembered.contains(&entry) {
            remembered.push(entry);
        }
    }

    /// Answers of this kind that were right: passphrases of any file, PINs of this token only, because a
    /// wrong one would bring it nearer to being locked.
    pub(crate) fn remembered(&self, kind: SecretKind, place: &str) -> Vec<Secret> {
        let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        remembered
            .iter()
            .filter(|(of, at, _)| *of == kind && (kind == SecretKind::Passphrase || at == place))
            .map(|(_, _, secret)| secret.clone())
            .collect()
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").field("asks", &self.ask.is_some()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn the_first_line_of_a_private_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pin");
        fs::write(&path, "12 34\r\nsecond line\n").unwrap();
        assert!(matches!(Secret::read(&path), Err(KeyError::Readable(_))));
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        assert_eq!(Secret::read(&path).unwrap().expose(), "12 34");
        fs::write(&path, "\n1234\n").unwrap();
        assert!(matches!(Secret::read(&path), Err(KeyError::SecretFile(_))));
    }

    #[test]
    fn nothing_is_printed_and_nobody_is_asked_unattended() {
        let secret = Secret::new("hunter2".into());
        let source = SecretSource::Given(secret.clone());
        let access = Access::asking(|_| Ok(Secret::new("hunter2".into())));
        let question = Question { role: Role::Db, kind: SecretKind::Pin, place: "ashlar".into() };
        assert_eq!(access.secret(&SecretSource::Ask, &question).unwrap(), secret);
        access.remember(SecretKind::Pin, "ashlar", &secret);
        assert_eq!(access.remembered(SecretKind::Pin, "ashlar"), [secret]);
        assert!(access.remembered(SecretKind::Pin, "another").is_empty());
        assert!(!format!("{source:?} {access:?}").contains("hunter2"));
        let error = Access::unattended().secret(&SecretSource::Ask, &question).unwrap_err().to_string();
        assert!(error.contains("PIN of `ashlar` (key db)"), "{error}");
    }
}
