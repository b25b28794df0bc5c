//! Generates the Rust types of the Envoy API from the descriptor set that the `envoy-types` crate ships, and of the few
//! Istio wire contracts that it lacks from `proto/`.
//!
//! Our own generation instead of that crate's types: map fields become `BTreeMap` (equal content encodes to equal bytes,
//! which versions depend on) and `bytes` fields `Bytes` (an encoded Any is shared, not copied).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use prost::Message;
use prost_types::{FileDescriptorProto, FileDescriptorSet};
use protox::file::{ChainFileResolver, GoogleFileResolver, IncludeFileResolver};

type Error = Box<dyn std::error::Error>;

/// The files (and all that they import) that get Rust types. Descriptors are kept of every file, for JSON and validation.
const ROOTS: &[&str] = &[
    "envoy/admin/v3/config_dump.proto",
    "envoy/admin/v3/config_dump_shared.proto",
    "envoy/config/accesslog/v3/accesslog.proto",
    "envoy/config/bootstrap/v3/bootstrap.proto",
    "envoy/config/cluster/v3/cluster.proto",
    "envoy/config/endpoint/v3/endpoint.proto",
    "envoy/config/listener/v3/listener.proto",
    "envoy/config/rbac/v3/rbac.proto",
    "envoy/config/route/v3/route.proto",
    "envoy/config/trace/v3/datadog.proto",
    "envoy/config/trace/v3/opentelemetry.proto",
    "envoy/config/trace/v3/skywalking.proto",
    "envoy/config/trace/v3/zipkin.proto",
    "envoy/extensions/access_loggers/file/v3/file.proto",
    "envoy/extensions/access_loggers/filters/cel/v3/cel.proto",
    "envoy/extensions/access_loggers/grpc/v3/als.proto",
    "envoy/extensions/access_loggers/open_telemetry/v3/logs_service.proto",
    "envoy/extensions/access_loggers/stats/v3/stats.proto",
    "envoy/extensions/clusters/dynamic_forward_proxy/v3/cluster.proto",
    "envoy/extensions/filters/http/cors/v3/cors.proto",
    "envoy/extensions/filters/http/dynamic_forward_proxy/v3/dynamic_forward_proxy.proto",
    "envoy/extensions/filters/http/ext_authz/v3/ext_authz.proto",
    "envoy/extensions/filters/http/fault/v3/fault.proto",
    "envoy/extensions/filters/http/grpc_stats/v3/config.proto",
    "envoy/extensions/filters/http/grpc_web/v3/grpc_web.proto",
    "envoy/extensions/filters/http/jwt_authn/v3/config.proto",
    "envoy/extensions/filters/http/lua/v3/lua.proto",
    "envoy/extensions/filters/http/rbac/v3/rbac.proto",
    "envoy/extensions/filters/http/router/v3/router.proto",
    "envoy/extensions/filters/http/stateful_session/v3/stateful_session.proto",
    "envoy/extensions/filters/http/wasm/v3/wasm.proto",
    "envoy/extensions/filters/listener/http_inspector/v3/http_inspector.proto",
    "envoy/extensions/filters/listener/original_dst/v3/original_dst.proto",
    "envoy/extensions/filters/listener/original_src/v3/original_src.proto",
    "envoy/extensions/filters/listener/proxy_protocol/v3/proxy_protocol.proto",
    "envoy/extensions/filters/listener/tls_inspector/v3/tls_inspector.proto",
    "envoy/extensions/filters/network/ext_authz/v3/ext_authz.proto",
    "envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager.proto",
    "envoy/extensions/filters/network/mongo_proxy/v3/mongo_proxy.proto",
    "envoy/extensions/filters/network/rbac/v3/rbac.proto",
    "envoy/extensions/filters/network/redis_proxy/v3/redis_proxy.proto",
    "envoy/extensions/filters/network/sni_dynamic_forward_proxy/v3/sni_dynamic_forward_proxy.proto",
    "envoy/extensions/filters/network/tcp_proxy/v3/tcp_proxy.proto",
    "envoy/extensions/filters/network/wasm/v3/wasm.proto",
    "envoy/extensions/formatter/req_without_query/v3/req_without_query.proto",
    "envoy/extensions/http/header_formatters/preserve_case/v3/preserve_case.proto",
    "envoy/extensions/http/stateful_session/cookie/v3/cookie.proto",
    "envoy/extensions/http/stateful_session/header/v3/header.proto",
    "envoy/extensions/internal_redirect/allow_listed_routes/v3/allow_listed_routes_config.proto",
    "envoy/extensions/network/dns_resolver/cares/v3/cares_dns_resolver.proto",
    "envoy/extensions/path/match/uri_template/v3/uri_template_match.proto",
    "envoy/extensions/request_id/uuid/v3/uuid.proto",
    "envoy/extensions/retry/host/previous_hosts/v3/previous_hosts.proto",
    "envoy/extensions/retry/priority/previous_priorities/v3/previous_priorities_config.proto",
    "envoy/extensions/tracers/opentelemetry/resource_detectors/v3/dynatrace_resource_detector.proto",
    "envoy/extensions/tracers/opentelemetry/resource_detectors/v3/environment_resource_detector.proto",
    "envoy/extensions/tracers/opentelemetry/samplers/v3/dynatrace_sampler.proto",
    "envoy/extensions/transport_sockets/proxy_protocol/v3/upstream_proxy_protocol.proto",
    "envoy/extensions/transport_sockets/quic/v3/quic_transport.proto",
    "envoy/extensions/transport_sockets/raw_buffer/v3/raw_buffer.proto",
    "envoy/extensions/transport_sockets/tls/v3/secret.proto",
    "envoy/extensions/transport_sockets/tls/v3/tls.proto",
    "envoy/extensions/upstreams/http/v3/http_protocol_options.proto",
    "envoy/service/discovery/v3/ads.proto",
    "envoy/service/status/v3/csds.proto",
    "google/protobuf/any.proto",
    "google/protobuf/empty.proto",
];

