//! What is wrong with a user's object, said to the user.

use std::fmt;

use serde::Serialize;

use crate::name::ObjectId;

/// How bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Works, but probably not as meant.
    Warning,
    /// The object, or the named part of it, has no effect; its last good form stays.
    Error,
}

/// A finding about one object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Diagnostic {
    /// How bad.
    pub severity: Severity,
    /// The object.
    pub object: ObjectId,
    /// Path of the field, such as `spec.http[0].timeout`; empty if it is about the whole.
    pub field: String,
    /// What is wrong, for a person.
    pub message: String,
}

impl Diagnostic {
    /// An error.
    pub fn error(object: &ObjectId, field: impl Into<String>, message: impl Into<String>) -> Self {
        Diagnostic { severity: Severity::Error, object: object.clone(), field: field.into(), message: message.into() }
    }

    /// A warning.
    pub fn warning(object: &ObjectId, field: impl Into<String>, message: impl Into<String>) -> Self {
        Diagnostic { severity: Severity::Warning, ..Self::error(object, field, message) }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.object)?;
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)
    }
}
