//! [`Allocator`]: addresses for ServiceEntries that have none, so that clients which capture DNS can tell their services apart.
//!
//! What is in an object's status stays, as long as it is of the pools and nobody with an older claim has it: addresses
//! survive restarts and changes of the leader. Of two objects with the same address the older keeps it (by creation, then by
//! name). A new address follows from the name of the object and its host, so that it is likely to come back. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use pilotfish_crds::networking::service_entry::{Resolution, ServiceEntrySpec};
use pilotfish_model::name::Str;
use pilotfish_model::time::Timestamp;
use pilotfish_model::{ContentHash, Host, ObjectId};

use crate::object::{Body, Decoded, Object, decode};

/// Label with which an object says whether it wants addresses.
const ENABLE: &str = "networking.istio.io/enable-autoallocate-ip";

/// Ranges that addresses are taken from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pools {
    v4: (u32, u32),
    v6: (u128, u128),
}

/// Why a text is not a range to allocate from.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an IPv{1} range of at least four addresses, such as {2}")]
pub struct BadPool(String, u8, &'static str);

/// The reference's range of IPv4.
pub const IPV4: &str = "240.240.0.0/16";
/// The reference's range of IPv6.
pub const IPV6: &str = "2001:2::/48";

impl Pools {
    /// From two ranges.
    pub fn parse(v4: &str, v6: &str) -> Result<Pools, BadPool> {
        let cidr = |text: &str, family: u8, example: &'static str, bits: u32| {
            let bad = || BadPool(text.to_owned(), family, example);
            let (ip, length) = text.split_once('/').ok_or_else(bad)?;
            let ip = IpAddr::from_str(ip).ok().filter(|ip| ip.is_ipv4() == (family == 4)).ok_or_else(bad)?;
            let length = length.parse::<u32>().ok().filter(|l| (1..=bits - 2).contains(l)).ok_or_else(bad)?;
            Ok((ip, bits - length))
        };
        let (first4, host4) = cidr(v4, 4, IPV4, 32)?;
        let (first6, host6) = cidr(v6, 6, IPV6, 128)?;
        let (IpAddr::V4(a), IpAddr::V6(b)) = (first4, first6) else { return Err(BadPool(v4.to_owned(), 4, IPV4)) };
        let (size4, size6) = (1_u32 << host4, 1_u128 << host6);
        Ok(Pools { v4: (a.to_bits() & !(size4 - 1), size4), v6: (b.to_bits() & !(size6 - 1), size6) })
    }

    /// The address at a position, the first and the last of a range left out.
    fn at(&self, v4: bool, position: u128) -> IpAddr {
        if v4 {
            let (first, size) = self.v4;
            let position = u32::try_from(position % u128::from(size - 2)).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(first + 1 + position))
        } else {
            let (first, size) = self.v6;
            IpAddr::V6(Ipv6Addr::from_bits(first + 1 + position % (size - 2)))
        }
    }

    fn contains(&self, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(ip) => ip.to_bits() > self.v4.0 && ip.to_bits() < self.v4.0 + (self.v4.1 - 1),
            IpAddr::V6(ip) => ip.to_bits() > self.v6.0 && ip.to_bits() < self.v6.0 + (self.v6.1 - 1),
        }
    }
}

/// Whose an address is: the least claim holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Claim {
    /// False where a user wrote it in the specification: that cannot be taken away, and comes first.
    allocated: bool,
    created: Timestamp,
    namespace: Str,
    name: Str,
    host: Host,
}

struct Entry {
    created: Timestamp,
    /// Hosts that need addresses.
    hosts: Vec<Host>,
    /// What its status says.
    status: BTreeSet<(Host, IpAddr)>,
    /// What its specification says.
    given: BTreeSet<IpAddr>,
    /// What it was given in this term.
    allocated: Vec<(Host, IpAddr)>,
}

/// See the module's documentation.
pub struct Allocator {
    pools: Pools,
    entries: BTreeMap<ObjectId, Entry>,
    claims: BTreeMap<IpAddr, BTreeSet<Claim>>,
    dirty: BTreeSet<ObjectId>,
}

/// What an object is to have; `None`: nothing is said about it.
pub type Allocated = (ObjectId, Option<Vec<(String, IpAddr)>>);

impl Allocator {
    /// Knows no object.
    pub fn new(pools: Pools) -> Self {
        Allocator { pools, entries: BTreeMap::new(), claims: BTreeMap::new(), dirty: BTreeSet::new() }
    }

    /// A ServiceEntry as JSON; `None`: gone.
    pub fn see(&mut self, id: &ObjectId, raw: Option<&str>) {
        let object = raw.and_then(|raw| serde_json::from_str(raw).ok()).and_then(|value| decode(value).ok());
        let entry = match object {
            Some(Decoded::Object(object)) => entry(&object),
            _ => None,
        };
        let old = self.entries.remove(id);
        let mut allocated = Vec::new();
        if let Some(old) = old {
            self.claim(id, &old, false);
            // What it was given holds until the object says so itself, unless it does not need it any more.
            allocated = old.allocated;
        }
        self.dirty.insert(id.clone());
        if let Some(mut entry) = entry {
            allocated.retain(|(host, _)| entry.hosts.contains(host));
            entry.allocated = allocated;
            self.claim(id, &entry, true);
            self.entries.insert(id.clone(), entry);
        }
    }

    /// The object's addresses are to be said again.
    pub fn ask(&mut self, id: &ObjectId) {
        if self.entries.contains_key(id) {
            self.dirty.insert(id.clone());
        }
    }

