//! [`Scope`] collects what is wrong with one object; [`Path`] names the field in question.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use pilotfish_crds::Num;
use pilotfish_crds::networking::virtual_service::{Percent, StringMatch as ApiMatch};
use pilotfish_model::matching::{Pattern, StringMatch};
use pilotfish_model::name::{Host, Labels, Str, Visibility, resolve_short_host};
use pilotfish_model::time::parse_duration;
use pilotfish_model::virtual_service::Share;
use pilotfish_model::{Diagnostic, Meta, ObjectId};

use super::Context;
use crate::object::Object;

/// A field's path, built while walking down.
#[derive(Clone, Copy)]
pub(super) struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    segment: Segment<'a>,
}

#[derive(Clone, Copy)]
enum Segment<'a> {
    Field(&'a str),
    Index(usize),
    Key(&'a str),
}

impl<'a> Path<'a> {
    /// The root of all paths.
    pub(super) const SPEC: Path<'static> = Path { parent: None, segment: Segment::Field("spec") };

    pub(super) fn root(name: &'a str) -> Path<'a> {
        Path { parent: None, segment: Segment::Field(name) }
    }

    pub(super) fn field(&'a self, name: &'a str) -> Path<'a> {
        Path { parent: Some(self), segment: Segment::Field(name) }
    }

    pub(super) fn index(&'a self, index: usize) -> Path<'a> {
        Path { parent: Some(self), segment: Segment::Index(index) }
    }

    pub(super) fn key(&'a self, key: &'a str) -> Path<'a> {
        Path { parent: Some(self), segment: Segment::Key(key) }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match self.segment {
            Segment::Field(name) if self.parent.is_none() => f.write_str(name),
            Segment::Field(name) => write!(f, ".{name}"),
            Segment::Index(i) => write!(f, "[{i}]"),
            Segment::Key(key) => write!(f, "[{key:?}]"),
        }
    }
}

/// The object being converted. Checks go on after a mistake, so that a user sees all of them at once.
pub(super) struct Scope<'a> {
    pub(super) object: &'a Object,
    pub(super) context: &'a Context,
    pub(super) diagnostics: Vec<Diagnostic>,
    /// What was understood holds in spite of errors: without the object something would be open that should be closed.
    pub(super) counts_with_errors: bool,
}

/// Annotations that mean something to the mesh; others would make no-op edits look like changes.
const ANNOTATIONS: &[&str] = &["istio.io/", ".istio.io/"];

impl<'a> Scope<'a> {
    pub(super) fn new(object: &'a Object, context: &'a Context) -> Self {
        Scope { object, context, diagnostics: Vec::new(), counts_with_errors: false }
    }

