//! Answers of the API server, in either format, as what the index takes in.

use std::sync::Arc;

use pilotfish_model::{Kind, ObjectId};
use serde_json::Value;

use super::driver::{Failure, Reply};
use super::proto;
use crate::convert::{Context, REVISION};
use crate::index::Input;
use crate::object::{DecodeError, Decoded, decode, served_version};
use crate::status::{Observed, WRITTEN};

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Protobuf,
}

pub(super) const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// On the bookmark that ends the list part of a stream.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

impl Format {
    /// From a content type.
    pub(super) fn of(content_type: Option<&str>) -> Format {
        if content_type.is_some_and(|t| t.starts_with(PROTOBUF)) { Format::Protobuf } else { Format::Json }
    }
}

/// An answer that makes no sense as a whole.
#[derive(Debug, thiserror::Error)]
#[error("cannot be understood: {0}")]
pub(super) struct Nonsense(String);

impl From<super::wire::Malformed> for Nonsense {
    fn from(e: super::wire::Malformed) -> Self {
        Nonsense(e.to_string())
    }
}

impl From<serde_json::Error> for Nonsense {
    fn from(e: serde_json::Error) -> Self {
        Nonsense(e.to_string())
    }
}

pub(super) type KubeReply = Reply<ObjectId, Input>;

/// Reads objects of one kind.
pub(super) struct Decoder {
    pub(super) kind: Kind,
    pub(super) context: Context,
}

/// An object on its way to becoming an input.
struct Item {
    input: Input,
    version: String,
    /// It is another revision's, which is as good as if it were not there.
    foreign: bool,
}

impl Decoder {
    /// One event of a watch. `None`: of a type that is not known.
    pub(super) fn event(&self, format: Format, frame: &[u8]) -> Result<Option<KubeReply>, Nonsense> {
        match format {
            Format::Protobuf => {
                let (event, object) = proto::event(frame)?;
                match event {
                    "BOOKMARK" => {
                        let head = proto::head(object, &self.context.strings)?;
                        let complete = head.annotations.contains_key(INITIAL_EVENTS_END);
                        Ok(Some(Reply::Bookmark { version: head.version, complete }))
                    }
                    "ERROR" => {
                        let (code, message) = proto::status(object)?;
                        Ok(Some(Reply::Failed(self.failure(code, &message))))
                    }
                    event => Ok(reply(event, self.protobuf_object(object)?)),
                }
            }
            Format::Json => {
                let mut frame: Value = serde_json::from_slice(frame)?;
                let mut object = frame.get_mut("object").map(Value::take).unwrap_or_default();
                let event = frame.get("type").and_then(Value::as_str).unwrap_or_default();
                match event {
                    "BOOKMARK" => {
                        let complete = object.pointer("/metadata/annotations").is_some_and(|a| a.get(INITIAL_EVENTS_END).is_some());
                        Ok(Some(Reply::Bookmark { version: json_text(&object, "/metadata/resourceVersion").to_owned(), complete }))
                    }
                    "ERROR" => {
                        let (code, message) = json_status(&object);
                        Ok(Some(Reply::Failed(self.failure(code, &message))))
                    }
                    event => Ok(reply(event, self.json_object(&mut object)?)),
                }
            }
        }
    }

    /// A page of a list.
    pub(super) fn page(&self, format: Format, body: &[u8]) -> Result<KubeReply, Nonsense> {
        let (version, token, items) = match format {
            Format::Protobuf => {
                let (version, token, items) = proto::list(proto::unwrap(body)?)?;
                (version, token, items.into_iter().map(|i| self.protobuf_object(i)).collect::<Result<Vec<_>, _>>()?)
            }
            Format::Json => {
                let mut list: Value = serde_json::from_slice(body)?;
                let text = |path| json_text(&list, path).to_owned();
                let (version, token) = (text("/metadata/resourceVersion"), text("/metadata/continue"));
                let items = list.get_mut("items").and_then(Value::as_array_mut).map(std::mem::take).unwrap_or_default();
                (version, token, items.into_iter().map(|mut i| self.json_object(&mut i)).collect::<Result<Vec<_>, _>>()?)
            }
        };
        let items = items.into_iter().map(|i| (i.input.id.clone(), (!i.foreign).then_some(i.input), i.version)).collect();
        Ok(Reply::Page { items, version, token: Some(token).filter(|t| !t.is_empty()) })
    }

