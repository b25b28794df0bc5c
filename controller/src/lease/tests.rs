//! Elections on a paused clock: at most one leads, whatever happens to clocks, replicas and the API server.

use std::time::Duration;

use pretty_assertions::assert_eq;
use proptest::prelude::*;
use serde_json::json;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;
use crate::api::fake::FakeApi;

const TIMING: Timing = Timing { duration: Duration::from_secs(15) };
const PATH: &str = "/apis/coordination.k8s.io/v1/namespaces/ns/leases/l";

struct Replica {
    leadership: Leadership,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

fn replica(api: &FakeApi, identity: &str) -> Replica {
    let lease = Lease { namespace: "ns".into(), name: "l".into(), identity: identity.into(), timing: TIMING };
    let (stop, stopped) = oneshot::channel::<()>();
    let (leadership, task) = run(api.clone(), lease, async { drop(stopped.await) });
    Replica { leadership, stop: Some(stop), task: tokio::spawn(task) }
}

impl Replica {
    fn leads(&self) -> bool {
        self.leadership.holds(Instant::now()).is_some()
    }
}

async fn secs(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

fn holder(api: &FakeApi) -> String {
    Record::read(&api.object(PATH).unwrap()).0.holder
}

#[tokio::test(start_paused = true)]
async fn the_lead_is_handed_over_at_once_and_taken_after_a_crash() {
    let api = FakeApi::default();
    let mut a = replica(&api, "a");
    secs(1).await;
    let b = replica(&api, "b");
    secs(60).await;
    assert_eq!((a.leads(), b.leads(), holder(&api)), (true, false, "a".to_owned()));
    // An orderly end gives it back: the other has it with its next look.
    drop(a.stop.take());
    a.task.await.unwrap();
    secs(4).await;
    assert_eq!((b.leads(), holder(&api)), (true, "b".to_owned()));
    // A crash does not, and the full time must pass.
    let c = replica(&api, "c");
    secs(1).await;
    b.task.abort();
    secs(11).await;
    assert_eq!((b.leads(), c.leads()), (false, false), "one has stopped before the other begins");
    secs(9).await;
    assert_eq!((c.leads(), holder(&api)), (true, "c".to_owned()));
    assert_eq!(Record::read(&api.object(PATH).unwrap()).0.transitions, 2);
}

#[tokio::test(start_paused = true)]
async fn without_an_api_server_nobody_leads_for_long() {
    let api = FakeApi::default();
    let a = replica(&api, "a");
    secs(30).await;
    assert!(a.leads());
    api.set_down(true);
    secs(6).await;
    assert!(a.leads(), "a short outage is borne");
    secs(5).await;
    assert!(!a.leads());
    api.set_down(false);
    secs(4).await;
    assert!(a.leads());
}

#[test]
fn clocks_of_others_do_not_matter() {
    let start = Instant::now();
    let mut e = Election::new("me".into(), TIMING);
    let theirs =
        |renewed: &str| Some((Record { holder: "x".into(), seconds: 15, renewed: renewed.into(), ..Record::default() }, "1".into()));
    // A renewal from the future, or from long ago, counts from when it was first seen.
    for (at, renewed) in [(0, "2099"), (14, "1970"), (28, "1971")] {
        assert_eq!(e.read(theirs(renewed), start + Duration::from_secs(at), "w"), Step::Wait);
    }
    assert_eq!(e.read(theirs("1971"), start + Duration::from_secs(42), "w"), Step::Wait);
    let taken = e.read(theirs("1971"), start + Duration::from_secs(43), "w");
    assert!(matches!(taken, Step::Write(Record { ref holder, transitions: 1, seconds: 15, .. }, Some(_)) if holder == "me"), "{taken:?}");
    assert_eq!(e.term(start + Duration::from_secs(43)), None, "not before it is written");
}

#[test]
fn a_lease_is_read_and_written() {
    let record = Record { holder: "h".into(), seconds: 15, acquired: "a".into(), renewed: "r".into(), transitions: 3 };
    let lease = record.write("ns", "l", Some("7"));
    assert_eq!(Record::read(&lease), (record, "7".to_owned()));
    assert_eq!(Record::read(&json!({"metadata": {"resourceVersion": "1"}})), (Record::default(), "1".to_owned()));
}

proptest! {
    /// Replicas look, write late, lose answers and stop in any order: two never lead at the same moment.
    #[test]
    fn two_never_lead(steps in prop::collection::vec((0..3usize, 0..4000u64, 0..2000u64, any::<bool>()), 1..200)) {
        let start = Instant::now();
        let mut now = Duration::ZERO;
        let mut replicas: Vec<Election> = ["a", "b", "c"].map(|n| Election::new(n.into(), TIMING)).into();
        let mut stored: Option<(Record, String)> = None;
        let mut version = 0;
        for (who, pause, delay, answered) in steps {
            now += Duration::from_millis(pause);
            let started = start + now;
            if let Step::Write(record, over) = replicas[who].read(stored.clone(), started, &format!("{now:?}")) {
                // The write arrives later; nobody else has written in between, or it would be refused.
                now += Duration::from_millis(delay);
                prop_assert_eq!(&over, &stored.as_ref().map(|(_, v)| v.clone()));
                version += 1;
                stored = Some((record.clone(), version.to_string()));
                if answered {
                    replicas[who].wrote(record, version.to_string(), started);
                }
            }
            let leaders = replicas.iter().filter(|e| e.term(start + now).is_some()).count();
            prop_assert!(leaders <= 1);
        }
    }
}