    pub(super) fn id(&self) -> &'a ObjectId {
        &self.object.id
    }

    pub(super) fn namespace(&self) -> &'a str {
        &self.object.id.namespace
    }

    /// A string that other objects are likely to have as well.
    pub(super) fn share(&self, text: &str) -> Str {
        self.context.strings.share(text)
    }

    pub(super) fn meta(&self) -> Meta {
        let mut meta = self.object.meta.clone();
        meta.annotations.retain(|k, _| ANNOTATIONS.iter().any(|a| k.contains(a)));
        meta
    }

    /// The same for objects whose own labels nobody reads: a change of these is none.
    pub(super) fn meta_without_labels(&self) -> Meta {
        Meta { labels: Labels::new(), ..self.meta() }
    }

    pub(super) fn annotation(&self, name: &str) -> Option<&'a str> {
        self.object.meta.annotations.get(name).map(|v| &**v)
    }

    pub(super) fn error(&mut self, path: &Path<'_>, message: impl Into<String>) {
        self.diagnostics.push(Diagnostic::error(self.id(), path.to_string(), message));
    }

    pub(super) fn warning(&mut self, path: &Path<'_>, message: impl Into<String>) {
        self.diagnostics.push(Diagnostic::warning(self.id(), path.to_string(), message));
    }

    pub(super) fn duration(&mut self, path: &Path<'_>, text: &Option<String>) -> Option<Duration> {
        match parse_duration(text.as_deref()?) {
            Ok(d) => Some(d),
            Err(e) => {
                self.error(path, e.to_string());
                None
            }
        }
    }

    /// A duration that Envoy takes only if it is longer than nothing.
    pub(super) fn positive_duration(&mut self, path: &Path<'_>, text: &Option<String>) -> Option<Duration> {
        let duration = self.duration(path, text)?;
        if duration.is_zero() {
            self.error(path, "must be longer than 0s");
        }
        Some(duration)
    }

    /// A host that the object refers to; short names belong to its namespace.
    pub(super) fn host(&mut self, path: &Path<'_>, name: &str) -> Host {
        self.check_host(path, name);
        resolve_short_host(name, self.namespace(), &self.context.domain)
    }

    /// A host name may have a wildcard as its first label only.
    pub(super) fn check_host(&mut self, path: &Path<'_>, name: &str) {
        let rest = name.strip_prefix('*').unwrap_or(name);
        let bad = |c: char| c == '*' || c.is_whitespace() || c.is_control() || matches!(c, '/' | '\\' | '@' | '?' | '#' | ',');
        if name.is_empty() {
            self.error(path, "must not be empty");
        } else if name.len() > 255 || rest.contains(bad) {
            self.error(path, format!("{name:?} is not a host name; a wildcard may only stand at its start"));
        }
    }

    pub(super) fn pattern(&mut self, path: &Path<'_>, text: &str) -> Option<Pattern> {
        Pattern::new(text).map_err(|e| self.error(path, e.to_string())).ok()
    }

    /// A match; `None` is presence, which an empty match and the pattern `*` ask for.
    pub(super) fn string_match(&mut self, path: &Path<'_>, m: &ApiMatch) -> Option<StringMatch> {
        match (&m.exact, &m.prefix, &m.regex) {
            (Some(t), None, None) => Some(StringMatch::Exact(t.as_str().into())),
            (None, Some(t), None) => Some(StringMatch::Prefix(t.as_str().into())),
            (None, None, Some(t)) if t == "*" => None,
            (None, None, Some(t)) => self.pattern(&path.field("regex"), t).map(StringMatch::Regex),
            (None, None, None) => None,
            _ => {
                self.error(path, "exact, prefix and regex exclude each other");
                None
            }
        }
    }

    pub(super) fn matches(&mut self, path: &Path<'_>, map: &BTreeMap<String, ApiMatch>) -> Vec<(Str, Option<StringMatch>)> {
        map.iter().map(|(k, m)| (k.as_str().into(), self.string_match(&path.key(k), m))).collect()
    }

    pub(super) fn percent(&mut self, path: &Path<'_>, p: &Option<Percent>) -> Option<Share> {
        let value = p.as_ref()?.value.0;
        if !(0.0..=100.0).contains(&value) {
            self.error(&path.field("value"), format!("{value} is not a percentage between 0 and 100"));
        }
        Some(Share::from_percent(value))
    }

    pub(super) fn visibility(&mut self, path: &Path<'_>, entries: &[String]) -> Option<Visibility> {
        for (i, entry) in entries.iter().enumerate() {
            if !matches!(entry.as_str(), "*" | "." | "~") && !is_label_value(entry) {
                self.error(&path.index(i), format!("{entry:?} is neither a namespace nor one of *, . and ~"));
            }
        }
        Visibility::parse(entries, self.namespace())
    }

    /// A number of which the API's zero value means "not given".
    pub(super) fn positive(&mut self, path: &Path<'_>, n: Num<i32>) -> Option<u32> {
        match u32::try_from(n.0) {
            Ok(0) => None,
            Ok(n) => Some(n),
            Err(_) => {
                self.error(path, format!("{} must not be negative", n.0));
                None
            }
        }
    }

    /// A port between 1 and 65535.
    pub(super) fn port(&mut self, path: &Path<'_>, n: Option<Num<u16>>) -> u16 {
        match n {
            Some(Num(n)) if n > 0 => n,
            Some(_) => {
                self.error(path, "must be between 1 and 65535");
                0
            }
            None => {
                self.error(path, "is missing");
                0
            }
        }
    }
}

fn is_label_value(text: &str) -> bool {
    !text.is_empty() && text.len() <= 63 && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

pub(super) fn labels(map: &BTreeMap<String, String>) -> Labels {
    crate::object::labels(map)
}

pub(super) fn strs(list: &[String]) -> Vec<Str> {
    list.iter().map(|s| s.as_str().into()).collect()
}

pub(super) fn optional(text: &str) -> Option<Str> {
    (!text.is_empty()).then(|| text.into())
}
