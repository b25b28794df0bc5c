//! Who gets which address, and who keeps it.

use pretty_assertions::assert_eq;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use pilotfish_model::Kind;

fn id(name: &str) -> ObjectId {
    ObjectId::new(Kind::ServiceEntry, "ns", name)
}

fn mk_entry(name: &str, second: u32, spec: Value, addresses: &[(&str, &str)]) -> String {
    let addresses: Vec<Value> = addresses.iter().map(|(host, value)| json!({"host": host, "value": value})).collect();
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry", "spec": spec, "status": {"addresses": addresses},
        "metadata": {"name": name, "namespace": "ns", "creationTimestamp": format!("2026-01-01T00:00:{second:02}Z")},
    })
    .to_string()
}

fn dns(hosts: &[&str]) -> Value {
    json!({"hosts": hosts, "resolution": "DNS", "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}]})
}

fn allocator() -> Allocator {
    Allocator::new(Pools::parse(IPV4, IPV6).unwrap())
}

fn of(addresses: &[(String, IpAddr)]) -> Vec<(&str, String)> {
    addresses.iter().map(|(host, ip)| (host.as_str(), ip.to_string())).collect()
}

#[test]
fn each_host_gets_one_of_each_family() {
    let mut a = allocator();
    a.see(&id("x"), Some(&mk_entry("x", 0, dns(&["a.example", "B.example", "*.wild"]), &[])));
    let given = a.allocate();
    let (x, addresses) = &given[0];
    let addresses = addresses.as_ref().unwrap();
    assert_eq!((given.len(), x), (1, &id("x")));
    let hosts: Vec<_> = addresses.iter().map(|(h, ip)| (h.as_str(), ip.is_ipv4())).collect();
    assert_eq!(hosts, [("a.example", true), ("a.example", false), ("b.example", true), ("b.example", false)]);
    let pools = Pools::parse(IPV4, IPV6).unwrap();
    assert!(addresses.iter().all(|(_, ip)| pools.contains(*ip)));
    // The same on every replica, and nothing new while nothing changes.
    let mut b = allocator();
    b.see(&id("x"), Some(&mk_entry("x", 0, dns(&["a.example", "B.example", "*.wild"]), &[])));
    assert_eq!(b.allocate(), given);
    assert_eq!(a.allocate(), []);
}

#[test]
fn only_those_that_need_addresses_get_some() {
    let mut own = dns(&["a.example"]);
    own["addresses"] = json!(["10.0.0.1"]);
    let none = json!({"hosts": ["a.example"], "resolution": "NONE"});
    let dynamic = json!({"hosts": ["*.example"], "resolution": "DYNAMIC_DNS"});
    for (spec, wanted) in [(own, None), (none, None), (dns(&["*.example"]), None), (dynamic, Some(2)), (dns(&["a.example"]), Some(2))] {
        let mut a = allocator();
        a.see(&id("x"), Some(&mk_entry("x", 0, spec.clone(), &[])));
        assert_eq!(a.allocate().remove(0).1.map(|a| a.len()), wanted, "{spec}");
    }
    let mut opted_out: Value = serde_json::from_str(&mk_entry("x", 0, dns(&["a.example"]), &[])).unwrap();
    opted_out["metadata"]["labels"] = json!({ENABLE: "false"});
    let mut a = allocator();
    a.see(&id("x"), Some(&opted_out.to_string()));
    assert_eq!(a.allocate(), [(id("x"), None)]);
}

#[test]
fn the_older_keeps_what_both_have() {
    let mut a = allocator();
    let both = [("h", "240.240.7.7"), ("h", "2001:2::7")];
    a.see(&id("young"), Some(&mk_entry("young", 9, dns(&["h"]), &both)));
    assert_eq!(
        of(a.allocate()[0].1.as_ref().unwrap()),
        [("h", "240.240.7.7".to_owned()), ("h", "2001:2::7".to_owned())],
        "as in its status"
    );
    a.see(&id("old"), Some(&mk_entry("old", 3, dns(&["h"]), &both)));
    let given: BTreeMap<_, _> = a.allocate().into_iter().collect();
    assert_eq!(of(given[&id("old")].as_ref().unwrap()), [("h", "240.240.7.7".to_owned()), ("h", "2001:2::7".to_owned())]);
    let moved = given[&id("young")].clone().unwrap();
    assert!(moved.len() == 2 && of(&moved).iter().all(|(_, ip)| ip != "240.240.7.7" && ip != "2001:2::7"), "{moved:?}");
    // What a user wrote into a specification is nobody else's, however old.
    let mut own = dns(&["x"]);
    own["addresses"] = json!(["240.240.7.7"]);
    a.see(&id("newest"), Some(&mk_entry("newest", 30, own, &[])));
    let given: BTreeMap<_, _> = a.allocate().into_iter().collect();
    let old = of(given[&id("old")].as_ref().unwrap());
    assert!(old[0].1 != "240.240.7.7" && old[1].1 == "2001:2::7", "{old:?}");
}

#[test]
fn addresses_outside_of_the_pools_and_of_other_hosts_are_replaced() {
    let mut a = allocator();
    a.see(&id("x"), Some(&mk_entry("x", 0, dns(&["h"]), &[("h", "10.0.0.1"), ("gone", "240.240.1.1"), ("h", "240.240.0.0")])));
    let given = a.allocate().remove(0).1.unwrap();
    assert!(given.iter().all(|(_, ip)| !["10.0.0.1", "240.240.1.1", "240.240.0.0"].contains(&&*ip.to_string())), "{given:?}");
}

#[test]
fn a_new_leader_believes_statuses_only() {
    let mut a = allocator();
    a.see(&id("x"), Some(&mk_entry("x", 0, dns(&["h"]), &[])));
    let first = a.allocate();
    a.start_over();
    // Meanwhile somebody else gave that address away.
    let taken = of(first[0].1.as_ref().unwrap())[0].1.clone();
    a.see(&id("y"), Some(&mk_entry("y", 5, dns(&["i"]), &[("i", &taken)])));
    let given: BTreeMap<_, _> = a.allocate().into_iter().collect();
    assert_eq!(of(given[&id("y")].as_ref().unwrap())[0].1, taken);
    assert_ne!(of(given[&id("x")].as_ref().unwrap())[0].1, taken);
}

#[test]
fn ranges_are_checked() {
    for (v4, v6) in
        [("10.0.0.0/33", IPV6), ("10.0.0.0", IPV6), ("fd00::/8", IPV6), (IPV4, "10.0.0.0/8"), ("10.0.0.0/31", IPV6), (IPV4, "fd00::/127")]
    {
        assert!(Pools::parse(v4, v6).is_err(), "{v4} {v6}");
    }
}

proptest! {
    /// Whatever statuses say and in whatever order objects come and go: no address is given twice, and once all statuses are
    /// what was given, nothing is given anew.
    #[test]
    fn addresses_are_unique_and_settle(steps in prop::collection::vec((0..6u32, 0..3u32, prop::option::of(1..6u32)), 1..40)) {
        let mut a = Allocator::new(Pools::parse("240.240.0.0/28", "2001:2::/124").unwrap());
        let mut statuses: BTreeMap<ObjectId, (u32, Vec<(String, String)>)> = BTreeMap::new();
        let mut wanted: BTreeMap<ObjectId, Vec<(String, String)>> = BTreeMap::new();
        let see = |a: &mut Allocator, id: &ObjectId, age: u32, status: &[(String, String)]| {
            let status: Vec<_> = status.iter().map(|(h, v)| (h.as_str(), v.as_str())).collect();
            a.see(id, Some(&mk_entry(&id.name, age, dns(&[&format!("{}.example", id.name)]), &status)));
        };
        let take = |a: &mut Allocator, wanted: &mut BTreeMap<ObjectId, Vec<(String, String)>>| {
            for (id, given) in a.allocate() {
                match given {
                    Some(given) => drop(wanted.insert(id, of(&given).into_iter().map(|(h, v)| (h.to_owned(), v)).collect())),
                    None => drop(wanted.remove(&id)),
                }
            }
        };
        for (who, age, status) in steps {
            let object = id(&format!("e{who}"));
            match status {
                None => {
                    statuses.remove(&object);
                    a.see(&object, None);
                }
                Some(n) => {
                    let host = format!("{}.example", object.name);
                    let status = vec![(host.clone(), format!("240.240.0.{n}")), (host, format!("2001:2::{n}"))];
                    see(&mut a, &object, age, &status);
                    statuses.insert(object, (age, status));
                }
            }
            take(&mut a, &mut wanted);
            let mut all: Vec<_> = wanted.values().flatten().map(|(_, ip)| ip).collect();
            let count = all.len();
            all.sort_unstable();
            all.dedup();
            prop_assert_eq!(all.len(), count, "twice: {:?}", wanted);
            prop_assert!(wanted.keys().eq(statuses.keys()));
        }
        for (object, status) in wanted.clone() {
            see(&mut a, &object, statuses[&object].0, &status);
        }
        let settled = wanted.clone();
        take(&mut a, &mut wanted);
        prop_assert_eq!(wanted, settled);
    }
}
