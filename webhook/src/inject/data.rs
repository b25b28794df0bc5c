//! What templates are told: the pod, its workload and the settings, with what is tedious to work out already worked out.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::annotations::{INTERCEPTION, STATUS_PORT};
use super::tree::{at, flag, list, name, number, text, texts};
use super::workload::Workload;
use super::{Config, InjectError, PROXY, Request, image, ordered, proxy_config, quantity};

/// UID and GID of the proxy, unless somebody says otherwise. Traffic of this user is not redirected.
const UID: i64 = 1337;

/// Facts of the pod that later steps need as well.
pub(crate) struct Facts {
    pub(crate) data: Value,
    pub(crate) proxy: Value,
    pub(crate) hold: bool,
    pub(crate) tproxy: bool,
    pub(crate) network: Option<String>,
}

/// Works it all out for a pod without what was injected before.
pub(crate) fn collect(pod: &Value, request: &Request<'_>, config: &Config, native: bool) -> Result<Facts, InjectError> {
    let (values, mesh) = (&config.values, &config.mesh);
    let annotations = texts(pod, &["metadata", "annotations"]);
    let labels = texts(pod, &["metadata", "labels"]);
    let label_set = labels.iter().map(|(k, v)| (k.as_str().into(), v.as_str().into())).collect();
    let annotation = |name: &str| annotations.get(name).map(String::as_str);
    let proxy = proxy_config::effective(mesh, request.proxy_configs, request.namespace, &label_set, &annotations)?;
    let workload = Workload::of(pod, request.namespace);

    let interception = annotation(INTERCEPTION).or_else(|| text(&proxy, &["interceptionMode"])).unwrap_or("REDIRECT").to_owned();
    let tproxy = interception == "TPROXY";
    let hold = flag(&proxy, &["holdApplicationUntilProxyStarts"]) || flag(values, &["global", "proxy", "holdApplicationUntilProxyStarts"]);
    let status_port = annotation(STATUS_PORT)
        .and_then(|p| p.parse().ok())
        .or_else(|| at(values, &["global", "proxy", "statusPort"]).and_then(number))
        .unwrap_or(15020);
    let (uid, gid) = user(pod, request, config, tproxy);
    let network = texts(pod, &["metadata", "labels"])
        .get("topology.istio.io/network")
        .or_else(|| request.variables.get("ISTIO_META_NETWORK"))
        .map(String::as_str)
        .filter(|n| !n.is_empty())
        .or_else(|| text(values, &["global", "network"]))
        .map(str::to_owned);
    let applications: Vec<&Value> = list(pod, &["spec", "containers"]).iter().filter(|c| name(c) != PROXY).collect();
    let traffic = traffic(&annotations, values, status_port);
    let trust_domain = text(mesh, &["trustDomain"]).unwrap_or("cluster.local");
    let metadata = at(&proxy, &["proxyMetadata"]).and_then(Value::as_object);
    let metadata: Vec<_> = metadata.into_iter().flatten().map(|(k, v)| json!([k, v])).collect();
    let mut data = json!({
        "pod": pod,
        "annotations": annotations,
        "labels": labels,
        "values": values,
        "mesh": mesh,
        "proxy": proxy,
        "workload": workload,
        "owner": workload.owner(),
        "canonical_name": canonical_name(&labels, &workload),
        "canonical_revision": labels.get("service.istio.io/canonical-revision").or_else(|| labels.get("app.kubernetes.io/version"))
            .or_else(|| labels.get("version")).map_or("latest", String::as_str),
        "revision": config.revision,
        "image": image::reference(values, &proxy, &annotations, &["global", "proxy", "image"]),
        "init_image": image::reference(values, &proxy, &annotations, &["global", "proxy_init", "image"]),
    });
    let more = json!({
        "native": native,
        "hold": hold,
        "hbone": text(&proxy, &["proxyMetadata", "ISTIO_META_ENABLE_HBONE"]) == Some("true"),
        "interception": interception,
        "status_port": status_port,
        "uid": uid,
        "gid": gid,
        "net_bind": annotation("sidecar.istio.io/capNetBindService").map_or_else(
            || flag(values, &["global", "proxy", "capNetBindService"]),
            |v| v == "true"),
        "first_container": applications.first().map(|c| name(c)),
        "containers": applications.iter().map(|c| name(c)).collect::<Vec<_>>(),
        "app_containers": applications.iter().map(|c| name(c)).collect::<Vec<_>>().join(","),
        "pod_ports": ports(&applications),
        "proxy_config": proxy_config::difference(&proxy),
        "resources": resources(&annotations, values),
        "readiness": readiness(&annotations, values),
        "metadata": metadata,
        "cni": flag(values, &["pilot", "cni", "enabled"]),
        "cni_networks": cni_networks(&annotations, values),
        "cni_annotations": traffic.get("cni"),
        "traffic": traffic,
        "ca_address": ca_address(values, &config.revision),
        "trust_domain": trust_domain,
        "trust_bundle": config.trust_bundle,
        "compliance_policy": config.compliance_policy,
        "inbound_localhost": text(mesh, &["inboundTrafficPolicy", "mode"]) == Some("LOCALHOST"),
        "otel_attributes": otel(pod, mesh, &labels, request.namespace, &workload),
        "downward": [["POD_NAME", "metadata.name"], ["POD_NAMESPACE", "metadata.namespace"], ["INSTANCE_IP", "status.podIP"],
            ["SERVICE_ACCOUNT", "spec.serviceAccountName"], ["HOST_IP", "status.hostIP"]],
        "user_volumes": user_json(&annotations, "sidecar.istio.io/userVolume")?,
        "user_volume_mounts": user_json(&annotations, "sidecar.istio.io/userVolumeMount")?,
    });
    if let (Some(data), Value::Object(more)) = (data.as_object_mut(), more) {
        data.extend(more);
    }
    Ok(Facts { data, proxy, hold, tproxy, network })
}

