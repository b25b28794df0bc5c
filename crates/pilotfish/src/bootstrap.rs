//! `pilotfish bootstrap`: what a stock Envoy needs to connect.

use std::io::Write;

use anyhow::Context;
use pilotfish_model::Locality;
use serde_json::{Map, Value, json};

use crate::cli::BootstrapArgs;

const HTTP_PROTOCOL_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// Writes the bootstrap as JSON.
pub fn main(args: &BootstrapArgs) -> anyhow::Result<()> {
    let text = format!("{:#}\n", bootstrap(args)?);
    match &args.output {
        Some(path) => std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display())),
        None => std::io::stdout().write_all(text.as_bytes()).context("cannot write to standard output"),
    }
}

/// The bootstrap.
pub fn bootstrap(args: &BootstrapArgs) -> anyhow::Result<Value> {
    let (host, port) = args.xds_addr.rsplit_once(':').with_context(|| format!("{:?} is not host:port", args.xds_addr))?;
    let port: u16 = port.parse().with_context(|| format!("{:?} is not host:port", args.xds_addr))?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let cluster_type = if host.parse::<std::net::IpAddr>().is_ok() { "STATIC" } else { "STRICT_DNS" };
    let source = json!({"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"});
    Ok(json!({
        "node": node(args),
        "admin": {"address": {"socket_address": {"address": args.admin_addr.ip().to_string(), "port_value": args.admin_addr.port()}}},
        "dynamic_resources": {
            "ads_config": {
                "api_type": if args.sotw { "GRPC" } else { "DELTA_GRPC" },
                "transport_api_version": "V3",
                "set_node_on_first_message_only": true,
                "grpc_services": [{"envoy_grpc": {"cluster_name": "pilotfish"}}]
            },
            "cds_config": source,
            "lds_config": source
        },
        "static_resources": {"clusters": [{
            "name": "pilotfish",
            "type": cluster_type,
            "connect_timeout": "5s",
            "typed_extension_protocol_options": {HTTP_PROTOCOL_OPTIONS: {
                "@type": format!("type.googleapis.com/{HTTP_PROTOCOL_OPTIONS}"),
                "explicit_http_config": {"http2_protocol_options": {"connection_keepalive": {"interval": "30s", "timeout": "10s"}}}
            }},
            "load_assignment": {"cluster_name": "pilotfish", "endpoints": [{"lb_endpoints": [{"endpoint": {
                "address": {"socket_address": {"address": host, "port_value": port}}
            }}]}]}
        }]}
    }))
}

fn node(args: &BootstrapArgs) -> Value {
    let mut metadata = Map::new();
    if let Some(namespace) = &args.namespace {
        metadata.insert("NAMESPACE".into(), json!(namespace));
    }
    if !args.labels.is_empty() {
        metadata.insert("LABELS".into(), args.labels.iter().map(|(k, v)| (k.clone(), json!(v))).collect());
    }
    metadata.extend(args.metadata.iter().map(|(k, v)| (k.clone(), json!(v))));
    let mut node = json!({"id": args.id, "cluster": args.cluster, "metadata": metadata});
    if let Some(locality) = args.locality.as_deref().map(Locality::parse) {
        node["locality"] = json!({"region": &*locality.region, "zone": &*locality.zone, "sub_zone": &*locality.sub_zone});
    }
    node
}
