//! Limits of the connections that a proxy takes, and how it reads what comes over them.

use std::time::Duration;

use serde::{Deserialize, Deserializer};

use crate::time::Span;

/// What is said of a proxy's connections; `None` leaves Envoy's default, or the mesh's. Agents describe themselves with it: a value
/// that makes no sense counts as not said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct ConnectionSettings {
    #[serde(deserialize_with = "one_of")]
    pub profile: Option<Profile>,
    /// Bytes.
    #[serde(deserialize_with = "number")]
    pub listener_per_connection_buffer_limit_bytes: Option<u32>,
    /// Bytes.
    #[serde(deserialize_with = "number")]
    pub cluster_per_connection_buffer_limit_bytes: Option<u32>,
    pub http_idle_timeout: Option<Span>,
    pub http_max_connection_duration: Option<Span>,
    pub http_max_stream_duration: Option<Span>,
    pub http_stream_idle_timeout: Option<Span>,
    pub http_request_timeout: Option<Span>,
    pub http_request_headers_timeout: Option<Span>,
    pub http_drain_timeout: Option<Span>,
    #[serde(deserialize_with = "number")]
    pub http_max_concurrent_streams: Option<u32>,
    /// Bytes.
    #[serde(rename = "http2InitialStreamWindowSize", deserialize_with = "number")]
    pub http2_initial_stream_window_size: Option<u32>,
    /// Bytes.
    #[serde(rename = "http2InitialConnectionWindowSize", deserialize_with = "number")]
    pub http2_initial_connection_window_size: Option<u32>,
    #[serde(deserialize_with = "one_of")]
    pub http_headers_with_underscores_action: Option<Underscores>,
    pub http_merge_slashes: Option<bool>,
    #[serde(deserialize_with = "one_of")]
    pub http_path_with_escaped_slashes_action: Option<EscapedSlashes>,
}

/// A set of values for what is not said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Profile {
    /// None.
    Sidecar,
    /// Clients that nobody knows: what Envoy recommends for them. For gateways only.
    Edge,
    /// Not said.
    #[default]
    #[serde(other)]
    Unspecified,
}

/// What becomes of headers with underscores in their names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[allow(missing_docs)]
pub enum Underscores {
    #[serde(rename = "HEADERS_WITH_UNDERSCORES_ALLOW")]
    Allow,
    #[serde(rename = "HEADERS_WITH_UNDERSCORES_REJECT_REQUEST")]
    RejectRequest,
    #[serde(rename = "HEADERS_WITH_UNDERSCORES_DROP_HEADER")]
    DropHeader,
    #[default]
    #[serde(other)]
    Unspecified,
}

/// What becomes of escaped slashes in paths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[allow(missing_docs)]
pub enum EscapedSlashes {
    KeepUnchanged,
    RejectRequest,
    UnescapeAndRedirect,
    UnescapeAndForward,
    #[default]
    #[serde(other)]
    Unspecified,
}

impl ConnectionSettings {
    /// With the values of its profile, as far as that is for such a proxy.
    pub fn with_profile(mut self, gateway: bool) -> Self {
        if !gateway || self.profile != Some(Profile::Edge) {
            return self;
        }
        let seconds = |n| Some(Span(Duration::from_secs(n)));
        let (buffer, window) = (32 << 10, 64 << 10);
        self.listener_per_connection_buffer_limit_bytes = self.listener_per_connection_buffer_limit_bytes.or(Some(buffer));
        self.cluster_per_connection_buffer_limit_bytes = self.cluster_per_connection_buffer_limit_bytes.or(Some(buffer));
        self.http_idle_timeout = self.http_idle_timeout.or(seconds(3600));
        self.http_stream_idle_timeout = self.http_stream_idle_timeout.or(seconds(300));
        self.http_request_timeout = self.http_request_timeout.or(seconds(300));
        self.http_request_headers_timeout = self.http_request_headers_timeout.or(seconds(60));
        self.http_max_concurrent_streams = self.http_max_concurrent_streams.or(Some(100));
        self.http2_initial_stream_window_size = self.http2_initial_stream_window_size.or(Some(window));
        self.http2_initial_connection_window_size = self.http2_initial_connection_window_size.or(Some(1 << 20));
        self.http_headers_with_underscores_action = self.http_headers_with_underscores_action.or(Some(Underscores::RejectRequest));
        self.http_merge_slashes = self.http_merge_slashes.or(Some(true));
        self.http_path_with_escaped_slashes_action =
            self.http_path_with_escaped_slashes_action.or(Some(EscapedSlashes::UnescapeAndRedirect));
        self
    }
}

fn number<'de, D: Deserializer<'de>>(d: D) -> Result<Option<u32>, D::Error> {
    Ok(Option::<i64>::deserialize(d)?.and_then(|n| u32::try_from(n).ok()))
}

/// The default stands for all that is not known.
fn one_of<'de, T: Deserialize<'de> + Default + PartialEq, D: Deserializer<'de>>(d: D) -> Result<Option<T>, D::Error> {
    Ok(Option::<T>::deserialize(d)?.filter(|v| *v != T::default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: serde_json::Value) -> ConnectionSettings {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_profile_fills_what_is_not_said_and_only_of_gateways() {
        let own = read(serde_json::json!({
            "profile": "EDGE", "httpMaxConcurrentStreams": 7, "httpHeadersWithUnderscoresAction": "HEADERS_WITH_UNDERSCORES_ALLOW",
            "http2InitialStreamWindowSize": -1,
        }));
        assert_eq!(own.clone().with_profile(false), own);
        let edge = own.with_profile(true);
        assert_eq!((edge.http_max_concurrent_streams, edge.http_headers_with_underscores_action), (Some(7), Some(Underscores::Allow)));
        assert_eq!((edge.http2_initial_stream_window_size, edge.http_merge_slashes), (Some(65536), Some(true)));
        assert_eq!(edge.http_path_with_escaped_slashes_action, Some(EscapedSlashes::UnescapeAndRedirect));
    }

    #[test]
    fn what_makes_no_sense_is_not_said() {
        let json = serde_json::json!({"profile": "NEW", "httpPathWithEscapedSlashesAction": "PATH_WITH_ESCAPED_SLASHES_UNSPECIFIED"});
        assert_eq!(read(json), ConnectionSettings::default());
    }
}
