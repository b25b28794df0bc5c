//! A snapshot in the shape of Envoy's admin interface.

use pilotfish_envoy::any::unpack;
use pilotfish_envoy::json::to_json;
use pilotfish_envoy::pb::envoy::admin::v3 as admin;
use pilotfish_envoy::pb::envoy::config::core::v3::data_source::Specifier;
use pilotfish_envoy::pb::envoy::extensions::transport_sockets::tls::v3::{Secret, secret};
use pilotfish_envoy::pb::google::protobuf::Any;
use pilotfish_envoy::{Resource, Snapshot, TypeUrl, any};
use serde_json::{Value, json};

/// The plain resources of some types; `{}` if there is none.
pub(super) fn resources(snapshot: &Snapshot, types: &[TypeUrl]) -> Value {
    let of_type = |t: &TypeUrl| snapshot.get(*t).iter().map(|r| to_json(&shown(*t, r))).collect::<Vec<_>>();
    let configs: Vec<Value> = types.iter().flat_map(of_type).collect();
    if configs.is_empty() { json!({}) } else { json!({"configs": configs}) }
}

pub(super) fn config_dump(snapshot: &Snapshot, include_eds: bool) -> Value {
    let of = |t: TypeUrl| {
        let set = snapshot.get(t);
        let version = set.version().to_string();
        let resources: Vec<(String, Any)> = set.iter().map(|r| (r.name().to_string(), shown(t, r))).collect();
        (version, resources)
    };
    let mut parts = vec![any(&admin::BootstrapConfigDump::default())];

    let (version_info, clusters) = of(TypeUrl::Cluster);
    let dynamic = |(_, cluster)| admin::clusters_config_dump::DynamicCluster {
        version_info: version_info.clone(),
        cluster: Some(cluster),
        ..Default::default()
    };
    let dynamic_active_clusters = clusters.into_iter().map(dynamic).collect();
    parts.push(any(&admin::ClustersConfigDump { version_info: version_info.clone(), dynamic_active_clusters, ..Default::default() }));

    let (version_info, listeners) = of(TypeUrl::Listener);
    let dynamic = |(name, listener)| {
        let state = admin::listeners_config_dump::DynamicListenerState {
            version_info: version_info.clone(),
            listener: Some(listener),
            ..Default::default()
        };
        admin::listeners_config_dump::DynamicListener { name, active_state: Some(state), ..Default::default() }
    };
    let dynamic_listeners = listeners.into_iter().map(dynamic).collect();
    parts.push(any(&admin::ListenersConfigDump { version_info: version_info.clone(), dynamic_listeners, ..Default::default() }));

    parts.push(any(&admin::ScopedRoutesConfigDump::default()));

    let (version_info, routes) = of(TypeUrl::Route);
    let dynamic = |(_, route)| admin::routes_config_dump::DynamicRouteConfig {
        version_info: version_info.clone(),
        route_config: Some(route),
        ..Default::default()
    };
    let dynamic_route_configs = routes.into_iter().map(dynamic).collect();
    parts.push(any(&admin::RoutesConfigDump { dynamic_route_configs, ..Default::default() }));

    let secrets = snapshot.get(TypeUrl::Secret);
    let dynamic = |secret: &Resource| admin::secrets_config_dump::DynamicSecret {
        name: secret.name().to_string(),
        version_info: secret.version().to_string(),
        secret: Some(shown(TypeUrl::Secret, secret)),
        ..Default::default()
    };
    let dynamic_active_secrets = secrets.iter().map(dynamic).collect();
    parts.push(any(&admin::SecretsConfigDump { dynamic_active_secrets, ..Default::default() }));

    let (version_info, filters) = of(TypeUrl::ExtensionConfig);
    let dynamic = |(_, filter)| admin::ecds_config_dump::EcdsFilterConfig {
        version_info: version_info.clone(),
        ecds_filter: Some(filter),
        ..Default::default()
    };
    parts.push(any(&admin::EcdsConfigDump { ecds_filters: filters.into_iter().map(dynamic).collect() }));

    if include_eds {
        let (version_info, endpoints) = of(TypeUrl::Endpoint);
        let dynamic = |(_, endpoints)| admin::endpoints_config_dump::DynamicEndpointConfig {
            version_info: version_info.clone(),
            endpoint_config: Some(endpoints),
            ..Default::default()
        };
        let dynamic_endpoint_configs = endpoints.into_iter().map(dynamic).collect();
        parts.push(any(&admin::EndpointsConfigDump { dynamic_endpoint_configs, ..Default::default() }));
    }
    json!({"configs": parts.iter().map(to_json).collect::<Vec<_>>()})
}

