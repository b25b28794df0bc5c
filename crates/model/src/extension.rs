//! Extension: code that proxies run, as a WasmPlugin or a TrafficExtension brings it.

use std::collections::BTreeMap;

use crate::attachment::{Attachment, attached};
use crate::name::{Kind, Meta, ObjectId, Str};
use crate::telemetry::WorkloadMode;

/// What the name of a WasmPlugin ends with where both kinds share one space of names. No object can be called so.
const OF_WASM_PLUGIN: &str = "~istio-translated-wasmplugin";

/// An object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Extension {
    /// WasmPlugin or TrafficExtension.
    pub kind: Kind,
    /// Identity and age.
    pub meta: Meta,
    /// Workloads.
    pub attachment: Attachment,
    /// Where it stands among other filters.
    pub phase: Phase,
    /// Within a phase the higher is first; `None` is lowest.
    pub priority: Option<i32>,
    /// Which traffic; empty: all.
    pub traffic: Vec<Traffic>,
    /// The code.
    pub code: Code,
}

attached!(Extension);

impl Extension {
    /// Its name where both kinds share one space of names.
    pub fn unique_name(&self) -> Str {
        if self.kind == Kind::WasmPlugin { format!("{}{OF_WASM_PLUGIN}", self.meta.name).into() } else { self.meta.name.clone() }
    }

    /// Its identity.
    pub fn id(&self) -> ObjectId {
        self.meta.id(self.kind)
    }

    /// The Secret of its namespace by whose credentials its module is pulled.
    pub fn pull_secret(&self) -> Option<&Str> {
        match &self.code {
            Code::Wasm(wasm) => wasm.pull_secret.as_ref(),
            Code::Lua(_) => None,
        }
    }

    /// Whether traffic of that direction and port passes through it.
    pub fn covers(&self, server: bool, port: u16) -> bool {
        self.traffic.is_empty() || self.traffic.iter().any(|t| t.mode.covers(server) && (t.ports.is_empty() || t.ports.contains(&port)))
    }
}

/// Where an extension stands: before or after what Istio does in that phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    /// Before requests are authenticated.
    Authn,
    /// Before they are authorised.
    Authz,
    /// Before they are counted.
    Stats,
    /// After all that, near the end.
    #[default]
    Unspecified,
}

/// Some traffic.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Traffic {
    /// Direction.
    pub mode: WorkloadMode,
    /// Ports; empty: all.
    pub ports: Vec<u16>,
}

/// The code.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// A module that is fetched.
    Wasm(Wasm),
    /// A script.
    Lua(Str),
}

/// A WebAssembly module and what it is given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Wasm {
    /// Where it is, with a scheme: `oci`, `http`, `https` or `file`.
    pub url: Str,
    /// Its checksum, if given.
    pub sha256: Str,
    /// When it is fetched again.
    pub pull_policy: Option<PullPolicy>,
    /// Name of the Secret, in the same namespace, with credentials for the registry.
    pub pull_secret: Option<Str>,
    /// What it is told, as JSON; empty: nothing.
    pub configuration: Str,
    /// Which of the module's roots.
    pub plugin_name: Str,
    /// What becomes of traffic without it.
    pub fail_strategy: FailStrategy,
    /// Environment with fixed values.
    pub env: BTreeMap<Str, Str>,
    /// Variables of the proxy's environment that it sees, in order.
    pub host_env: Vec<Str>,
    /// Works on connections instead of requests.
    pub network: bool,
}

/// When an image is fetched again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum PullPolicy {
    IfNotPresent,
    Always,
}

/// What becomes of traffic while a module cannot run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum FailStrategy {
    /// It is refused.
    #[default]
    Close,
    /// It passes.
    Open,
    /// The module is started again.
    Reload,
}
