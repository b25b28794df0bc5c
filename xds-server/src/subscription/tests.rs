//! One row per rule of the xDS protocol.

use super::*;
use crate::subscription::{Interest, Request};
use pilotfish_envoy::Resource;
use pilotfish_envoy::pb::envoy::config::cluster::v3::Cluster;
use pretty_assertions::assert_eq;

fn set(resources: &[(&str, &str)]) -> Arc<ResourceSet> {
    let encode = |(n, v): &(&str, &str)| Resource::new(*n, &Cluster { name: v.to_string(), ..Default::default() });
    Arc::new(ResourceSet::new(resources.iter().map(encode)))
}

fn version(content: &str) -> String {
    set(&[("", content)]).get("").unwrap().version().to_string()
}

fn texts(list: &[&str]) -> Vec<String> {
    list.iter().map(|s| s.to_string()).collect()
}

fn sotw(names: &[&str], nonce: &str) -> Request {
    Request { nonce: nonce.into(), error: None, interest: Interest::Sotw { names: texts(names), version: String::new() } }
}

fn delta(subscribe: &[&str], unsubscribe: &[&str], nonce: &str) -> Request {
    let interest = Interest::Delta { subscribe: texts(subscribe), unsubscribe: texts(unsubscribe), initial: BTreeMap::new() };
    Request { nonce: nonce.into(), error: None, interest }
}

fn resume(subscribe: &[&str], claims: &[(&str, &str)]) -> Request {
    let initial = claims.iter().map(|(n, v)| (n.to_string(), version(v))).collect();
    Request { interest: Interest::Delta { subscribe: texts(subscribe), unsubscribe: vec![], initial }, ..Request::default() }
}

fn refusing(mut request: Request, message: &str) -> Request {
    request.error = Some(message.into());
    request
}

/// A subscription and the nonces it was given: `1`, `2`, ...
struct Machine {
    subscription: Subscription,
    requests: u32,
    nonce: u32,
}

/// What was sent: names, removed names.
type Sent = Option<(Vec<String>, Vec<String>)>;

impl Machine {
    fn new(type_url: TypeUrl, protocol: Protocol) -> Self {
        Machine { subscription: Subscription::new(type_url, protocol), requests: 0, nonce: 0 }
    }

    fn on(&mut self, request: Request) -> Verdict {
        self.requests += 1;
        self.subscription.on_request(request, self.requests == 1, &ResourceSet::default())
    }

    fn holding(&mut self, latest: &Arc<ResourceSet>, hold: bool) -> Sent {
        if self.subscription.is_outstanding() || !self.subscription.may_be_due(latest) {
            return None;
        }
        let diff = self.subscription.diff(latest, hold);
        if !diff.is_due {
            self.subscription.settle_on(diff, 1);
            return None;
        }
        let sent = (diff.resources.iter().map(|r| r.name().to_string()).collect(), diff.removed.iter().map(|n| n.to_string()).collect());
        self.nonce += 1;
        self.subscription.commit(diff, self.nonce.to_string().into(), 1, SystemTime::UNIX_EPOCH);
        Some(sent)
    }

    fn send(&mut self, latest: &Arc<ResourceSet>) -> Sent {
        self.holding(latest, false)
    }
}

fn sent(names: &[&str], removed: &[&str]) -> Sent {
    Some((texts(names), texts(removed)))
}

/// A machine whose first request was answered from `latest` and whose answer was taken.
fn settled(type_url: TypeUrl, first: Request, latest: &Arc<ResourceSet>) -> Machine {
    let protocol = match first.interest {
        Interest::Sotw { .. } => Protocol::Sotw,
        Interest::Delta { .. } => Protocol::Delta,
    };
    let mut machine = Machine::new(type_url, protocol);
    let names = match &first.interest {
        Interest::Sotw { names, .. } => names.clone(),
        Interest::Delta { .. } => vec![],
    };
    machine.on(first);
    machine.send(latest).expect("the first request is answered");
    let mut ack = match protocol {
        Protocol::Sotw => sotw(&[], "1"),
        Protocol::Delta => delta(&[], &[], "1"),
    };
    if let Interest::Sotw { names: wanted, .. } = &mut ack.interest {
        *wanted = names;
    }
    assert_eq!(machine.on(ack), Verdict::Ack);
    assert_eq!(machine.send(latest), None, "an ACK is not answered");
    machine
}