    /// Forgets what is in no status: another leader may have given it to somebody else.
    pub fn start_over(&mut self) {
        let ids: Vec<ObjectId> = self.entries.keys().cloned().collect();
        for id in ids {
            if let Some(mut entry) = self.entries.remove(&id) {
                self.claim(&id, &entry, false);
                entry.allocated.clear();
                self.claim(&id, &entry, true);
                self.entries.insert(id.clone(), entry);
            }
            self.dirty.insert(id);
        }
    }

    /// What objects are to have of which that may have changed, the oldest first.
    pub fn allocate(&mut self) -> Vec<Allocated> {
        let dirty = std::mem::take(&mut self.dirty);
        let mut ordered: Vec<_> = dirty.into_iter().map(|id| (self.entries.get(&id).map(|e| e.created), id)).collect();
        ordered.sort();
        ordered.into_iter().map(|(_, id)| (id.clone(), self.give(&id))).collect()
    }

    fn give(&mut self, id: &ObjectId) -> Option<Vec<(String, IpAddr)>> {
        let mut entry = self.entries.remove(id)?;
        let mut allocated = Vec::new();
        for host in &entry.hosts {
            for v4 in [true, false] {
                let me = claim_of(id, &entry, host);
                let mine = |ip: &IpAddr| self.claims.get(ip).and_then(BTreeSet::first) == Some(&me);
                let known = entry.allocated.iter().chain(&entry.status).filter(|(h, ip)| h == host && ip.is_ipv4() == v4);
                let kept = known.map(|(_, ip)| *ip).find(|ip| self.pools.contains(*ip) && mine(ip));
                if let Some(ip) = kept.or_else(|| self.free(id, host, v4)) {
                    self.claims.entry(ip).or_default().insert(me);
                    allocated.push((host.clone(), ip));
                }
            }
        }
        let before = std::mem::replace(&mut entry.allocated, allocated.clone());
        for (host, ip) in before.into_iter().filter(|known| !allocated.contains(known) && !entry.status.contains(known)) {
            if let Some(claims) = self.claims.get_mut(&ip) {
                claims.remove(&claim_of(id, &entry, &host));
                if claims.is_empty() {
                    self.claims.remove(&ip);
                }
            }
        }
        let needs = !entry.hosts.is_empty();
        self.entries.insert(id.clone(), entry);
        needs.then(|| allocated.into_iter().map(|(host, ip)| (host.to_string(), ip)).collect())
    }

    /// An address that nobody claims, starting where the names lead.
    fn free(&self, id: &ObjectId, host: &Host, v4: bool) -> Option<IpAddr> {
        let start = ContentHash::of(&(&*id.namespace, &*id.name, host.as_str())).0 >> 1;
        let size = if v4 { u128::from(self.pools.v4.1) } else { self.pools.v6.1 };
        // As many as there are claims can be taken at most.
        let tries = (self.claims.len() as u128 + 1).min(size);
        (0..tries).map(|i| self.pools.at(v4, start + i)).find(|ip| !self.claims.contains_key(ip))
    }

    /// Adds or takes away all claims of an object. Others with a claim to the same addresses may win or lose them.
    fn claim(&mut self, id: &ObjectId, entry: &Entry, present: bool) {
        let own = |host: &Host| claim_of(id, entry, host);
        let known = entry.status.iter().chain(&entry.allocated).map(|(host, ip)| (*ip, own(host)));
        let given = entry.given.iter().map(|ip| (*ip, Claim { allocated: false, ..own(&Host::new("")) }));
        for (ip, claim) in known.chain(given) {
            let claims = self.claims.entry(ip).or_default();
            if present {
                claims.insert(claim);
            } else {
                claims.remove(&claim);
            }
            let others = claims.iter().map(|c| ObjectId { kind: id.kind, namespace: c.namespace.clone(), name: c.name.clone() });
            self.dirty.extend(others.filter(|other| other != id));
            if claims.is_empty() {
                self.claims.remove(&ip);
            }
        }
    }
}

/// A claim that is not in the specification.
fn claim_of(id: &ObjectId, entry: &Entry, host: &Host) -> Claim {
    Claim { allocated: true, created: entry.created, namespace: id.namespace.clone(), name: id.name.clone(), host: host.clone() }
}

fn entry(object: &Object) -> Option<Entry> {
    let Body::ServiceEntry(spec, status) = &object.body else { return None };
    let status = status.addresses.iter().filter_map(|a| Some((Host::new(&a.host), a.value.parse().ok()?))).collect();
    let given = spec.addresses.iter().filter_map(|a| a.parse().ok()).collect();
    let hosts = if wants(object, spec) { hosts(spec) } else { Vec::new() };
    Some(Entry { created: object.meta.created, hosts, status, given, allocated: Vec::new() })
}

fn wants(object: &Object, spec: &ServiceEntrySpec) -> bool {
    let said = object.meta.labels.get(ENABLE).or_else(|| object.meta.annotations.get(ENABLE));
    spec.addresses.is_empty() && spec.resolution != Resolution::None && said.is_none_or(|v| !v.eq_ignore_ascii_case("false"))
}

fn hosts(spec: &ServiceEntrySpec) -> Vec<Host> {
    let mut hosts: Vec<Host> = spec.hosts.iter().map(|h| Host::new(h)).collect();
    hosts.retain(|h| !h.is_wildcard() || spec.resolution == Resolution::DynamicDns);
    let mut seen = BTreeSet::new();
    hosts.retain(|h| seen.insert(h.clone()));
    hosts
}

#[cfg(test)]
mod tests;
