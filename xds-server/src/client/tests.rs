//! A model test: random snapshots and a client that behaves at random, but within the protocol.

use std::collections::VecDeque;

use super::*;
use crate::subscription::Interest;
use pilotfish_envoy::ResourceSet;
use pilotfish_envoy::TypeUrl::{Cluster as Cds, Endpoint as Eds, Listener as Lds, Route as Rds};
use pilotfish_envoy::pb::envoy::config::cluster::v3::Cluster;
use pilotfish_envoy::pb::google::protobuf::Any;
use proptest::prelude::*;

const TYPES: [TypeUrl; 4] = [Cds, Eds, Lds, Rds];
const PATIENCE: Duration = Duration::from_secs(5);

/// Content per type and name. A route's content begins with the cluster that it names.
type World = BTreeMap<TypeUrl, BTreeMap<String, String>>;

fn snapshot(world: &World) -> Arc<Snapshot> {
    let mut snapshot = Snapshot::new();
    for (type_url, resources) in world {
        let encode = |(n, v): (&String, &String)| Resource::new(n.as_str(), &Cluster { name: v.clone(), ..Default::default() });
        snapshot.insert(*type_url, ResourceSet::new(resources.iter().map(encode)));
    }
    Arc::new(snapshot)
}

/// A consistent world: routes name clusters that exist.
fn world() -> impl Strategy<Value = World> {
    let cluster = prop::option::weighted(0.7, 0u8..3);
    let clusters = prop::collection::vec((cluster, 0u8..3), 4);
    (clusters, prop::collection::vec(prop::option::weighted(0.8, 0usize..4), 3), prop::option::of(0u8..3)).prop_map(
        |(clusters, routes, listener)| {
            let mut world = World::new();
            for (i, (cluster, endpoints)) in clusters.iter().enumerate() {
                let Some(content) = cluster else { continue };
                world.entry(Cds).or_default().insert(format!("c{i}"), content.to_string());
                world.entry(Eds).or_default().insert(format!("c{i}"), endpoints.to_string());
            }
            let existing: Vec<String> = world.get(&Cds).into_iter().flat_map(|c| c.keys().cloned()).collect();
            for (i, route) in routes.iter().enumerate() {
                if let Some(to) = route.filter(|_| !existing.is_empty()) {
                    world.entry(Rds).or_default().insert(format!("r{i}"), existing[to % existing.len()].clone());
                }
            }
            if let Some(content) = listener {
                world.entry(Lds).or_default().insert("l".into(), content.to_string());
            }
            world
        },
    )
}

#[derive(Clone, Debug)]
enum Op {
    Publish(World),
    /// The server reads one request and sends what it may.
    Server,
    /// The client reads one response; refuses it if told so.
    Client {
        refuse: bool,
    },
    Subscribe(TypeUrl, usize),
    Unsubscribe(TypeUrl, usize),
    Reconnect,
    Pass(Duration),
}

fn op() -> impl Strategy<Value = Op> {
    let named = prop::sample::select(vec![Eds, Rds]);
    prop_oneof![
        2 => world().prop_map(Op::Publish),
        6 => Just(Op::Server),
        5 => prop::bool::weighted(0.1).prop_map(|refuse| Op::Client { refuse }),
        2 => (named.clone(), 0usize..4).prop_map(|(t, i)| Op::Subscribe(t, i)),
        1 => (named, 0usize..4).prop_map(|(t, i)| Op::Unsubscribe(t, i)),
        1 => Just(Op::Reconnect),
        1 => (0u64..8).prop_map(|s| Op::Pass(Duration::from_secs(s))),
    ]
}

fn name_of(type_url: TypeUrl, i: usize) -> String {
    if type_url == Eds { format!("c{i}") } else { format!("r{i}") }
}

/// What the client knows of one type.
#[derive(Default)]
struct Known {
    names: BTreeSet<String>,
    held: BTreeMap<String, Resource>,
    nonce: String,
    version: String,
    asked: bool,
    /// Last version of each name that was received or claimed on this stream.
    seen: BTreeMap<String, Version>,
    /// How often names may be sent again unchanged: asked for again, or endpoints whose cluster came.
    again: BTreeMap<String, u32>,
    received: usize,
}

