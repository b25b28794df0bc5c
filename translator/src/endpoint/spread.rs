//! Preference among localities: explicit shares, or an order in which one takes over from another.

use std::collections::BTreeMap;

use pilotfish_model::destination_rule::{LocalityLb, TrafficPolicy, ZoneAwareLb};
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
    setting: Option<Setting>,
    /// Weights of localities count in any case.
    weighted: bool,
    /// Nobody takes over from endpoints that nobody finds out about.
    fails_over: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Setting {
    /// Localities have shares, or an order.
    Localities(LocalityLb),
    /// The balancer looks at zones; regions have an order.
    Zones(ZoneAwareLb),
}

/// How a balancer treats localities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Localities {
    /// As if there were none.
    #[default]
    Even,
    /// By their weights.
    Weighted,
    /// The client's own zone first, as far as it has room.
    Zones {
        /// Not for fewer endpoints than these; `None`: Envoy's default.
        min_cluster_size: Option<u32>,
    },
    /// Zones do not count, and that was asked for.
    NoZones,
}

impl Locality {
    /// Which setting holds.
    pub fn of(common: Common<'_>, service: &Service, policy: &TrafficPolicy) -> Locality {
        let balancer = policy.load_balancer.as_ref();
        let mesh = &common.config.locality_lb_setting;
        let labels =
            |keys: &[&str]| LocalityLb { failover_priority: keys.iter().map(|k| Str::from(*k)).collect(), ..LocalityLb::default() };
        let near = match service.traffic_distribution {
            TrafficDistribution::Any => None,
            TrafficDistribution::PreferSameZone => Some(labels(&[NETWORK, REGION, ZONE])),
            TrafficDistribution::PreferSameNode => Some(labels(&[NETWORK, REGION, ZONE, SUB_ZONE, HOSTNAME])),
        };
        let ranked = |l: &LocalityLb| (l.enabled != Some(false)).then(|| Setting::Localities(l.clone()));
        let mesh_zones = || common.config.zone_aware_lb_setting.as_ref().filter(|z| z.enabled != Some(false));
        let by_service = balancer.is_none_or(|b| b.zone_aware.is_none() && b.locality.is_none()) && near.is_some();
        let setting = match (balancer.and_then(|b| b.zone_aware.as_ref()), balancer.and_then(|b| b.locality.as_ref()), near) {
            (Some(zones), ..) => Some(Setting::Zones(zones.clone())),
            (None, Some(own), _) => ranked(own),
            (None, None, Some(near)) => Some(Setting::Localities(near)),
            (None, None, None) => mesh_zones().map_or_else(|| ranked(mesh), |zones| Some(Setting::Zones(zones.clone()))),
        };
        Locality {
            setting,
            weighted: common.config.features.locality_weights,
            fails_over: policy.outlier_detection.is_some() || by_service,
        }
    }

    /// No preference.
    pub(super) fn even() -> Locality {
        Locality { setting: None, weighted: false, fails_over: false }
    }

    /// What the balancer is told.
    pub fn kind(&self) -> Localities {
        match &self.setting {
            None => Localities::Even,
            Some(Setting::Zones(z)) if z.enabled == Some(false) => Localities::NoZones,
            Some(Setting::Zones(z)) => Localities::Zones { min_cluster_size: z.min_cluster_size },
            Some(Setting::Localities(l)) => {
                let ordered = self.fails_over && (!l.failover.is_empty() || !l.failover_priority.is_empty());
                if ordered || self.weighted || !l.distribute.is_empty() { Localities::Weighted } else { Localities::Even }
            }
        }
    }

    /// The preference of one class.
    pub fn spread(&self, class: &UnitFacts) -> Spread {
        let (failover, priority, by_region) = match &self.setting {
            Some(Setting::Localities(l)) if !l.distribute.is_empty() => {
                let shares = l.distribute.iter().find(|d| matches(&class.locality, &d.from));
                return shares.map_or(Spread::Even, |d| Spread::Shares(d.to.clone()));
            }
            Some(Setting::Localities(l)) => (&l.failover, &l.failover_priority, false),
            Some(Setting::Zones(z)) if z.enabled != Some(false) => (&z.failover, &z.failover_priority, true),
            _ => return Spread::Even,
        };
        if !self.fails_over {
            return Spread::Even;
        }
        let next_region = failover.iter().find(|(from, _)| *from == class.locality.region).map(|(_, to)| to.clone());
        let near = Near { from: class.locality.clone(), next_region, by_region };
        match priority.as_slice() {
            [] => Spread::Nearest(near),
            labels => {
                Spread::Labels { labels: labels.iter().map(|l| label(class, l)).collect(), then: (!failover.is_empty()).then_some(near) }
            }
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
    Nearest(Near),
    /// The more labels, counted from the first, are equal, the better.
    Labels {
        /// Labels and the client's values.
        labels: Vec<(Str, Str)>,
        /// Decides between those with as many.
        then: Option<Near>,
    },
}

/// An order of localities.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Near {
    /// Where the client is.
    pub from: Place,
    /// Region that takes over before others.
    pub next_region: Option<Str>,
    /// Localities of one region are alike.
    pub by_region: bool,
}

impl Spread {
    pub(super) fn apply<'a>(&self, groups: Vec<Group<'a>>) -> Vec<Group<'a>> {
        match self {
            Spread::Even => groups,
            Spread::Shares(shares) => share(groups, shares),
            Spread::Nearest(near) => {
                let ranked = groups.into_iter().map(|g| Group { priority: distance(near, g.locality), ..g });
                compact(ranked.collect())
            }
            Spread::Labels { labels, then } => {
                let ranked = groups.into_iter().flat_map(|g| split(g, labels));
                let rank = |g: &Group<'_>| match then {
                    Some(near) => g.priority * DISTANCES + distance(near, g.locality),
                    None => g.priority,
                };
                compact(ranked.map(|g| Group { priority: rank(&g), ..g }).collect())
            }
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

/// How many values a distance has.
const DISTANCES: u32 = 5;

fn distance(near: &Near, to: &Place) -> u32 {
    let Near { from, next_region, by_region } = near;
    match (from.region == to.region, from.zone == to.zone, from.sub_zone == to.sub_zone) {
        (true, ..) if *by_region => 0,
        (true, true, true) => 0,
        (true, true, false) => 1,
        (true, false, _) => 2,
        (false, ..) if next_region.as_ref().is_some_and(|r| *r != to.region) => 4,
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
