//! A snapshot in the shape of Envoy's admin interface.

use pilotfish_envoy::any::unpack;
use pilotfish_envoy::json::to_json;
use pilotfish_envoy::pb::envoy::admin::v3 as admin;
use pilotfish_envoy::pb::envoy::config::core::v3::{DataSource, data_source::Specifier};
use pilotfish_envoy::pb::envoy::extensions::transport_sockets::tls::v3::{Secret, secret};
use pilotfish_envoy::pb::google::protobuf::Any;
use pilotfish_envoy::{Resource, Snapshot, TypeUrl, any};
use serde_json::{Value, json};

const REDACTED: &str = "[redacted]";

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

    let (version_info, secrets) = of(TypeUrl::Secret);
    let dynamic = |(name, secret)| admin::secrets_config_dump::DynamicSecret {
        name,
        version_info: version_info.clone(),
        secret: Some(secret),
        ..Default::default()
    };
    let dynamic_active_secrets = secrets.into_iter().map(dynamic).collect();
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

/// A resource fit to be shown: no private material.
fn shown(type_url: TypeUrl, resource: &Resource) -> Any {
    let packed = resource.to_any();
    if type_url != TypeUrl::Secret {
        return packed;
    }
    // What cannot be read as a secret is not shown at all: it could still hold one.
    let mut secret: Secret = unpack(&packed).unwrap_or_default();
    let redacted = || Some(DataSource { specifier: Some(Specifier::InlineString(REDACTED.into())), ..Default::default() });
    match &mut secret.r#type {
        Some(secret::Type::TlsCertificate(tls)) => {
            tls.private_key = tls.private_key.as_ref().and_then(|_| redacted());
            tls.password = tls.password.as_ref().and_then(|_| redacted());
            tls.pkcs12 = tls.pkcs12.as_ref().and_then(|_| redacted());
            tls.private_key_provider = None;
        }
        Some(secret::Type::GenericSecret(generic)) => {
            generic.secret = redacted();
            generic.secrets.values_mut().for_each(|v| *v = redacted().unwrap_or_default());
        }
        Some(secret::Type::SessionTicketKeys(_)) => secret.r#type = None,
        Some(secret::Type::ValidationContext(_)) | None => {}
    }
    any(&secret)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pilotfish_envoy::ResourceSet;
    use pilotfish_envoy::pb::envoy::config::cluster::v3::Cluster;
    use pilotfish_envoy::pb::envoy::extensions::transport_sockets::tls::v3::TlsCertificate;
    use pretty_assertions::assert_eq;

    #[test]
    fn keys_are_not_shown() {
        let inline = |text: &str| Some(DataSource { specifier: Some(Specifier::InlineString(text.into())), ..Default::default() });
        let tls = TlsCertificate { certificate_chain: inline("chain"), private_key: inline("hush"), ..Default::default() };
        let secret = Secret { name: "s".into(), r#type: Some(secret::Type::TlsCertificate(tls)) };
        let mut snapshot = Snapshot::new();
        snapshot.insert(TypeUrl::Secret, ResourceSet::new([Resource::new("s", &secret)]));
        for text in [config_dump(&snapshot, true).to_string(), resources(&snapshot, &[TypeUrl::Secret]).to_string()] {
            assert!(text.contains("chain") && text.contains(REDACTED) && !text.contains("hush"), "{text}");
        }
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