struct Model {
    protocol: Protocol,
    server: Client,
    generation: u64,
    world: World,
    /// Worlds by generation, from 1.
    worlds: Vec<World>,
    now: Instant,
    up: VecDeque<(TypeUrl, Request)>,
    down: VecDeque<Response>,
    outstanding: BTreeSet<TypeUrl>,
    known: BTreeMap<TypeUrl, Known>,
    /// Refusals and passing time make exceptions from the order of types.
    orderly: bool,
}

impl Model {
    fn new(protocol: Protocol, orderly: bool) -> Self {
        let known = TYPES.into_iter().map(|t| (t, Known::default())).collect();
        let mut model = Model {
            protocol,
            server: Client::new(protocol, 1, PATIENCE),
            generation: 0,
            world: World::new(),
            worlds: Vec::new(),
            now: Instant::now(),
            up: VecDeque::new(),
            down: VecDeque::new(),
            outstanding: BTreeSet::new(),
            known,
            orderly,
        };
        model.publish(World::new());
        model.open();
        model
    }

    fn known(&mut self, type_url: TypeUrl) -> &mut Known {
        self.known.get_mut(&type_url).unwrap()
    }

    fn publish(&mut self, world: World) {
        self.generation += 1;
        if self.protocol == Protocol::Sotw {
            // What vanishes is not mentioned, but sent again if it comes back.
            for (type_url, known) in &mut self.known {
                let exists = |n: &String| world.get(type_url).is_some_and(|r| r.contains_key(n));
                for name in known.names.iter().filter(|n| !exists(n)) {
                    *known.again.entry(name.clone()).or_default() += 1;
                }
            }
        }
        self.worlds.push(world.clone());
        self.world = world;
        self.retarget();
    }

    fn retarget(&mut self) {
        let target = Target { generation: self.generation, snapshot: snapshot(&self.world), since: Some(self.now) };
        self.server.retarget(target);
    }

    /// A new stream, with what the client has.
    fn open(&mut self) {
        self.server = Client::new(self.protocol, 1, PATIENCE);
        self.up.clear();
        self.down.clear();
        self.outstanding.clear();
        for type_url in TYPES {
            let known = self.known.get_mut(&type_url).unwrap();
            known.nonce.clear();
            known.asked = false;
            known.received = 0;
            known.again.clear();
            known.held.retain(|n, _| type_url.is_wildcard() || known.names.contains(n));
            // State of the world has no way to say what the client holds.
            let claimed = known.held.iter().filter(|_| self.protocol == Protocol::Delta);
            known.seen = claimed.map(|(n, r)| (n.clone(), r.version())).collect();
            if type_url.is_wildcard() || !known.names.is_empty() {
                self.ask(type_url, &[], &[]);
            }
        }
        self.retarget();
    }

    /// Sends the client's interest; in delta, what is new of it.
    fn ask(&mut self, type_url: TypeUrl, subscribe: &[String], unsubscribe: &[String]) {
        let known = self.known.get_mut(&type_url).unwrap();
        let first = !std::mem::replace(&mut known.asked, true);
        let interest = match self.protocol {
            Protocol::Sotw => Interest::Sotw { names: known.names.iter().cloned().collect(), version: known.version.clone() },
            Protocol::Delta if first => Interest::Delta {
                subscribe: known.names.iter().cloned().collect(),
                unsubscribe: vec![],
                initial: known.held.iter().map(|(n, r)| (n.clone(), r.version().to_string())).collect(),
            },
            Protocol::Delta => {
                Interest::Delta { subscribe: subscribe.to_vec(), unsubscribe: unsubscribe.to_vec(), initial: BTreeMap::new() }
            }
        };
        let nonce = if self.protocol == Protocol::Sotw { known.nonce.clone() } else { String::new() };
        self.up.push_back((type_url, Request { nonce, error: None, interest }));
    }