/// Messages that are encoded before what holds them is made, because many hold the same, or many lie in one: their fields are
/// `bytes`, which look the same on the wire. One that is not there is empty.
const ENCODED_FIELDS: &[(&str, &str)] = &[
    ("envoy.config.cluster.v3.Cluster", "filters"),
    ("envoy.config.cluster.v3.Cluster", "transport_socket_matches"),
    ("envoy.config.endpoint.v3.ClusterLoadAssignment", "endpoints"),
    ("envoy.config.route.v3.RouteAction", "retry_policy"),
];

/// Field number of `FileDescriptorProto.source_code_info`: comments and positions, most of the set's size.
const SOURCE_CODE_INFO: u64 = 9;

fn main() -> Result<(), Error> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=proto");
    let out = PathBuf::from(env::var("OUT_DIR")?);

    let shipped = fs::read(envoy_types_dir()?.join("src/generated/types.bin"))
        .map_err(|e| format!("envoy-types no longer ships its descriptor set at src/generated/types.bin: {e}"))?;
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for raw in embedded_messages(&shipped)? {
        let file = FileDescriptorProto::decode(raw)?;
        files.insert(file.name().to_owned(), without_field(raw, SOURCE_CODE_INFO)?);
    }
    let mut roots: BTreeSet<String> = ROOTS.iter().map(|r| r.to_string()).collect();
    for file in own_protos()? {
        let name = file.name().to_owned();
        if files.insert(name.clone(), file.encode_to_vec()).is_none() && !name.starts_with("google/") {
            roots.insert(name);
        }
    }

    fs::write(out.join("descriptors.bin"), as_set(files.values()))?;
    let wanted = import_closure(&files, roots)?;
    let mut set = FileDescriptorSet::decode(as_set(wanted.iter().map(|name| &files[name])).as_slice())?;
    for (message, field) in ENCODED_FIELDS {
        keep_encoded(&mut set, message, field).ok_or_else(|| format!("there is no field {field} of {message}"))?;
    }
    generate(set)
}

fn keep_encoded(set: &mut FileDescriptorSet, message: &str, field: &str) -> Option<()> {
    let (package, name) = message.rsplit_once('.')?;
    let files = set.file.iter_mut().filter(|f| f.package() == package);
    let message = files.flat_map(|f| &mut f.message_type).find(|m| m.name() == name)?;
    let field = message.field.iter_mut().find(|f| f.name() == field)?;
    field.set_type(prost_types::field_descriptor_proto::Type::Bytes);
    field.type_name = None;
    Some(())
}

/// Envoy's crate is locked and fetched for its data only; cargo knows where it was unpacked. The second try lets cargo
/// download it: a build fetches no crates of a target that never matches.
fn envoy_types_dir() -> Result<PathBuf, Error> {
    let mut problem = String::new();
    for offline in [true, false] {
        let mut cargo = Command::new(env::var("CARGO")?);
        cargo.args(["metadata", "--format-version=1", "--locked"]).args(offline.then_some("--offline"));
        let output = cargo.output()?;
        if !output.status.success() {
            problem = String::from_utf8_lossy(&output.stderr).into_owned();
            continue;
        }
        let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        let packages = metadata["packages"].as_array().ok_or("cargo metadata lists no packages")?;
        let found = packages.iter().find(|p| p["name"] == "envoy-types").and_then(|p| p["manifest_path"].as_str());
        return found.and_then(|path| Path::new(path).parent()).map(PathBuf::from).ok_or_else(|| "envoy-types is not in Cargo.lock".into());
    }
    Err(format!("cannot find the envoy-types crate: {problem}").into())
}

/// Compiles `proto/`, well-known imports included.
fn own_protos() -> Result<Vec<FileDescriptorProto>, Error> {
    let mut resolver = ChainFileResolver::new();
    resolver.add(IncludeFileResolver::new("proto".into()));
    resolver.add(GoogleFileResolver::new());
    let mut compiler = protox::Compiler::with_file_resolver(resolver);
    compiler.include_imports(true);
    let mut pending = vec![PathBuf::from("proto")];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            if path.is_dir() {
                pending.push(path);
            } else {
                let name = path.strip_prefix("proto")?.to_string_lossy().replace('\\', "/");
                compiler.open_file(&name)?;
            }
        }
    }
    Ok(compiler.file_descriptor_set().file)
}

