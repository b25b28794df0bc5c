//! VirtualServices whose rules live in other VirtualServices.

use std::sync::Arc;

use pilotfish_model::matching::StringMatch;
use pilotfish_model::mesh::ObjectKey;
use pilotfish_model::name::Str;
use pilotfish_model::virtual_service::{HttpMatch, HttpRoute};
use pilotfish_model::{Mesh, VirtualService};

/// The VirtualService with the rules of its delegates in their place. A delegate that does not exist, is not exported to
/// the root's namespace, has hosts or delegates in turn contributes nothing.
pub fn resolve(mesh: &Mesh, route: &Arc<VirtualService>) -> Arc<VirtualService> {
    if route.http.iter().all(|r| r.delegate.is_none()) {
        return route.clone();
    }
    let http = route.http.iter().flat_map(|rule| match &rule.delegate {
        None => vec![rule.clone()],
        Some(to) => {
            let key = ObjectKey { namespace: to.namespace.clone(), name: to.name.clone() };
            let delegate = mesh.virtual_services.get(&key).filter(|d| d.hosts.is_empty() && is_exported(mesh, d, &route.meta.namespace));
            delegate.into_iter().flat_map(|d| &d.http).filter_map(|r| merge(rule, r)).collect()
        }
    });
    Arc::new(VirtualService { http: http.collect(), ..(**route).clone() })
}

fn is_exported(mesh: &Mesh, delegate: &VirtualService, to: &str) -> bool {
    delegate.visibility_in(&mesh.config).allows(&delegate.meta.namespace, to)
}

/// A delegate's rule below the root's: both conditions hold, and what the delegate leaves out comes from the root. `None`
/// if the conditions contradict each other.
fn merge(root: &HttpRoute, rule: &HttpRoute) -> Option<HttpRoute> {
    if rule.delegate.is_some() {
        return None;
    }
    let mut merged = rule.clone();
    merged.matches = merge_matches(&root.matches, &rule.matches)?;
    merged.name = join(&root.name, &rule.name);
    fn fill<T: Clone>(into: &mut Option<T>, from: &Option<T>) {
        if into.is_none() {
            into.clone_from(from);
        }
    }
    fill(&mut merged.rewrite, &root.rewrite);
    fill(&mut merged.direct_response, &root.direct_response);
    fill(&mut merged.timeout, &root.timeout);
    fill(&mut merged.retries, &root.retries);
    fill(&mut merged.fault, &root.fault);
    fill(&mut merged.cors, &root.cors);
    if merged.mirrors.is_empty() {
        merged.mirrors.clone_from(&root.mirrors);
    }
    fill(&mut merged.headers, &root.headers);
    Some(merged)
}

fn join(root: &Str, own: &Str) -> Str {
    match (root.is_empty(), own.is_empty()) {
        (_, true) => root.clone(),
        (true, _) => own.clone(),
        _ => format!("{root}-{own}").into(),
    }
}

/// Each of the delegate's conditions under each of the root's that it can be met with. A condition that fits under none
/// makes the whole rule void.
fn merge_matches(root: &[HttpMatch], own: &[HttpMatch]) -> Option<Vec<HttpMatch>> {
    if root.is_empty() || own.is_empty() {
        return Some(if root.is_empty() { own } else { root }.to_vec());
    }
    let mut merged = Vec::new();
    for condition in own {
        let before = merged.len();
        merged.extend(root.iter().filter(|r| !conflict(r, condition)).map(|r| merge_match(r, condition)));
        if merged.len() == before {
            return None;
        }
    }
    Some(merged)
}

type Named = Vec<(Str, Option<StringMatch>)>;

fn merge_match(root: &HttpMatch, own: &HttpMatch) -> HttpMatch {
    // Conditions on one name: the delegate's is the narrower one.
    let union = |root: &Named, own: &Named| {
        let mut all: Named = root.iter().filter(|(n, _)| own.iter().all(|(o, _)| o != n)).chain(own).cloned().collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    };
    let mut source_labels = root.source_labels.clone();
    source_labels.extend(own.source_labels.clone());
    HttpMatch {
        name: join(&root.name, &own.name),
        uri: own.uri.clone().or_else(|| root.uri.clone()),
        scheme: own.scheme.clone().or_else(|| root.scheme.clone()),
        method: own.method.clone().or_else(|| root.method.clone()),
        authority: own.authority.clone().or_else(|| root.authority.clone()),
        headers: union(&root.headers, &own.headers),
        without_headers: union(&root.without_headers, &own.without_headers),
        query_params: union(&root.query_params, &own.query_params),
        ignore_uri_case: own.ignore_uri_case,
        port: own.port.or(root.port),
        source_labels,
        source_namespace: own.source_namespace.clone().or_else(|| root.source_namespace.clone()),
        gateways: if own.gateways.is_empty() { root.gateways.clone() } else { own.gateways.clone() },
        stat_prefix: if own.stat_prefix.is_empty() { root.stat_prefix.clone() } else { own.stat_prefix.clone() },
    }
}

