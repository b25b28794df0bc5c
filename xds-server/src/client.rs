//! All types of one stream: [`Client`], which decides what is sent next, by the order table. Pure: time is an argument.
//!
//! A [`Target`] is where the client should get to. Generations count targets; a type has *reached* a generation once the
//! client has answered for it, or once there is nothing to send.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use pilotfish_envoy::{Resource, ResourceSet, Snapshot, TypeUrl, Version};

use crate::order::rule;
use crate::subscription::{Diff, Holding, Protocol, Request, Subscription, Verdict};

/// What a client should hold.
#[derive(Clone, Debug)]
pub struct Target {
    /// Number of the push that made it, from 1. Never falls.
    pub generation: u64,
    /// The resources.
    pub snapshot: Arc<Snapshot>,
    /// When the oldest event happened that is new in it; `None` if it is the first, or moved the client to another class.
    pub since: Option<Instant>,
}

/// A response to be encoded and sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Its type.
    pub type_url: TypeUrl,
    /// Unique on the stream.
    pub nonce: Arc<str>,
    /// Version of the whole.
    pub version: Version,
    /// Its resources, in the order of names.
    pub resources: Vec<Resource>,
    /// Delta: names to remove.
    pub removed: Vec<Arc<str>>,
    /// When the oldest event happened that it tells of, if it is about events.
    pub since: Option<Instant>,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Send this, then ask again.
    Send(Response),
    /// Wait for a request, a target, or this moment.
    Idle(Option<Instant>),
}

/// One stream's state.
#[derive(Debug)]
pub struct Client {
    protocol: Protocol,
    /// Boxed: a map's node has room for eleven, and most clients have four.
    subscriptions: BTreeMap<TypeUrl, Box<Subscription>>,
    target: Option<Target>,
    /// Key material of this stream alone. The target's secrets are its class's and these.
    own_secrets: Vec<Resource>,
    /// Settings of extensions with credentials, for this stream alone. They take the place of their class's.
    own_extensions: OwnExtensions,
    /// The roots of the mesh, if it asked for them: they are of no class.
    roots: Option<Arc<ResourceSet>>,
    /// The target's snapshot as the class shares it, without what is this stream's own and without `roots`.
    shared: Arc<Snapshot>,
    /// Per type, the generation that last changed it.
    changed: BTreeMap<TypeUrl, u64>,
    /// Clusters that the client took, with endpoints that it did not ask for yet. It will: routes to them wait.
    awaited: BTreeSet<Arc<str>>,
    /// How long a type waits for others at most.
    patience: Duration,
    nonce_infix: String,
    responses: u64,
    compared: usize,
}

impl Client {
    /// `stream` tells this stream's nonces from those of others.
    pub fn new(protocol: Protocol, stream: u64, patience: Duration) -> Self {
        Client {
            protocol,
            subscriptions: BTreeMap::new(),
            target: None,
            own_secrets: Vec::new(),
            own_extensions: OwnExtensions::default(),
            roots: None,
            shared: Arc::default(),
            changed: BTreeMap::new(),
            awaited: BTreeSet::new(),
            patience,
            nonce_infix: format!("{stream:x}"),
            responses: 0,
            compared: 0,
        }
    }

    /// The types that were asked for.
    pub fn subscriptions(&self) -> impl Iterator<Item = &Subscription> {
        self.subscriptions.values().map(|s| &**s)
    }

    /// Where the client should get to.
    pub fn target(&self) -> Option<&Target> {
        self.target.as_ref()
    }

    /// True if the client has confirmed, or refused, everything up to a generation.
    pub fn has_reached(&self, generation: u64) -> bool {
        self.subscriptions.values().all(|s| s.reached >= generation)
    }

    /// Since when the events have waited of which the last confirmed response of a type told; once for each.
    pub fn take_confirmed(&mut self, type_url: TypeUrl) -> Option<Instant> {
        self.subscriptions.get_mut(&type_url)?.confirmed.take()
    }

