//! Filters that run code of users: WasmPlugins and TrafficExtensions.
//!
//! A script stands in the chain. Of a module only the name does: its settings are a resource of their own
//! (`extension_config`), which Istio's agent takes on the way to fetch the module. A plain client has no such agent: what it
//! cannot load by itself is replaced by what the user wants without it, which is to refuse all traffic unless told otherwise.

use std::cmp::Reverse;
use std::sync::Arc;

use pilotfish_envoy::any;
use pilotfish_envoy::pb::envoy::config::core::v3::{DataSource, ExtensionConfigSource, data_source};
use pilotfish_envoy::pb::envoy::config::listener::v3::{Filter, filter};
use pilotfish_envoy::pb::envoy::config::rbac::v3::{Rbac as Rules, rbac};
use pilotfish_envoy::pb::envoy::extensions::filters::http::lua::v3::Lua;
use pilotfish_envoy::pb::envoy::extensions::filters::http::rbac::v3::Rbac as HttpRbac;
use pilotfish_envoy::pb::envoy::extensions::filters::http::wasm::v3::Wasm as HttpWasm;
use pilotfish_envoy::pb::envoy::extensions::filters::network::http_connection_manager::v3::{HttpFilter, http_filter};
use pilotfish_envoy::pb::envoy::extensions::filters::network::rbac::v3::Rbac as NetworkRbac;
use pilotfish_envoy::pb::envoy::extensions::filters::network::wasm::v3::Wasm as NetworkWasm;
use pilotfish_envoy::pb::google::protobuf::Any;
use pilotfish_model::extension::{Code, FailStrategy, Phase};
use pilotfish_model::name::Labels;
use pilotfish_model::{Extension, Mesh};
use prost::Name;

use super::pack;
use super::settings::Side;
use crate::attach::attached;
use crate::config_source;
use crate::extensions;
use crate::facts::UnitFacts;

const HTTP_RBAC: &str = "envoy.filters.http.rbac";
const NETWORK_RBAC: &str = "envoy.filters.network.rbac";
const WASM_RUNTIME: &str = "envoy.wasm.runtime.v8";

/// Those of a scope, in the order of their filters within each phase.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Plugins(Arc<[Plugin]>);

/// One of them, and what a client makes of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Plugin {
    pub(crate) extension: Arc<Extension>,
    form: Form,
    /// Istio's agent prepares it.
    pub(crate) agent: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Form {
    /// The code is part of the filter.
    Inline,
    /// The filter's settings are a resource.
    Discovered,
    /// It cannot run, and nothing may pass without it.
    Refusal,
}

/// Which of them apply to a chain.
pub(super) type Chosen = Vec<usize>;

impl Plugins {
    /// `extensions`: those that apply to the workload, in order. Those that the client cannot run and need not are left out.
    pub(super) fn of(class: &UnitFacts, extensions: &[Arc<Extension>]) -> Self {
        let plugin = |extension: &Arc<Extension>| {
            let form = form(class, extension)?;
            Some(Plugin { extension: extension.clone(), form, agent: class.is_istio() })
        };
        Plugins(extensions.iter().filter_map(plugin).collect())
    }

    /// Those of which the settings are resources.
    pub(crate) fn discovered(&self) -> impl Iterator<Item = &Plugin> {
        self.0.iter().filter(|p| p.form == Form::Discovered)
    }

    /// Those for a chain of a side, by the port that its connections were meant for.
    pub(super) fn chosen(&self, side: Side, port: u16, network: bool) -> Chosen {
        let covers = |p: &Plugin| p.is_network() == network && p.extension.covers(side == Side::Inbound, port);
        self.0.iter().enumerate().filter(|(_, p)| covers(p)).map(|(i, _)| i).collect()
    }

    fn of_phase<'a>(&'a self, chosen: &'a [usize], phase: Phase) -> impl Iterator<Item = &'a Plugin> {
        chosen.iter().filter_map(|i| self.0.get(*i)).filter(move |p| p.extension.phase == phase)
    }

