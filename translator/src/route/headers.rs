//! Header operations of VirtualServices.

use pilotfish_envoy::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use pilotfish_envoy::pb::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use pilotfish_model::name::Str;
use pilotfish_model::virtual_service::{HeaderOperations, HeaderOps};

/// Operations as Envoy takes them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Operations {
    /// Added to or set on requests.
    pub request_add: Vec<HeaderValueOption>,
    /// Removed from requests.
    pub request_remove: Vec<String>,
    /// Added to or set on responses.
    pub response_add: Vec<HeaderValueOption>,
    /// Removed from responses.
    pub response_remove: Vec<String>,
    /// What the host of requests becomes.
    pub authority: Option<String>,
}

/// Envoy refuses operations on the host and on pseudo-headers; setting the host of requests is a rewrite of its own.
pub fn operations(operations: Option<&HeaderOperations>) -> Operations {
    let Some(operations) = operations else { return Operations::default() };
    let named = operations.request.set.iter().chain(&operations.request.add).find(|(name, _)| is_authority(name));
    let authority = named.map(|(_, value)| str::to_owned(value));
    Operations {
        request_add: add(&operations.request),
        request_remove: remove(&operations.request),
        response_add: add(&operations.response),
        response_remove: remove(&operations.response),
        authority,
    }
}

/// Tells clients that they may come by HTTP/3 from now on (RFC 7838), for a day.
pub fn alternative_service(port: u16) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue { key: "alt-svc".to_owned(), value: format!("h3=\":{port}\"; ma=86400"), ..Default::default() }),
        append_action: HeaderAppendAction::AppendIfExistsOrAdd.into(),
        ..Default::default()
    }
}

impl Operations {
    /// Both, this one's first; of two hosts this one's.
    pub fn then(mut self, other: Operations) -> Operations {
        self.request_add.extend(other.request_add);
        self.request_remove.extend(other.request_remove);
        self.response_add.extend(other.response_add);
        self.response_remove.extend(other.response_remove);
        self.authority = self.authority.or(other.authority);
        self
    }
}

fn add(ops: &HeaderOps) -> Vec<HeaderValueOption> {
    let option = |(name, value): &(Str, Str), action: HeaderAppendAction| HeaderValueOption {
        header: Some(HeaderValue { key: str::to_owned(name), value: str::to_owned(value), ..Default::default() }),
        append_action: action.into(),
        ..Default::default()
    };
    let set = ops.set.iter().filter(|(name, _)| !is_internal(name)).map(|h| option(h, HeaderAppendAction::OverwriteIfExistsOrAdd));
    let add = ops.add.iter().filter(|(name, _)| !is_internal(name)).map(|h| option(h, HeaderAppendAction::AppendIfExistsOrAdd));
    set.chain(add).collect()
}

fn remove(ops: &HeaderOps) -> Vec<String> {
    ops.remove.iter().filter(|name| !is_internal(name)).map(|name| str::to_owned(name)).collect()
}

fn is_internal(name: &str) -> bool {
    name.starts_with(':') || name.eq_ignore_ascii_case("host")
}

fn is_authority(name: &str) -> bool {
    name.eq_ignore_ascii_case(":authority") || name.eq_ignore_ascii_case("host")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_rewritten_and_pseudo_headers_stay() {
        let set = vec![(":authority".into(), "a.example".into()), (":path".into(), "/".into()), ("x".into(), "1".into())];
        let request = HeaderOps { set, remove: vec!["Host".into(), "y".into()], ..Default::default() };
        let made = operations(Some(&HeaderOperations { request, ..Default::default() }));
        assert_eq!(made.authority.as_deref(), Some("a.example"));
        assert_eq!(made.request_add.iter().map(|h| h.header.clone().unwrap().key).collect::<Vec<_>>(), ["x"]);
        assert_eq!(made.request_remove, ["y"]);
    }
}
