//! AdmissionReview (admission.k8s.io): what the API server asks, and what it wants to hear.

use std::borrow::Cow;

use base64::Engine;
use serde::Deserialize;
use serde_json::{Value, json};

/// A review. Of what comes in, only this is kept: the old object may be as large as the new one, and nobody asks for it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review {
    api_version: String,
    kind: String,
    request: Option<Request>,
}

/// What is asked.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
pub struct Request {
    /// Of this one question.
    pub uid: String,
    /// What the object is.
    pub kind: GroupVersionKind,
    /// Where it is; empty for objects of the cluster.
    pub namespace: String,
    /// Its name, if it has one yet.
    pub name: String,
    /// `CREATE`, `UPDATE`, `DELETE` or `CONNECT`.
    pub operation: String,
    /// The object.
    pub object: Value,
}

/// What an object is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct GroupVersionKind {
    pub group: String,
    pub version: String,
    pub kind: String,
}

/// Why a body is no review.
#[derive(Debug, thiserror::Error)]
pub enum ReviewError {
    /// Nested so deeply that it is an attack.
    #[error("nested too deeply")]
    TooDeep,
    /// Of so many small parts that it would take far more memory than it is long.
    #[error("too many values")]
    TooMany,
    /// Something else.
    #[error("could not decode body: {0}")]
    Undecodable(String),
}

/// A review that was understood, with the version that the answer must have.
#[derive(Debug)]
pub struct Question {
    api_version: String,
    /// What is asked.
    pub request: Request,
}

/// Most values of a review. One takes up to a hundred bytes of memory and as little as two of text; what people write has ten
/// times as much text for each.
const VALUES: usize = 120_000;

/// How many values a text has at most, without reading them: each but the first follows a comma or opens a list or a map.
fn values(body: &[u8]) -> usize {
    let (mut count, mut in_text, mut escaped) = (0, false, false);
    for byte in body {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b',' | b'[' | b'{' if !in_text => count += 1,
            _ => {}
        }
    }
    count
}

impl Question {
    /// Reads a body.
    pub fn parse(body: &[u8]) -> Result<Question, ReviewError> {
        if values(body) > VALUES {
            return Err(ReviewError::TooMany);
        }
        let review: Review = serde_json::from_slice(body).map_err(|e| {
            let text = e.to_string();
            if text.starts_with("recursion limit") { ReviewError::TooDeep } else { ReviewError::Undecodable(text) }
        })?;
        let known = ["admission.k8s.io/v1", "admission.k8s.io/v1beta1"].contains(&review.api_version.as_str());
        if !known || review.kind != "AdmissionReview" {
            return Err(ReviewError::Undecodable(format!("{} {} is not an AdmissionReview", review.api_version, review.kind)));
        }
        let request = review.request.ok_or_else(|| ReviewError::Undecodable("it has no request".to_owned()))?;
        Ok(Question { api_version: review.api_version, request })
    }

    /// The answer as a body.
    pub fn answer(&self, answer: &Answer) -> String {
        let mut response = answer.response();
        response["uid"] = json!(self.request.uid);
        json!({"apiVersion": self.api_version, "kind": "AdmissionReview", "response": response}).to_string()
    }
}

/// What is answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// As it is, with warnings for whoever applies it.
    Allowed(Vec<String>),
    /// With these changes.
    Patched(Value),
    /// No, and why.
    Denied(Cow<'static, str>),
}

/// Longest text of all warnings: the API server cuts more off.
const WARNINGS: usize = 4000;

impl Answer {
    pub(crate) fn response(&self) -> Value {
        match self {
            Answer::Allowed(warnings) if warnings.is_empty() => json!({"allowed": true}),
            Answer::Allowed(warnings) => {
                let mut room = WARNINGS;
                let fit = |w: &&String| {
                    let fits = w.len() <= room;
                    room = room.saturating_sub(w.len());
                    fits
                };
                json!({"allowed": true, "warnings": warnings.iter().take_while(fit).collect::<Vec<_>>()})
            }
            Answer::Patched(patch) => {
                let patch = base64::engine::general_purpose::STANDARD.encode(patch.to_string());
                json!({"allowed": true, "patchType": "JSONPatch", "patch": patch})
            }
            Answer::Denied(message) => json!({"allowed": false, "status": {"message": message}}),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_and_uids_come_back() {
        for version in ["v1", "v1beta1"] {
            let body = json!({"apiVersion": format!("admission.k8s.io/{version}"), "kind": "AdmissionReview",
                "request": {"uid": "u1", "kind": {"kind": "Pod", "version": "v1"}, "operation": "CREATE", "object": {"a": 1}, "oldObject": null}});
            let question = Question::parse(body.to_string().as_bytes()).unwrap();
            let answer: Value = serde_json::from_str(&question.answer(&Answer::Denied("no".into()))).unwrap();
            let wanted = json!({"apiVersion": format!("admission.k8s.io/{version}"), "kind": "AdmissionReview",
                "response": {"uid": "u1", "allowed": false, "status": {"message": "no"}}});
            assert_eq!(answer, wanted);
        }
    }

    #[test]
    fn other_bodies_are_refused() {
        for (body, reason) in [
            ("{}", "could not decode body: missing field"),
            ("[", "could not decode body: EOF"),
            (r#"{"apiVersion":"v1","kind":"Pod"}"#, "v1 Pod is not an AdmissionReview"),
            (r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}"#, "it has no request"),
        ] {
            let e = Question::parse(body.as_bytes()).unwrap_err().to_string();
            assert!(e.contains(reason), "{e}");
        }
        let deep = format!(r#"{{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{{"object":{}"#, "[".repeat(100_000));
        assert!(matches!(Question::parse(deep.as_bytes()), Err(ReviewError::TooDeep)));
    }
}
