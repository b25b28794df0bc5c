//! Listings for people and tools, in the shapes that istioctl reads. Each is a function of the mesh, made when asked.

use std::collections::BTreeSet;

use pilotfish_model::endpoint::{Endpoint, Health};
use pilotfish_model::mesh::{Mesh, ServiceTarget};
use pilotfish_model::name::{Labels, Visibility};
use pilotfish_model::service::{Registry, Resolution, Service, ServicePort, TrafficDistribution};
use pilotfish_model::time::Timestamp;
use pilotfish_model::{Kind, Protocol};
use serde_json::{Map, Value, json};

use crate::index::Snapshot;
use crate::object::served_version;

/// `/debug/registryz`: all services, in the order of hosts.
pub fn registryz(mesh: &Mesh, cluster_id: &str) -> Value {
    let mut services: Vec<_> = mesh.services.values().collect();
    services.sort_by(|a, b| (&a.host, &a.namespace).cmp(&(&b.host, &b.namespace)));
    services.into_iter().map(|s| service(s, cluster_id)).collect()
}

/// `/debug/endpointShardz`: endpoints by host, namespace and registry.
pub fn endpoint_shardz(mesh: &Mesh, cluster_id: &str) -> Value {
    let mut hosts = Map::new();
    for (key, endpoints) in &mesh.endpoints {
        let Some(s) = mesh.services.get(key) else { continue };
        let shard = format!("{}/{cluster_id}", registry(s.registry));
        let accounts: BTreeSet<&str> = endpoints.iter().map(|e| &*e.workload.service_account).filter(|a| !a.is_empty()).collect();
        let accounts: Map<_, _> = accounts.into_iter().map(|a| (a.to_owned(), json!({}))).collect();
        let list: Vec<Value> = endpoints.iter().map(|e| endpoint(e, s)).collect();
        let by_namespace = hosts.entry(key.host.to_string()).or_insert_with(|| json!({}));
        by_namespace[&*key.namespace] = json!({"Shards": {shard: list}, "ServiceAccounts": accounts});
    }
    Value::Object(hosts)
}

/// `/debug/configz`: Istio's objects in Kubernetes form, in the order of kind, namespace and name.
pub fn configz(snapshot: &Snapshot) -> Value {
    let mut objects: Vec<_> = snapshot.objects.iter().collect();
    objects.sort_by_key(|(id, _)| (id.kind.as_str(), id.namespace.clone(), id.name.clone()));
    // They were written by a serializer.
    objects.into_iter().map(|(_, text)| serde_json::from_str::<Value>(text).unwrap_or_default()).collect()
}

/// `/debug/instancesz`: for each connected proxy, by its name, what it serves.
pub fn instancesz<'a>(mesh: &Mesh, cluster_id: &str, proxies: impl IntoIterator<Item = (String, &'a [ServiceTarget])>) -> Value {
    let one = |target: &ServiceTarget| {
        let s = mesh.services.get(&target.service)?;
        let mut port = port(s.port_of_any(target.port)?);
        port["TargetPort"] = target.target_port.into();
        Some(json!({"Service": service(s, cluster_id), "Port": port}))
    };
    let all = proxies.into_iter().map(|(name, targets)| (name, targets.iter().filter_map(one).collect::<Value>()));
    Value::Object(all.collect())
}

/// `/debug/resourcesz`: the kinds of configuration that are read.
pub fn resourcesz() -> Value {
    let mut kinds: Vec<&Kind> = Kind::ALL.iter().filter(|k| k.group().ends_with(".istio.io")).collect();
    kinds.sort_by_key(|k| k.as_str());
    kinds.into_iter().map(|k| json!({"group": k.group(), "version": served_version(*k), "kind": k.as_str()})).collect()
}

fn registry(r: Registry) -> &'static str {
    match r {
        Registry::Kubernetes => "Kubernetes",
        Registry::External => "External",
    }
}

