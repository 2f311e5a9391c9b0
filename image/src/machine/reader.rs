//! Reads tables and values, keeps their places, and goes on after an error: each is told.

use super::error::{ConfigError, MAX_ERRORS, TextError, nearest, position, quoted};
use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};
use toml::de::{DeTable, DeValue};
use toml_datetime::Datetime;

/// The text, what is wrong with it, and where each key stands.
#[derive(Debug)]
pub(super) struct Reader<'t> {
    text: &'t str,
    errors: Vec<ConfigError>,
    places: BTreeMap<String, Range<usize>>,
}

/// A value and the path of its key.
#[derive(Debug, Clone)]
pub(super) struct Value<'d> {
    pub path: String,
    span: Range<usize>,
    content: &'d DeValue<'d>,
}

/// A table that is being read. Which keys it may have follows from what is asked for.
#[derive(Debug)]
pub(super) struct Table<'d> {
    pub path: String,
    span: Range<usize>,
    /// None when the value was of another type, which has been told.
    entries: Option<&'d DeTable<'d>>,
    known: Vec<&'static str>,
}

/// A key below a path: bare where TOML allows it.
fn join(path: &str, key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    let key = if bare && key.len() <= 60 { key.to_owned() } else { quoted(key).replace('`', "\"") };
    if path.is_empty() { key } else { format!("{path}.{key}") }
}

impl<'t> Reader<'t> {
    pub fn new(text: &'t str) -> Self {
        Self { text, errors: Vec::new(), places: BTreeMap::new() }
    }

    /// The errors, in the order of the text.
    pub fn into_errors(mut self) -> Vec<ConfigError> {
        self.errors.sort_by_key(|error| match error {
            ConfigError::Text(error) => error.span.start,
            _ => 0,
        });
        self.errors.dedup();
        self.errors
    }

    pub fn is_good(&self) -> bool {
        self.errors.is_empty()
    }

    /// Whether a key was read, well or not.
    pub fn knows(&self, path: &str) -> bool {
        self.places.contains_key(path)
    }

    fn add(&mut self, key: &str, span: Range<usize>, message: String, help: Option<String>) {
        if self.errors.len() >= MAX_ERRORS {
            return;
        }
        let (line, column) = position(self.text, span.start);
        let key = key.to_owned();
        self.errors.push(ConfigError::Text(TextError { key, line, column, span, message, help }));
    }

    /// An error of the TOML reader.
    pub fn syntax(&mut self, error: &toml::de::Error) {
        let end = self.text.len();
        let span = error.span().unwrap_or(0..0);
        let span = span.start.min(end)..span.end.clamp(span.start.min(end), end);
        let message = error.message().replace('\n', ", ");
        self.add("", span, format!("this is not TOML: {message}"), None);
    }

    /// An error about a key that was read before, or about the nearest table that it would be in.
    pub fn refuse(&mut self, path: &str, message: impl Into<String>) {
        self.refuse_with(path, message, None);
    }

    pub fn refuse_with(&mut self, path: &str, message: impl Into<String>, help: Option<String>) {
        let mut known = path;
        let span = loop {
            if let Some(span) = self.places.get(known) {
                break span.clone();
            }
            match known.rfind(['.', '[']) {
                Some(end) => known = known.get(..end).unwrap_or(""),
                None => break 0..0,
            }
        };
        self.add(path, span, message.into(), help);
    }

    fn other_type(&mut self, value: &Value<'_>, wanted: &str) {
        let found = match value.content {
            DeValue::String(_) => "a text",
            DeValue::Integer(_) => "a whole number",
            DeValue::Float(_) => "a number",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a time",
            DeValue::Array(_) => "an array",
            DeValue::Table(_) => "a table",
        };
        self.add(&value.path, value.span.clone(), format!("this is {found}; {wanted} is wanted"), None);
    }