#[test]
fn the_first_request_is_answered_even_with_nothing() {
    for protocol in [Protocol::Sotw, Protocol::Delta] {
        for type_url in TypeUrl::ALL.into_iter().filter(|t| *t != TypeUrl::Secret) {
            let mut machine = Machine::new(type_url, protocol);
            machine.on(if protocol == Protocol::Sotw { sotw(&[], "") } else { delta(&[], &[], "") });
            assert_eq!(machine.send(&set(&[])), sent(&[], &[]), "{type_url:?} {protocol:?}");
        }
    }
}

#[test]
fn what_the_first_request_subscribes_to() {
    use TypeUrl::{Cluster as Cds, Endpoint as Eds};
    let all = set(&[("a", "1"), ("b", "1")]);
    let rows = [
        ("legacy wildcard", Cds, sotw(&[], ""), sent(&["a", "b"], &[])),
        ("legacy wildcard", Cds, delta(&[], &[], ""), sent(&["a", "b"], &[])),
        ("wildcard", Cds, sotw(&["*"], ""), sent(&["a", "b"], &[])),
        ("wildcard", Eds, delta(&["*"], &[], ""), sent(&["a", "b"], &[])),
        ("names of a wildcard type", Cds, sotw(&["b"], ""), sent(&["b"], &[])),
        ("names of a wildcard type", Cds, delta(&["b"], &[], ""), sent(&["b"], &[])),
        ("wildcard and a name", Cds, delta(&["*", "x"], &[], ""), sent(&["a", "b"], &["x"])),
        ("names", Eds, sotw(&["b", "x"], ""), sent(&["b"], &[])),
        ("a name that does not exist", Eds, delta(&["b", "x"], &[], ""), sent(&["b"], &["x"])),
        ("nothing of a type without wildcard", Eds, sotw(&[], ""), sent(&[], &[])),
        ("nothing of a type without wildcard", Eds, delta(&[], &[], ""), sent(&[], &[])),
        ("subscribed and unsubscribed at once", Cds, delta(&["*"], &["*"], ""), sent(&[], &[])),
        ("a nonce of an earlier stream", Cds, sotw(&[], "old"), sent(&["a", "b"], &[])),
        ("a nonce of an earlier stream", Cds, delta(&["*"], &[], "old"), sent(&["a", "b"], &[])),
    ];
    for (what, type_url, request, expected) in rows {
        let protocol = if matches!(request.interest, Interest::Sotw { .. }) { Protocol::Sotw } else { Protocol::Delta };
        let mut machine = Machine::new(type_url, protocol);
        assert_eq!(machine.on(request), Verdict::None);
        assert_eq!(machine.send(&all), expected, "{what}, {type_url:?} {protocol:?}");
    }
}