fn import_closure(files: &BTreeMap<String, Vec<u8>>, roots: BTreeSet<String>) -> Result<Vec<String>, Error> {
    // Depth first, imports before importers: descriptor pools want that order.
    fn visit(name: &str, files: &BTreeMap<String, Vec<u8>>, seen: &mut BTreeSet<String>, order: &mut Vec<String>) -> Result<(), Error> {
        if !seen.insert(name.to_owned()) {
            return Ok(());
        }
        let raw = files.get(name).ok_or_else(|| format!("{name} is not in the descriptor set"))?;
        for import in FileDescriptorProto::decode(raw.as_slice())?.dependency {
            visit(&import, files, seen, order)?;
        }
        order.push(name.to_owned());
        Ok(())
    }
    let (mut seen, mut order) = (BTreeSet::new(), Vec::new());
    for root in roots {
        visit(&root, files, &mut seen, &mut order)?;
    }
    Ok(order)
}

fn generate(set: FileDescriptorSet) -> Result<(), Error> {
    let mut config = prost_build::Config::new();
    config.bytes(["."]).btree_map(["."]).enable_type_names().include_file("mod.rs").compile_well_known_types();
    for (name, path) in [
        ("Duration", "::prost_types::Duration"),
        ("Timestamp", "::prost_types::Timestamp"),
        ("Struct", "crate::structs::Struct"),
        ("Value", "::prost_types::Value"),
        ("ListValue", "::prost_types::ListValue"),
        ("NullValue", "::prost_types::NullValue"),
        ("BoolValue", "bool"),
        ("UInt32Value", "u32"),
        ("UInt64Value", "u64"),
        ("Int32Value", "i32"),
        ("Int64Value", "i64"),
        ("FloatValue", "f32"),
        ("DoubleValue", "f64"),
        ("StringValue", "::prost::alloc::string::String"),
        ("BytesValue", "::prost::bytes::Bytes"),
    ] {
        config.extern_path(format!(".google.protobuf.{name}"), path);
    }
    config.extern_path(".envoy.config.core.v3.ConfigSource", "crate::config_source::ConfigSource");
    config.extern_path(".envoy.config.core.v3.Metadata", "crate::structs::Metadata");
    config.extern_path(".envoy.config.endpoint.v3.LbEndpoint", "crate::lb_endpoint::LbEndpoint");
    // Options and comments need descriptors, not Rust types; nothing of ours names them.
    config.extern_path(".google.protobuf.FileDescriptorSet", "()");
    // Messages only: service traits would pull gRPC, and with it an async runtime, into translation.
    config.compile_fds(without_descriptor_files(set))?;
    Ok(())
}

fn without_descriptor_files(mut set: FileDescriptorSet) -> FileDescriptorSet {
    const ANNOTATIONS: &[&str] = &["google/protobuf/descriptor.proto", "validate/validate.proto", "google/api/annotations.proto"];
    set.file.retain(|f| {
        !ANNOTATIONS.contains(&f.name()) && !f.name().starts_with("udpa/annotations/") && !f.name().starts_with("xds/annotations/")
    });
    set
}

// The wire format by hand, because decoding into prost's types would drop the extension options that hold validation rules.

fn as_set<'a>(files: impl IntoIterator<Item = &'a Vec<u8>>) -> Vec<u8> {
    let mut set = Vec::new();
    for file in files {
        prost::encoding::encode_key(1, prost::encoding::WireType::LengthDelimited, &mut set);
        prost::encoding::encode_varint(file.len() as u64, &mut set);
        set.extend_from_slice(file);
    }
    set
}

fn embedded_messages(mut set: &[u8]) -> Result<Vec<&[u8]>, Error> {
    let mut messages = Vec::new();
    while !set.is_empty() {
        prost::encoding::decode_varint(&mut set)?;
        let len = prost::encoding::decode_varint(&mut set)? as usize;
        let (message, rest) = set.split_at_checked(len).ok_or("the descriptor set is cut short")?;
        messages.push(message);
        set = rest;
    }
    Ok(messages)
}

fn without_field(message: &[u8], dropped: u64) -> Result<Vec<u8>, Error> {
    let (mut kept, mut rest) = (Vec::with_capacity(message.len()), message);
    while !rest.is_empty() {
        let field = rest;
        let key = prost::encoding::decode_varint(&mut rest)?;
        match key & 7 {
            0 => drop(prost::encoding::decode_varint(&mut rest)?),
            2 => {
                let len = prost::encoding::decode_varint(&mut rest)? as usize;
                rest = rest.get(len..).ok_or("a descriptor is cut short")?;
            }
            wire => return Err(format!("unexpected wire type {wire} in a file descriptor").into()),
        }
        if key >> 3 != dropped {
            kept.extend_from_slice(&field[..field.len() - rest.len()]);
        }
    }
    Ok(kept)
}
