//! The arrows of ARCHITECTURE.md as data.

/// What one crate may know.
pub(crate) struct Rule {
    /// The crate.
    pub(crate) name: &'static str,
    /// The crates of this workspace that it may import (build dependencies too, dev-dependencies are free).
    pub(crate) may_import: &'static [&'static str],
    /// Crates that it must not reach, directly or through others. A `*` at the end matches any rest.
    pub(crate) never: &'static [&'static str],
    /// Why.
    pub(crate) reason: &'static str,
}

/// One rule per crate: a crate without one fails the check.
pub(crate) const RULES: &[Rule] = &[
    Rule {
        name: "pilotfish-model",
        may_import: &[],
        never: &["kube*", "k8s-openapi", "tonic*", "prost*", "envoy-types", "tokio*"],
        reason: "the mesh is plain data: it knows neither where it comes from nor what is made out of it",
    },
    Rule {
        name: "pilotfish-push",
        may_import: &[],
        never: &["kube*", "k8s-openapi", "tonic*", "prost*"],
        reason: "scheduling is generic over what changes",
    },
    Rule {
        name: "pilotfish-envoy",
        may_import: &[],
        never: &["kube*", "k8s-openapi", "tonic*", "tokio*"],
        reason: "messages and their encoding, not how they travel",
    },
    Rule {
        name: "pilotfish-crds",
        may_import: &[],
        never: &["tonic*", "prost*", "tokio*", "kube", "kube-client", "kube-runtime"],
        reason: "the types that users write, as they write them",
    },
    Rule {
        name: "pilotfish-controller",
        may_import: &["pilotfish-model", "pilotfish-crds"],
        never: &["tonic*", "prost*", "envoy-types"],
        reason: "sources end at the mesh: what proxies get is not theirs to know",
    },
    Rule {
        name: "pilotfish-translator",
        may_import: &["pilotfish-model", "pilotfish-envoy"],
        never: &["kube*", "k8s-openapi", "tonic*", "tokio*", "hyper*", "notify"],
        reason: "translation is pure: no I/O, no clock, no source",
    },
    Rule {
        name: "pilotfish-xds-server",
        may_import: &["pilotfish-model", "pilotfish-push", "pilotfish-envoy"],
        never: &["kube*", "k8s-openapi"],
        reason: "the server sees a trait, not who produces resources",
    },
    Rule {
        name: "pilotfish-ca",
        may_import: &["pilotfish-model"],
        never: &["kube*", "k8s-openapi"],
        reason: "issuing is pure; where keys are stored is behind a small trait",
    },
    Rule {
        name: "pilotfish-webhook",
        may_import: &["pilotfish-model", "pilotfish-crds"],
        never: &["tonic*", "prost*", "kube-client", "kube-runtime"],
        reason: "injection and validation are pure functions of objects",
    },
    Rule {
        name: "pilotfish",
        may_import: &[
            "pilotfish-model",
            "pilotfish-push",
            "pilotfish-envoy",
            "pilotfish-crds",
            "pilotfish-controller",
            "pilotfish-translator",
            "pilotfish-xds-server",
            "pilotfish-ca",
            "pilotfish-webhook",
        ],
        never: &[],
        reason: "the binary wires everything, but ships no test code",
    },
    Rule {
        name: "pilotfish-testkit",
        may_import: &["pilotfish-model", "pilotfish-envoy", "pilotfish-crds", "pilotfish"],
        never: &[],
        reason: "tests drive the product, never the other way round",
    },
    Rule {
        name: "pilotfish-tests",
        may_import: &["pilotfish", "pilotfish-testkit"],
        never: &[],
        reason: "these suites see the binary from outside",
    },
    Rule {
        name: "xtask",
        may_import: &[],
        never: &["tokio*", "tonic*", "kube*"],
        reason: "the commands must build fast and work while the product does not compile",
    },
];