/// An answer without the secret that was asked for is a rejected update at Envoy.
#[test]
fn of_secrets_only_those_that_exist_are_mentioned() {
    let (none, one, other) = (set(&[]), set(&[("a", "1")]), set(&[("a", "2")]));
    let more = set(&[("a", "1"), ("b", "1")]);
    /// A request, or a change of the set, and what follows.
    enum Event<'a> {
        Asks(Request),
        Is(&'a Arc<ResourceSet>),
    }
    use Event::{Asks, Is};
    let rows = [
        ("asked for nothing", vec![(Asks(sotw(&[], "")), None)]),
        ("asked for nothing", vec![(Asks(delta(&[], &[], "")), None)]),
        ("comes later", vec![(Asks(sotw(&["a"], "")), None), (Is(&one), sent(&["a"], &[]))]),
        ("comes later", vec![(Asks(delta(&["a"], &[], "")), None), (Is(&one), sent(&["a"], &[]))]),
        ("another is missing", vec![(Is(&one), None), (Asks(sotw(&["a", "x"], "")), sent(&["a"], &[]))]),
        ("another is missing", vec![(Is(&one), None), (Asks(delta(&["a", "x"], &[], "")), sent(&["a"], &[]))]),
        (
            "missing, asked for after one that exists",
            vec![
                (Is(&one), None),
                (Asks(sotw(&["a"], "")), sent(&["a"], &[])),
                (Asks(sotw(&["a", "b"], "1")), None),
                (Is(&more), sent(&["b"], &[])),
            ],
        ),
        (
            "missing, asked for after one that exists",
            vec![
                (Is(&one), None),
                (Asks(delta(&["a"], &[], "")), sent(&["a"], &[])),
                (Asks(delta(&["b"], &[], "1")), None),
                (Asks(delta(&["b"], &[], "")), None),
                (Is(&more), sent(&["b"], &[])),
            ],
        ),
        (
            "goes away, comes back unchanged, then changes",
            vec![
                (Is(&one), None),
                (Asks(sotw(&["a"], "")), sent(&["a"], &[])),
                (Asks(sotw(&["a"], "1")), None),
                (Is(&none), None),
                (Is(&one), None),
                (Is(&none), None),
                (Is(&other), sent(&["a"], &[])),
            ],
        ),
        (
            "goes away, comes back unchanged, then changes",
            vec![
                (Is(&one), None),
                (Asks(delta(&["a"], &[], "")), sent(&["a"], &[])),
                (Asks(delta(&[], &[], "1")), None),
                (Is(&none), None),
                (Is(&one), None),
                (Is(&none), None),
                (Is(&other), sent(&["a"], &[])),
            ],
        ),
        (
            "is claimed by a client that returns",
            vec![(Asks(resume(&["a"], &[("a", "1")])), None), (Is(&one), None), (Is(&other), sent(&["a"], &[]))],
        ),
        (
            "was refused, then went away",
            vec![
                (Is(&one), None),
                (Asks(delta(&["a"], &[], "")), sent(&["a"], &[])),
                (Asks(refusing(delta(&[], &[], "1"), "no")), None),
                (Is(&none), None),
                (Asks(delta(&["a"], &[], "")), None),
                (Is(&other), sent(&["a"], &[])),
            ],
        ),
    ];
    for (what, events) in rows {
        let first = events.iter().find_map(|(event, _)| if let Asks(request) = event { Some(&request.interest) } else { None });
        let protocol = if matches!(first, Some(Interest::Sotw { .. })) { Protocol::Sotw } else { Protocol::Delta };
        let (mut machine, mut latest) = (Machine::new(TypeUrl::Secret, protocol), none.clone());
        for (i, (event, expected)) in events.into_iter().enumerate() {
            match event {
                Asks(request) => _ = machine.on(request),
                Is(set) => latest = set.clone(),
            }
            let answer = if machine.requests == 0 { None } else { machine.send(&latest) };
            assert_eq!(answer, expected, "{what}, {protocol:?}, event {i}");
            assert!(expected.is_some() || !machine.subscription.owed, "{what}, {protocol:?}: an answer is owed for good");
        }
    }
}