    /// How many names were compared since the last call, to find out what is owed.
    pub fn take_compared(&mut self) -> usize {
        std::mem::take(&mut self.compared)
    }

    /// Takes a request.
    pub fn on_request(&mut self, type_url: TypeUrl, request: Request) -> Verdict {
        let first = !self.subscriptions.contains_key(&type_url);
        let subscription = self.subscriptions.entry(type_url).or_insert_with(|| Box::new(Subscription::new(type_url, self.protocol)));
        let latest = self.target.as_ref().map(|t| t.snapshot.get(type_url).clone()).unwrap_or_default();
        let verdict = subscription.on_request(request, first, &latest);
        match type_url {
            TypeUrl::Endpoint => self.awaited.retain(|name| !subscription.wants(name)),
            TypeUrl::Cluster if matches!(verdict, Verdict::Nack(_)) => self.awaited.clear(),
            _ => {}
        }
        verdict
    }

    /// Takes the key material that this client may have of what it asks for; all of it, each time.
    pub fn set_secrets(&mut self, secrets: Vec<Resource>) {
        if secrets.is_empty() && self.own_secrets.is_empty() {
            return;
        }
        self.own_secrets = secrets;
        self.retarget_to_own();
    }

    /// Takes the settings of extensions that say more to this client than to its class; all of them, each time. `of`: those of its
    /// class that they were made of.
    pub fn set_extensions(&mut self, extensions: Vec<Resource>, of: &ResourceSet) {
        let own = OwnExtensions::new(extensions, of);
        if own != self.own_extensions {
            self.own_extensions = own;
            self.retarget_to_own();
        }
    }

    /// Settings of extensions as its class has them.
    pub fn shared_extensions(&self) -> Arc<ResourceSet> {
        self.shared.get(TypeUrl::ExtensionConfig).clone()
    }

    /// What it should hold of its class's snapshot. Of settings of extensions that are those without credentials.
    pub fn without_credentials(&self) -> Arc<Snapshot> {
        let Some(target) = &self.target else { return Arc::default() };
        if self.own_extensions.is_empty() {
            return target.snapshot.clone();
        }
        let mut snapshot = Snapshot::clone(&target.snapshot);
        snapshot.insert(TypeUrl::ExtensionConfig, self.shared_extensions());
        Arc::new(snapshot)
    }

    /// What this client is sent in the place of a resource of its class.
    pub fn own<'a>(&'a self, type_url: TypeUrl, resource: &'a Resource) -> &'a Resource {
        let own = if type_url == TypeUrl::ExtensionConfig { self.own_extensions.of(resource) } else { None };
        own.unwrap_or(resource)
    }

    /// Takes the roots of the mesh, if it asks for such.
    pub fn set_roots(&mut self, roots: &Arc<ResourceSet>) {
        let known = self.roots.as_ref().is_some_and(|r| Arc::ptr_eq(r, roots));
        if !known && self.subscriptions.contains_key(&TypeUrl::ProxyConfig) {
            self.roots = Some(roots.clone());
            self.retarget_to_own();
        }
    }

    /// Whether it asks for roots and has not taken these.
    pub fn lacks_roots(&self, roots: &ResourceSet) -> bool {
        let Some(subscription) = self.subscriptions.get(&TypeUrl::ProxyConfig) else { return false };
        let holdings = subscription.holdings();
        roots.iter().any(|r| subscription.wants(r.name()) && holdings.of(r) != Holding::Confirmed)
    }

    fn retarget_to_own(&mut self) {
        if let Some(target) = self.target.clone() {
            self.retarget(Target { snapshot: self.shared.clone(), ..target });
        }
    }

    /// The class's snapshot with what this stream alone has.
    fn with_own(&self, shared: &Arc<Snapshot>) -> Arc<Snapshot> {
        let snapshot = self.with_own_secrets(&self.with_own_extensions(shared));
        let Some(roots) = &self.roots else { return snapshot };
        let mut snapshot = Snapshot::clone(&snapshot);
        snapshot.insert(TypeUrl::ProxyConfig, roots.clone());
        Arc::new(snapshot)
    }