fn service(s: &Service, cluster_id: &str) -> Value {
    let by_cluster = |list: Vec<String>| if list.is_empty() { Value::Null } else { json!({cluster_id: list}) };
    let mut value = json!({
        "Attributes": {
            "ServiceRegistry": registry(s.registry),
            "Name": s.name,
            "Namespace": s.namespace,
            "Labels": labels(&s.labels),
            "ExportTo": export_to(&s.visibility),
            "Visibility": 0,
            "LabelSelectors": labels(&s.selector),
            "Aliases": null,
            "ClusterExternalAddresses": {"Addresses": by_cluster(s.external_addresses.iter().map(|a| a.to_string()).collect())},
            "ClusterExternalPorts": null,
            "PassthroughTargetPorts": null,
            "Type": s.k8s_type,
            "ExternalName": s.external_name.as_ref().map_or("", |h| h.as_str()),
            "NodeLocal": s.node_local,
            "TrafficDistribution": match s.traffic_distribution {
                TrafficDistribution::Any => 0,
                TrafficDistribution::PreferSameZone => 1,
                TrafficDistribution::PreferSameNode => 2,
            },
            "ObjectName": if s.registry == Registry::External { &*s.source.name } else { "" },
            "DNSConnectStrategy": 0,
            "PublishNotReadyAddresses": s.publish_not_ready,
        },
        "ports": s.ports.iter().map(port).collect::<Vec<_>>(),
        "creationTime": rfc3339(s.created),
        "hostname": s.host,
        "clusterVIPs": {"Addresses": by_cluster(s.addresses.iter().map(|a| a.to_string()).collect())},
        "defaultAddress": s.addresses.first().map_or("0.0.0.0".to_owned(), |a| a.to_string()),
        "Resolution": match s.resolution {
            Resolution::Static => 0,
            Resolution::Dns => 1,
            Resolution::Passthrough => 2,
            Resolution::DnsRoundRobin => 3,
            Resolution::Alias => 4,
            Resolution::DynamicDns => 5,
        },
        "MeshExternal": s.mesh_external,
        "ResourceVersion": "",
    });
    for (key, is_v4) in [("autoAllocatedIPv4Address", true), ("autoAllocatedIPv6Address", false)] {
        if let Some(ip) = s.auto_addresses.iter().find(|ip| ip.is_ipv4() == is_v4) {
            value[key] = ip.to_string().into();
        }
    }
    value
}

fn port(p: &ServicePort) -> Value {
    let protocol = if p.protocol == Protocol::Auto { "UnsupportedProtocol" } else { p.protocol.as_str() };
    json!({"name": p.name, "port": p.port, "protocol": protocol})
}

fn labels(map: &Labels) -> Value {
    if map.is_empty() { Value::Null } else { map.iter().map(|(k, v)| (k.to_string(), Value::from(&**v))).collect::<Map<_, _>>().into() }
}

/// A set as the reference prints it; null where everyone sees the service.
fn export_to(v: &Visibility) -> Value {
    match v {
        Visibility::Public => Value::Null,
        Visibility::Private => json!({".": {}}),
        Visibility::None => json!({"~": {}}),
        Visibility::Namespaces(list) => list.iter().map(|n| (n.to_string(), json!({}))).collect::<Map<_, _>>().into(),
    }
}

fn endpoint(e: &Endpoint, s: &Service) -> Value {
    let w = &e.workload;
    let kubernetes = s.registry == Registry::Kubernetes;
    let addresses: Vec<String> =
        std::iter::once(e.address.to_string()).chain(e.additional_addresses.iter().map(|a| a.to_string())).collect();
    let locality =
        if w.locality.is_empty() { String::new() } else { format!("{}/{}/{}", w.locality.region, w.locality.zone, w.locality.sub_zone) };
    json!({
        "Labels": labels(&w.labels),
        "Addresses": addresses,
        "ServicePortName": e.service_port,
        "LegacyClusterPortKey": if kubernetes { 0 } else { s.ports.iter().find(|p| p.name == e.service_port).map_or(0, |p| p.port) },
        "ServiceAccount": w.service_account,
        "Network": w.network,
        "Locality": {"Label": locality, "ClusterID": w.cluster_id},
        "EndpointPort": e.port,
        // The reference keeps "not given" apart, as 0.
        "LbWeight": if e.weight == 1 { 0 } else { e.weight },
        "TLSMode": if w.mtls { "istio" } else { "disabled" },
        "Namespace": w.namespace,
        "WorkloadName": w.workload_name,
        "HostName": w.hostname,
        "SubDomain": w.subdomain,
        "HealthStatus": match e.health {
            Health::Unknown => 0,
            Health::Healthy => 1,
            Health::Unhealthy => 2,
            Health::Draining => 3,
        },
        "SendUnhealthyEndpoints": kubernetes,
        "NodeName": w.node,
    })
}

/// The inverse of reading a timestamp, in UTC.
fn rfc3339(t: Timestamp) -> String {
    let (days, seconds) = (t.0.div_euclid(86_400), t.0.rem_euclid(86_400));
    // Civil date from days, with years that begin in March.
    let z = days + 719_468;
    let (era, day_of_era) = (z.div_euclid(146_097), z.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let (day, month) = (day_of_year - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
#[path = "debug/tests.rs"]
mod tests;
