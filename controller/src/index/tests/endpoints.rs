//! Who answers for a service: how it is, where it is, and what several objects of one host say.

use pretty_assertions::assert_eq;

use super::*;

#[test]
fn health_follows_conditions() {
    let slice = mk_slice(
        "web",
        &[
            "=10.0.0.1!",
            "=10.0.0.2!ready: false",
            "=10.0.0.3!ready: false, serving: true, terminating: true",
            "=10.0.0.4!ready: false, serving: false, terminating: true",
        ],
    );
    let mut index = index_of(yaml_objects(&[mk_service("web", ""), slice].concat()));
    assert_eq!(endpoints(&index.publish().unwrap().0, WEB), ["10.0.0.1:8080 Healthy", "10.0.0.2:8080 Unhealthy"]);
    let sticky = mk_service("web", "").replace("namespace: ns", "namespace: ns, labels: {istio.io/persistent-session: c}");
    let (mesh, _) = apply(&mut index, &sticky).unwrap();
    assert_eq!(
        mesh.endpoints[&key(WEB)].iter().map(|e| e.health).collect::<Vec<_>>(),
        [Health::Healthy, Health::Unhealthy, Health::Draining]
    );
}

#[test]
fn a_workload_may_say_that_it_goes() {
    let entry = mk_istio(
        "ServiceEntry",
        "se",
        "{hosts: [se.example], resolution: STATIC, ports: [{number: 80, name: http}], endpoints: [{address: 192.0.2.1}, {address: 192.0.2.2, \
         labels: {istio.io/draining: 'true'}}, {address: 192.0.2.3, labels: {istio.io/draining: ''}}]}",
    );
    let leaving = mk_pod("p2", "web", "10.0.0.2").replace("labels: {", "labels: {istio.io/draining: now, ");
    let objects =
        [mk_service("web", ""), mk_slice("web", &["p1=10.0.0.1!", "p2=10.0.0.2!"]), mk_pod("p1", "web", "10.0.0.1"), leaving, entry];
    let mut index = index_of(yaml_objects(&objects.concat()));
    let (mesh, _) = index.publish().unwrap();
    assert_eq!(endpoints(&mesh, WEB), ["10.0.0.1:8080 Healthy"]);
    assert_eq!(endpoints(&mesh, "se.example"), ["192.0.2.1:80 Unknown", "192.0.2.3:80 Unknown"]);
    let sticky = mk_service("web", "").replace("namespace: ns", "namespace: ns, labels: {istio.io/persistent-session: c}");
    let (mesh, _) = apply(&mut index, &sticky).unwrap();
    assert_eq!(endpoints(&mesh, WEB), ["10.0.0.1:8080 Healthy", "10.0.0.2:8080 Draining"]);
    let (mesh, _) = apply(&mut index, &mk_pod("p2", "web", "10.0.0.2")).unwrap();
    assert_eq!(endpoints(&mesh, WEB), ["10.0.0.1:8080 Healthy", "10.0.0.2:8080 Healthy"]);
}

