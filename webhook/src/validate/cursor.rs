//! [`At`]: a place in an object with its path; [`Findings`]: what is wrong, by path.

use std::fmt::Display;
use std::time::Duration;

use pilotfish_model::time::parse_duration;
use serde_json::Value;

/// What was found about one object.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) errors: Vec<String>,
    pub(crate) warnings: Vec<String>,
    /// Patterns that took much memory to read.
    pub(crate) large_patterns: usize,
}

/// As many mistakes as anybody reads at once. An object could have one in every line.
const MOST: usize = 100;

impl Findings {
    pub(crate) fn error(&mut self, at: &At<'_>, message: impl Display) {
        if !self.is_full() {
            self.errors.push(format!("{}: {message}", at.path));
        }
    }

    pub(crate) fn warning(&mut self, at: &At<'_>, message: impl Display) {
        if self.warnings.len() < MOST {
            self.warnings.push(format!("{}: {message}", at.path));
        }
    }

    /// A warning that names its places itself.
    pub(crate) fn warning_of_all(&mut self, message: String) {
        if self.warnings.len() < MOST {
            self.warnings.push(message);
        }
    }

    /// Whether more mistakes would not be told.
    pub(crate) fn is_full(&self) -> bool {
        self.errors.len() >= MOST
    }

    /// An error unless it holds.
    pub(crate) fn require(&mut self, holds: bool, at: &At<'_>, message: impl Display) {
        if !holds {
            self.error(at, message);
        }
    }

    /// A check of text that says what is wrong.
    pub(crate) fn check(&mut self, at: &At<'_>, outcome: Result<(), String>) {
        if let Err(message) = outcome {
            self.error(at, message);
        }
    }

    /// A duration of at least a millisecond and of whole milliseconds.
    pub(crate) fn duration(&mut self, at: &At<'_>) -> Option<Duration> {
        self.duration_from(at, Duration::from_millis(1))
    }

    pub(crate) fn duration_from(&mut self, at: &At<'_>, least: Duration) -> Option<Duration> {
        let text = at.text()?;
        match parse_duration(text) {
            Ok(d) => {
                self.require(d.subsec_nanos().is_multiple_of(1_000_000), at, "is more precise than a millisecond");
                self.require(d >= least, at, format!("must be at least {least:?}"));
                Some(d)
            }
            Err(e) => {
                self.error(at, e);
                None
            }
        }
    }

    pub(crate) fn within(&mut self, at: &At<'_>, low: f64, high: f64) {
        if let Some(n) = at.number() {
            self.require((low..=high).contains(&n), at, format!("{n} is not in range {low}..{high}"));
        }
    }
}

const NOTHING: &Value = &Value::Null;

/// A value with its path. What is not there is null.
#[derive(Clone, Debug)]
pub(crate) struct At<'a> {
    pub(crate) value: &'a Value,
    pub(crate) path: String,
}

impl<'a> At<'a> {
    pub(crate) fn new(value: &'a Value, path: &str) -> Self {
        At { value, path: path.to_owned() }
    }

    pub(crate) fn get(&self, key: &str) -> At<'a> {
        At { value: self.value.get(key).unwrap_or(NOTHING), path: format!("{}.{key}", self.path) }
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.value.get(key).is_some_and(|v| !v.is_null())
    }

    pub(crate) fn exists(&self) -> bool {
        !self.value.is_null()
    }

    /// Whether it is there and says something.
    pub(crate) fn is_set(&self) -> bool {
        match self.value {
            Value::Null => false,
            Value::String(s) => !s.is_empty(),
            Value::Array(a) => !a.is_empty(),
            Value::Object(m) => !m.is_empty(),
            Value::Bool(b) => *b,
            Value::Number(n) => n.as_f64() != Some(0.0),
        }
    }

    pub(crate) fn text(&self) -> Option<&'a str> {
        self.value.as_str()
    }

    /// The text of a field; empty if there is none.
    pub(crate) fn str(&self, key: &str) -> &'a str {
        self.value.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    pub(crate) fn number(&self) -> Option<f64> {
        self.value.as_f64().or_else(|| self.value.as_str()?.parse().ok())
    }

    pub(crate) fn flag(&self, key: &str) -> bool {
        self.value.get(key).and_then(Value::as_bool).unwrap_or_default()
    }

    pub(crate) fn items(&self, key: &str) -> Vec<At<'a>> {
        let list = self.value.get(key).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        list.iter().enumerate().map(|(i, value)| At { value, path: format!("{}.{key}[{i}]", self.path) }).collect()
    }

    pub(crate) fn texts(&self, key: &str) -> Vec<&'a str> {
        self.value.get(key).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
    }

    pub(crate) fn fields(&self, key: &str) -> Vec<(&'a str, At<'a>)> {
        let map = self.value.get(key).and_then(Value::as_object);
        map.into_iter().flatten().map(|(k, value)| (k.as_str(), At { value, path: format!("{}.{key}[{k:?}]", self.path) })).collect()
    }

    pub(crate) fn is_empty_map(&self) -> bool {
        self.value.as_object().is_some_and(serde_json::Map::is_empty)
    }
}
