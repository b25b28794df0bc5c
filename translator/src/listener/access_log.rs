//! Access logs, from Telemetry objects or else mesh config: which there are, and what is logged.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use pilotfish_envoy::any;
use pilotfish_envoy::pb::envoy::config::accesslog::v3::access_log_filter::FilterSpecifier;
use pilotfish_envoy::pb::envoy::config::accesslog::v3::{
    AccessLog, AccessLogFilter, AndFilter, ExtensionFilter, ResponseFlagFilter, access_log, access_log_filter, extension_filter,
};
use pilotfish_envoy::pb::envoy::extensions::access_loggers::filters::cel::v3::ExpressionFilter;
use pilotfish_envoy::pb::envoy::extensions::access_loggers::grpc::v3::{HttpGrpcAccessLogConfig, TcpGrpcAccessLogConfig};
use pilotfish_envoy::pb::google::protobuf::Any;
use pilotfish_model::mesh_config::{
    AccessLogEncoding, BUILT_IN_LOG, ExtensionProvider, FileAccessLogProvider, Json, LogFormat, ProviderKind,
};
use pilotfish_model::name::Str;
use pilotfish_model::telemetry::{AccessLogging, WorkloadMode};
use pilotfish_model::{MeshConfig, Telemetry};

use super::access_log_file;
use super::access_log_service::{self, ServerLog};
use crate::context::Context;
use crate::extensions;
use crate::facts::UnitFacts;

/// Where logs go by default.
const STDOUT: &str = "/dev/stdout";

/// Which logs there are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct AccessLogs {
    /// In order.
    pub logs: Vec<Log>,
    /// Connections that found no chain are logged.
    pub listeners: bool,
}

/// One log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Log {
    /// Where to, and what.
    pub sink: Sink,
    /// An expression in CEL: what is logged; `None`: everything.
    pub filter: Option<Str>,
}

/// Where logs go, and what they say.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Sink {
    /// A file.
    File(FileLog),
    /// The access log service of the bootstrap.
    Bootstrap,
    /// A server.
    Server(ServerLog),
}

/// A log file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FileLog {
    /// Path.
    pub path: Str,
    /// What a line looks like.
    pub format: LineFormat,
    /// Leave empty values out.
    pub omit_empty_values: bool,
}

/// What a line looks like.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LineFormat {
    /// Text; `None`: the default.
    Text(Option<Str>),
    /// A JSON object as text; `None`: the default.
    Json(Option<Str>),
    /// A JSON object by its fields.
    Labels(BTreeMap<Str, Json>),
}

impl AccessLogs {
    /// Of one direction, from the Telemetry objects that apply; where they name no provider, the mesh's own settings.
    pub(super) fn of(context: &Context<'_>, applicable: &[Arc<Telemetry>], server: bool) -> Self {
        let config = context.config();
        let levels: Vec<&[AccessLogging]> = applicable.iter().map(|t| &*t.access_logging).filter(|l| !l.is_empty()).collect();
        let mut said = false;
        let mut logs = Vec::new();
        for (name, wanted) in wanted(&config.default_providers.access_logging, &levels, server) {
            let Some(found) = config.provider(name).and_then(|provider| sink(context, provider)) else { continue };
            // What is switched off is something said as well: the mesh's own settings are no fallback for it.
            said = true;
            if let (Wanted::Logged(filter), Some(sink)) = (wanted, found) {
                logs.push(Log { sink, filter: filter.filter(|_| context.class.has_extension(extensions::ACCESS_LOG_CEL)) });
            }
        }
        if !said {
            logs = mesh_logs(&context.class.unit, config);
        }
        AccessLogs { logs, listeners: !config.disable_envoy_listener_log }
    }
}

/// What the objects say of a provider.
enum Wanted {
    Logged(Option<Str>),
    Off,
}