    fn with_own_extensions(&self, shared: &Arc<Snapshot>) -> Arc<Snapshot> {
        let of_class = shared.get(TypeUrl::ExtensionConfig);
        if self.own_extensions.is_empty() || of_class.is_empty() {
            return shared.clone();
        }
        let extensions = of_class.iter().map(|r| self.own_extensions.of(r).unwrap_or(r).clone());
        self.with_set(shared, TypeUrl::ExtensionConfig, ResourceSet::new(extensions))
    }

    fn with_own_secrets(&self, shared: &Arc<Snapshot>) -> Arc<Snapshot> {
        if self.own_secrets.is_empty() {
            return shared.clone();
        }
        let of_class = shared.get(TypeUrl::Secret);
        let secrets = ResourceSet::new(of_class.iter().chain(&self.own_secrets).cloned());
        self.with_set(shared, TypeUrl::Secret, secrets)
    }

    /// A snapshot with another set, which is the target's if that is equal.
    fn with_set(&self, snapshot: &Snapshot, type_url: TypeUrl, set: ResourceSet) -> Arc<Snapshot> {
        let before = self.target.as_ref().map(|t| t.snapshot.get(type_url).clone());
        let set = before.filter(|b| b.version() == set.version()).unwrap_or_else(|| Arc::new(set));
        let mut snapshot = snapshot.clone();
        snapshot.insert(type_url, set);
        Arc::new(snapshot)
    }

    /// Takes a newer target. Sets that are equal to the present ones change nothing.
    pub fn retarget(&mut self, mut target: Target) {
        self.shared = std::mem::take(&mut target.snapshot);
        target.snapshot = self.with_own(&self.shared);
        for type_url in TypeUrl::ALL {
            let new = target.snapshot.get(type_url);
            let same = self.target.as_ref().is_some_and(|old| {
                let old = old.snapshot.get(type_url);
                Arc::ptr_eq(old, new) || old.version() == new.version()
            });
            if same {
                continue;
            }
            self.changed.insert(type_url, target.generation);
            if let Some(subscription) = self.subscriptions.get_mut(&type_url) {
                subscription.since = [subscription.since, target.since].into_iter().flatten().min();
            }
        }
        let endpoints = target.snapshot.get(TypeUrl::Endpoint);
        self.awaited.retain(|name| endpoints.get(name).is_some());
        self.target = Some(target);
    }

    /// The next response that may go out, if any.
    pub fn next(&mut self, now: Instant, wall: SystemTime) -> Next {
        let Some(target) = self.target.clone() else { return Next::Idle(None) };
        // What has nothing to send must not hold up the others, in whatever order they come.
        for (type_url, subscription) in &mut self.subscriptions {
            if !subscription.is_outstanding() && !subscription.may_be_due(target.snapshot.get(*type_url)) {
                subscription.reached = target.generation;
                (subscription.updates_wait, subscription.removals_wait, subscription.since) = (None, None, None);
            }
        }
        loop {
            let mut progress = false;
            for type_url in TypeUrl::ALL {
                match self.step(type_url, &target, now) {
                    Step::Send(diff) => return Next::Send(self.send(type_url, diff, &target, wall)),
                    Step::Settled => progress = true,
                    Step::Nothing => {}
                }
            }
            if !progress {
                return Next::Idle(self.wake());
            }
        }
    }

