//! The resolver against a clock that nobody waits for.

use pretty_assertions::assert_eq;

use super::*;

const LIMIT: Duration = Duration::from_secs(5);

struct Run {
    resolver: Resolver,
    start: Instant,
    now: Instant,
}

impl Run {
    fn new(wanted: &[&str]) -> Run {
        let now = Instant::now();
        let mut run = Run { resolver: Resolver::default(), start: now, now };
        run.want(wanted);
        run
    }

    fn want(&mut self, names: &[&str]) {
        self.resolver.want(&names.iter().map(|n| (source(n), LIMIT)).collect(), self.now);
    }

    /// Goes to the next moment at which something is to be done; seconds since the start, and what to fetch.
    fn step(&mut self) -> (u64, Vec<JwksSource>) {
        self.now = self.now.max(self.resolver.next().unwrap());
        let due = self.resolver.due(self.now);
        ((self.now - self.start).as_secs(), due.into_iter().map(|(source, _)| source).collect())
    }

    fn answer(&mut self, name: &str, keys: Option<&str>) -> Option<String> {
        self.resolver.answered(&source(name), keys.map(Str::from), self.now).map(|k| k.to_string())
    }
}

fn source(name: &str) -> JwksSource {
    JwksSource::Uri(name.into())
}

#[test]
fn what_never_answers_is_asked_less_and_less_often() {
    let mut run = Run::new(&["a"]);
    let mut at = Vec::new();
    for _ in 0..13 {
        let (seconds, due) = run.step();
        assert_eq!(due, [source("a")]);
        assert_eq!(run.answer("a", None), None);
        at.push(seconds);
    }
    let minutes = |n: &[u64]| n.iter().scan(3, |at, m| Some((*at += m * 60, *at).1)).collect::<Vec<u64>>();
    assert_eq!(at, [vec![0, 1, 2, 3], minutes(&[1, 2, 4, 8, 16, 32, 60, 60, 60])].concat());
}

#[test]
fn known_keys_survive_failures_and_are_asked_for_again() {
    let mut run = Run::new(&["a"]);
    run.step();
    assert_eq!(run.answer("a", Some("1")), Some("1".into()));
    assert_eq!(run.step(), (1200, vec![source("a")]));
    assert_eq!(run.answer("a", None), None);
    assert_eq!(run.step().0, 1260);
    assert_eq!(run.answer("a", None), None);
    assert_eq!(run.step().0, 1380);
    assert_eq!(run.answer("a", Some("1")), None, "the same keys are no news");
    assert_eq!(run.step().0, 2580);
    assert_eq!(run.answer("a", Some("2")), Some("2".into()));
}

#[test]
fn keys_that_nobody_wants_are_neither_fetched_nor_forgotten_soon() {
    let mut run = Run::new(&["a", "b"]);
    run.step();
    run.answer("a", Some("1"));
    run.answer("b", Some("1"));
    run.want(&["b"]);
    run.now += UNUSED - Duration::from_secs(1);
    assert_eq!(run.step().1, [source("b")]);
    run.answer("b", Some("1"));
    assert_eq!(run.resolver.forget(run.now), []);
    run.want(&["a", "b"]);
    assert_eq!(run.step().1, [source("a")], "what is wanted again is fetched at once");
    assert_eq!(run.answer("a", Some("1")), None, "its keys were known all the time");
    run.want(&["b"]);
    run.now += UNUSED;
    assert_eq!(run.resolver.forget(run.now), [source("a")]);
}

#[test]
fn what_is_under_way_is_not_started_twice_and_stays_few() {
    let names: Vec<String> = (0..PARALLEL + 3).map(|i| format!("{i:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut run = Run::new(&names);
    assert!(!run.resolver.is_settled());
    let (_, first) = run.step();
    assert_eq!(first.len(), PARALLEL);
    assert_eq!(run.resolver.due(run.now), []);
    assert_eq!(run.resolver.next(), None, "only an answer makes room");
    for name in &names[..PARALLEL] {
        run.answer(name, None);
    }
    assert_eq!(run.step().1.len(), 3);
    assert!(!run.resolver.is_settled());
    for name in &names[PARALLEL..] {
        run.answer(name, Some("1"));
    }
    assert!(run.resolver.is_settled(), "a failure is an answer");
    assert_eq!(run.resolver.missing(), PARALLEL);
}

#[test]
fn an_answer_for_what_was_forgotten_is_none() {
    let mut run = Run::new(&[]);
    assert_eq!(run.answer("a", Some("1")), None);
    assert_eq!(run.resolver.next(), None);
}
