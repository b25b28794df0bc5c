//! [`Admission`]: who comes in when, in tables; then any events against a model that counts tokens.

use std::num::{NonZeroU32, NonZeroUsize};

use pilotfish_push::{Admission, Limits, Rate, Ticket, Urgency};
use proptest::prelude::*;

use crate::{Clock, ms};

fn rate(per_second: u32, burst: u32) -> Rate {
    Rate { per_second: NonZeroU32::new(per_second).unwrap(), burst: NonZeroU32::new(burst).unwrap() }
}

#[test]
fn without_limits_all_come_in_at_once() {
    let clock = Clock::new();
    let mut admission = Admission::new(Limits::default());
    let tickets: Vec<Ticket> = (0..3).map(|_| admission.enter(Urgency::Config, clock.at(0))).collect();
    let admitted: Vec<Ticket> = std::iter::from_fn(|| admission.admit(clock.at(0))).collect();
    assert_eq!((admitted, admission.admitted(), admission.len(), admission.due()), (tickets, 3, 0, None));
}

#[test]
fn the_more_urgent_first_and_then_in_order() {
    let clock = Clock::new();
    let mut admission = Admission::new(Limits { concurrent: NonZeroUsize::new(1), rate: None });
    use Urgency::{Config, Unconfigured};
    let tickets = [Config, Unconfigured, Config, Unconfigured].map(|urgency| admission.enter(urgency, clock.at(0)));
    let order: Vec<Ticket> = std::iter::from_fn(|| {
        let ticket = admission.admit(clock.at(1));
        assert_eq!(admission.admit(clock.at(1)), None, "one at a time");
        admission.leave();
        ticket
    })
    .collect();
    assert_eq!(order, [tickets[1], tickets[3], tickets[0], tickets[2]]);
}

#[test]
fn a_burst_and_then_the_rate() {
    let clock = Clock::new();
    let mut admission = Admission::new(Limits { rate: Some(rate(10, 3)), concurrent: None });
    for _ in 0..6 {
        admission.enter(Urgency::Config, clock.at(0));
    }
    let mut admitted = Vec::new();
    while let Some(due) = admission.due() {
        assert!(admission.admit(due - ms(1)).is_none() || clock.ms(due) == 0);
        admission.admit(due);
        admitted.push(clock.ms(due));
    }
    assert_eq!(admitted, [0, 0, 0, 100, 200, 300]);
    // Idleness fills the bucket, but no further.
    for _ in 0..5 {
        admission.enter(Urgency::Config, clock.at(10_000));
    }
    assert_eq!(std::iter::from_fn(|| admission.admit(clock.at(10_000))).count(), 3);
}

#[test]
fn who_gives_up_uses_nothing() {
    let clock = Clock::new();
    let mut admission = Admission::new(Limits { rate: Some(rate(1, 1)), concurrent: None });
    let [a, b, c] = [(); 3].map(|()| admission.enter(Urgency::Config, clock.at(0)));
    assert_eq!(admission.admit(clock.at(0)), Some(a));
    assert_eq!((admission.cancel(b), admission.cancel(b), admission.cancel(a)), (true, false, false));
    assert_eq!((admission.first(), admission.admit(clock.at(999)), admission.admit(clock.at(1_000))), (Some(c), None, Some(c)));
}

#[derive(Clone, Debug)]
enum Event {
    Pass(u64),
    Enter(Urgency),
    Admit,
    Leave,
    Cancel(prop::sample::Index),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0u64..400).prop_map(Event::Pass),
        6 => prop::sample::select(Urgency::ALL.to_vec()).prop_map(Event::Enter),
        8 => Just(Event::Admit),
        4 => Just(Event::Leave),
        1 => any::<prop::sample::Index>().prop_map(Event::Cancel),
    ]
}

proptest! {
    /// The model counts tokens; the core keeps a single time.
    #[test]
    fn any_events_go_as_in_the_model(
        per_second in prop::option::of(1u32..20),
        burst in 1u32..4,
        concurrent in prop::option::of(1usize..4),
        events in prop::collection::vec(event(), 1..150),
    ) {
        let clock = Clock::new();
        let limits = Limits { rate: per_second.map(|n| rate(n, burst)), concurrent: concurrent.and_then(NonZeroUsize::new) };
        let mut admission = Admission::new(limits);
        // Micro-tokens, so that all is exact.
        let full = u64::from(burst) * 1_000_000;
        let (mut now, mut inside, mut tokens) = (0, 0, full);
        let mut waiting: Vec<(Urgency, Ticket)> = Vec::new();
        for event in events {
            match event {
                Event::Pass(time) => {
                    now += time;
                    tokens = full.min(tokens + time * 1_000 * u64::from(per_second.unwrap_or(0)));
                }
                Event::Enter(urgency) => waiting.push((urgency, admission.enter(urgency, clock.at(now)))),
                Event::Admit => {
                    let first = waiting.iter().copied().min_by_key(|(urgency, ticket)| (std::cmp::Reverse(*urgency), *ticket));
                    let allowed = (per_second.is_none() || tokens >= 1_000_000) && concurrent.is_none_or(|limit| inside < limit);
                    let expected = first.filter(|_| allowed).map(|(_, ticket)| ticket);
                    let admitted = admission.admit(clock.at(now));
                    // An interval of a third of a second is rounded down: a whole microsecond of the model may be missing.
                    let rounding = per_second.is_some() && tokens < 1_000_000 && tokens + 100 >= 1_000_000;
                    if !rounding {
                        prop_assert_eq!(admitted, expected);
                    }
                    if let Some(ticket) = admitted {
                        waiting.retain(|(_, t)| *t != ticket);
                        inside += 1;
                        tokens = tokens.saturating_sub(if per_second.is_some() { 1_000_000 } else { 0 });
                    }
                }
                Event::Leave if inside > 0 => {
                    admission.leave();
                    inside -= 1;
                }
                Event::Leave => {}
                Event::Cancel(which) if !waiting.is_empty() => {
                    let (_, ticket) = waiting.remove(which.index(waiting.len()));
                    prop_assert!(admission.cancel(ticket));
                }
                Event::Cancel(_) => {}
            }
            prop_assert_eq!((admission.len(), admission.admitted()), (waiting.len(), inside));
            prop_assert_eq!(admission.due().is_none(), waiting.is_empty() || concurrent.is_some_and(|limit| inside >= limit));
        }
    }
}