    /// Filters for requests.
    pub(super) fn http<'a>(&'a self, chosen: &'a [usize], phase: Phase) -> impl Iterator<Item = HttpFilter> + 'a {
        self.of_phase(chosen, phase).map(Plugin::http_filter)
    }

    /// Filters for connections.
    pub(super) fn network<'a>(&'a self, chosen: &'a [usize], phase: Phase) -> impl Iterator<Item = Filter> + 'a {
        self.of_phase(chosen, phase).map(Plugin::network_filter)
    }
}

/// `None`: it is left out.
fn form(class: &UnitFacts, extension: &Extension) -> Option<Form> {
    let refusal = |network| class.has_extension(if network { NETWORK_RBAC } else { HTTP_RBAC }).then_some(Form::Refusal);
    match &extension.code {
        Code::Lua(_) if class.has_extension(extensions::HTTP_LUA) => Some(Form::Inline),
        Code::Lua(_) => refusal(false).filter(|_| matches!(extension.phase, Phase::Authn | Phase::Authz)),
        Code::Wasm(_) if class.is_istio() => Some(Form::Discovered),
        Code::Wasm(wasm) => {
            let filter = if wasm.network { extensions::NETWORK_WASM } else { extensions::HTTP_WASM };
            // The file of a client that an agent describes is behind that agent.
            let reads = wasm.url.starts_with(FILE) && class.settings.reads_files;
            let runs = reads && class.has_extension(filter) && class.has_extension(WASM_RUNTIME);
            if runs { Some(Form::Discovered) } else { refusal(wasm.network).filter(|_| wasm.fail_strategy != FailStrategy::Open) }
        }
    }
}

/// Start of the URL of a module on the client's own file system.
pub(super) const FILE: &str = "file://";

impl Plugin {
    /// Name of its filter, and of its resource.
    pub(crate) fn name(&self) -> String {
        format!("extensions.istio.io/trafficextension/{}.{}", self.extension.meta.namespace, self.extension.unique_name())
    }

    pub(crate) fn is_network(&self) -> bool {
        matches!(&self.extension.code, Code::Wasm(wasm) if wasm.network)
    }

    fn http_filter(&self) -> HttpFilter {
        let inline = |config| http_filter::ConfigType::TypedConfig(config);
        let config = match (self.form, &self.extension.code) {
            (Form::Inline, Code::Lua(code)) => {
                let code = DataSource { specifier: Some(data_source::Specifier::InlineString(code.to_string())), ..Default::default() };
                inline(any(&Lua { default_source_code: Some(code), ..Default::default() }))
            }
            (Form::Discovered, _) => {
                let passes = any(&HttpRbac::default());
                http_filter::ConfigType::ConfigDiscovery(self.source::<HttpWasm, HttpRbac>(passes, http_refusal()))
            }
            _ => inline(http_refusal()),
        };
        HttpFilter { name: self.name(), config_type: Some(config), ..Default::default() }
    }

    fn network_filter(&self) -> Filter {
        if self.form != Form::Discovered {
            return pack::packed_filter(&self.name(), network_refusal());
        }
        let passes = any(&NetworkRbac { stat_prefix: "tcp.".to_owned(), ..Default::default() });
        let source = self.source::<NetworkWasm, NetworkRbac>(passes, network_refusal());
        Filter { name: self.name(), config_type: Some(filter::ConfigType::ConfigDiscovery(source)) }
    }

    /// Where the settings come from: this stream, and traffic waits for them. Istio's agent takes settings of a module that it
    /// cannot fetch away and puts a filter in place that lets all or nothing pass; a plain client does so by itself.
    fn source<W: Name, R: Name>(&self, passes: Any, refusal: Any) -> ExtensionConfigSource {
        let type_url = |name: String| format!("type.googleapis.com/{name}");
        let open = matches!(&self.extension.code, Code::Wasm(wasm) if wasm.fail_strategy == FailStrategy::Open);
        ExtensionConfigSource {
            config_source: Some(config_source::STREAM.clone()),
            type_urls: vec![type_url(W::full_name()), type_url(R::full_name())],
            default_config: (!self.agent).then_some(if open { passes } else { refusal }),
            ..Default::default()
        }
    }
}