    fn step(&mut self, op: Op) {
        match op {
            Op::Publish(world) => self.publish(world),
            Op::Server => self.serve(),
            Op::Client { refuse } => self.read(refuse && !self.orderly),
            Op::Subscribe(type_url, i) => {
                let name = name_of(type_url, i);
                let known = self.known(type_url);
                known.names.insert(name.clone());
                *known.again.entry(name.clone()).or_default() += 1;
                self.ask(type_url, &[name], &[]);
            }
            Op::Unsubscribe(type_url, i) => {
                let name = name_of(type_url, i);
                let known = self.known(type_url);
                if known.names.remove(&name) {
                    known.held.remove(&name);
                    known.seen.remove(&name);
                    self.ask(type_url, &[], &[name]);
                }
            }
            Op::Reconnect => self.open(),
            Op::Pass(time) if !self.orderly => self.now += time,
            Op::Pass(_) => {}
        }
    }

    fn serve(&mut self) {
        if let Some((type_url, request)) = self.up.pop_front()
            && matches!(self.server.on_request(type_url, request), Verdict::Ack | Verdict::Nack(_))
        {
            self.outstanding.remove(&type_url);
        }
        while let Next::Send(response) = self.server.next(self.now, SystemTime::UNIX_EPOCH) {
            assert!(self.outstanding.insert(response.type_url), "a second response is outstanding: {response:?}");
            self.down.push_back(response);
        }
    }

    fn read(&mut self, refuse: bool) {
        let Some(response) = self.down.pop_front() else { return };
        let (type_url, protocol) = (response.type_url, self.protocol);
        let refused = !self.orderly;
        self.check_order(&response);
        let changed: Vec<String> = response.resources.iter().map(|r| r.name().to_string()).collect();
        let known = self.known(type_url);
        known.received += 1;
        known.nonce = response.nonce.to_string();
        let whole = protocol == Protocol::Sotw && type_url.is_wildcard();
        for resource in &response.resources {
            let name = resource.name().to_string();
            let repeated = known.seen.insert(name.clone(), resource.version()) == Some(resource.version());
            let again = known.again.entry(name.clone()).or_default();
            // What a refused response held comes again with the next change.
            let allowed = whole || *again > 0 || (refused && !type_url.is_wildcard());
            *again = again.saturating_sub(u32::from(repeated));
            assert!(!repeated || allowed, "{name} was sent again unchanged: {response:?}");
        }
        for name in &response.removed {
            known.seen.remove(&**name);
        }
        if !refuse {
            if whole {
                known.held.clear();
            }
            for name in &response.removed {
                known.held.remove(&**name);
            }
            let wanted = |r: &&Resource| type_url.is_wildcard() || known.names.contains(&**r.name());
            let taken: Vec<_> = response.resources.iter().filter(wanted).map(|r| (r.name().to_string(), r.clone())).collect();
            known.held.extend(taken);
            known.version = response.version.to_string();
        }
        let interest = match protocol {
            Protocol::Sotw => Interest::Sotw { names: known.names.iter().cloned().collect(), version: known.version.clone() },
            Protocol::Delta => Interest::Delta { subscribe: vec![], unsubscribe: vec![], initial: BTreeMap::new() },
        };
        let error = refuse.then(|| "no".to_owned());
        self.up.push_back((type_url, Request { nonce: response.nonce.to_string(), error, interest }));
        if type_url == Cds {
            for name in changed {
                *self.known(Eds).again.entry(name).or_default() += 1;
            }
        }
    }

    /// No route to a cluster that is not there, as far as the server could know what the client has.
    fn check_order(&self, response: &Response) {
        if !self.orderly {
            return;
        }
        let target = |r: &Resource| {
            let cluster: Cluster = pilotfish_envoy::any::unpack(&Any { type_url: CLUSTER.into(), ..r.to_any() }).unwrap();
            cluster.name
        };
        let (clusters, routes) = (&self.known[&Cds], &self.known[&Rds]);
        match response.type_url {
            Rds if routes.received > 0 && clusters.received > 0 => {
                for route in &response.resources {
                    assert!(clusters.held.contains_key(&target(route)), "route {route:?} came before its cluster {}", target(route));
                }
            }
            Cds if clusters.received > 0 && routes.received > 0 => {
                let stays = |name: &str| match self.protocol {
                    Protocol::Sotw => response.resources.iter().any(|r| &**r.name() == name),
                    Protocol::Delta => !response.removed.iter().any(|r| &**r == name),
                };
                let generation: usize = response.nonce.split('/').next().unwrap().parse().unwrap();
                let world = &self.worlds[generation - 1];
                for route in routes.held.values().filter(|r| clusters.held.contains_key(&target(r))) {
                    // A route that the server removed from its set is not the server's any more.
                    if world.get(&Rds).is_some_and(|r| r.contains_key(&**route.name())) {
                        assert!(stays(&target(route)), "cluster {} went before route {route:?} left it", target(route));
                    }
                }
            }
            _ => {}
        }
    }