/// The user of the proxy: the pod's own word, then the platform's, then the usual one.
fn user(pod: &Value, request: &Request<'_>, config: &Config, tproxy: bool) -> (i64, i64) {
    let in_range = |key: &str| {
        let range = request.namespace_annotations.get(key).filter(|_| config.openshift && !tproxy)?;
        range.split(['/', '-', ',']).next()?.parse::<i64>().ok()?.checked_add(1)
    };
    let uid = in_range("openshift.io/sa.scc.uid-range");
    let gid = in_range("openshift.io/sa.scc.supplemental-groups").or(uid);
    let all = || ["initContainers", "containers"].into_iter().flat_map(|l| list(pod, &["spec", l]));
    let own = |key: &str| {
        let proxy = all().find(|c| name(c) == PROXY)?;
        let id = at(proxy, &["securityContext", key])?.as_i64().filter(|id| *id != 0)?;
        // OpenShift writes the namespace's user into all containers; that is nobody's wish.
        let by_platform =
            config.openshift && all().any(|c| name(c) != PROXY && at(c, &["securityContext", key]).and_then(Value::as_i64) == Some(id));
        (!by_platform).then_some(id)
    };
    (own("runAsUser").or(uid).unwrap_or(UID), own("runAsGroup").or(gid).unwrap_or(UID))
}

fn canonical_name(labels: &BTreeMap<String, String>, workload: &Workload) -> String {
    let kept = labels.get("service.istio.io/canonical-name");
    let label = kept.or_else(|| labels.get("app.kubernetes.io/name")).or_else(|| labels.get("app"));
    let name = label.unwrap_or(&workload.name);
    // A label's value is ASCII and at most 63 long; names of workloads may be longer.
    let name = if name.len() > 63 { name.get(..63).unwrap_or(name) } else { name };
    name.trim_matches(['-', '_', '.']).to_owned()
}

fn ports(containers: &[&Value]) -> String {
    let ports: Vec<_> = containers.iter().flat_map(|c| list(c, &["ports"])).map(ordered::json).collect();
    if ports.is_empty() { "[\n]".to_owned() } else { format!("[\n    {}\n]", ports.join("\n    ,")) }
}