/// A resource fit to be shown. Of a secret that is its name, and where it is read from if it only names files.
fn shown(type_url: TypeUrl, resource: &Resource) -> Any {
    let packed = resource.to_any();
    if type_url != TypeUrl::Secret {
        return packed;
    }
    // What cannot be read as a secret is not shown at all: it could still hold one.
    let r#type = unpack::<Secret>(&packed).and_then(|secret| secret.r#type).filter(names_files_only);
    any(&Secret { name: resource.name().to_string(), r#type })
}

fn names_files_only(kind: &secret::Type) -> bool {
    let sources = match kind {
        secret::Type::TlsCertificate(tls) if tls.private_key_provider.is_none() && tls.signed_certificate_timestamp.is_empty() => {
            vec![&tls.certificate_chain, &tls.private_key, &tls.ocsp_staple, &tls.password, &tls.pkcs12]
        }
        secret::Type::ValidationContext(roots) => vec![&roots.trusted_ca, &roots.crl],
        _ => return false,
    };
    sources.into_iter().flatten().all(|source| matches!(source.specifier, Some(Specifier::Filename(_))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use pilotfish_envoy::ResourceSet;
    use pilotfish_envoy::pb::envoy::config::cluster::v3::Cluster;
    use pilotfish_envoy::pb::envoy::config::core::v3::DataSource;
    use pilotfish_envoy::pb::envoy::extensions::transport_sockets::tls::v3::{GenericSecret, TlsCertificate};
    use pretty_assertions::assert_eq;

    fn secrets(kinds: &[(&str, secret::Type)]) -> Snapshot {
        let resource =
            |(name, kind): &(&str, secret::Type)| Resource::new(*name, &Secret { name: name.to_string(), r#type: Some(kind.clone()) });
        let mut snapshot = Snapshot::new();
        snapshot.insert(TypeUrl::Secret, ResourceSet::new(kinds.iter().map(resource)));
        snapshot
    }

    #[test]
    fn of_secrets_only_names_versions_and_paths_are_shown() {
        let source = |specifier| Some(DataSource { specifier: Some(specifier), ..Default::default() });
        let inline = |text: &str| source(Specifier::InlineBytes(text.to_owned().into()));
        let file = |path: &str| source(Specifier::Filename(path.into()));
        let tls = |certificate_chain, private_key| {
            secret::Type::TlsCertificate(TlsCertificate { certificate_chain, private_key, ..Default::default() })
        };
        let snapshot = secrets(&[
            ("files", tls(file("/c.pem"), file("/k.pem"))),
            ("generic", secret::Type::GenericSecret(GenericSecret { secret: inline("hush"), ..Default::default() })),
            ("inline", tls(inline("hush"), inline("hush"))),
            ("mixed", tls(file("/c.pem"), inline("hush"))),
        ]);
        let version = |name: &str| snapshot.get(TypeUrl::Secret).get(name).unwrap().version().to_string();
        let type_url = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
        let bare = |name: &str| json!({"@type": type_url, "name": name});
        let mut files = bare("files");
        files["tls_certificate"] = json!({"certificate_chain": {"filename": "/c.pem"}, "private_key": {"filename": "/k.pem"}});
        let shown = [files, bare("generic"), bare("inline"), bare("mixed")];
        assert_eq!(resources(&snapshot, &[TypeUrl::Secret]), json!({"configs": shown}));
        let entry = |secret: &Value| {
            let name = secret["name"].as_str().unwrap();
            json!({"name": name, "version_info": version(name), "secret": secret})
        };
        let expected: Vec<Value> = shown.iter().map(entry).collect();
        assert_eq!(config_dump(&snapshot, true)["configs"][5]["dynamic_active_secrets"], json!(expected));
    }

    #[test]
    fn parts_come_in_a_fixed_order() {
        let mut snapshot = Snapshot::new();
        let cluster = Cluster { name: "c".into(), ..Default::default() };
        snapshot.insert(TypeUrl::Cluster, ResourceSet::new([Resource::new("c", &cluster)]));
        let dump = config_dump(&snapshot, false);
        let types: Vec<_> =
            dump["configs"].as_array().unwrap().iter().map(|c| c["@type"].as_str().unwrap().rsplit('.').next().unwrap()).collect();
        let expected = ["Bootstrap", "Clusters", "Listeners", "ScopedRoutes", "Routes", "Secrets", "Ecds"];
        assert_eq!(types, expected.map(|t| format!("{t}ConfigDump")));
        assert_eq!(dump["configs"][1]["dynamic_active_clusters"][0]["cluster"]["name"], "c");
    }
}