#[test]
fn a_pod_of_both_families_is_one_endpoint_where_both_are_in_use() {
    let both = |name: &str, ips: [&str; 2]| {
        let ips = format!("status: {{podIPs: [{{ip: '{}'}}, {{ip: '{}'}}], podIP: '{}', phase: Running", ips[0], ips[1], ips[0]);
        mk_pod(name, "web", "x").replace("status: {phase: Running, podIP: x", &ips)
    };
    let other = mk_slice("web", &["p1='fd00::1'", "p2='fd00::2'", "='fd00::3'"]).replace("web-x", "web-6").replace("IPv4", "IPv6");
    let entry = "{hosts: [se.example], resolution: STATIC, ports: [{number: 80, name: http}], workloadSelector: {labels: {app: web}}}";
    let ready = "phase: Running, conditions: [{type: Ready, status: 'True'}]";
    let objects = [
        mk_service("web", ", clusterIPs: [10.1.0.1, 'fd00:1::1']"),
        mk_slice("web", &["p1=10.0.0.1", "p2=10.0.0.2", "=10.0.0.3"]),
        other,
        both("p1", ["10.0.0.1", "fd00::1"]).replace("phase: Running", ready),
        // The order is the Pod's own.
        both("p2", ["fd00::2", "10.0.0.2"]).replace("phase: Running", ready),
        mk_istio("ServiceEntry", "se", entry),
    ];
    let all = |clusters: bool, dual_stack: bool| {
        let features = pilotfish_model::Features { dual_stack, ..Default::default() };
        let mesh_config = Arc::new(pilotfish_model::MeshConfig { features, ..Default::default() });
        let mut index = Index::new(Settings { mesh_config, ..Settings::default() });
        let text = objects.concat();
        let text = if clusters { text } else { text.replace("clusterIPs: [10.1.0.1, 'fd00:1::1']", "clusterIPs: [10.1.0.1]") };
        yaml_objects(&text).into_iter().for_each(|o| index.apply(o));
        let mesh = index.publish().unwrap().0;
        [WEB, "se.example"].map(|host| {
            let ips = |e: &pilotfish_model::Endpoint| {
                std::iter::once(e.address.to_string())
                    .chain(e.additional_addresses.iter().map(ToString::to_string))
                    .collect::<Vec<_>>()
                    .join("+")
            };
            mesh.endpoints[&key(host)].iter().map(ips).collect::<Vec<_>>()
        })
    };
    let apart: &[&str] = &["10.0.0.1", "10.0.0.2", "10.0.0.3", "fd00::1", "fd00::2", "fd00::3"];
    let together: &[&str] = &["10.0.0.1+fd00::1", "10.0.0.3", "fd00::2+10.0.0.2", "fd00::3"];
    assert_eq!(all(true, true), [together, &["10.0.0.1+fd00::1", "fd00::2+10.0.0.2"]]);
    assert_eq!(all(true, false), [apart, &["10.0.0.1", "fd00::2"]]);
    // Who asks for one family gets one.
    assert_eq!(all(false, true), [apart, &["10.0.0.1+fd00::1", "fd00::2+10.0.0.2"]]);
}

#[test]
fn a_service_entry_selects_workload_entries_and_pods() {
    let entry = mk_istio(
        "ServiceEntry",
        "se",
        "{hosts: [se.example], resolution: STATIC, location: MESH_INTERNAL, ports: [{number: 80, name: http, targetPort: 81}], workloadSelector: \
         {labels: {app: legacy}}}",
    );
    let vm =
        mk_istio("WorkloadEntry", "vm", "{address: 192.0.2.1, labels: {app: legacy}, ports: {http: 8181}, weight: 5, serviceAccount: vm}");
    let mut index = index_of(yaml_objects(&[entry, vm, mk_pod("p1", "legacy", "10.0.0.1"), mk_pod("p2", "other", "10.0.0.2")].concat()));
    let (mesh, _) = index.publish().unwrap();
    assert_eq!(endpoints(&mesh, "se.example"), ["10.0.0.1:81 Healthy", "192.0.2.1:8181 Unknown"]);
    assert_eq!(targets(&mesh, "192.0.2.1"), ["se.example:80->8181"]);
    assert_eq!(targets(&mesh, "10.0.0.1"), ["se.example:80->81"]);
    assert_eq!(targets(&mesh, "10.0.0.2"), Vec::<String>::new());
    index.delete(&ObjectId::new(Kind::WorkloadEntry, "ns", "vm"));
    assert_eq!(endpoints(&index.publish().unwrap().0, "se.example"), ["10.0.0.1:81 Healthy"]);
}