/// Four annotations replace what the values say, all of it.
fn resources(annotations: &BTreeMap<String, String>, values: &Value) -> Value {
    let get = |name: &str| annotations.get(&format!("sidecar.istio.io/{name}")).filter(|v| !v.is_empty()).map(|v| json!(v));
    let mut limits = [("cpu", get("proxyCPULimit")), ("memory", get("proxyMemoryLimit"))];
    let mut requests = [("cpu", get("proxyCPU")), ("memory", get("proxyMemory"))];
    let mut resources = Map::new();
    if limits.iter().chain(&requests).any(|(_, v)| v.is_some()) {
        let mut put = |key: &str, list: &mut [(&str, Option<Value>)]| {
            let map: Map<_, _> = list.iter_mut().filter_map(|(k, v)| Some(((*k).to_owned(), v.take()?))).collect();
            if !map.is_empty() {
                resources.insert(key.to_owned(), Value::Object(map));
            }
        };
        put("limits", &mut limits);
        put("requests", &mut requests);
    } else {
        for (key, value) in at(values, &["global", "proxy", "resources"]).and_then(Value::as_object).into_iter().flatten() {
            let map: Map<_, _> =
                value.as_object().into_iter().flatten().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k.clone(), v.clone())).collect();
            if !map.is_empty() {
                resources.insert(key.clone(), Value::Object(map));
            }
        }
    }
    for map in resources.values_mut().filter_map(Value::as_object_mut) {
        for value in map.values_mut() {
            let written = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            *value = json!(quantity::canonical(&written).unwrap_or(written));
        }
    }
    Value::Object(resources)
}

fn readiness(annotations: &BTreeMap<String, String>, values: &Value) -> Value {
    let get = |name: &str, value: &str| {
        let annotation = annotations.get(&format!("readiness.status.sidecar.istio.io/{name}")).and_then(|v| v.parse::<i64>().ok());
        annotation.or_else(|| at(values, &["global", "proxy", value]).and_then(number)).unwrap_or_default()
    };
    json!({
        "initialDelaySeconds": get("initialDelaySeconds", "readinessInitialDelaySeconds"),
        "periodSeconds": get("periodSeconds", "readinessPeriodSeconds"),
        "failureThreshold": get("failureThreshold", "readinessFailureThreshold"),
    })
}

/// What is redirected, and the annotations that tell a node agent the same.
fn traffic(annotations: &BTreeMap<String, String>, values: &Value, status_port: i64) -> Value {
    let get = |name: &str, value: &str| {
        let annotation = annotations.get(&format!("traffic.sidecar.istio.io/{name}")).cloned();
        let value = || at(values, &["global", "proxy", value]).map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned));
        annotation.or_else(value).unwrap_or_default()
    };
    let include_ranges = get("includeOutboundIPRanges", "includeIPRanges");
    let exclude_ranges = get("excludeOutboundIPRanges", "excludeIPRanges");
    let include_inbound = get("includeInboundPorts", "includeInboundPorts");
    let mut exclude_inbound = get("excludeInboundPorts", "excludeInboundPorts");
    let status = status_port.to_string();
    if status_port != 0 && !exclude_inbound.split(',').any(|p| p.trim() == status) {
        exclude_inbound = if exclude_inbound.is_empty() { status } else { format!("{exclude_inbound},{status}") };
    }
    let include_outbound = get("includeOutboundPorts", "includeOutboundPorts");
    let exclude_outbound = get("excludeOutboundPorts", "excludeOutboundPorts");
    let reroute = annotations
        .get("istio.io/reroute-virtual-interfaces")
        .or_else(|| annotations.get("traffic.sidecar.istio.io/kubevirtInterfaces"))
        .cloned()
        .unwrap_or_default();
    let exclude_interfaces = annotations.get("traffic.sidecar.istio.io/excludeInterfaces").cloned().unwrap_or_default();
    let cni: Vec<Value> = [
        ("traffic.sidecar.istio.io/includeOutboundIPRanges", &include_ranges),
        ("traffic.sidecar.istio.io/excludeOutboundIPRanges", &exclude_ranges),
        ("traffic.sidecar.istio.io/includeInboundPorts", &include_inbound),
        ("traffic.sidecar.istio.io/excludeInboundPorts", &exclude_inbound),
        ("traffic.sidecar.istio.io/includeOutboundPorts", &include_outbound),
        ("traffic.sidecar.istio.io/excludeOutboundPorts", &exclude_outbound),
        ("istio.io/reroute-virtual-interfaces", &reroute),
        ("traffic.sidecar.istio.io/excludeInterfaces", &exclude_interfaces),
    ]
    .into_iter()
    .filter(|(_, v)| !v.is_empty())
    .map(|(k, v)| json!([k, v]))
    .collect();
    json!({
        "include_ip_ranges": include_ranges,
        "exclude_ip_ranges": exclude_ranges,
        "include_inbound_ports": include_inbound,
        "exclude_inbound_ports": exclude_inbound,
        "include_outbound_ports": include_outbound,
        "exclude_outbound_ports": exclude_outbound,
        "reroute_interfaces": reroute,
        "exclude_interfaces": exclude_interfaces,
        "cni": cni,
    })
}

