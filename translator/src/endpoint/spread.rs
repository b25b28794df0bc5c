//! Preference among localities: explicit shares, or an order in which one takes over from another.

use std::collections::BTreeMap;

use pilotfish_model::destination_rule::{LocalityLb, TrafficPolicy};
use pilotfish_model::endpoint::{Endpoint, Locality as Place};
use pilotfish_model::name::Str;
use pilotfish_model::service::{Service, TrafficDistribution};

use super::build::{Group, weight};
use crate::context::Common;
use crate::facts::UnitFacts;

const NETWORK: &str = "topology.istio.io/network";
const REGION: &str = "topology.kubernetes.io/region";
const ZONE: &str = "topology.kubernetes.io/zone";
const SUB_ZONE: &str = "topology.istio.io/subzone";
const HOSTNAME: &str = "kubernetes.io/hostname";
const CLUSTER: &str = "topology.istio.io/cluster";

/// Labels of a client that preferences among endpoints may look at without being told.
pub(crate) const TOPOLOGY_LABELS: [&str; 6] = [NETWORK, REGION, ZONE, SUB_ZONE, HOSTNAME, CLUSTER];

/// The setting that holds for a service: of its rule, of the service itself, of the mesh.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Locality {
    setting: Option<LocalityLb>,
    outlier: bool,
    /// Asked for by the service: holds without outlier detection.
    by_service: bool,
}

impl Locality {
    /// Which setting holds.
    pub fn of(common: Common<'_>, service: &Service, policy: &TrafficPolicy) -> Locality {
        let own = policy.load_balancer.as_ref().and_then(|b| b.locality.as_ref());
        let mesh = &common.config.locality_lb_setting;
        let labels =
            |keys: &[&str]| LocalityLb { failover_priority: keys.iter().map(|k| Str::from(*k)).collect(), ..LocalityLb::default() };
        let near = match service.traffic_distribution {
            TrafficDistribution::Any => None,
            TrafficDistribution::PreferSameZone => Some(labels(&[NETWORK, REGION, ZONE])),
            TrafficDistribution::PreferSameNode => Some(labels(&[NETWORK, REGION, ZONE, SUB_ZONE, HOSTNAME])),
        };
        let on = |l: &LocalityLb| l.enabled != Some(false);
        let (setting, by_service) = match (own, near) {
            (Some(own), _) => (Some(own.clone()).filter(on), false),
            (None, Some(near)) => (Some(near), true),
            (None, None) => (Some(mesh.clone()).filter(on), false),
        };
        Locality { setting, outlier: policy.outlier_detection.is_some(), by_service }
    }

    /// No preference.
    pub(super) fn even() -> Locality {
        Locality { setting: None, outlier: false, by_service: false }
    }

    fn may_fail_over(&self) -> bool {
        self.outlier || self.by_service
    }

    /// Whether the balancer must honour the weights of localities.
    pub fn is_weighted(&self) -> bool {
        self.setting.as_ref().is_some_and(|s| {
            !s.distribute.is_empty() || (self.may_fail_over() && (!s.failover.is_empty() || !s.failover_priority.is_empty()))
        })
    }

    /// The preference of one class.
    pub fn spread(&self, class: &UnitFacts) -> Spread {
        let Some(setting) = &self.setting else { return Spread::Even };
        if !setting.distribute.is_empty() {
            let shares = setting.distribute.iter().find(|d| matches(&class.locality, &d.from));
            return shares.map_or(Spread::Even, |d| Spread::Shares(d.to.clone()));
        }
        match (self.may_fail_over(), setting.failover_priority.as_slice()) {
            (false, _) => Spread::Even,
            (true, []) => {
                let takeover = setting.failover.iter().find(|(from, _)| *from == class.locality.region);
                Spread::Nearest { from: class.locality.clone(), next_region: takeover.map(|(_, to)| to.clone()) }
            }
            (true, labels) => Spread::Labels(labels.iter().map(|l| label(class, l)).collect()),
        }
    }
}

/// A label, and the value that endpoints share with the client: `label=value` gives it.
fn label(class: &UnitFacts, text: &str) -> (Str, Str) {
    if let Some((key, value)) = text.split_once('=') {
        return (key.into(), value.into());
    }
    let topology = match text {
        NETWORK => &class.network,
        REGION => &class.locality.region,
        ZONE => &class.locality.zone,
        SUB_ZONE => &class.locality.sub_zone,
        HOSTNAME => &class.node,
        CLUSTER => &class.cluster_id,
        _ => "",
    };
    (text.into(), class.topology.get(text).cloned().unwrap_or_else(|| topology.into()))
}