    /// What a refusal says.
    pub(super) fn status(&self, format: Format, body: &[u8]) -> String {
        let said = match format {
            Format::Protobuf => proto::unwrap(body).and_then(proto::status).map(|(_, message)| message).unwrap_or_default(),
            Format::Json => serde_json::from_slice(body).map(|status| json_status(&status).1).unwrap_or_default(),
        };
        if said.is_empty() { String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned() } else { said }
    }

    fn failure(&self, code: u16, message: &str) -> Failure {
        tracing::debug!(kind = self.kind.as_str(), code, message, "the watch was ended with an error");
        if code == 410 { Failure::Gone } else { Failure::Refused }
    }

    fn protobuf_object(&self, object: &[u8]) -> Result<Item, Nonsense> {
        let head = proto::head(object, &self.context.strings)?;
        let version = head.version.clone();
        let id = ObjectId { kind: self.kind, namespace: head.namespace.clone(), name: head.name.clone() };
        let input = match proto::object(self.kind, head, object) {
            Ok(object) => Input::of(&object, &self.context),
            Err(e) => Input::refused(id, &DecodeError { field: String::new(), message: e.to_string() }),
        };
        Ok(Item { input, version, foreign: false })
    }

    fn json_object(&self, object: &mut Value) -> Result<Item, Nonsense> {
        let version = json_text(object, "/metadata/resourceVersion").to_owned();
        let (namespace, name) = (json_text(object, "/metadata/namespace"), json_text(object, "/metadata/name"));
        if name.is_empty() {
            return Err(Nonsense("an object without a name".into()));
        }
        let id = ObjectId::new(self.kind, namespace, name);
        // Items of a list leave out what is the same for all.
        if let Some(map) = object.as_object_mut() {
            let group = self.kind.group();
            let dot = if group.is_empty() { "" } else { "/" };
            map.entry("apiVersion").or_insert_with(|| format!("{group}{dot}{}", served_version(self.kind)).into());
            map.entry("kind").or_insert_with(|| self.kind.as_str().into());
        }
        let revision = object.pointer("/metadata/labels").and_then(|labels| labels.get(REVISION)).and_then(Value::as_str);
        if !self.context.owns(self.kind, revision) {
            return Ok(Item { input: Input::empty(id), version, foreign: true });
        }
        let status = WRITTEN.contains(&self.kind).then(|| Arc::new(Observed::of(object)));
        let mut input = match decode(object.take()) {
            Ok(Decoded::Object(object)) if object.id == id => Input::of(&object, &self.context),
            Ok(_) => Input::refused(id, &DecodeError { field: "kind".into(), message: "is not what was asked for".into() }),
            Err(e) => Input::refused(id, &e),
        };
        input.status = status;
        Ok(Item { input, version, foreign: false })
    }
}

fn reply(event: &str, item: Item) -> Option<KubeReply> {
    let Item { input, version, foreign } = item;
    match event {
        "ADDED" | "MODIFIED" => Some(Reply::Applied { key: input.id.clone(), value: (!foreign).then_some(input), version }),
        "DELETED" => Some(Reply::Deleted { key: input.id, version }),
        _ => None,
    }
}

fn json_text<'a>(value: &'a Value, path: &str) -> &'a str {
    value.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

fn json_status(status: &Value) -> (u16, String) {
    let code = status.get("code").and_then(Value::as_u64).and_then(|c| u16::try_from(c).ok());
    (code.unwrap_or(0), json_text(status, "/message").to_owned())
}
