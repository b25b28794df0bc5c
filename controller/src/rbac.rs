//! What this crate asks of a Kubernetes API, as data, and the roles that follow from it.

use pilotfish_model::Kind;
use serde_json::{Value, json};

use crate::roots;
use crate::source::kube::{kinds, path};
use crate::status::WRITTEN;

/// Verbs on resources of a group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// Empty for the core group.
    pub group: &'static str,
    /// As in paths, with subresource: `virtualservices/status`.
    pub resources: Vec<String>,
    /// What is done.
    pub verbs: &'static [&'static str],
    /// Only in the control plane's own namespace.
    pub own_namespace: bool,
    /// Only objects of these names, if there are any.
    pub names: Vec<String>,
}

/// Everything that is used, in the order of what uses it, by a control plane whose settings are in ConfigMaps of these names.
pub fn rules(config_maps: &[&str]) -> Vec<Rule> {
    let mut rules = grouped(kinds(), "", &["list", "watch"]);
    // Every write is preceded by a look at what is there.
    rules.extend(grouped(WRITTEN.iter().copied(), "", &["get"]));
    rules.extend(grouped(WRITTEN.iter().copied(), "/status", &["patch"]));
    // Only by name, but which names is for Gateways and DestinationRules to say, in whatever namespace.
    rules.extend(grouped([Kind::Secret].into_iter(), "", &["list", "watch"]));
    let names: Vec<String> = config_maps.iter().map(|n| (*n).to_owned()).collect();
    let settings = grouped([Kind::ConfigMap].into_iter(), "", &["list", "watch"]);
    rules.extend(settings.into_iter().map(|rule| Rule { own_namespace: true, names: names.clone(), ..rule }));
    // The injector's configuration is read beside the mesh's, and webhook configurations of our revision are patched.
    let get = |group, resource: &str| Rule {
        group,
        resources: vec![resource.to_owned()],
        verbs: &["get"],
        own_namespace: true,
        names: Vec::new(),
    };
    rules.push(get("", "configmaps"));
    let webhooks = ["mutatingwebhookconfigurations", "validatingwebhookconfigurations"].map(str::to_owned).to_vec();
    rules.push(Rule {
        group: "admissionregistration.k8s.io",
        resources: webhooks,
        verbs: &["list", "patch"],
        own_namespace: false,
        names: Vec::new(),
    });
    // The Gateway that must be refused: tried without effect, to see whether the webhook answers.
    let gateways = vec!["gateways".to_owned()];
    rules.push(Rule { group: "networking.istio.io", resources: gateways, verbs: &["create"], own_namespace: true, names: Vec::new() });
    let lease = vec!["leases".to_owned()];
    let verbs = &["get", "create", "update"];
    rules.push(Rule { group: "coordination.k8s.io", resources: lease, verbs, own_namespace: true, names: Vec::new() });
    rules.extend(identity());
    rules
}

/// What identities need: the key that signs, roots in every namespace, and what the API server knows of callers.
fn identity() -> Vec<Rule> {
    let rule = |group, resource: &str, verbs, own_namespace, name: Option<&str>| Rule {
        group,
        resources: vec![resource.to_owned()],
        verbs,
        own_namespace,
        names: name.map(str::to_owned).into_iter().collect(),
    };
    vec![
        rule("", "secrets", &["get", "update"], true, Some(CA_SECRET)),
        // Of what is made, the name is not known when that is decided.
        rule("", "secrets", &["create"], true, None),
        Rule {
            names: [roots::CONFIG_MAP, roots::CRL_CONFIG_MAP].map(str::to_owned).into(),
            ..rule("", "configmaps", &["list", "create", "patch"], false, None)
        },
        rule("authentication.k8s.io", "tokenreviews", &["create"], false, None),
        rule("authorization.k8s.io", "subjectaccessreviews", &["create"], false, None),
    ]
}

/// What is read that is no resource: who the cluster says it is, and the public keys of its tokens. Most clusters let every service
/// account read them; where one does not, each token would cost a question.
pub const PATHS: [&str; 2] = ["/.well-known/openid-configuration", "/openid/v1/jwks"];

/// The Secret with the key that signs, if nobody plugs one in.
pub const CA_SECRET: &str = "istio-ca-secret";