/// `region/zone/sub-zone`, from some part on `*`.
fn matches(place: &Place, pattern: &str) -> bool {
    let mut parts = pattern.split('/');
    for own in [&place.region, &place.zone, &place.sub_zone] {
        match parts.next() {
            None | Some("*") => return true,
            Some(part) if part == &**own => {}
            Some(_) => return false,
        }
    }
    true
}

/// Preference among localities.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Spread {
    /// None: by the number of endpoints.
    Even,
    /// Shares in percent by locality; the rest gets nothing.
    Shares(Vec<(Str, u32)>),
    /// The same locality, zone, region, then others.
    Nearest {
        /// Where the client is.
        from: Place,
        /// Region that takes over before others.
        next_region: Option<Str>,
    },
    /// The more labels, counted from the first, are equal, the better.
    Labels(Vec<(Str, Str)>),
}

impl Spread {
    pub(super) fn apply<'a>(&self, groups: Vec<Group<'a>>) -> Vec<Group<'a>> {
        match self {
            Spread::Even => groups,
            Spread::Shares(shares) => share(groups, shares),
            Spread::Nearest { from, next_region } => {
                let rank = |g: &Group<'_>| distance(from, g.locality, next_region.as_deref());
                let ranked = groups.into_iter().map(|g| Group { priority: rank(&g), ..g });
                compact(ranked.collect())
            }
            Spread::Labels(labels) => compact(groups.into_iter().flat_map(|g| split(g, labels)).collect()),
        }
    }
}

fn share<'a>(mut groups: Vec<Group<'a>>, shares: &[(Str, u32)]) -> Vec<Group<'a>> {
    let mut shares: Vec<_> = shares.iter().collect();
    // The more is said, the more special: a wildcard takes what is left.
    shares.sort_by_key(|(place, _)| std::cmp::Reverse(place.split('/').take_while(|p| *p != "*").count()));
    let mut open: Vec<usize> = (0..groups.len()).collect();
    for (place, percent) in shares {
        let (mine, rest): (Vec<usize>, Vec<usize>) = open.into_iter().partition(|i| matches(groups[*i].locality, place));
        open = rest;
        let total: u64 = mine.iter().map(|i| u64::from(groups[*i].weight)).sum();
        for i in mine {
            let part = (u64::from(groups[i].weight) * u64::from(*percent)).div_ceil(total.max(1));
            if part > 0 {
                groups[i].weight = u32::try_from(part).unwrap_or(u32::MAX);
            }
        }
    }
    for i in open {
        groups[i].endpoints.clear();
    }
    groups
}

fn distance(from: &Place, to: &Place, next_region: Option<&str>) -> u32 {
    match (from.region == to.region, from.zone == to.zone, from.sub_zone == to.sub_zone) {
        (true, true, true) => 0,
        (true, true, false) => 1,
        (true, false, _) => 2,
        (false, ..) if next_region.is_some_and(|r| r != &*to.region) => 4,
        (false, ..) => 3,
    }
}

fn split<'a>(group: Group<'a>, labels: &[(Str, Str)]) -> Vec<Group<'a>> {
    let equal = |e: &Endpoint, (key, value): &(Str, Str)| e.workload.labels.get(key).map_or("", |v| v) == &**value;
    let rank = |e: &Endpoint| labels.len() - labels.iter().take_while(|l| equal(e, l)).count();
    let mut by_rank: BTreeMap<usize, Vec<(usize, &'a Endpoint)>> = BTreeMap::new();
    for (index, endpoint) in group.endpoints {
        by_rank.entry(rank(endpoint)).or_default().push((index, endpoint));
    }
    let locality = group.locality;
    let part = |(rank, endpoints): (usize, Vec<_>)| Group {
        locality,
        priority: u32::try_from(rank).unwrap_or(u32::MAX),
        weight: weight(&endpoints),
        endpoints,
    };
    by_rank.into_iter().map(part).collect()
}

/// Envoy wants priorities without gaps.
fn compact(mut groups: Vec<Group<'_>>) -> Vec<Group<'_>> {
    let mut ranks: Vec<u32> = groups.iter().map(|g| g.priority).collect();
    ranks.sort_unstable();
    ranks.dedup();
    for group in &mut groups {
        group.priority = ranks.binary_search(&group.priority).ok().and_then(|i| u32::try_from(i).ok()).unwrap_or_default();
    }
    groups.sort_by_key(|g| g.priority);
    groups
}
