use pilotfish_model::time::parse_timestamp;
use pretty_assertions::assert_eq;

use super::*;
use crate::index::testing::{index_of, yaml_objects};

const SHOP: &str = r"
apiVersion: v1
kind: Service
metadata: {name: shop, namespace: ns1, labels: {app: shop}, creationTimestamp: '2026-01-01T00:00:00Z'}
spec: {clusterIP: 10.96.0.9, selector: {app: shop}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: shop-0, namespace: ns1, labels: {app: shop}}
spec: {nodeName: n1, serviceAccountName: shop}
status: {podIP: 10.0.0.1}
---
apiVersion: v1
kind: Node
metadata: {name: n1, labels: {topology.kubernetes.io/region: r1, topology.kubernetes.io/zone: z1}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: shop-x, namespace: ns1, labels: {kubernetes.io/service-name: shop}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [10.0.0.1], conditions: {ready: true}, targetRef: {kind: Pod, name: shop-0, namespace: ns1}}]
---
apiVersion: networking.istio.io/v1beta1
kind: VirtualService
metadata: {name: shop, namespace: ns1, uid: '7'}
spec: {hosts: [shop], http: [{route: [{destination: {host: shop}}]}]}
";

#[test]
fn times_are_printed_as_they_are_read() {
    for text in ["1970-01-01T00:00:00Z", "2000-02-29T23:59:59Z", "2026-12-31T12:30:01Z", "1969-07-20T20:17:40Z"] {
        assert_eq!(rfc3339(parse_timestamp(text).unwrap()), text);
    }
}

#[test]
fn listings_have_the_shape_that_tools_read() {
    let mut index = index_of(yaml_objects(SHOP));
    index.publish().unwrap();
    let snapshot = index.snapshot();
    let registry = registryz(&snapshot.mesh, "Kubernetes");
    assert_eq!(registry[0]["hostname"], "shop.ns1.svc.cluster.local");
    assert_eq!(registry[0]["clusterVIPs"], json!({"Addresses": {"Kubernetes": ["10.96.0.9"]}}));
    assert_eq!(registry[0]["creationTime"], "2026-01-01T00:00:00Z");
    assert_eq!(
        endpoint_shardz(&snapshot.mesh, "Kubernetes"),
        json!({"shop.ns1.svc.cluster.local": {"ns1": {
            "ServiceAccounts": {"spiffe://cluster.local/ns/ns1/sa/shop": {}},
            "Shards": {"Kubernetes/Kubernetes": [{
                "Labels": {"app": "shop", "kubernetes.io/hostname": "n1", "topology.istio.io/cluster": "Kubernetes",
                    "topology.istio.io/network": "", "topology.kubernetes.io/region": "r1", "topology.kubernetes.io/zone": "z1"},
                "Addresses": ["10.0.0.1"], "ServicePortName": "http", "LegacyClusterPortKey": 0,
                "ServiceAccount": "spiffe://cluster.local/ns/ns1/sa/shop", "Network": "",
                "Locality": {"Label": "r1/z1/", "ClusterID": "Kubernetes"}, "EndpointPort": 8080, "LbWeight": 0,
                "TLSMode": "disabled", "Namespace": "ns1", "WorkloadName": "shop-0", "HostName": "", "SubDomain": "",
                "HealthStatus": 1, "SendUnhealthyEndpoints": true, "NodeName": "n1",
            }]},
        }}})
    );
    assert_eq!(
        configz(&snapshot),
        json!([{"kind": "VirtualService", "apiVersion": "networking.istio.io/v1", "metadata": {"name": "shop", "namespace": "ns1"},
            "spec": {"hosts": ["shop"], "http": [{"route": [{"destination": {"host": "shop"}}]}]}}])
    );
    let workload = &snapshot.mesh.workloads[&"10.0.0.1".parse::<std::net::IpAddr>().unwrap()][0];
    let instances = instancesz(&snapshot.mesh, "Kubernetes", [("shop-0.ns1".to_owned(), workload.targets.as_slice())]);
    assert_eq!(instances["shop-0.ns1"][0]["Port"], json!({"name": "http", "port": 80, "protocol": "HTTP", "TargetPort": 8080}));
    assert_eq!(resourcesz()[1], json!({"group": "networking.istio.io", "version": "v1", "kind": "DestinationRule"}));
}
