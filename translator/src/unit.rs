//! Units: the clusters of one service for one kind of client, and what its assignments are made by. In: [`UnitInput`].
//!
//! Scopes that see a service alike share its unit, whatever else they see: the key of the cache is what a unit was made of,
//! and what it was made of lives as long as the unit, so addresses tell it.

use std::collections::HashSet;
use std::sync::Arc;

use pilotfish_envoy::TypeUrl;
use pilotfish_envoy::encoded::Sources;
use pilotfish_model::destination_rule::{Subset, TrafficPolicy};
use pilotfish_model::endpoint::Endpoint;
use pilotfish_model::mesh::ServiceKey;
use pilotfish_model::name::Str;
use pilotfish_model::peer_authentication::MtlsMode;
use pilotfish_model::proxy::Flavour;
use pilotfish_model::{ContentHash, Kind, ObjectId, Resolution, Service};

use crate::cluster::{self, ClusterInput};
use crate::context::{Common, Context};
use crate::endpoint::{self, Plan};
use crate::gateway::Reached;
use crate::leaf::{Built, Key, Leaves, Wanted};
use crate::policy::{self, MergedRule};

/// What clusters of a service depend on.
#[derive(Clone, Copy)]
pub struct UnitInput<'a> {
    /// Mesh settings and the client.
    pub common: Common<'a>,
    /// The service.
    pub service: &'a Arc<Service>,
    /// The rule for it.
    pub rule: Option<&'a MergedRule>,
    /// Identities that its servers may have.
    pub accounts: &'a [Str],
    /// What they accept, as far as a client may rely on it.
    pub mtls: MtlsMode,
    /// Each endpoint speaks mesh mTLS; not looked at unless a rule lets clients choose among them.
    pub all_speak_mtls: bool,
    /// Its endpoints, where clusters hold them.
    pub endpoints: Option<&'a Arc<Vec<Endpoint>>>,
    /// Of these the ones (by index) that say that they speak mesh mTLS, and must not be believed.
    pub plaintext: &'a Arc<[usize]>,
}

impl UnitInput<'_> {
    /// The policy for a port of the service, of a subset if one is given: what no rule says is as the mesh says.
    pub fn policy(&self, subset: Option<&Subset>, port: u16) -> TrafficPolicy {
        let mut policy = self.rule.map(|r| r.policy_for(subset, port)).unwrap_or_default();
        if let Some(wide) = &self.common.config.default_traffic_policy {
            policy.connection_pool = policy.connection_pool.or_else(|| wide.connection_pool.clone());
            policy.outlier_detection = policy.outlier_detection.or_else(|| wide.outlier_detection.clone());
        }
        policy
    }
}

/// What of a world one unit is made of.
#[derive(Clone)]
pub(crate) struct Ingredients {
    pub(crate) key: ServiceKey,
    pub(crate) service: Arc<Service>,
    rule: Option<Arc<MergedRule>>,
    accounts: Arc<[Str]>,
    mtls: MtlsMode,
    all_speak_mtls: bool,
    endpoints: Option<Arc<Vec<Endpoint>>>,
    plaintext: Arc<[usize]>,
    /// No route leads there: a gateway may still pass connections on by name.
    unreached: bool,
}

/// See the module.
pub(crate) struct Unit {
    pub(crate) of: Ingredients,
    /// Each name once.
    pub(crate) clusters: Vec<Built>,
    pub(crate) plans: Vec<Plan>,
}

/// Where a unit is. Tells it apart from all others that live at the same time.
pub(crate) fn address(unit: &Arc<Unit>) -> usize {
    Arc::as_ptr(unit).addr()
}

/// Those of `units` that are not in `others`.
pub(crate) fn missing<'a>(units: &'a [Arc<Unit>], others: &[Arc<Unit>]) -> impl Iterator<Item = &'a Arc<Unit>> {
    let others: HashSet<usize> = others.iter().map(address).collect();
    units.iter().filter(move |unit| !others.contains(&address(unit)))
}

impl Ingredients {
    /// Of the scope's service at `index`.
    pub(crate) fn of(context: &Context<'_>, index: usize, reached: Option<&Reached>) -> Self {
        let service = &context.scope.services[index];
        let key = ServiceKey::of(service);
        let (endpoints, plaintext) = match service.resolution {
            Resolution::Dns | Resolution::DnsRoundRobin => {
                let endpoints = context.mesh.endpoints.get(&key).cloned();
                let plaintext = endpoints.as_ref().map(|e| endpoint::plaintext(context.mesh, e)).unwrap_or_default();
                (endpoints, plaintext)
            }
            _ => Default::default(),
        };
        let rule = context.scope.found[index].rule.clone();
        Ingredients {
            service: service.clone(),
            unreached: reached.is_some_and(|r| !r.has(service)),
            all_speak_mtls: rule.as_ref().is_none_or(|r| !r.passes_through()) || policy::all_speak_mtls(context.mesh, service),
            rule,
            accounts: context.world.accounts_of(&key),
            mtls: policy::service_mtls_mode(context.mesh, service),
            endpoints,
            plaintext,
            key,
        }
    }

    /// True if they are the very same.
    pub(crate) fn is_same(&self, other: &Ingredients) -> bool {
        self.addresses() == other.addresses() && self.answers() == other.answers()
    }

    /// What is known of its endpoints, and of the way to them.
    fn answers(&self) -> (MtlsMode, bool, bool, &[usize]) {
        (self.mtls, self.all_speak_mtls, self.unreached, &self.plaintext)
    }

