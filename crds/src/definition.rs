//! The CustomResourceDefinitions of Istio's kinds, generated from their types.
//!
//! Enter at [`definitions`]; [`check`] goes the other way, from an object to its type.

use schemars::{JsonSchema, generate::SchemaSettings};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::schema::structural;
use crate::{extensions, networking, security, telemetry};

struct Kind {
    group: &'static str,
    kind: &'static str,
    plural: &'static str,
    short_names: &'static [&'static str],
    /// The first is what is stored.
    versions: &'static [&'static str],
    /// What `kubectl get` shows beside the name: title, path and meaning.
    columns: &'static [(&'static str, &'static str, &'static str)],
    /// Whether an object without a spec means nothing.
    spec_required: bool,
    schema: fn() -> Value,
    check: fn(&Value) -> serde_json::Result<()>,
}

const NETWORKING: &str = "networking.istio.io";
const SECURITY: &str = "security.istio.io";
const TELEMETRY: &str = "telemetry.istio.io";
const EXTENSIONS: &str = "extensions.istio.io";
const THREE: &[&str] = &["v1", "v1beta1", "v1alpha3"];
const TWO: &[&str] = &["v1", "v1beta1"];

const fn kind<T: JsonSchema + DeserializeOwned>(
    group: &'static str,
    kind: &'static str,
    plural: &'static str,
    versions: &'static [&'static str],
) -> Kind {
    Kind {
        group,
        kind,
        plural,
        short_names: &[],
        versions,
        columns: &[],
        spec_required: false,
        schema: schema_of::<T>,
        check: check_as::<T>,
    }
}

const KINDS: &[Kind] = &[
    Kind {
        short_names: &["dr"],
        columns: &[("Host", ".spec.host", "The service that the rule is about")],
        ..kind::<networking::DestinationRuleSpec>(NETWORKING, "DestinationRule", "destinationrules", THREE)
    },
    kind::<networking::EnvoyFilterSpec>(NETWORKING, "EnvoyFilter", "envoyfilters", &["v1alpha3"]),
    Kind { short_names: &["gw"], ..kind::<networking::GatewaySpec>(NETWORKING, "Gateway", "gateways", THREE) },
    kind::<networking::ProxyConfigSpec>(NETWORKING, "ProxyConfig", "proxyconfigs", &["v1beta1"]),
    Kind {
        short_names: &["se"],
        columns: &[
            ("Hosts", ".spec.hosts", "The hosts of the service"),
            ("Location", ".spec.location", "Whether the service is part of the mesh"),
            ("Resolution", ".spec.resolution", "How its endpoints are found"),
        ],
        spec_required: true,
        ..kind::<networking::ServiceEntrySpec>(NETWORKING, "ServiceEntry", "serviceentries", THREE)
    },
    kind::<networking::SidecarSpec>(NETWORKING, "Sidecar", "sidecars", THREE),
    Kind {
        short_names: &["vs"],
        columns: &[
            ("Gateways", ".spec.gateways", "The gateways that have the routes"),
            ("Hosts", ".spec.hosts", "The hosts that the routes are for"),
        ],
        ..kind::<networking::VirtualServiceSpec>(NETWORKING, "VirtualService", "virtualservices", THREE)
    },
    Kind {
        short_names: &["we"],
        columns: &[("Address", ".spec.address", "Where the workload listens")],
        spec_required: true,
        ..kind::<networking::WorkloadEntrySpec>(NETWORKING, "WorkloadEntry", "workloadentries", THREE)
    },
    Kind {
        short_names: &["wg"],
        spec_required: true,
        ..kind::<networking::WorkloadGroupSpec>(NETWORKING, "WorkloadGroup", "workloadgroups", THREE)
    },
    Kind {
        short_names: &["ap"],
        columns: &[("Action", ".spec.action", "What happens to a request that the rules match")],
        ..kind::<security::AuthorizationPolicySpec>(SECURITY, "AuthorizationPolicy", "authorizationpolicies", TWO)
    },
    Kind {
        short_names: &["pa"],
        columns: &[("Mode", ".spec.mtls.mode", "Which connections are accepted")],
        ..kind::<security::PeerAuthenticationSpec>(SECURITY, "PeerAuthentication", "peerauthentications", TWO)
    },
    Kind {
        short_names: &["ra"],
        ..kind::<security::RequestAuthenticationSpec>(SECURITY, "RequestAuthentication", "requestauthentications", TWO)
    },
    Kind { short_names: &["telemetry"], ..kind::<telemetry::TelemetrySpec>(TELEMETRY, "Telemetry", "telemetries", &["v1", "v1alpha1"]) },
    Kind {
        spec_required: true,
        ..kind::<extensions::TrafficExtensionSpec>(EXTENSIONS, "TrafficExtension", "trafficextensions", &["v1alpha1"])
    },
    Kind { spec_required: true, ..kind::<extensions::WasmPluginSpec>(EXTENSIONS, "WasmPlugin", "wasmplugins", &["v1alpha1"]) },
];

/// The CustomResourceDefinition of each kind, by group and kind.
pub fn definitions() -> Vec<Value> {
    KINDS.iter().map(Kind::definition).collect()
}

/// Whether a spec has the shape of its kind; `None` if there is no such kind. Rules and bounds of the schema are not looked at.
pub fn check(kind: &str, spec: &Value) -> Option<serde_json::Result<()>> {
    KINDS.iter().find(|k| k.kind == kind).map(|k| (k.check)(spec))
}

fn check_as<T: DeserializeOwned>(spec: &Value) -> serde_json::Result<()> {
    T::deserialize(spec).map(drop)
}

fn schema_of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|s| s.inline_subschemas = true);
    structural(settings.into_generator().into_root_schema_for::<T>().to_value())
}

impl Kind {
    fn definition(&self) -> Value {
        let spec = (self.schema)();
        // Conditions, and whatever else control planes write.
        let status = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        let mut schema = json!({"type": "object", "properties": {"spec": spec, "status": status}});
        if self.spec_required {
            schema["required"] = json!(["spec"]);
        }
        let age = json!({"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"});
        let column = |(name, path, description): &(&str, &str, &str)| json!({"name": name, "type": "string", "jsonPath": path, "description": description});
        let columns: Vec<Value> = self.columns.iter().map(column).chain([age]).collect();
        let version = |name: &&str| {
            json!({
                "name": name, "served": true, "storage": *name == self.versions[0], "subresources": {"status": {}},
                "additionalPrinterColumns": columns, "schema": {"openAPIV3Schema": schema},
            })
        };
        let mut names = json!({
            "kind": self.kind, "listKind": format!("{}List", self.kind), "plural": self.plural, "singular": self.kind.to_lowercase(),
            "categories": ["istio-io", self.group.replace('.', "-")],
        });
        if !self.short_names.is_empty() {
            names["shortNames"] = json!(self.short_names);
        }
        json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            // Users' objects would go with the definition: an uninstall must not take it.
            "metadata": {"name": format!("{}.{}", self.plural, self.group), "annotations": {"helm.sh/resource-policy": "keep"}},
            "spec": {
                "group": self.group, "scope": "Namespaced", "names": names,
                "versions": self.versions.iter().map(version).collect::<Vec<_>>(),
            },
        })
    }
}