    pub fn text<'d>(&mut self, value: &Value<'d>) -> Option<&'d str> {
        let DeValue::String(text) = value.content else {
            self.other_type(value, "a text between quotes");
            return None;
        };
        Some(text)
    }

    pub fn boolean(&mut self, value: &Value<'_>) -> Option<bool> {
        let DeValue::Boolean(boolean) = value.content else {
            self.other_type(value, "`true` or `false`");
            return None;
        };
        Some(*boolean)
    }

    pub fn integer<T: TryFrom<u64>>(&mut self, value: &Value<'_>, range: RangeInclusive<u64>) -> Option<T> {
        let wanted = format!("a whole number from {} to {}", range.start(), range.end());
        let DeValue::Integer(integer) = value.content else {
            self.other_type(value, &wanted);
            return None;
        };
        let number = u64::from_str_radix(integer.as_str(), integer.radix()).ok();
        let number =
            number.filter(|number| range.contains(number)).and_then(|number| T::try_from(number).ok());
        if number.is_none() {
            let message = format!("{} is out of range; {wanted} is wanted", quoted(&integer.to_string()));
            self.add(&value.path, value.span.clone(), message, None);
        }
        number
    }

    /// A number with thousandths.
    pub fn thousandths(&mut self, value: &Value<'_>, range: RangeInclusive<u32>) -> Option<u32> {
        let (least, most) = (f64::from(*range.start()) / 1000.0, f64::from(*range.end()) / 1000.0);
        let wanted = format!("a number from {least} to {most}");
        let number = match value.content {
            DeValue::Integer(number) if number.radix() == 10 => number.as_str().parse::<f64>().ok(),
            DeValue::Float(number) => number.as_str().parse::<f64>().ok(),
            _ => {
                self.other_type(value, &wanted);
                return None;
            }
        };
        let good = number.filter(|number| (least..=most).contains(number));
        if good.is_none() {
            self.add(
                &value.path,
                value.span.clone(),
                format!("it is out of range; {wanted} is wanted"),
                None,
            );
        }
        // In the range, so neither negative nor too large.
        #[allow(clippy::cast_sign_loss)]
        good.map(|number| (number * 1000.0).round() as u32)
    }

    /// A text of a form of its own; `wanted` tells of the form.
    pub fn parsed<T>(
        &mut self,
        value: &Value<'_>,
        wanted: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let text = self.text(value)?;
        let parsed = parse(text);
        if parsed.is_none() {
            let message = format!("{} is not {wanted}", quoted(text));
            self.add(&value.path, value.span.clone(), message, None);
        }
        parsed
    }

    /// A value that tells by itself what is wrong with it.
    pub fn checked<T>(
        &mut self,
        value: &Value<'_>,
        parse: impl FnOnce(&str) -> Result<T, &'static str>,
    ) -> Option<T> {
        let text = self.text(value)?;
        match parse(text) {
            Ok(parsed) => Some(parsed),
            Err(why) => {
                self.add(&value.path, value.span.clone(), format!("{}: {why}", quoted(text)), None);
                None
            }
        }
    }

    /// One of some words.
    pub fn choice<T: Copy>(&mut self, value: &Value<'_>, all: &[(&str, T)]) -> Option<T> {
        let text = self.text(value)?;
        let found = all.iter().find(|(name, _)| *name == text).map(|(_, choice)| *choice);
        if found.is_none() {
            let names: Vec<String> = all.iter().map(|(name, _)| format!("`{name}`")).collect();
            let message = format!("{} is none of {}", quoted(text), names.join(", "));
            let help = nearest(text, all.iter().map(|(name, _)| *name));
            let help = help.map(|known| format!("did you mean `{known}`?"));
            self.add(&value.path, value.span.clone(), message, help);
        }
        found
    }

    /// A time with date, time and offset, as TOML's or as a text (RFC 3339).
    pub fn datetime(&mut self, value: &Value<'_>) -> Option<Datetime> {
        let wanted = "a time with date and offset such as 2026-11-30T18:00:00Z";
        let datetime = match value.content {
            DeValue::Datetime(datetime) => Some(*datetime),
            DeValue::String(text) => text.parse().ok(),
            _ => {
                self.other_type(value, wanted);
                return None;
            }
        };
        let whole = datetime.filter(|all| all.date.is_some() && all.time.is_some() && all.offset.is_some());
        if whole.is_none() {
            self.add(&value.path, value.span.clone(), format!("this is not {wanted}"), None);
        }
        whole
    }

    /// The items of an array, no more than `most`.
    pub fn items<'d>(&mut self, value: &Value<'d>, most: usize) -> Vec<Value<'d>> {
        let DeValue::Array(array) = value.content else {
            self.other_type(value, "an array `[…]`");
            return Vec::new();
        };
        if array.len() > most {
            let message = format!("it has {} items; at most {most} are allowed", array.len());
            self.add(&value.path, value.span.clone(), message, None);
        }
        let items = array.iter().take(most).enumerate();
        items
            .map(|(number, item)| Value {
                path: format!("{}[{number}]", value.path),
                span: item.span(),
                content: item.get_ref(),
            })
            .collect()
    }

    /// An array of values. Its items have places of their own only if all could be read: otherwise their numbers would
    /// not be those of the file.
    pub fn list<'d, T>(
        &mut self,
        value: &Value<'d>,
        most: usize,
        mut read: impl FnMut(&mut Self, &Value<'d>) -> Option<T>,
    ) -> Vec<T> {
        let items = self.items(value, most);
        let found: Vec<T> = items.iter().filter_map(|item| read(self, item)).collect();
        if found.len() == items.len() {
            self.places.extend(items.into_iter().map(|item| (item.path, item.span)));
        }
        found
    }

    /// As [`Reader::list`], but there is one item at least.
    pub fn some<'d, T>(
        &mut self,
        value: &Value<'d>,
        most: usize,
        read: impl FnMut(&mut Self, &Value<'d>) -> Option<T>,
    ) -> Vec<T> {
        if matches!(value.content, DeValue::Array(array) if array.is_empty()) {
            self.add(&value.path, value.span.clone(), "it is empty; name one at least".into(), None);
        }
        self.list(value, most, read)
    }

    pub fn table<'d>(&mut self, value: &Value<'d>) -> Table<'d> {
        let entries = match value.content {
            DeValue::Table(table) => Some(table),
            _ => {
                self.other_type(value, "a table");
                None
            }
        };
        self.places.insert(value.path.clone(), value.span.clone());
        Table { path: value.path.clone(), span: value.span.clone(), entries, known: Vec::new() }
    }

    /// An array of tables. One that is something else counts as an empty one, so that the others keep their numbers.
    pub fn tables<'d>(&mut self, value: &Value<'d>, most: usize) -> Vec<Table<'d>> {
        let items = self.items(value, most);
        items.iter().map(|item| self.table(item)).collect()
    }
}

