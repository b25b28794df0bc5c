//! What conditions of AuthorizationPolicies compare, and with what.

use std::net::IpAddr;

use ipnet::IpNet;
use pilotfish_model::authorization_policy::{Attribute, Value};

use crate::convert::fields::{Path, Scope};

/// How values of an attribute are written.
#[derive(Clone, Copy)]
pub(super) enum Form {
    /// Any text.
    Text,
    /// A text that may be a path template.
    Path,
    /// An address or a range of them.
    Net,
    /// A port.
    Port,
    /// A service account, with its namespace or without.
    Account,
}

pub(super) fn all(scope: &mut Scope<'_>, path: &Path<'_>, form: Form, texts: &[String]) -> Vec<Value> {
    texts.iter().enumerate().map(|(i, text)| one(scope, &path.index(i), form, text)).collect()
}

fn one(scope: &mut Scope<'_>, path: &Path<'_>, form: Form, text: &str) -> Value {
    let parsed = match form {
        Form::Text => Ok(Value::Text(scope.share(text))),
        Form::Path if text.contains("{*}") || text.contains("{**}") => template(text).map(|t| Value::Template(t.as_str().into())),
        Form::Path => Ok(Value::Text(scope.share(text))),
        Form::Net => net(text).map(Value::Net).ok_or("is neither an address nor a range in CIDR notation"),
        Form::Port => text.parse().ok().filter(|p| *p > 0).map(Value::Port).ok_or("is not a port between 1 and 65535"),
        Form::Account => account(text, scope.namespace()).map(|a| Value::Text(scope.share(&a))),
    };
    parsed.unwrap_or_else(|complaint| {
        scope.error(path, format!("{text:?} {complaint}"));
        Value::Invalid
    })
}

fn net(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

fn account(text: &str, namespace: &str) -> Result<String, &'static str> {
    let (namespace, name) = text.split_once('/').unwrap_or((namespace, text));
    if namespace.is_empty() || name.is_empty() || name.contains('/') {
        return Err("must be NAMESPACE/NAME or NAME");
    }
    Ok(format!("{namespace}/{name}"))
}

/// A path of which some segments are operators: `{*}` for one segment, `{**}` for any rest. The result is in the notation of
/// Envoy, which refuses a whole listener for a template that it cannot read.
fn template(text: &str) -> Result<String, &'static str> {
    // With room for what the notation changes.
    if text.len() > 256 {
        return Err("is not a path template: it is longer than 256 bytes");
    }
    let path = text.strip_prefix('/').ok_or("is not a path template: it must start with /")?;
    let is_literal = |c: char| c.is_ascii_alphanumeric() || "-._~%!$&'()+,;:@=".contains(c);
    let mut rest_taken = false;
    let mut out = String::with_capacity(text.len());
    for segment in path.split('/') {
        out.push('/');
        match segment {
            "{*}" | "{**}" if rest_taken => return Err("is not a path template: no operator may follow {**}"),
            "{*}" => out.push('*'),
            "{**}" => {
                rest_taken = true;
                out.push_str("**");
            }
            literal if !literal.is_empty() && literal.chars().all(is_literal) => out.push_str(literal),
            _ => return Err("is not a path template: each segment must be {*}, {**} or plain text"),
        }
    }
    Ok(out)
}

/// What the key of a condition means.
pub(super) fn attribute(key: &str) -> Option<(Attribute, Form)> {
    use Attribute::*;
    let known = match key {
        "source.ip" => (SourceIp, Form::Net),
        "remote.ip" => (RemoteIp, Form::Net),
        "source.namespace" => (Namespace, Form::Text),
        "source.serviceAccount" => (ServiceAccount, Form::Account),
        "source.trustDomain" => (TrustDomain, Form::Text),
        "source.principal" => (Principal, Form::Text),
        "request.auth.principal" => (RequestPrincipal, Form::Text),
        "request.auth.audiences" => (Audiences, Form::Text),
        "request.auth.presenter" => (Presenter, Form::Text),
        "destination.ip" => (DestinationIp, Form::Net),
        "destination.port" => (DestinationPort, Form::Port),
        "connection.sni" => (Sni, Form::Text),
        _ => return Some((by_name(key)?, Form::Text)),
    };
    Some(known)
}

/// Keys with a name in brackets, or several.
fn by_name(key: &str) -> Option<Attribute> {
    let (name, rest) = key.split_once('[')?;
    let inner = rest.strip_suffix(']').filter(|i| !i.is_empty() && !i.contains(['\0', '\n', '\r']))?;
    match name {
        "request.headers" => Some(Attribute::Header(inner.into())),
        "request.experimental.inline.headers" => Some(Attribute::ListedHeader(inner.into())),
        "request.auth.claims" => {
            let path: Vec<_> = inner.split("][").collect();
            path.iter().all(|p| !p.is_empty()).then(|| Attribute::Claim(path.into_iter().map(Into::into).collect()))
        }
        _ => {
            let filter = name.strip_prefix("experimental.").filter(|f| f.starts_with("envoy.filters."))?;
            Some(Attribute::FilterMetadata { filter: filter.into(), key: inner.into() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_that_envoy_would_refuse_are_refused() {
        for (text, expected) in [
            ("/a/{*}/b", Some("/a/*/b")),
            ("/{**}/b", Some("/**/b")),
            ("/a/{*}/{**}", Some("/a/*/**")),
            ("a/{*}", None),
            ("/{**}/{*}", None),
            ("/{**}/{**}", None),
            ("/a{*}", None),
            ("/a//{*}", None),
            ("/{a}/{*}", None),
            ("/*/{*}", None),
        ] {
            assert_eq!(template(text).ok().as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn keys_with_names() {
        let claim = |path: &[&str]| Some(Attribute::Claim(path.iter().map(|p| (*p).into()).collect()));
        for (key, expected) in [
            ("request.headers[x-a]", Some(Attribute::Header("x-a".into()))),
            ("request.experimental.inline.headers[x-a]", Some(Attribute::ListedHeader("x-a".into()))),
            ("request.headers[]", None),
            ("request.headers", None),
            ("request.auth.claims[a]", claim(&["a"])),
            ("request.auth.claims[a.b][c]", claim(&["a.b", "c"])),
            ("request.auth.claims[a][]", None),
            (
                "experimental.envoy.filters.network.mysql_proxy[db.table]",
                Some(Attribute::FilterMetadata { filter: "envoy.filters.network.mysql_proxy".into(), key: "db.table".into() }),
            ),
            ("experimental.other[a]", None),
            ("source.ports", None),
        ] {
            assert_eq!(attribute(key).map(|(a, _)| a), expected, "{key}");
        }
    }
}