    /// Everybody does their part until nothing moves.
    fn settle(&mut self) {
        for _ in 0..1_000 {
            self.serve();
            self.read(false);
            if self.up.is_empty() && self.down.is_empty() {
                match self.server.next(self.now, SystemTime::UNIX_EPOCH) {
                    Next::Idle(None) => return,
                    Next::Idle(Some(wake)) => {
                        assert!(wake > self.now, "a wake-up in the past would spin");
                        self.now = wake;
                    }
                    Next::Send(response) => {
                        assert!(self.outstanding.insert(response.type_url));
                        self.down.push_back(response);
                    }
                }
            }
        }
        panic!("does not settle");
    }

    fn check_state(&self) {
        let snapshot = snapshot(&self.world);
        for (type_url, known) in &self.known {
            let set = snapshot.get(*type_url);
            let wants = |n: &str| type_url.is_wildcard() || known.names.contains(n);
            let expected: BTreeMap<&str, Version> = set.iter().map(|r| (&**r.name(), r.version())).filter(|(n, _)| wants(n)).collect();
            // State of the world cannot say that named resources are gone.
            let gone_is_silent = self.protocol == Protocol::Sotw && !type_url.is_wildcard();
            let held = known.held.iter().map(|(n, r)| (n.as_str(), r.version()));
            let held: BTreeMap<&str, Version> = held.filter(|(n, _)| !gone_is_silent || expected.contains_key(n)).collect();
            assert_eq!(held, expected, "{type_url:?}");
        }
        assert!(self.outstanding.is_empty());
    }
}

const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";

fn run(protocol: Protocol, orderly: bool, ops: Vec<Op>, last: World) {
    let mut model = Model::new(protocol, orderly);
    for op in ops {
        model.step(op);
    }
    // Refused content stays away until it changes, so the last world is one that nobody has seen.
    let fresh = |resources: &BTreeMap<String, String>| resources.iter().map(|(n, v)| (n.clone(), format!("{v}!"))).collect();
    let mut last: World = last.iter().map(|(t, r)| (*t, if *t == Rds { r.clone() } else { fresh(r) })).collect();
    if !orderly {
        // What a refused response held or removed is said again with the next one: for each type there is one.
        for type_url in TYPES {
            let wanted = model.known[&type_url].names.first().cloned();
            let name = wanted.unwrap_or_else(|| if type_url == Rds { "r0" } else { "c0" }.to_owned());
            last.entry(type_url).or_default().insert(name, "last".into());
        }
        model.settle();
        model.publish(World::new());
    }
    model.settle();
    model.publish(last);
    model.settle();
    model.check_state();
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn delta_clients_get_there_in_order(ops in prop::collection::vec(op(), 0..80), last in world()) {
        run(Protocol::Delta, true, ops, last);
    }

    #[test]
    fn sotw_clients_get_there_in_order(ops in prop::collection::vec(op(), 0..80), last in world()) {
        run(Protocol::Sotw, true, ops, last);
    }

    #[test]
    fn delta_clients_that_refuse_and_dawdle_get_there(ops in prop::collection::vec(op(), 0..80), last in world()) {
        run(Protocol::Delta, false, ops, last);
    }

    #[test]
    fn sotw_clients_that_refuse_and_dawdle_get_there(ops in prop::collection::vec(op(), 0..80), last in world()) {
        run(Protocol::Sotw, false, ops, last);
    }
}
