//! Who gets how much of a schedule that always has more to do: bounds between groups, and that nothing starves.

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use pilotfish_push::{Schedule, Urgency};
use proptest::prelude::*;
use tokio::time::Instant;

use crate::ms;

/// What a group asks for.
#[derive(Clone, Debug)]
struct Tenant {
    weight: u32,
    /// The costs of its jobs in turn, microseconds.
    costs: Vec<u64>,
    /// It begins when so many jobs have started.
    begins: usize,
}

fn tenant(late: usize) -> impl Strategy<Value = Tenant> {
    (1u32..5, prop::collection::vec(10u64..2_000, 1..6), 0..=late).prop_map(|(weight, costs, begins)| Tenant { weight, costs, begins })
}

/// Workers that are never idle, on a clock of microseconds. Calls back after each completed job with what each group was given.
fn work(limit: usize, tenants: &[Tenant], starts: usize, mut each: impl FnMut(usize, &[u64])) {
    let zero = Instant::now();
    let mut jobs: Schedule<(usize, usize), usize, ()> = Schedule::new(NonZeroUsize::new(limit).unwrap());
    for (group, tenant) in tenants.iter().enumerate() {
        jobs.set_weight(group, NonZeroU32::new(tenant.weight).unwrap());
    }
    let mut now = 0;
    let mut given = vec![0; tenants.len()];
    let mut submitted = vec![0; tenants.len()];
    // When each job in flight ends.
    let mut running: BTreeMap<(u64, usize, usize), u64> = BTreeMap::new();
    for start in 0..starts {
        for (group, tenant) in tenants.iter().enumerate().filter(|(_, tenant)| tenant.begins <= start) {
            // Two always wait beyond those that could be in flight.
            while submitted[group] < start - tenant.begins + limit + 2 {
                let time = zero + Duration::from_micros(now);
                jobs.submit((group, submitted[group]), group, Urgency::Config, (), time, time);
                submitted[group] += 1;
            }
        }
        let Some(job) = jobs.next(zero + Duration::from_micros(now)) else { panic!("no job although {limit} may run") };
        let (group, n) = job.key;
        let cost = tenants[group].costs[n % tenants[group].costs.len()];
        running.insert((now + cost, group, n), cost);
        if running.len() == limit {
            let ((ends, group, n), cost) = running.pop_first().unwrap();
            now = ends;
            jobs.done(&(group, n), Duration::from_micros(cost));
            given[group] += cost;
            each(start, &given);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn groups_share_by_weight_and_cost(limit in 1usize..5, tenants in prop::collection::vec(tenant(0), 2..6)) {
        work(limit, &tenants, 600, |_, given| {
            for (a, b) in pairs(tenants.len()) {
                let share = |i: usize| given[i] as f64 / f64::from(tenants[i].weight);
                prop_assert_within((share(a) - share(b)).abs(), bound(limit, &tenants[a]) + bound(limit, &tenants[b]));
            }
        });
    }

    #[test]
    fn idleness_saves_up_nothing(limit in 1usize..4, mut tenants in prop::collection::vec(tenant(0), 1..4), late in tenant(200)) {
        let new = tenants.len();
        tenants.push(late);
        let mut at_begin = None;
        work(limit, &tenants, 600, |start, given| {
            if start < tenants[new].begins {
                return;
            }
            let begin = at_begin.get_or_insert_with(|| given.to_vec());
            for other in 0..new {
                let share = |i: usize| (given[i] - begin[i]) as f64 / f64::from(tenants[i].weight);
                prop_assert_within((share(new) - share(other)).abs(), 2.0 * (bound(limit, &tenants[new]) + bound(limit, &tenants[other])));
            }
        });
    }

    /// One worker, equal costs, more urgent work than it can do. A job that has waited for `AGE`, with `ahead` jobs of its own group
    /// before it and `groups` groups in its class, starts within (ahead + 2) x groups starts of its class, and its class gets one in
    /// every `SHARE` plus one for each other class that is overdue.
    #[test]
    fn nothing_starves(backlog in prop::collection::vec((0usize..3, 0usize..5), 1..40), step in 1u64..200) {
        let zero = Instant::now();
        let mut jobs: Schedule<usize, usize, ()> = Schedule::new(NonZeroUsize::MIN);
        for (key, (urgency, group)) in backlog.iter().enumerate() {
            jobs.submit(key, *group, Urgency::ALL[*urgency], (), zero, zero);
        }
        let mut now = zero;
        let mut starts_when_old = None;
        let mut started: BTreeMap<usize, u64> = BTreeMap::new();
        for start in 0u64.. {
            if started.len() == backlog.len() {
                break;
            }
            now += ms(step);
            if now - zero >= Schedule::<usize, usize, ()>::AGE {
                starts_when_old.get_or_insert(start);
            }
            // Always something more urgent, of an own group each time and of one that is everywhere.
            let urgent = backlog.len() + start as usize;
            jobs.submit(urgent, if start % 2 == 0 { urgent } else { 0 }, Urgency::Unconfigured, (), now, now);
            let job = jobs.next(now).unwrap();
            jobs.done(&job.key, ms(1));
            if job.key < backlog.len() {
                started.insert(job.key, start);
            }
            prop_assert!(start < 20_000, "starving: {} of {}", started.len(), backlog.len());
        }
        for (key, start) in started {
            let (urgency, group) = backlog[key];
            let ahead = backlog[..key].iter().filter(|job| **job == (urgency, group)).count() as u64;
            let groups = 5;
            let others = 2;
            let bound = (ahead + 2) * groups * (Schedule::<usize, usize, ()>::SHARE + others);
            prop_assert!(start <= starts_when_old.unwrap_or(start) + bound, "{key} started as {start}, bound {bound}");
        }
    }
}

/// What a group may be ahead or behind by: what is in flight, and one that was charged wrongly for each.
fn bound(limit: usize, tenant: &Tenant) -> f64 {
    let dearest = *tenant.costs.iter().max().unwrap() as f64;
    (limit + 1) as f64 * dearest / f64::from(tenant.weight)
}

fn pairs(n: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..n).flat_map(move |a| (a + 1..n).map(move |b| (a, b)))
}

fn prop_assert_within(gap: f64, bound: f64) {
    assert!(gap <= bound, "shares are {gap} us apart, the bound is {bound} us");
}

#[test]
fn a_noisy_group_does_not_delay_a_quiet_one() {
    let now = Instant::now();
    let mut jobs: Schedule<u32, &str, ()> = Schedule::new(NonZeroUsize::MIN);
    for key in 0..1_000 {
        jobs.submit(key, "noisy", Urgency::Config, (), now, now);
    }
    for key in 0..10 {
        let noisy = jobs.next(now).unwrap();
        jobs.done(&noisy.key, ms(20));
        assert_eq!((noisy.key, noisy.group), (key, "noisy"));
    }
    jobs.submit(1_000, "calm", Urgency::Config, (), now, now);
    assert_eq!(jobs.next(now).map(|job| job.group), Some("calm"));
}

#[test]
fn a_group_with_a_long_job_in_flight_saves_up_nothing_either() {
    let now = Instant::now();
    let mut jobs: Schedule<u32, &str, ()> = Schedule::new(NonZeroUsize::new(2).unwrap());
    jobs.submit(0, "long", Urgency::Config, (), now, now);
    jobs.next(now).unwrap();
    let submit = |jobs: &mut Schedule<u32, &'static str, ()>, key, group| jobs.submit(key, group, Urgency::Config, (), now, now);
    for key in 1..300 {
        submit(&mut jobs, key, "steady");
    }
    let run = |jobs: &mut Schedule<u32, &'static str, ()>| {
        let job = jobs.next(now).unwrap();
        jobs.done(&job.key, ms(1));
        job.group
    };
    for _ in 0..100 {
        assert_eq!(run(&mut jobs), "steady");
    }
    for key in 300..400 {
        submit(&mut jobs, key, "long");
    }
    let long = (0..20).filter(|_| run(&mut jobs) == "long").count();
    assert!((9..=11).contains(&long), "{long} of 20");
}

