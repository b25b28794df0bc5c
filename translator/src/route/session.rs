//! Persistent sessions: a client stays with one server of a service, by a cookie or a header that names it.

use pilotfish_envoy::any;
use pilotfish_envoy::pb::envoy::config::core::v3::TypedExtensionConfig;
use pilotfish_envoy::pb::envoy::extensions::filters::http::stateful_session::v3::stateful_session_per_route::Override;
use pilotfish_envoy::pb::envoy::extensions::filters::http::stateful_session::v3::{StatefulSession, StatefulSessionPerRoute};
use pilotfish_envoy::pb::envoy::extensions::http::stateful_session::cookie::v3::CookieBasedSessionState;
use pilotfish_envoy::pb::envoy::extensions::http::stateful_session::header::v3::HeaderBasedSessionState;
use pilotfish_envoy::pb::envoy::r#type::http::v3::Cookie;
use pilotfish_envoy::pb::google::protobuf::Any;
use pilotfish_model::name::Str;
use pilotfish_model::proxy::Flavour;
use pilotfish_model::{Features, Service};

use crate::extensions::HTTP_STATEFUL_SESSION;
use crate::facts::UnitFacts;

/// What names the server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Session {
    /// A cookie that ends with the client's own session.
    Cookie {
        /// Its name.
        name: Str,
        /// Requests below it carry the cookie.
        path: Str,
    },
    /// A header.
    Header(Str),
}

impl Session {
    /// As a service's labels ask for.
    pub(crate) fn of(features: &Features, class: &UnitFacts, service: &Service) -> Option<Session> {
        if !features.persistent_sessions || class.flavour == Flavour::Grpc || !class.has_extension(HTTP_STATEFUL_SESSION) {
            return None;
        }
        let value = |label: &Str| service.labels.get(label).filter(|v| !v.is_empty());
        let cookie = value(&features.session_cookie_label).map(|value| {
            let (name, path) = value.split_once(':').unwrap_or((value, "/"));
            Session::Cookie { name: name.into(), path: path.into() }
        });
        cookie.or_else(|| value(&features.session_header_label).map(|name| Session::Header(name.clone())))
    }

    /// Under the name of the filter that it is for.
    pub(super) fn per_filter(&self) -> (String, Any) {
        let state = match self {
            Session::Cookie { name, path } => {
                let cookie = Cookie { name: name.to_string(), path: path.to_string(), ttl: Some(Default::default()), ..Default::default() };
                extension("envoy.http.stateful_session.cookie", any(&CookieBasedSessionState { cookie: Some(cookie) }))
            }
            Session::Header(name) => {
                extension("envoy.http.stateful_session.header", any(&HeaderBasedSessionState { name: name.to_string() }))
            }
        };
        let session = StatefulSession { session_state: Some(state), ..Default::default() };
        let own = StatefulSessionPerRoute { r#override: Some(Override::StatefulSession(session)) };
        (HTTP_STATEFUL_SESSION.to_owned(), any(&own))
    }
}

fn extension(name: &str, config: Any) -> TypedExtensionConfig {
    TypedExtensionConfig { name: name.to_owned(), typed_config: Some(config) }
}