#[test]
fn a_kubernetes_service_beats_a_service_entry_and_age_decides_between_entries() {
    let entry = |name: &str, year: u16| {
        mk_istio("ServiceEntry", name, &format!("{{hosts: [{WEB}, x.example], resolution: DNS, ports: [{{number: 1, name: tcp}}]}}"))
            .replace("namespace: ns", &format!("namespace: ns, creationTimestamp: '{year}-01-01T00:00:00Z'"))
    };
    let mut index = index_of(yaml_objects(&[entry("young", 2020), entry("old", 2010), mk_service("web", "")].concat()));
    let source = |mesh: &Mesh, host| mesh.services[&key(host)].source.name.to_string();
    let (mesh, _) = index.publish().unwrap();
    assert_eq!((source(&mesh, WEB), source(&mesh, "x.example")), ("web".into(), "old".into()));
    index.delete(&ObjectId::new(Kind::Service, "ns", "web"));
    index.delete(&ObjectId::new(Kind::ServiceEntry, "ns", "old"));
    let (mesh, changes) = index.publish().unwrap();
    assert_eq!((source(&mesh, WEB), source(&mesh, "x.example")), ("young".into(), "young".into()));
    let names: BTreeSet<_> = changes.objects.iter().map(|o| &*o.name).collect();
    assert_eq!(names, ["old", "web", "young"].into());
}

#[test]
fn objects_of_one_host_stand_beside_each_other_with_the_endpoints_of_all() {
    let entry = |name: &str, year: u16, port: &str, ip: &str, more: &str| {
        let spec = format!(
            "{{hosts: [{WEB}], resolution: STATIC, ports: [{port}], addresses: [198.51.100.{year}], endpoints: [{{address: {ip}}}]{more}}}"
        );
        mk_istio("ServiceEntry", name, &spec)
            .replace("namespace: ns", &format!("namespace: ns, creationTimestamp: '20{year}-01-01T00:00:00Z'"))
    };
    let objects = [
        entry("second", 11, "{number: 80, name: web}, {number: 443, name: tls}", "192.0.2.2", ""),
        entry("elsewhere", 12, "{number: 90, name: far}", "192.0.2.3", ", exportTo: [.]"),
        entry("first", 10, "{number: 80, name: http}", "192.0.2.1", ""),
    ];
    let mut index = index_of(yaml_objects(&objects.concat()));
    let has = |mesh: &Mesh| {
        let service = &mesh.services[&key(WEB)];
        let of = |s: &pilotfish_model::Service| format!("{} {:?}", s.source.name, s.ports.iter().map(|p| p.port).collect::<Vec<_>>());
        let endpoints: Vec<_> =
            mesh.endpoints[&key(WEB)].iter().map(|e| format!("{}({}):{}", e.service_port, e.service_port_number, e.address)).collect();
        (service.all().map(of).collect::<Vec<_>>().join(", "), endpoints.join(", "))
    };
    let (mesh, _) = index.publish().unwrap();
    let endpoints = "http(80):192.0.2.1, web(80):192.0.2.2, tls(443):192.0.2.2, far(90):192.0.2.3";
    assert_eq!(has(&mesh), ("first [80], second [80, 443], elsewhere [90]".into(), endpoints.into()));
    index.delete(&ObjectId::new(Kind::ServiceEntry, "ns", "first"));
    let (mesh, changes) = index.publish().unwrap();
    let endpoints = "web(80):192.0.2.2, tls(443):192.0.2.2, far(90):192.0.2.3";
    assert_eq!(has(&mesh), ("second [80, 443], elsewhere [90]".into(), endpoints.into()));
    let names: BTreeSet<_> = changes.objects.iter().map(|o| &*o.name).collect();
    assert_eq!(names, ["elsewhere", "first", "second"].into());
    // A Service of Kubernetes comes first, however young, and its endpoints beside theirs.
    let (mesh, _) = apply(&mut index, &[mk_service("web", ""), mk_slice("web", &["=10.0.0.1"])].concat()).unwrap();
    let endpoints = format!("http(0):10.0.0.1, {endpoints}");
    assert_eq!(has(&mesh), ("web [80], second [80, 443], elsewhere [90]".into(), endpoints));
}