#[test]
fn what_later_requests_do() {
    use TypeUrl::{Cluster as Cds, Endpoint as Eds};
    let all = set(&[("a", "1"), ("b", "1")]);
    let rows = [
        ("the same again", Eds, sotw(&["a"], ""), sotw(&["a"], "1"), None),
        ("another name", Eds, sotw(&["a"], ""), sotw(&["a", "b"], "1"), sent(&["b"], &[])),
        ("a name that does not exist", Eds, sotw(&["a"], ""), sotw(&["a", "x"], "1"), sent(&[], &[])),
        ("one name less", Eds, sotw(&["a", "b"], ""), sotw(&["a"], "1"), None),
        ("no name any more", Eds, sotw(&["a", "b"], ""), sotw(&[], "1"), None),
        ("from scratch, without nonce", Eds, sotw(&["a", "b"], ""), sotw(&["a", "b"], ""), sent(&["a", "b"], &[])),
        ("another cluster", Cds, sotw(&["a"], ""), sotw(&["a", "b"], "1"), sent(&["a", "b"], &[])),
        ("no cluster any more is no wildcard", Cds, sotw(&["a"], ""), sotw(&[], "1"), None),
        ("wildcard after names", Cds, sotw(&["a"], ""), sotw(&["*"], "1"), sent(&["a", "b"], &[])),
        ("a name after the legacy wildcard", Cds, sotw(&[], ""), sotw(&["b"], "1"), sent(&["b"], &[])),
        ("another name", Eds, delta(&["a"], &[], ""), delta(&["b"], &[], ""), sent(&["b"], &[])),
        ("a name that does not exist", Eds, delta(&["a"], &[], ""), delta(&["x"], &[], ""), sent(&[], &["x"])),
        ("a name again", Eds, delta(&["a"], &[], ""), delta(&["a"], &[], ""), sent(&["a"], &[])),
        ("one name less", Eds, delta(&["a", "b"], &[], ""), delta(&[], &["b"], ""), None),
        ("a name beside the wildcard", Cds, delta(&[], &[], ""), delta(&["x"], &[], ""), sent(&[], &["x"])),
        ("wildcard after names", Cds, delta(&["a"], &[], ""), delta(&["*"], &[], ""), sent(&["b"], &[])),
        ("wildcard again", Cds, delta(&["*"], &[], ""), delta(&["*"], &[], ""), sent(&[], &[])),
        ("no wildcard any more", Cds, delta(&["*", "a"], &[], ""), delta(&[], &["*"], ""), None),
        ("unnamed, but still under the wildcard", Cds, delta(&["*", "a"], &[], ""), delta(&[], &["a"], ""), sent(&["a"], &[])),
        ("unnamed, and not there", Cds, delta(&["*", "x"], &[], ""), delta(&[], &["x"], ""), sent(&[], &["x"])),
        ("unsubscribed from what it never named", Cds, delta(&["*"], &[], ""), delta(&[], &["a"], ""), None),
    ];
    for (what, type_url, first, second, expected) in rows {
        let mut machine = settled(type_url, first, &all);
        assert_eq!(machine.on(second), Verdict::None, "{what}");
        assert_eq!(machine.send(&all), expected, "{what}, {type_url:?} {:?}", machine.subscription.protocol);
    }
}

#[test]
fn what_a_change_of_the_set_sends() {
    use TypeUrl::{Cluster as Cds, Endpoint as Eds};
    let (old, new) = (set(&[("a", "1"), ("b", "1"), ("c", "1")]), set(&[("b", "2"), ("c", "1"), ("d", "1")]));
    let rows = [
        ("all, for omission removes", Cds, sotw(&[], ""), sent(&["b", "c", "d"], &[])),
        ("all that is named", Cds, sotw(&["a", "c"], ""), sent(&["c"], &[])),
        ("what changed of the named", Eds, sotw(&["a", "b", "c"], ""), sent(&["b"], &[])),
        ("nothing, if nothing named changed", Eds, sotw(&["a", "c"], ""), None),
        ("changes and removals", Cds, delta(&[], &[], ""), sent(&["b", "d"], &["a"])),
        ("changes and removals of the named", Eds, delta(&["a", "b", "c"], &[], ""), sent(&["b"], &["a"])),
        ("nothing, if nothing named changed", Eds, delta(&["c"], &[], ""), None),
    ];
    for (what, type_url, first, expected) in rows {
        let mut machine = settled(type_url, first, &old);
        assert_eq!(machine.send(&new), expected, "{what}, {type_url:?} {:?}", machine.subscription.protocol);
    }
}

#[test]
fn one_response_at_a_time_and_the_newest_state_next() {
    let mut machine = Machine::new(TypeUrl::Cluster, Protocol::Delta);
    machine.on(delta(&["*"], &[], ""));
    assert_eq!(machine.send(&set(&[("a", "1")])), sent(&["a"], &[]));
    assert_eq!(machine.send(&set(&[("a", "2")])), None);
    assert_eq!(machine.send(&set(&[("a", "1"), ("b", "1")])), None);
    assert_eq!(machine.on(delta(&[], &[], "1")), Verdict::Ack);
    assert_eq!(machine.send(&set(&[("a", "1"), ("b", "1")])), sent(&["b"], &[]));
}

#[test]
fn stale_nonces() {
    let latest = set(&[("a", "1"), ("b", "1")]);
    let mut machine = settled(TypeUrl::Endpoint, sotw(&["a"], ""), &latest);
    assert_eq!(machine.on(sotw(&["a", "b"], "0")), Verdict::Stale);
    assert_eq!(machine.send(&latest), None, "a stale request is void");

    let mut machine = settled(TypeUrl::Endpoint, delta(&["a"], &[], ""), &latest);
    assert_eq!(machine.on(delta(&["b"], &[], "0")), Verdict::Stale);
    assert_eq!(machine.send(&latest), sent(&["b"], &[]), "increments would be lost");
}

