//! Private keys on tokens, by PKCS#11 (OASIS PKCS #11 Specification, version 3.1): smart cards, HSMs, SoftHSM.

mod key;
mod make;
mod module;

use crate::access::{Access, Question, Secret, SecretKind, SecretSource};
use crate::places::TokenPlace;
use crate::{KeyError, Role};
use cryptoki::context::{Function, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, SessionState, UserType};
use cryptoki::slot::{Slot, TokenInfo};
use cryptoki::types::AuthPin;
use std::fmt::Write as _;

pub use key::{TokenEd25519, TokenKey, TokenRsa};
pub use make::{AnyTokenKey, NewTokenKey, generate, import};
pub(crate) use make::{Made, generate_removable};

/// What a module says when it refuses, in one word.
fn reason(error: &Error) -> String {
    match error {
        Error::Pkcs11(value, function) => format!("{function} gives {value:?}"),
        other => other.to_string(),
    }
}

/// Whether a call failed with this value.
fn is(error: &Error, wanted: RvError) -> bool {
    matches!(error, Error::Pkcs11(value, _) if *value == wanted)
}

/// A token that was found and, if it wants that, logged into.
pub(crate) struct Token {
    context: Pkcs11,
    slot: Slot,
    info: TokenInfo,
    session: Session,
    /// The PIN, if one was given now.
    pin: Option<Secret>,
}

/// Opens the private key that a place names.
pub(crate) fn open(place: &TokenPlace, role: Role, access: &Access) -> Result<TokenKey, KeyError> {
    let token = Token::open(place, role, access, false)?;
    let object = token.private_key(place, role)?;
    Ok(TokenKey::new(token, object, place.uri.to_string()))
}

impl Token {
    /// Finds the one token that the place names and logs in; `write` to make objects on it.
    fn open(place: &TokenPlace, role: Role, access: &Access, write: bool) -> Result<Self, KeyError> {
        let (path, context) = module::load(place)?;
        let refused = |error: Error| KeyError::Module { path: path.clone(), why: reason(&error) };
        let (slot, info) = find(&context, place).map_err(refused)??;
        let session = if write { context.open_rw_session(slot) } else { context.open_ro_session(slot) }
            .map_err(refused)?;
        let mut token = Self { context, slot, info, session, pin: None };
        if token.info.login_required() {
            token.login(place, role, access)?;
        }
        Ok(token)
    }

    fn label(&self) -> &str {
        self.info.label()
    }

    fn refused(&self, action: &'static str, object: &str, error: &Error) -> KeyError {
        KeyError::Token {
            token: self.label().to_owned(),
            action,
            object: object.to_owned(),
            why: reason(error),
        }
    }

    fn login(&mut self, place: &TokenPlace, role: Role, access: &Access) -> Result<(), KeyError> {
        let name = format!("{} (serial {})", self.label(), self.info.serial_number());
        // A login counts for the whole program: another key of this token may have been opened before.
        let state = self.session.get_session_info().map(|info| info.session_state());
        let logged_in = matches!(state, Ok(SessionState::RoUser | SessionState::RwUser));
        let known = access.remembered(SecretKind::Pin, &name).into_iter().next();
        if logged_in {
            self.pin = known;
            return Ok(());
        }
        if self.info.user_pin_locked() {
            return Err(KeyError::PinLocked(name));
        }
        if self.info.protected_authentication_path() {
            // The PIN is typed on the reader itself.
            return self.login_with(&name, None);
        }
        let pin = match known {
            Some(pin) => pin,
            None => {
                // A build that is tried again and again with a wrong PIN must not lock the token.
                if self.info.user_pin_final_try() && place.pin != SecretSource::Ask {
                    return Err(KeyError::PinLastTry(name));
                }
                let question = Question { role, kind: SecretKind::Pin, place: name.clone() };
                access.secret(&place.pin, &question)?
            }
        };
        self.login_with(&name, Some(&pin))?;
        access.remember(SecretKind::Pin, &name, &pin);
        self.pin = Some(pin);
        Ok(())
    }

    fn login_with(&mut self, name: &str, pin: Option<&Secret>) -> Result<(), KeyError> {
        let pin = pin.map(auth_pin);
        let error = match self.session.login(UserType::User, pin.as_ref()) {
            Ok(()) => return Ok(()),
            Err(error) if is(&error, RvError::UserAlreadyLoggedIn) => return Ok(()),
            Err(error) => error,
        };
        let info = self.context.get_token_info(self.slot).unwrap_or_else(|_| self.info.clone());
        if is(&error, RvError::PinLocked) || info.user_pin_locked() {
            return Err(KeyError::PinLocked(name.to_owned()));
        }
        let wrong = [RvError::PinIncorrect, RvError::PinInvalid, RvError::PinLenRange];
        if wrong.into_iter().any(|value| is(&error, value)) {
            let state = if info.user_pin_final_try() {
                "ONE try is left before it is locked"
            } else if info.user_pin_count_low() {
                "some tries are used up; too many wrong PINs lock it"
            } else {
                "the token does not tell how many tries are left"
            };
            return Err(KeyError::WrongPin { token: name.to_owned(), state });
        }
        if is(&error, RvError::UserPinNotInitialized) {
            let why = "its user's PIN was never set".to_owned();
            return Err(KeyError::Token {
                token: name.to_owned(),
                action: "let in",
                object: "its user".into(),
                why,
            });
        }
        Err(self.refused("let in", "its user", &error))
    }