#[test]
fn new_groups_do_not_hold_up_one_that_has_used_more() {
    let now = Instant::now();
    let mut jobs: Schedule<u32, u32, ()> = Schedule::new(NonZeroUsize::MIN);
    let submit = |jobs: &mut Schedule<u32, u32, ()>, key| jobs.submit(key, key, Urgency::Config, (), now, now);
    submit(&mut jobs, 0);
    submit(&mut jobs, 1);
    jobs.next(now).unwrap();
    jobs.done(&0, ms(20));
    submit(&mut jobs, 0);
    // One new group for each job that starts; each is entitled to 20 ms too, but no more than a bounded number of them is.
    let starts = (2..).position(|new| {
        submit(&mut jobs, new);
        let job = jobs.next(now).unwrap();
        jobs.done(&job.key, ms(1));
        assert!(new < 5_000, "it starves");
        job.key == 0
    });
    assert!(starts.is_some_and(|starts| (20..1_000).contains(&starts)), "{starts:?}");
}

#[test]
fn urgent_work_keeps_most_starts_when_all_else_is_overdue() {
    let zero = Instant::now();
    let now = zero + ms(10_000);
    let mut jobs: Schedule<u32, u32, ()> = Schedule::new(NonZeroUsize::MIN);
    for key in 0..3_000 {
        jobs.submit(key, 0, Urgency::ALL[key as usize % 4], (), zero, zero);
    }
    let mut starts = [0; 4];
    for _ in 0..800 {
        let job = jobs.next(now).unwrap();
        jobs.done(&job.key, ms(1));
        starts[job.urgency as usize] += 1;
    }
    // One in eight each, one after the other.
    assert_eq!(starts, [100, 99, 99, 502]);
}