#[test]
fn names_may_change_before_the_first_answer_arrives() {
    let latest = set(&[("a", "1"), ("b", "1")]);
    let mut machine = Machine::new(TypeUrl::Endpoint, Protocol::Sotw);
    machine.on(sotw(&["a"], ""));
    assert_eq!(machine.send(&latest), sent(&["a"], &[]));
    assert_eq!(machine.on(sotw(&["a", "b"], "")), Verdict::None);
    assert_eq!(machine.send(&latest), None);
    assert_eq!(machine.on(sotw(&["a", "b"], "1")), Verdict::Ack);
    assert_eq!(machine.send(&latest), sent(&["b"], &[]));
}

#[test]
fn a_nack_is_remembered_and_not_answered() {
    use TypeUrl::{Cluster as Cds, Endpoint as Eds};
    let (old, new) = (set(&[("a", "1"), ("b", "1")]), set(&[("a", "2"), ("b", "1")]));
    let rows = [
        (Cds, sotw(&[], ""), sotw(&[], "1"), sent(&["a", "b"], &[])),
        // Envoy drops the rest of a rejected response too.
        (Eds, sotw(&["a", "b"], ""), sotw(&["a", "b"], "1"), sent(&["a", "b"], &[])),
        (Cds, delta(&[], &[], ""), delta(&[], &[], "1"), sent(&["a"], &[])),
        (Eds, delta(&["a", "b"], &[], ""), delta(&[], &[], "1"), sent(&["a", "b"], &[])),
    ];
    for (type_url, first, answer, expected) in rows {
        let protocol = if matches!(first.interest, Interest::Sotw { .. }) { Protocol::Sotw } else { Protocol::Delta };
        let mut machine = Machine::new(type_url, protocol);
        machine.on(first);
        machine.send(&old);
        let rejection = Rejection { nonce: "1".into(), message: "a: no".into(), names: vec!["a".into(), "b".into()] };
        assert_eq!(machine.on(refusing(answer, "a: no")), Verdict::Nack(rejection.clone()));
        assert_eq!((machine.subscription.last_error(), machine.subscription.acked()), (Some(&rejection), None));
        assert_eq!(rejection.suspects(), [Arc::from("a")]);
        assert_eq!(machine.send(&old), None, "{type_url:?} {protocol:?}");
        assert_eq!(machine.send(&new), expected, "{type_url:?} {protocol:?}");
    }
}

#[test]
fn a_refused_removal_comes_again_with_the_next_change() {
    let mut machine = settled(TypeUrl::Cluster, delta(&[], &[], ""), &set(&[("a", "1"), ("b", "1")]));
    assert_eq!(machine.send(&set(&[("b", "1")])), sent(&[], &["a"]));
    machine.on(refusing(delta(&[], &[], "2"), "no"));
    assert_eq!(machine.send(&set(&[("b", "1")])), None);
    assert_eq!(machine.send(&set(&[("b", "2")])), sent(&["b"], &["a"]));
}

#[test]
fn an_answer_without_news_does_not_make_up_for_a_refusal() {
    let latest = set(&[("a", "1"), ("b", "1")]);
    let mut machine = Machine::new(TypeUrl::Endpoint, Protocol::Delta);
    machine.on(delta(&["a", "b"], &[], ""));
    machine.send(&latest);
    machine.on(refusing(delta(&[], &[], "1"), "no"));
    machine.on(delta(&["x"], &[], ""));
    assert_eq!(machine.send(&latest), sent(&["a", "b"], &["x"]), "it goes along with anything that is news");

    let mut machine = Machine::new(TypeUrl::Endpoint, Protocol::Sotw);
    machine.on(sotw(&["a", "b"], ""));
    machine.send(&latest);
    machine.on(refusing(sotw(&["a", "b"], "1"), "no"));
    machine.on(sotw(&["a", "b", "x"], "1"));
    assert_eq!(machine.send(&latest), sent(&[], &[]));
    machine.on(sotw(&["a", "b", "x"], "2"));
    assert_eq!(machine.send(&set(&[("a", "2"), ("b", "1")])), sent(&["a", "b"], &[]));
}