/// True if no request can meet both, or a condition of the delegate is wider than the root's.
fn conflict(root: &HttpMatch, own: &HttpMatch) -> bool {
    let texts = [(&root.uri, &own.uri), (&root.scheme, &own.scheme), (&root.method, &own.method), (&root.authority, &own.authority)];
    let named = |root: &Named, own: &Named| {
        // That something is there at all goes with no condition on its value.
        let of_value = |r: &Option<StringMatch>, o: &Option<StringMatch>| match (r, o) {
            (Some(r), Some(o)) => texts_conflict(Some(r), Some(o)),
            _ => true,
        };
        own.iter().any(|(name, o)| root.iter().any(|(n, r)| n == name && of_value(r, o)))
    };
    texts.into_iter().any(|(r, o)| texts_conflict(r.as_ref(), o.as_ref()))
        || named(&root.headers, &own.headers)
        || named(&root.without_headers, &own.without_headers)
        || named(&root.query_params, &own.query_params)
        || root.ignore_uri_case != own.ignore_uri_case
        || matches!((root.port, own.port), (Some(a), Some(b)) if a != b)
        || root.source_namespace.as_ref().is_some_and(|namespace| own.source_namespace.as_ref() != Some(namespace))
        || own.source_labels.iter().any(|(k, v)| root.source_labels.get(k).is_some_and(|r| r != v))
        || (!root.gateways.is_empty() && own.gateways.iter().any(|g| !root.gateways.contains(g)))
}

/// Patterns cannot be compared, so they go with nothing.
fn texts_conflict(root: Option<&StringMatch>, own: Option<&StringMatch>) -> bool {
    let (Some(root), Some(own)) = (root, own) else { return false };
    match (root, own) {
        (StringMatch::Regex(_), _) | (_, StringMatch::Regex(_)) => true,
        (StringMatch::Exact(r), StringMatch::Exact(o)) => r != o,
        (StringMatch::Exact(_), StringMatch::Prefix(_)) => true,
        (StringMatch::Prefix(r), StringMatch::Prefix(o) | StringMatch::Exact(o)) => !o.starts_with(&**r),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn under(prefix: &str) -> HttpMatch {
        HttpMatch { uri: Some(StringMatch::Prefix(prefix.into())), ..Default::default() }
    }

    #[test]
    fn conditions_of_root_and_delegate_hold_both() {
        let gold = HttpMatch { headers: vec![("tier".into(), None)], ..under("/stock") };
        let root = [gold.clone(), under("/inventory")];
        let api = HttpMatch { headers: vec![("api".into(), None)], ..Default::default() };
        let merged = merge_matches(&root, &[under("/stock/items"), api.clone()]).unwrap();
        let both = vec![("api".into(), None), ("tier".into(), None)];
        let expected = [
            HttpMatch { headers: gold.headers.clone(), ..under("/stock/items") },
            HttpMatch { headers: both, ..under("/stock") },
            HttpMatch { headers: api.headers, ..under("/inventory") },
        ];
        assert_eq!(merged, expected);
        assert_eq!(merge_matches(&root, &[under("/elsewhere")]), None);
    }

    #[test]
    fn what_the_root_demands_of_clients_the_delegate_demands_as_well() {
        let from = |namespace: Option<&str>| HttpMatch { source_namespace: namespace.map(Into::into), ..Default::default() };
        let with = |value: Option<&str>| HttpMatch {
            headers: vec![("tier".into(), value.map(|v| StringMatch::Exact(v.into())))],
            ..Default::default()
        };
        for (root, own, fits) in [
            (from(Some("a")), from(Some("a")), true),
            (from(Some("a")), from(None), false),
            (from(None), from(Some("a")), true),
            (with(Some("gold")), with(Some("gold")), true),
            (with(None), with(Some("gold")), false),
            (with(None), with(None), false),
        ] {
            assert_eq!(merge_matches(std::slice::from_ref(&root), std::slice::from_ref(&own)).is_some(), fits, "{root:?} {own:?}");
        }
    }

    #[test]
    fn the_delegate_wins_and_the_root_fills_gaps() {
        let second = Some(std::time::Duration::from_secs(1));
        let root = HttpRoute { name: "root".into(), timeout: second, ..Default::default() };
        let own = HttpRoute { name: "own".into(), ..Default::default() };
        assert_eq!(merge(&root, &own).unwrap(), HttpRoute { name: "root-own".into(), timeout: second, ..Default::default() });
    }
}