/// The pod's networks with ours, for the Multus plug-in.
fn cni_networks(annotations: &BTreeMap<String, String>, values: &Value) -> Option<String> {
    if text(values, &["pilot", "cni", "provider"]) != Some("multus") {
        return None;
    }
    let ours = "istio-cni";
    let Some(theirs) = annotations.get("k8s.v1.cni.cncf.io/networks").map(|v| v.trim()).filter(|v| !v.is_empty()) else {
        return Some(format!("default/{ours}"));
    };
    // An earlier injection wrote it already.
    if theirs.contains(ours) {
        return Some(theirs.to_owned());
    }
    Some(match theirs.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) if serde_json::from_str::<Vec<Value>>(theirs).is_ok() => {
            format!("[{}, {{\"name\": \"{ours}\", \"namespace\": \"default\"}}]", inner.trim())
        }
        _ => format!("{theirs}, default/{ours}"),
    })
}

fn ca_address(values: &Value, revision: &str) -> String {
    if let Some(given) = text(values, &["global", "caAddress"]) {
        return given.to_owned();
    }
    let suffix = if matches!(revision, "" | "default") { String::new() } else { format!("-{revision}") };
    format!("istiod{suffix}.{}.svc:15012", text(values, &["global", "istioNamespace"]).unwrap_or("istio-system"))
}

/// OpenTelemetry's names for the workload, if a provider of the mesh wants them. `$(POD_NAME)` is the kubelet's to fill in.
fn otel(pod: &Value, mesh: &Value, labels: &BTreeMap<String, String>, namespace: &str, workload: &Workload) -> Option<String> {
    let wanted = list(mesh, &["extensionProviders"])
        .iter()
        .any(|p| text(p, &["opentelemetry", "serviceAttributeEnrichment"]) == Some("OTEL_SEMANTIC_CONVENTIONS"));
    if !wanted {
        return None;
    }
    let containers = list(pod, &["spec", "containers"]);
    let container = containers.iter().map(name).find(|n| *n != PROXY).unwrap_or(&workload.name);
    let version = labels.get("app.kubernetes.io/version").or_else(|| labels.get("version"));
    let version = version.map(|v| format!("service.version={v},")).unwrap_or_default();
    Some(format!("service.namespace={namespace},{version}service.instance.id={namespace}.$(POD_NAME).{container}"))
}

/// Volumes of the user's own: a list, or a map by name.
fn user_json(annotations: &BTreeMap<String, String>, key: &str) -> Result<Vec<Value>, InjectError> {
    let Some(written) = annotations.get(key) else { return Ok(Vec::new()) };
    match serde_json::from_str(written) {
        Ok(Value::Array(items)) => Ok(items),
        Ok(Value::Object(map)) => {
            let named = |(name, fields): (String, Value)| {
                let mut fields = fields;
                if let Some(fields) = fields.as_object_mut() {
                    fields.insert("name".to_owned(), json!(name));
                }
                fields
            };
            Ok(map.into_iter().map(named).collect())
        }
        Ok(_) => Err(InjectError::Annotation { name: key.to_owned(), reason: "is neither a list nor a map".to_owned() }),
        Err(e) => Err(InjectError::Annotation { name: key.to_owned(), reason: e.to_string() }),
    }
}