#[test]
fn a_reconnecting_delta_client_gets_the_difference() {
    use TypeUrl::{Cluster as Cds, Endpoint as Eds, ExtensionConfig, Route};
    let latest = set(&[("a", "1"), ("b", "2"), ("c", "1")]);
    let claims = [("a", "1"), ("b", "1"), ("gone", "1")];
    let mut rows = vec![
        (Cds, resume(&["*"], &claims), sent(&["b", "c"], &["gone"])),
        (Cds, resume(&[], &claims), sent(&["b", "c"], &["gone"])),
        (Cds, resume(&["*"], &[("a", "1"), ("b", "2"), ("c", "1")]), None),
    ];
    for named in [Eds, Route, ExtensionConfig] {
        rows.push((named, resume(&["a", "b", "gone"], &claims), sent(&["b"], &["gone"])));
        rows.push((named, resume(&["a"], &claims), None));
    }
    for (type_url, request, expected) in rows {
        let mut machine = Machine::new(type_url, Protocol::Delta);
        machine.on(request);
        assert_eq!(machine.send(&latest), expected, "{type_url:?}");
    }
    // A version that another server made up is no version of ours.
    let mut machine = Machine::new(Cds, Protocol::Delta);
    let initial = BTreeMap::from([("a".to_owned(), "2026-01-01T00:00:00Z/7".to_owned())]);
    machine.on(Request { interest: Interest::Delta { subscribe: vec![], unsubscribe: vec![], initial }, ..Request::default() });
    assert_eq!(machine.send(&latest), sent(&["a", "b", "c"], &[]));
}

#[test]
fn removals_can_be_held_back() {
    use TypeUrl::{Cluster as Cds, Endpoint as Eds};
    let (old, new) = (set(&[("a", "1"), ("b", "1")]), set(&[("b", "2")]));
    let mut machine = settled(Cds, delta(&[], &[], ""), &old);
    assert_eq!(machine.holding(&new, true), sent(&["b"], &[]));
    machine.on(delta(&[], &[], "2"));
    assert_eq!(machine.holding(&new, true), None);
    assert_eq!(machine.holding(&new, false), sent(&[], &["a"]));

    let mut machine = settled(Cds, sotw(&[], ""), &old);
    assert_eq!(machine.holding(&new, true), sent(&["a", "b"], &[]));
    machine.on(sotw(&[], "2"));
    assert_eq!(machine.holding(&new, true), None);
    assert_eq!(machine.holding(&new, false), sent(&["b"], &[]));

    // Back again before it was removed: nothing happened.
    let mut machine = settled(Cds, delta(&[], &[], ""), &old);
    assert_eq!(machine.holding(&set(&[("b", "1")]), true), None);
    assert_eq!(machine.holding(&old, true), None);

    // Asked for by name: that it does not exist is an answer, not a removal.
    let mut machine = settled(Eds, delta(&["a"], &[], ""), &old);
    machine.on(delta(&["x"], &[], ""));
    assert_eq!(machine.holding(&new, true), sent(&[], &["x"]));
}

#[test]
fn forced_resources_are_sent_again_unchanged() {
    let latest = set(&[("a", "1"), ("b", "1")]);
    for first in [sotw(&["a", "b"], ""), delta(&["a", "b"], &[], "")] {
        let mut machine = settled(TypeUrl::Endpoint, first, &latest);
        machine.subscription.force(&["a".into(), "elsewhere".into()]);
        assert_eq!(machine.send(&latest), sent(&["a"], &[]));
        assert_eq!(machine.send(&latest), None);
    }
}

#[test]
fn an_idle_subscription_keeps_nothing_but_pointers() {
    let (old, new) = (set(&[("a", "1"), ("b", "1")]), set(&[("a", "1"), ("b", "1"), ("other", "1")]));
    let mut machine = settled(TypeUrl::Endpoint, delta(&["a", "b"], &[], ""), &old);
    assert_eq!(machine.send(&new), None);
    assert!(Arc::ptr_eq(&machine.subscription.base, &new), "the old set can be freed");
    assert!(machine.subscription.differs.is_empty() && !machine.subscription.may_be_due(&new));
}