    /// Where they are. Tells them apart from all others that live at the same time.
    fn addresses(&self) -> [usize; 4] {
        fn of<T: ?Sized>(arc: &Arc<T>) -> usize {
            Arc::as_ptr(arc).addr()
        }
        [
            of(&self.service),
            self.rule.as_ref().map_or(0, of),
            // Empty lists share an address.
            if self.accounts.is_empty() { 0 } else { of(&self.accounts) },
            self.endpoints.as_ref().map_or(0, of),
        ]
    }

    /// As inputs of one kind of client.
    fn input<'a>(&'a self, common: Common<'a>) -> UnitInput<'a> {
        UnitInput {
            common,
            service: &self.service,
            rule: self.rule.as_deref(),
            accounts: &self.accounts,
            mtls: self.mtls,
            all_speak_mtls: self.all_speak_mtls,
            endpoints: self.endpoints.as_ref(),
            plaintext: &self.plaintext,
        }
    }

    pub(crate) fn sources(&self) -> Sources {
        let entries: Vec<ObjectId> = self.endpoints.iter().flat_map(|e| entries(e.iter())).collect();
        self.sources_with(&entries)
    }

    /// The same, with these WorkloadEntries in their place.
    pub(crate) fn sources_with(&self, entries: &[ObjectId]) -> Sources {
        let rules = self.rule.iter().flat_map(|r| &r.sources);
        sources(self.service.all().map(|s| &s.source).chain(rules).chain(entries))
    }
}

/// The WorkloadEntries behind endpoints.
pub(crate) fn entries<'a>(endpoints: impl Iterator<Item = &'a Endpoint>) -> Vec<ObjectId> {
    let workloads = endpoints.map(|e| &e.workload).filter(|w| w.is_entry);
    let all: std::collections::BTreeSet<ObjectId> =
        workloads.map(|w| ObjectId::new(Kind::WorkloadEntry, w.namespace.clone(), w.name.clone())).collect();
    all.into_iter().collect()
}

/// As resources carry them.
pub(crate) fn sources<'a>(objects: impl IntoIterator<Item = &'a ObjectId>) -> Sources {
    objects.into_iter().map(|o| Arc::from([o.kind.as_str(), "/", &o.namespace, "/", &o.name].concat())).collect()
}

/// What units are made by beside their ingredients.
pub(crate) struct Recipe<'a> {
    common: Common<'a>,
    by_sni: bool,
    hash: ContentHash,
}

impl<'a> Recipe<'a> {
    /// `by_sni`: some gateway server forwards by the names that sidecars write.
    pub(crate) fn new(context: &Context<'a>, by_sni: bool) -> Self {
        let common = context.common();
        Recipe { common, by_sni, hash: ContentHash::of(&(common.class, context.world.config, by_sni)) }
    }

    /// The units of some services, made or found. Few at a time: clusters of all are made together.
    pub(crate) fn units(&self, leaves: &Leaves, all: Vec<Ingredients>) -> Vec<Arc<Unit>> {
        let key = |of: &Ingredients| Key::of("unit", &(self.hash, of.addresses(), of.answers()));
        let found: Vec<(Key, Option<Arc<Unit>>)> = all.iter().map(key).map(|key| (key, leaves.kept(&key))).collect();
        let missing: Vec<&Ingredients> = all.iter().zip(&found).filter(|(_, (_, unit))| unit.is_none()).map(|(of, _)| of).collect();
        let plans: Vec<Vec<Plan>> = missing.iter().map(|of| self.plans(of)).collect();
        let mut made = self.clusters(leaves, &missing).into_iter().zip(plans);
        let unit = |((key, found), of): ((Key, Option<Arc<Unit>>), Ingredients)| {
            if found.is_some() {
                leaves.work.units_reused.add(1);
                return found;
            }
            leaves.work.units_computed.add(1);
            let (clusters, plans) = made.next()?;
            let unit = Arc::new(Unit { of, clusters, plans });
            leaves.keep(&key, &unit);
            Some(unit)
        };
        found.into_iter().zip(all).filter_map(unit).collect()
    }

    fn plans(&self, of: &Ingredients) -> Vec<Plan> {
        let mut plans = endpoint::plans(&of.input(self.common), self.by_sni);
        plans.retain(|p| p.passed_on || !of.unreached);
        plans
    }

    /// The clusters of each, every name once.
    fn clusters(&self, leaves: &Leaves, all: &[&Ingredients]) -> Vec<Vec<Built>> {
        if self.common.class.flavour == Flavour::Grpc {
            return all.iter().map(|of| self.grpc_clusters(of)).collect();
        }
        let mut wanted: Vec<Wanted<(ClusterInput, Sources)>> = Vec::new();
        let mut counts: Vec<usize> = Vec::with_capacity(all.len());
        for of in all {
            let (before, sources) = (wanted.len(), of.sources());
            cluster::of_service(&of.input(self.common), !of.unreached, self.by_sni, &mut |cluster| {
                let name: Arc<str> = cluster.name.clone();
                if wanted[before..].iter().all(|w| w.name != name) {
                    wanted.push(Wanted { name, key: Key::of("cluster", &cluster), input: (cluster, sources.clone()) });
                }
            });
            counts.push(wanted.len() - before);
        }
        let make = |(cluster, sources): &(ClusterInput, Sources)| (cluster::build(cluster), sources.clone());
        let mut made = leaves.resources(TypeUrl::Cluster, wanted, make).into_iter();
        counts.into_iter().map(|count| made.by_ref().take(count).collect()).collect()
    }

    fn grpc_clusters(&self, of: &Ingredients) -> Vec<Built> {
        let (mut clusters, mut names) = (Vec::new(), HashSet::new());
        crate::grpc::clusters(&of.input(self.common), &mut |resource| {
            if names.insert(resource.name().clone()) {
                clusters.push(Built::Sound(resource.with_sources(of.sources())));
            }
        });
        clusters
    }
}
