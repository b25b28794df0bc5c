//! How far all objects have come, in one go: [`Tally`]. What [`Debug::applied`] tells of one object in detail.
//!
//! What was made of which object is found out once for a class of proxies. A proxy that holds all of a type is done with a look at
//! each object; of others each resource is looked at.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use pilotfish_envoy::{Resource, ResourceSet, Snapshot, TypeUrl};

use super::Debug;
use crate::Translate;
use crate::store::Session;
use crate::subscription::Holding;

/// How far one object has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Connected proxies that get something made of it.
    pub proxies: usize,
    /// Those that confirmed all of it.
    pub applied: usize,
    /// Those that refused some of it.
    pub rejected: usize,
    /// Names of some of these with their words, ordered.
    pub words: Vec<(String, String)>,
}

/// How far all objects have come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Nothing waited to be made when the count began.
    pub settled: bool,
    /// By object, as `Kind/namespace/name`; those of which no proxy gets anything are left out.
    pub objects: BTreeMap<Arc<str>, Report>,
}

/// How many proxies' words are kept.
const WORDS: usize = 3;

/// What a class gets of a type that was made of objects.
struct Made {
    type_url: TypeUrl,
    set: Arc<ResourceSet>,
    /// By name, with the objects that it was made of.
    resources: HashMap<Arc<str>, (Resource, Vec<usize>)>,
    /// All of these objects.
    objects: Vec<usize>,
}

#[derive(Default)]
struct Counting {
    numbers: HashMap<Arc<str>, usize>,
    reports: Vec<(Arc<str>, Report)>,
}

/// What one proxy says of one object; the worse word counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Word<'a> {
    Confirmed,
    Missing,
    Rejected(&'a str),
}

impl<T: Translate> Debug<T> {
    /// Counts what was made of the objects that are `wanted`, given as `Kind/namespace/name`.
    pub fn tally(&self, wanted: impl Fn(&str) -> bool) -> Tally {
        // Before the look at proxies: what was made before is in what they should have.
        let settled = self.store.is_idle();
        let mut counting = Counting::default();
        let mut by_snapshot: HashMap<*const Snapshot, Vec<Made>> = HashMap::new();
        let mut served = self.store.served();
        served.sort_by(|(a, _), (b, _)| a.proxy.name.cmp(&b.proxy.name));
        for (session, snapshot) in &served {
            let made = by_snapshot.entry(Arc::as_ptr(snapshot)).or_insert_with(|| counting.made_of(snapshot, &wanted));
            counting.add(session, made);
        }
        Tally { settled, objects: counting.reports.into_iter().collect() }
    }

    /// Goes up with everything that may change a tally, but for what is still to be made.
    pub fn activity(&self) -> u64 {
        self.store.activity()
    }
}

impl Counting {
    fn made_of(&mut self, snapshot: &Snapshot, wanted: &impl Fn(&str) -> bool) -> Vec<Made> {
        let mut all = Vec::new();
        for (type_url, set) in snapshot.iter() {
            let (mut resources, mut all_objects) = (HashMap::new(), BTreeSet::new());
            for resource in set.iter() {
                let mut objects: Vec<usize> = resource.sources().filter(|s| wanted(s)).map(|s| self.number(s)).collect();
                objects.sort_unstable();
                objects.dedup();
                if !objects.is_empty() {
                    all_objects.extend(objects.iter().copied());
                    resources.insert(resource.name().clone(), (resource.clone(), objects));
                }
            }
            if !resources.is_empty() {
                all.push(Made { type_url, set: set.clone(), resources, objects: all_objects.into_iter().collect() });
            }
        }
        all
    }

    fn number(&mut self, source: &Arc<str>) -> usize {
        if let Some(number) = self.numbers.get(source) {
            return *number;
        }
        self.numbers.insert(source.clone(), self.reports.len());
        self.reports.push((source.clone(), Report::default()));
        self.reports.len() - 1
    }

    fn add(&mut self, session: &Session, made: &[Made]) {
        let client = session.client();
        let mut said: Vec<Option<Word<'_>>> = vec![None; self.reports.len()];
        for made in made {
            let Some(subscription) = client.subscriptions().find(|s| s.type_url() == made.type_url) else { continue };
            if subscription.has_confirmed(&made.set) {
                for object in &made.objects {
                    said[*object].get_or_insert(Word::Confirmed);
                }
                continue;
            }
            let holdings = subscription.holdings();
            let mut take = |(resource, objects): &(Resource, Vec<usize>)| {
                let word = match holdings.of(client.own(made.type_url, resource)) {
                    Holding::Confirmed => Word::Confirmed,
                    Holding::Missing => Word::Missing,
                    Holding::Rejected(words) => Word::Rejected(words),
                };
                for object in objects {
                    said[*object] = said[*object].max(Some(word));
                }
            };
            if subscription.is_wildcard() {
                made.resources.values().for_each(&mut take);
            } else {
                subscription.names().iter().filter_map(|name| made.resources.get(name)).for_each(&mut take);
            }
        }
        let said = self.reports.iter_mut().zip(said).filter_map(|(report, word)| Some((report, word?)));
        for ((_, report), word) in said {
            report.proxies += 1;
            match word {
                Word::Confirmed => report.applied += 1,
                Word::Missing => {}
                Word::Rejected(words) => {
                    report.rejected += 1;
                    if report.words.len() < WORDS {
                        report.words.push((session.proxy.name.to_string(), words.to_owned()));
                    }
                }
            }
        }
    }
}