    /// The one private key that the place names.
    fn private_key(&self, place: &TokenPlace, role: Role) -> Result<ObjectHandle, KeyError> {
        let uri = place.uri.to_string();
        let mut wanted = template(role, ObjectClass::PRIVATE_KEY);
        wanted.extend(place.uri.object.as_ref().map(|label| Attribute::Label(label.clone().into_bytes())));
        wanted.extend(place.uri.id.as_ref().map(|id| Attribute::Id(id.clone())));
        let found =
            self.session.find_objects(&wanted).map_err(|error| self.refused("search for", &uri, &error))?;
        match found.as_slice() {
            [one] => Ok(*one),
            [] => {
                let all = self.session.find_objects(&template(role, ObjectClass::PRIVATE_KEY));
                let found = match self.names(&all.unwrap_or_default()) {
                    names if names.is_empty() => format!("it has no {} keys at all", algorithm(role)),
                    names => format!("its {} keys are {names}", algorithm(role)),
                };
                Err(KeyError::NoObject { token: self.label().to_owned(), uri, found })
            }
            several => Err(KeyError::SeveralObjects {
                token: self.label().to_owned(),
                uri,
                found: self.names(several),
            }),
        }
    }

    /// Labels and ids of objects, for errors.
    fn names(&self, objects: &[ObjectHandle]) -> String {
        let mut names = String::new();
        for object in objects {
            let wanted = [AttributeType::Label, AttributeType::Id];
            let (mut label, mut id) = (String::new(), String::new());
            for attribute in self.session.get_attributes(*object, &wanted).unwrap_or_default() {
                match attribute {
                    Attribute::Label(text) => label = String::from_utf8_lossy(&text).into_owned(),
                    Attribute::Id(bytes) => bytes.iter().for_each(|b| {
                        let _ = write!(id, "%{b:02X}");
                    }),
                    _ => {}
                }
            }
            let separator = if names.is_empty() { "" } else { ", " };
            let _ = write!(names, "{separator}`{}` (id={id})", label.escape_default());
        }
        names
    }
}

/// Keys of a role's kind.
fn template(role: Role, class: ObjectClass) -> Vec<Attribute> {
    let kind = if role.is_rsa() { KeyType::RSA } else { KeyType::EC_EDWARDS };
    vec![Attribute::Class(class), Attribute::KeyType(kind)]
}

fn algorithm(role: Role) -> &'static str {
    if role.is_rsa() { "RSA" } else { "Ed25519" }
}

fn auth_pin(pin: &Secret) -> AuthPin {
    AuthPin::from(pin.expose().to_owned())
}

/// The one token that a place names. The outer error is the module's.
fn find(context: &Pkcs11, place: &TokenPlace) -> Result<Result<(Slot, TokenInfo), KeyError>, Error> {
    let uri = &place.uri;
    let fits = |wanted: &Option<String>, found: &str| wanted.as_ref().is_none_or(|wanted| wanted == found);
    let library = context.get_library_info()?;
    let version = (library.library_version().major(), library.library_version().minor());
    let library_fits = fits(&uri.library_manufacturer, library.manufacturer_id())
        && fits(&uri.library_description, library.library_description())
        && uri.library_version.is_none_or(|wanted| wanted == version);
    let (mut matching, mut all) = (Vec::new(), Vec::new());
    for slot in context.get_slots_with_token()? {
        let info = match context.get_token_info(slot) {
            // It was pulled out meanwhile, or is of a kind that the module does not know.
            Err(Error::Pkcs11(
                RvError::TokenNotPresent | RvError::TokenNotRecognized,
                Function::GetTokenInfo,
            )) => {
                continue;
            }
            info => info?,
        };
        if !info.token_initialized() {
            continue;
        }
        let of_slot = context.get_slot_info(slot)?;
        all.push(format!("`{}` (serial={})", info.label().escape_default(), info.serial_number()));
        if library_fits
            && fits(&uri.token, info.label())
            && fits(&uri.manufacturer, info.manufacturer_id())
            && fits(&uri.serial, info.serial_number())
            && fits(&uri.model, info.model())
            && fits(&uri.slot_manufacturer, of_slot.manufacturer_id())
            && fits(&uri.slot_description, of_slot.slot_description())
            && uri.slot_id.is_none_or(|id| id == slot.id())
        {
            matching.push((slot, info));
        }
    }
    let several = matching.len() > 1;
    Ok(match matching.pop() {
        Some(found) if !several => Ok(found),
        Some(_) => Err(KeyError::SeveralTokens { uri: uri.to_string(), found: all.join(", ") }),
        None if all.is_empty() => {
            Err(KeyError::NoToken { uri: uri.to_string(), found: "the module finds no token at all".into() })
        }
        None => Err(KeyError::NoToken {
            uri: uri.to_string(),
            found: format!("the module finds {}", all.join(", ")),
        }),
    })
}