    fn step(&mut self, type_url: TypeUrl, target: &Target, now: Instant) -> Step {
        let Some(subscription) = self.subscriptions.get(&type_url) else { return Step::Nothing };
        let latest = target.snapshot.get(type_url);
        if subscription.is_outstanding() || !subscription.may_be_due(latest) {
            return Step::Nothing;
        }
        let rule = rule(type_url);
        let awaits = rule.updates_after.contains(&TypeUrl::Endpoint) && !self.awaited.is_empty();
        let updates_open = subscription.is_fresh() || (!awaits && self.have_arrived(rule.updates_after, type_url));
        let removals_open = self.have_arrived(rule.removals_after, type_url);
        // Patience with those who still use it begins once they were told.
        let untold = rule.removals_after.iter().filter_map(|t| self.subscriptions.get(t)).any(|s| s.updates_wait.is_some());

        let patience = self.patience;
        let Some(subscription) = self.subscriptions.get_mut(&type_url) else { return Step::Nothing };
        if !updates_open && now < *subscription.updates_wait.get_or_insert(now) + patience {
            return Step::Nothing;
        }
        let hold = !removals_open && (untold || subscription.removals_wait.is_none_or(|since| now < since + patience));
        let diff = subscription.diff(latest, hold);
        self.compared += diff.compared;
        match diff.holds_back && !untold {
            true => _ = subscription.removals_wait.get_or_insert(now),
            false => subscription.removals_wait = None,
        }
        if awaits && !updates_open {
            // Out of patience: these clusters hold up nothing any more.
            self.awaited.clear();
        }
        if diff.is_due {
            return Step::Send(diff);
        }
        let moved = subscription.reached < target.generation;
        subscription.settle_on(diff, target.generation);
        if moved { Step::Settled } else { Step::Nothing }
    }

    /// True if the client has everything of `types` that came with the last change of `of`, as far as it asks for them.
    fn have_arrived(&self, types: &[TypeUrl], of: TypeUrl) -> bool {
        let needed = self.changed.get(&of).copied().unwrap_or_default();
        types.iter().filter_map(|t| self.subscriptions.get(t)).all(|s| s.reached >= needed)
    }

    fn send(&mut self, type_url: TypeUrl, diff: Diff, target: &Target, wall: SystemTime) -> Response {
        self.responses += 1;
        let nonce: Arc<str> = format!("{}/{}-{:x}", target.generation, self.nonce_infix, self.responses).into();
        if type_url == TypeUrl::Cluster
            && let Some(endpoints) = self.subscriptions.get_mut(&TypeUrl::Endpoint)
        {
            // Envoy builds a changed cluster anew and keeps it warming until endpoints come, even if these are the same.
            endpoints.force(&diff.changed);
            let known = target.snapshot.get(TypeUrl::Endpoint);
            self.awaited.extend(diff.changed.iter().filter(|n| known.get(n).is_some() && !endpoints.wants(n)).cloned());
        }
        let response = Response {
            type_url,
            nonce: nonce.clone(),
            version: diff.version,
            resources: diff.resources.clone(),
            removed: diff.removed.clone(),
            since: self.subscriptions.get(&type_url).and_then(|s| s.since),
        };
        if let Some(subscription) = self.subscriptions.get_mut(&type_url) {
            subscription.commit(diff, nonce, target.generation, wall);
        }
        response
    }

    /// When patience ends for the first of those that wait.
    fn wake(&self) -> Option<Instant> {
        let waiting = self.subscriptions.values().filter(|s| !s.is_outstanding());
        waiting.filter_map(|s| s.updates_wait.or(s.removals_wait)).min().map(|since| since + self.patience)
    }
}

/// Resources that take the place of others, each with the version of the one that it was made of.
#[derive(Debug, Default, PartialEq, Eq)]
struct OwnExtensions(BTreeMap<Arc<str>, (Version, Resource)>);

impl OwnExtensions {
    fn new(extensions: Vec<Resource>, of: &ResourceSet) -> Self {
        let with_version = |r: Resource| Some((r.name().clone(), (of.get(r.name())?.version(), r)));
        OwnExtensions(extensions.into_iter().filter_map(with_version).collect())
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One that was made of an older resource than this is in nobody's place.
    fn of(&self, resource: &Resource) -> Option<&Resource> {
        self.0.get(resource.name()).filter(|(of, _)| *of == resource.version()).map(|(_, own)| own)
    }
}

enum Step {
    Send(Diff),
    Settled,
    Nothing,
}

#[cfg(test)]
mod tests;