/// A service account with exactly these rights, and what gives them to it.
pub fn manifests(namespace: &str, account: &str, config_maps: &[&str]) -> Vec<Value> {
    let (own, everywhere): (Vec<_>, Vec<_>) = rules(config_maps).into_iter().partition(|rule| rule.own_namespace);
    // Roles of the whole cluster are told apart by whose they are.
    let cluster_wide = format!("{account}-{namespace}");
    let of = |kind: &str, name: &str, within: Option<&str>| {
        let mut metadata = json!({"name": name, "labels": {"app.kubernetes.io/name": "pilotfish"}});
        if let Some(namespace) = within {
            metadata["namespace"] = namespace.into();
        }
        let api_version = if kind == "ServiceAccount" { "v1" } else { "rbac.authorization.k8s.io/v1" };
        json!({"apiVersion": api_version, "kind": kind, "metadata": metadata})
    };
    let role = |kind: &str, name: &str, within: Option<&str>, rules: &[Rule]| {
        let mut role = of(kind, name, within);
        let paths = within.is_none().then(|| json!({"nonResourceURLs": PATHS, "verbs": ["get"]}));
        role["rules"] = rules.iter().map(Rule::manifest).chain(paths).collect();
        role
    };
    let binding = |kind: &str, name: &str, within: Option<&str>| {
        let mut binding = of(&format!("{kind}Binding"), name, within);
        binding["roleRef"] = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name});
        binding["subjects"] = json!([{"kind": "ServiceAccount", "name": account, "namespace": namespace}]);
        binding
    };
    vec![
        of("ServiceAccount", account, Some(namespace)),
        role("ClusterRole", &cluster_wide, None, &everywhere),
        binding("ClusterRole", &cluster_wide, None),
        role("Role", account, Some(namespace), &own),
        binding("Role", account, Some(namespace)),
    ]
}

impl Rule {
    fn manifest(&self) -> Value {
        let mut rule = json!({"apiGroups": [self.group], "resources": self.resources, "verbs": self.verbs});
        if !self.names.is_empty() {
            rule["resourceNames"] = json!(self.names);
        }
        rule
    }
}

fn grouped(kinds: impl Iterator<Item = Kind>, subresource: &str, verbs: &'static [&'static str]) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    for kind in kinds {
        let resource = format!("{}{subresource}", path::plural(kind));
        match rules.iter_mut().find(|r| r.group == kind.group()) {
            Some(rule) => rule.resources.push(resource),
            None => rules.push(Rule { group: kind.group(), resources: vec![resource], verbs, own_namespace: false, names: Vec::new() }),
        }
    }
    rules
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;

    use super::*;

    #[test]
    fn writes_are_few() {
        let writes: Vec<_> = rules(&["istio"])
            .into_iter()
            .filter(|r| !r.verbs.contains(&"list") || r.verbs.contains(&"patch"))
            .map(|r| (r.group, r.resources.join(" "), r.verbs))
            .collect();
        let written = [
            ("networking.istio.io", "destinationrules gateways serviceentries sidecars virtualservices workloadentries envoyfilters"),
            ("security.istio.io", "peerauthentications requestauthentications authorizationpolicies"),
            ("telemetry.istio.io", "telemetries"),
            ("extensions.istio.io", "wasmplugins trafficextensions"),
        ];
        let read = written.map(|(group, all)| (group, all.to_owned(), &["get"][..]));
        let status = |all: &str| all.split(' ').map(|n| format!("{n}/status")).collect::<Vec<_>>().join(" ");
        let patched = written.map(|(group, all)| (group, status(all), &["patch"][..]));
        let expected = [
            ("", "configmaps".to_owned(), &["get"][..]),
            (
                "admissionregistration.k8s.io",
                "mutatingwebhookconfigurations validatingwebhookconfigurations".to_owned(),
                &["list", "patch"],
            ),
            ("networking.istio.io", "gateways".to_owned(), &["create"]),
            ("coordination.k8s.io", "leases".to_owned(), &["get", "create", "update"]),
            ("", "secrets".to_owned(), &["get", "update"]),
            ("", "secrets".to_owned(), &["create"]),
            ("", "configmaps".to_owned(), &["list", "create", "patch"]),
            ("authentication.k8s.io", "tokenreviews".to_owned(), &["create"]),
            ("authorization.k8s.io", "subjectaccessreviews".to_owned(), &["create"]),
        ];
        assert_eq!(writes, [&read[..], &patched[..], &expected[..]].concat());
    }
}