impl<'d> Table<'d> {
    /// The whole document.
    pub fn root(table: &'d DeTable<'d>) -> Self {
        Self { path: String::new(), span: 0..0, entries: Some(table), known: Vec::new() }
    }

    /// The value of a key.
    pub fn get(&mut self, reader: &mut Reader<'_>, key: &'static str) -> Option<Value<'d>> {
        self.known.push(key);
        let (_, value) = self.entries?.iter().find(|(name, _)| name.get_ref().as_ref() == key)?;
        let value = Value { path: join(&self.path, key), span: value.span(), content: value.get_ref() };
        reader.places.insert(value.path.clone(), value.span.clone());
        Some(value)
    }

    /// The value of a key that has to be there; `wanted` tells what it is.
    pub fn require(&mut self, reader: &mut Reader<'_>, key: &'static str, wanted: &str) -> Option<Value<'d>> {
        let value = self.get(reader, key);
        if value.is_none() && self.entries.is_some() {
            let message = format!("it is missing; {wanted} is wanted");
            reader.add(&join(&self.path, key), self.span.clone(), message, None);
        }
        value
    }

    /// All keys of a table whose keys are the user's, no more than `most`.
    pub fn all(self, reader: &mut Reader<'_>, most: usize) -> Vec<(&'d str, Value<'d>)> {
        let Some(entries) = self.entries else { return Vec::new() };
        if entries.len() > most {
            let message = format!("it has {} keys; at most {most} are allowed", entries.len());
            reader.add(&self.path, self.span.clone(), message, None);
        }
        let found = entries.iter().take(most).map(|(key, value)| {
            let path = join(&self.path, key.get_ref());
            reader.places.insert(path.clone(), key.span());
            (key.get_ref().as_ref(), Value { path, span: value.span(), content: value.get_ref() })
        });
        found.collect()
    }

    /// Refuses all keys that nobody has asked for.
    pub fn finish(self, reader: &mut Reader<'_>) {
        for (key, _) in self.entries.into_iter().flatten() {
            let name = key.get_ref().as_ref();
            if !self.known.contains(&name) {
                let help = match nearest(name, self.known.iter().copied()) {
                    Some(known) => format!("did you mean `{known}`?"),
                    None => format!("there are: {}", self.known.join(", ")),
                };
                reader.add(&join(&self.path, name), key.span(), "there is no such key".into(), Some(help));
            }
        }
    }
}