/// Rules that allow what some policy allows, and no policy.
fn nothing() -> Rules {
    Rules { action: rbac::Action::Allow as i32, ..Default::default() }
}

fn http_refusal() -> Any {
    any(&HttpRbac { rules: Some(nothing()), ..Default::default() })
}

fn network_refusal() -> Any {
    any(&NetworkRbac { rules: Some(nothing()), stat_prefix: "tcp.".to_owned(), ..Default::default() })
}

/// The objects for a workload: of its own namespace, then of the root namespace, the oldest first; then by priority.
pub(crate) fn applicable(mesh: &Mesh, namespace: &str, labels: &Labels) -> Vec<Arc<Extension>> {
    if mesh.wasm_plugins.is_empty() && mesh.traffic_extensions.is_empty() {
        return Vec::new();
    }
    let root = &*mesh.config.root_namespace;
    let all = [&mesh.wasm_plugins, &mesh.traffic_extensions];
    let mut found: Vec<Arc<Extension>> = all.into_iter().flat_map(|map| attached(map, root, namespace, labels)).cloned().collect();
    found.sort_by_cached_key(|e| {
        (Reverse(e.priority.unwrap_or(i32::MIN)), *e.meta.namespace != *namespace, e.meta.created, e.unique_name())
    });
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use pilotfish_model::attachment::Attachment;
    use pilotfish_model::extension::Traffic;
    use pilotfish_model::mesh::ObjectKey;
    use pilotfish_model::name::{Kind, Meta};
    use pilotfish_model::telemetry::WorkloadMode;
    use pilotfish_model::time::Timestamp;

    fn extension(kind: Kind, namespace: &str, name: &str, created: i64, priority: Option<i32>) -> Extension {
        Extension {
            kind,
            meta: Meta { namespace: namespace.into(), name: name.into(), created: Timestamp(created), ..Meta::default() },
            attachment: Attachment::default(),
            phase: Phase::Authn,
            priority,
            traffic: Vec::new(),
            code: Code::Lua("x".into()),
        }
    }

    #[test]
    fn priority_decides_then_the_own_namespace_then_age_across_both_kinds() {
        let mut mesh = Mesh::default();
        for e in [
            extension(Kind::WasmPlugin, "shop", "b", 1, None),
            extension(Kind::TrafficExtension, "shop", "b", 1, None),
            extension(Kind::TrafficExtension, "shop", "young", 2, None),
            extension(Kind::TrafficExtension, "istio-system", "root", 0, None),
            extension(Kind::TrafficExtension, "istio-system", "first", 9, Some(0)),
            extension(Kind::TrafficExtension, "shop", "last", 0, Some(i32::MIN)),
            extension(Kind::TrafficExtension, "bank", "other", 0, Some(9)),
        ] {
            let key = ObjectKey { namespace: e.meta.namespace.clone(), name: e.meta.name.clone() };
            let map = if e.kind == Kind::WasmPlugin { &mut mesh.wasm_plugins } else { &mut mesh.traffic_extensions };
            map.insert(key, Arc::new(e));
        }
        let names: Vec<_> = applicable(&mesh, "shop", &Labels::new()).iter().map(|e| e.unique_name().to_string()).collect();
        assert_eq!(names, ["first", "last", "b", "b~istio-translated-wasmplugin", "young", "root"]);
    }

    #[test]
    fn traffic_is_chosen_by_direction_and_port() {
        let with = |traffic: Vec<Traffic>| Extension { traffic, ..extension(Kind::TrafficExtension, "shop", "x", 0, None) };
        let traffic = |mode, ports: &[u16]| Traffic { mode, ports: ports.to_vec() };
        let all = with(Vec::new());
        let server = with(vec![traffic(WorkloadMode::Server, &[]), traffic(WorkloadMode::Client, &[80, 81])]);
        let port = with(vec![traffic(WorkloadMode::Undefined, &[80])]);
        let covered = |e: &Extension| [(true, 80), (true, 0), (false, 80), (false, 90)].map(|(server, port)| e.covers(server, port));
        assert_eq!([&all, &server, &port].map(covered), [[true; 4], [true, true, true, false], [true, false, true, false]]);
    }
}