/// The providers in force and what they log, by name. The last level that names any for this direction decides which are in
/// force; of several entries for one the last decides.
fn wanted<'a>(defaults: &'a [Str], levels: &[&'a [AccessLogging]], server: bool) -> BTreeMap<&'a Str, Wanted> {
    if levels.is_empty() {
        return defaults.iter().map(|name| (name, Wanted::Logged(None))).collect();
    }
    let concerns = |l: &AccessLogging| l.mode.is_none_or(|m| m != WorkloadMode::Undefined && m.covers(server));
    let mut in_force: BTreeSet<&Str> = defaults.iter().collect();
    let mut filters: BTreeMap<&Str, Option<&Str>> = BTreeMap::new();
    for level in levels {
        let named: Vec<_> = level.iter().filter(|l| concerns(l)).flat_map(|l| l.providers.iter().map(|p| (p, l.filter.as_ref()))).collect();
        filters.extend(named.iter().copied());
        if !named.is_empty() {
            in_force = named.into_iter().map(|(name, _)| name).collect();
        }
    }
    let mut found = BTreeMap::new();
    let mut meant = defaults;
    for entry in levels.iter().copied().flatten() {
        meant = if entry.providers.is_empty() { meant } else { &entry.providers };
        for name in meant.iter().filter(|name| in_force.contains(name) && concerns(entry)) {
            let logged = || Wanted::Logged(filters.get(name).copied().flatten().cloned());
            found.insert(name, if entry.disabled { Wanted::Off } else { logged() });
        }
    }
    found
}

/// What a provider is for logs. `None`: it keeps none; inner `None`: the client cannot write them.
fn sink(context: &Context<'_>, provider: &ExtensionProvider) -> Option<Option<Sink>> {
    let class = &context.class.unit;
    let file_of = |file| Sink::File(writable(class, provider_file(context.config(), &provider.name, file)));
    let (extension, sink) = match &provider.kind {
        ProviderKind::EnvoyFileAccessLog(file) => (extensions::ACCESS_LOG_FILE, file_of(file)),
        ProviderKind::EnvoyHttpAls(als) => (extensions::ACCESS_LOG_HTTP_GRPC, Sink::Server(ServerLog::requests(context, als)?)),
        ProviderKind::EnvoyTcpAls(als) => (extensions::ACCESS_LOG_TCP_GRPC, Sink::Server(ServerLog::connections(context, als)?)),
        ProviderKind::EnvoyOtelAls(otel) => (extensions::ACCESS_LOG_OPEN_TELEMETRY, Sink::Server(ServerLog::otlp(context, otel)?)),
        _ => return None,
    };
    Some(Some(sink).filter(|_| class.has_extension(extension)))
}

/// What the mesh's own settings ask for.
fn mesh_logs(class: &UnitFacts, config: &MeshConfig) -> Vec<Log> {
    let path = Some(&config.access_log_file).filter(|f| !f.is_empty() && class.has_extension(extensions::ACCESS_LOG_FILE));
    // A plain client's bootstrap does not have that cluster.
    let service = (config.enable_envoy_access_log_service && class.is_istio()).then_some(Sink::Bootstrap);
    let sinks = path.map(|path| Sink::File(writable(class, mesh_file(config, path)))).into_iter().chain(service);
    sinks.map(|sink| Log { sink, filter: None }).collect()
}

/// A plain client refuses a listener with a log that it cannot open, and in the container that an agent describes there may be no
/// such folder: what is not a device goes to its output.
fn writable(class: &UnitFacts, file: FileLog) -> FileLog {
    let sure = class.is_istio() || class.settings.reads_files || file.path.starts_with("/dev/");
    if sure { file } else { FileLog { path: STDOUT.into(), ..file } }
}

fn mesh_file(config: &MeshConfig, path: &Str) -> FileLog {
    let format = Some(config.access_log_format.clone()).filter(|f| !f.is_empty());
    let format = match config.access_log_encoding {
        AccessLogEncoding::Text => LineFormat::Text(format.map(with_newline)),
        AccessLogEncoding::Json => LineFormat::Json(format),
    };
    FileLog { path: path.clone(), format, omit_empty_values: false }
}

fn provider_file(config: &MeshConfig, name: &str, file: &FileAccessLogProvider) -> FileLog {
    let path = if file.path.is_empty() { STDOUT.into() } else { file.path.clone() };
    let format = match &file.log_format {
        None if name == BUILT_IN_LOG && !file.omit_empty_values => return mesh_file(config, &path),
        None => LineFormat::Text(None),
        Some(LogFormat::Text(text)) => LineFormat::Text(Some(text.clone()).filter(|t| !t.is_empty()).map(with_newline)),
        Some(LogFormat::Labels(labels)) if labels.is_empty() => LineFormat::Json(None),
        Some(LogFormat::Labels(labels)) => LineFormat::Labels(labels.clone()),
    };
    FileLog { path, format, omit_empty_values: file.omit_empty_values }
}

fn with_newline(text: Str) -> Str {
    if text.ends_with('\n') { text } else { format!("{text}\n").into() }
}

/// Logs of requests.
pub(super) fn requests(logs: &AccessLogs) -> Vec<AccessLog> {
    let service = || {
        let config =
            HttpGrpcAccessLogConfig { common_config: Some(access_log_service::bootstrap("http_envoy_accesslog")), ..Default::default() };
        access_log(extensions::ACCESS_LOG_HTTP_GRPC, any(&config))
    };
    written(logs, None, &service)
}

/// Logs of connections.
pub(super) fn connections(logs: &AccessLogs) -> Vec<AccessLog> {
    written(logs, None, &|| connection_service("tcp_envoy_accesslog"))
}

/// Logs of connections that found no filter chain.
pub(super) fn unmatched(logs: &AccessLogs) -> Vec<AccessLog> {
    let no_route = ResponseFlagFilter { flags: vec!["NR".to_owned()] };
    let filter = access_log_filter::FilterSpecifier::ResponseFlagFilter(no_route);
    if logs.listeners { written(logs, Some(filter), &|| connection_service("listener_envoy_accesslog")) } else { Vec::new() }
}

fn connection_service(log_name: &str) -> AccessLog {
    let config = TcpGrpcAccessLogConfig { common_config: Some(access_log_service::bootstrap(log_name)) };
    access_log(access_log_service::TCP, any(&config))
}

/// `service`: what stands for the service of the bootstrap.
fn written(logs: &AccessLogs, filter: Option<FilterSpecifier>, service: &dyn Fn() -> AccessLog) -> Vec<AccessLog> {
    let one = |log: &Log| {
        let mut filters = filter.iter().cloned().chain(log.filter.as_deref().map(expression));
        let filter = match (filters.next(), filters.next()) {
            (Some(first), Some(second)) => {
                let filters = [first, second].map(|f| AccessLogFilter { filter_specifier: Some(f) });
                Some(FilterSpecifier::AndFilter(AndFilter { filters: filters.to_vec() }))
            }
            (only, _) => only,
        };
        let written = match &log.sink {
            Sink::File(file) => access_log_file::log(file),
            Sink::Bootstrap => service(),
            Sink::Server(server) => access_log_service::log(server),
        };
        AccessLog { filter: filter.map(|f| AccessLogFilter { filter_specifier: Some(f) }), ..written }
    };
    logs.logs.iter().map(one).collect()
}

fn expression(text: &str) -> FilterSpecifier {
    let config = any(&ExpressionFilter { expression: text.to_owned(), ..Default::default() });
    FilterSpecifier::ExtensionFilter(ExtensionFilter {
        name: extensions::ACCESS_LOG_CEL.to_owned(),
        config_type: Some(extension_filter::ConfigType::TypedConfig(config)),
    })
}

pub(super) fn access_log(name: &str, config: Any) -> AccessLog {
    AccessLog { name: name.to_owned(), filter: None, config_type: Some(access_log::ConfigType::TypedConfig(config)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names of providers that log, with their filters, and those that are switched off.
    fn outcome(defaults: &[&str], levels: &[Vec<AccessLogging>], server: bool) -> Vec<String> {
        let defaults: Vec<Str> = defaults.iter().map(|n| Str::from(*n)).collect();
        let levels: Vec<&[AccessLogging]> = levels.iter().map(|l| &**l).collect();
        let shown = |(name, wanted): (&Str, Wanted)| match wanted {
            Wanted::Off => format!("-{name}"),
            Wanted::Logged(None) => name.to_string(),
            Wanted::Logged(Some(filter)) => format!("{name} if {filter}"),
        };
        wanted(&defaults, &levels, server).into_iter().map(shown).collect()
    }

    #[test]
    fn the_last_level_that_names_providers_decides_and_each_direction_for_itself() {
        use WorkloadMode::{Client, Server, Undefined};
        let entry = |mode: Option<WorkloadMode>, names: &[&str], filter: &str| AccessLogging {
            mode,
            providers: names.iter().map(|n| Str::from(*n)).collect(),
            disabled: false,
            filter: Some(Str::from(filter)).filter(|f| !f.is_empty()),
        };
        let off = |entry: AccessLogging| AccessLogging { disabled: true, ..entry };
        let none: [&str; 0] = [];
        assert_eq!(outcome(&["a"], &[], false), ["a"]);
        let mesh = || vec![entry(None, &["b"], "x"), entry(None, &["c"], "")];
        assert_eq!(outcome(&["a"], &[mesh()], false), ["b if x", "c"]);
        assert_eq!(outcome(&["a"], &[mesh(), vec![entry(None, &["c"], "y")]], true), ["c if y"]);
        assert_eq!(outcome(&["a"], &[mesh(), vec![off(entry(None, &["c"], ""))]], true), ["-c"]);
        // Without names it is about those before.
        assert_eq!(outcome(&["a"], &[vec![off(entry(None, &[], ""))]], true), ["-a"]);
        assert_eq!(outcome(&[], &[vec![off(entry(None, &[], ""))]], true), none);
        let both = || vec![entry(Some(Server), &["s"], ""), entry(Some(Client), &["c"], ""), entry(Some(Undefined), &["u"], "")];
        assert_eq!(outcome(&["a"], &[both()], true), ["s"]);
        assert_eq!(outcome(&["a"], &[both()], false), ["c"]);
        assert_eq!(outcome(&["a"], &[vec![entry(Some(Server), &["s"], "")]], false), none);
    }
}
