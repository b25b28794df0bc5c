//! Sequences of answers; and a model of a server: whatever happens on the way, only whole worlds are seen.

use std::collections::BTreeMap;

use pretty_assertions::assert_eq;
use proptest::prelude::*;

use super::*;

type Reply = super::Reply<&'static str, u32>;
type Output = super::Output<&'static str, u32>;

fn applied(key: &'static str, value: u32, version: &str) -> Reply {
    Reply::Applied { key, value: Some(value), version: version.into() }
}

fn deleted(key: &'static str, version: &str) -> Reply {
    Reply::Deleted { key, version: version.into() }
}

fn bookmark(version: &str, complete: bool) -> Reply {
    Reply::Bookmark { version: version.into(), complete }
}

fn page(items: &[(&'static str, u32)], version: &str, token: Option<&str>) -> Reply {
    Reply::Page {
        items: items.iter().map(|(k, v)| (*k, Some(*v), v.to_string())).collect(),
        version: version.into(),
        token: token.map(Into::into),
    }
}

fn watch(version: &str) -> Ask {
    Ask::Watch { version: version.into() }
}

/// Feeds replies; what came out, and what is asked next.
fn feed(driver: &mut Driver<&'static str, u32>, replies: Vec<Reply>) -> (Vec<Output>, Ask) {
    let outputs = replies.into_iter().filter_map(|r| driver.handle(r)).collect();
    (outputs, driver.ask())
}

#[test]
fn a_stream_is_taken_when_it_is_complete_and_followed_from_there() {
    let mut driver = Driver::new();
    assert_eq!(driver.ask(), Ask::Stream);
    let listed = vec![applied("a", 1, "1"), applied("b", 1, "2"), applied("b", 2, "3"), applied("c", 1, "4"), deleted("c", "5")];
    assert_eq!(feed(&mut driver, listed), (vec![], Ask::Stream));
    let (outputs, ask) = feed(&mut driver, vec![bookmark("5", false), bookmark("6", true)]);
    assert_eq!((outputs, ask), (vec![Output::Reset(vec![("a", 1), ("b", 2)])], watch("6")));
    // The same stream goes on.
    let (outputs, ask) = feed(&mut driver, vec![applied("a", 2, "7"), deleted("b", "8"), bookmark("9", false), Reply::Ended]);
    assert_eq!((outputs, ask), (vec![Output::Apply("a", 2), Output::Delete("b")], watch("9")));
    assert_eq!(driver.pause(0.9), Duration::ZERO);
}

#[test]
fn pages_are_read_where_streams_are_not_served() {
    let mut driver = Driver::new();
    let (outputs, ask) = feed(&mut driver, vec![Reply::Failed(Failure::NoStreams)]);
    assert_eq!((outputs, ask, driver.pause(0.9)), (vec![], Ask::Page { token: None }, Duration::ZERO));
    let (outputs, ask) = feed(&mut driver, vec![page(&[("a", 1)], "5", Some("t"))]);
    assert_eq!((outputs, ask), (vec![], Ask::Page { token: Some("t".into()) }));
    let (outputs, ask) = feed(&mut driver, vec![page(&[("b", 1)], "5", None)]);
    assert_eq!((outputs, ask), (vec![Output::Reset(vec![("a", 1), ("b", 1)])], watch("5")));
}

#[test]
fn what_was_read_before_an_interruption_is_not_used() {
    for failure in [Failure::Disconnected, Failure::Refused, Failure::Gone] {
        let mut driver = Driver::new();
        feed(&mut driver, vec![applied("ghost", 1, "1"), Reply::Failed(failure)]);
        let (outputs, _) = feed(&mut driver, vec![applied("a", 1, "7"), bookmark("8", true)]);
        assert_eq!(outputs, [Output::Reset(vec![("a", 1)])], "{failure:?}");
        let mut driver = Driver::new();
        let replies = vec![Reply::Failed(Failure::NoStreams), page(&[("ghost", 1)], "1", Some("t")), Reply::Failed(failure)];
        assert_eq!(feed(&mut driver, replies).1, Ask::Page { token: None }, "{failure:?}");
        assert_eq!(feed(&mut driver, vec![page(&[("a", 1)], "8", None)]).0, [Output::Reset(vec![("a", 1)])], "{failure:?}");
    }
}

fn following() -> Driver<&'static str, u32> {
    let mut driver = Driver::new();
    feed(&mut driver, vec![bookmark("5", true)]);
    driver
}

#[test]
fn a_lost_watch_is_resumed_and_a_forgotten_version_listed_anew() {
    for (failures, ask) in [
        (vec![Failure::Disconnected; 20], watch("5")),
        (vec![Failure::Refused; 2], watch("5")),
        // A server that was set back never reaches the version.
        (vec![Failure::Refused; 4], Ask::Stream),
        (vec![Failure::Gone], Ask::Stream),
        (vec![Failure::Elsewhere], Ask::Stream),
    ] {
        let mut driver = following();
        let replies = failures.iter().map(|f| Reply::Failed(*f)).collect();
        // What is known stays until there is something better.
        assert_eq!(feed(&mut driver, replies), (vec![], ask), "{failures:?}");
    }
}

#[test]
fn a_kind_that_is_not_installed_is_empty_and_looked_for() {
    let mut driver = following();
    let (outputs, _) = feed(&mut driver, vec![Reply::Failed(Failure::Absent), Reply::Failed(Failure::Absent)]);
    assert_eq!((outputs, driver.pause(0.5)), (vec![Output::Reset(vec![])], LOOK_FOR_KIND));
    let (outputs, ask) = feed(&mut driver, vec![applied("a", 1, "1"), bookmark("2", true)]);
    assert_eq!((outputs, ask), (vec![Output::Reset(vec![("a", 1)])], watch("2")));
    // Gone once more, it is empty once more; but that there is nothing where something was must be said thrice.
    let absent = |times| vec![Reply::Failed(Failure::Absent); times];
    assert_eq!((feed(&mut driver, absent(2)).0, driver.pause(0.5)), (vec![], LOOK_FOR_KIND));
    assert_eq!((feed(&mut driver, absent(1)).0, feed(&mut driver, absent(5)).0), (vec![Output::Reset(vec![])], vec![]));
    // Elsewhere it is looked for at once.
    driver.handle(Reply::Failed(Failure::Elsewhere));
    assert_eq!(driver.pause(0.5), Duration::ZERO);
}

#[test]
fn what_is_none_of_our_business_is_known_all_the_same() {
    let mut driver = Driver::new();
    let foreign = |key, version: &str| Reply::Applied { key, value: None, version: version.into() };
    let (outputs, _) = feed(&mut driver, vec![applied("a", 1, "1"), foreign("b", "2"), bookmark("3", true)]);
    assert_eq!(outputs, [Output::Reset(vec![("a", 1)])]);
    // It becomes ours, and another one goes to somebody else.
    let (outputs, _) = feed(&mut driver, vec![applied("b", 2, "4"), foreign("a", "5")]);
    assert_eq!(outputs, [Output::Apply("b", 2), Output::Delete("a")]);
    driver.known().begin();
    let listed = [("a", "5"), ("b", "4")].map(|(key, version)| (hash(&key), hash(version))).into();
    assert_eq!(driver.known().suspects(&listed).len(), 0);
}

#[test]
fn who_is_denied_keeps_its_version() {
    let mut driver = following();
    assert_eq!(feed(&mut driver, vec![Reply::Failed(Failure::Denied); 20]), (vec![], watch("5")));
    assert!(driver.pause(0.0) > Duration::ZERO);
}

#[test]
fn what_a_watch_kept_to_itself_is_listed_and_counted() {
    let mut driver = Driver::new();
    feed(&mut driver, vec![applied("a", 1, "1"), applied("b", 1, "2"), applied("c", 1, "3"), bookmark("3", true)]);
    driver.known().begin();
    // Of `a` and `c` nothing is told; of `b` it is, after the list.
    let listed = [("a", "4"), ("b", "5")].map(|(key, version)| (hash(&key), hash(version))).into();
    let suspects = driver.known().suspects(&listed);
    feed(&mut driver, vec![applied("b", 2, "5")]);
    let suspects = driver.known().cleared(suspects);
    assert_eq!(suspects.len(), 2);
    driver.relist(suspects);
    assert_eq!((driver.ask(), driver.healed()), (Ask::Stream, 0));
    let (outputs, ask) = feed(&mut driver, vec![applied("a", 2, "4"), applied("b", 2, "5"), bookmark("7", true)]);
    assert_eq!((outputs, ask), (vec![Output::Reset(vec![("a", 2), ("b", 2)])], watch("7")));
    assert_eq!((driver.healed(), driver.healed()), (2, 0));
}

#[test]
fn pauses_grow_to_a_limit_and_end_with_success() {
    let mut driver = following();
    let mut pauses = Vec::new();
    for _ in 0..40 {
        driver.handle(Reply::Failed(Failure::Disconnected));
        pauses.push(driver.pause(0.999_999).as_millis());
        assert!(driver.pause(0.0) >= driver.pause(0.999) / 2);
    }
    assert_eq!((&pauses[..6], pauses[39]), (&[99, 199, 399, 799, 1599, 3199][..], 4999));
    driver.handle(bookmark("6", false));
    assert_eq!(driver.pause(0.9), Duration::ZERO);
    // A server that only hangs up is not asked without end.
    let mut driver = following();
    driver.handle(Reply::Ended);
    driver.handle(Reply::Ended);
    assert!(driver.pause(0.5) > Duration::ZERO);
}

const KEYS: [&str; 4] = ["a", "b", "c", "d"];

/// What a server does next.
#[derive(Clone, Debug)]
enum Step {
    /// Writes an object.
    Put(usize, u32),
    /// Removes an object.
    Remove(usize),
    /// Forgets old versions.
    Compact,
    /// Answers the request that is open, at most so many events of it, then ends it in some way.
    Answer(usize, Option<Failure>),
}

fn step() -> impl Strategy<Value = Step> {
    let failure = prop::option::of(prop::sample::select(vec![Failure::Disconnected, Failure::Refused]));
    prop_oneof![
        (0..4usize, any::<u32>()).prop_map(|(k, v)| Step::Put(k, v)),
        (0..4usize).prop_map(Step::Remove),
        Just(Step::Compact),
        (0..12usize, failure).prop_map(|(n, f)| Step::Answer(n, f)),
    ]
}

/// A server: its log of changes, and from which version on it still knows them.
#[derive(Default)]
struct Server {
    log: Vec<(&'static str, Option<u32>)>,
    oldest: usize,
    streams: bool,
}

impl Server {
    fn at(&self, version: usize) -> BTreeMap<&'static str, u32> {
        let mut world = BTreeMap::new();
        for (key, value) in &self.log[..version] {
            match value {
                Some(value) => drop(world.insert(*key, *value)),
                None => drop(world.remove(key)),
            }
        }
        world
    }

    fn events(&self, from: usize) -> Vec<Reply> {
        let event = |(i, (key, value)): (usize, &(&'static str, Option<u32>))| {
            let version = (from + i + 1).to_string();
            match value {
                Some(value) => Reply::Applied { key, value: Some(*value), version },
                None => Reply::Deleted { key, version },
            }
        };
        self.log[from..].iter().enumerate().map(event).collect()
    }

    fn answer(&self, ask: &Ask) -> Vec<Reply> {
        let now = self.log.len();
        match ask {
            Ask::Stream if !self.streams => vec![Reply::Failed(Failure::NoStreams)],
            Ask::Stream => {
                let listed =
                    self.at(now).into_iter().map(|(key, value)| Reply::Applied { key, value: Some(value), version: now.to_string() });
                listed.chain([Reply::Bookmark { version: now.to_string(), complete: true }]).collect()
            }
            // A page has two objects; its token says of which version, and where to go on.
            Ask::Page { token } => {
                let (version, skip) = match token.as_deref().and_then(|t| t.split_once('/')) {
                    Some((version, skip)) => (version.parse().unwrap(), skip.parse().unwrap()),
                    None => (now, 0),
                };
                if version < self.oldest {
                    return vec![Reply::Failed(Failure::Gone)];
                }
                let all: Vec<_> = self.at(version).into_iter().collect();
                let items: Vec<_> = all.iter().skip(skip).take(2).map(|(k, v)| (*k, Some(*v), v.to_string())).collect();
                let next = skip + items.len();
                let token = (next < all.len()).then(|| format!("{version}/{next}"));
                vec![Reply::Page { items, version: version.to_string(), token }]
            }
            Ask::Watch { version } => match version.parse() {
                Ok(from) if from >= self.oldest => self.events(from),
                _ => vec![Reply::Failed(Failure::Gone)],
            },
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// What is known at any time is a world that the server once had, never an older one than before; and after quiet it is
    /// the server's.
    #[test]
    fn only_whole_worlds_are_seen(streams in any::<bool>(), steps in prop::collection::vec(step(), 1..60)) {
        let mut server = Server { streams, ..Server::default() };
        let mut driver = Driver::new();
        let (mut known, mut seen): (Option<BTreeMap<&str, u32>>, usize) = (None, 0);
        let rest = (0..12).map(|_| Step::Answer(usize::MAX, None));
        for step in steps.into_iter().chain(rest) {
            match step {
                Step::Put(k, v) => server.log.push((KEYS[k], Some(v))),
                Step::Remove(k) => {
                    if server.at(server.log.len()).contains_key(KEYS[k]) {
                        server.log.push((KEYS[k], None));
                    }
                }
                Step::Compact => server.oldest = server.log.len(),
                Step::Answer(events, end) => {
                    let ask = driver.ask();
                    let answer = server.answer(&ask);
                    let failed = answer.iter().any(|r| matches!(r, Reply::Failed(_)));
                    let end = match (end, &ask) {
                        _ if failed => None,
                        (Some(failure), _) => Some(Reply::Failed(failure)),
                        // A page does not end, it comes or not.
                        (None, Ask::Page { .. }) => None,
                        (None, _) => Some(Reply::Ended),
                    };
                    for reply in answer.into_iter().take(events.max(usize::from(failed))).chain(end) {
                        match driver.handle(reply) {
                            None => {}
                            Some(Output::Reset(all)) => known = Some(all.into_iter().collect()),
                            Some(Output::Apply(k, v)) => drop(known.as_mut().expect("listed before").insert(k, v)),
                            Some(Output::Delete(k)) => drop(known.as_mut().expect("listed before").remove(k)),
                        }
                        if let Some(known) = &known {
                            let now = (seen..=server.log.len()).find(|v| server.at(*v) == *known);
                            prop_assert!(now.is_some(), "{:?} is no world since version {seen} of {:?}", known, server.log);
                            seen = now.unwrap_or_default();
                        }
                    }
                }
            }
        }
        prop_assert_eq!(known, Some(server.at(server.log.len())));
    }
}
