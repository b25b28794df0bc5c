//! Roots of the mesh, in a ConfigMap of every namespace: Pods mount it. Revocation lists have another, where there are any.
//! [`Plan`] decides, [`run`] is the task of the leader.
//!
//! What is gone or was changed is put back. Where somebody else keeps changing it, we give way for longer each time, up to
//! five minutes: two writers that never tire would cost the API server more than a wrong ConfigMap costs anybody.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::Method;
use pilotfish_model::name::Str;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::api::{APPLY, Api, ApiError, Call};
use crate::lease::Leadership;
use crate::run::State;

/// Name of the ConfigMap.
pub const CONFIG_MAP: &str = "istio-ca-root-cert";
/// Its key.
pub const KEY: &str = "root-cert.pem";
/// Name of the ConfigMap of revocation lists.
pub const CRL_CONFIG_MAP: &str = "istio-ca-crl";
/// Its key.
pub const CRL_KEY: &str = "ca-crl.pem";
/// Annotation: what the next process has to know of the roots, which is nobody's secret.
pub const STATE: &str = "pilotfish.io/roots";
const FIELD_MANAGER: &str = "pilotfish-roots";
/// Namespaces of Kubernetes itself in which nothing of the mesh runs.
const IGNORED: [&str; 3] = ["kube-public", "kube-node-lease", "local-path-storage"];
/// How often all of them are looked at, beside right after a change of roots or namespaces.
const PERIOD: Duration = Duration::from_secs(20);
/// Namespaces that come one after the other wait that long for each other.
const GATHER: Duration = Duration::from_millis(500);
/// Where a write was undone, the next one waits that long; twice that after the next, and so on.
const GIVE_WAY: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(300);
/// ConfigMaps per page of a list.
const PAGE: usize = 500;

/// What is handed out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Handed {
    /// Roots, PEM; empty before there are any.
    pub bundle: Arc<str>,
    /// What is kept with them for the next process.
    pub state: Arc<str>,
    /// Revocation lists, PEM; empty for none.
    pub crl: Arc<str>,
}

/// Roots that are in every namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placed {
    /// What they are.
    pub bundle: Arc<str>,
    /// Since when.
    pub since: Option<SystemTime>,
}

#[derive(Clone, Copy, Debug)]
struct Written {
    at: Instant,
    /// How long the next one waits if this one is undone.
    pause: Duration,
}

/// What is to be written where, of one name.
#[derive(Debug, Default)]
pub struct Plan {
    written: BTreeMap<Str, Written>,
}

impl Plan {
    /// Namespaces whose ConfigMap is to be written now, out of those that it should be in and what there is.
    pub fn due(&mut self, bundle: &str, namespaces: &BTreeSet<Str>, found: &BTreeMap<Str, String>, now: Instant) -> Vec<Str> {
        self.written.retain(|ns, _| namespaces.contains(ns));
        let wrong = namespaces.iter().filter(|ns| found.get(*ns).map(String::as_str) != Some(bundle));
        let due = wrong.filter(|ns| self.written.get(*ns).is_none_or(|w| now >= w.at + w.pause));
        due.cloned().collect()
    }

    /// It was written.
    pub fn wrote(&mut self, namespace: &Str, now: Instant) {
        // Undone soon after: somebody else wants it otherwise. Much later it is a mistake of somebody.
        let pause = match self.written.get(namespace) {
            Some(before) if now < before.at + before.pause * 4 => (before.pause * 2).min(LONGEST),
            _ => GIVE_WAY,
        };
        self.written.insert(namespace.clone(), Written { at: now, pause });
    }

    /// Other roots are to be written: what was written before says nothing of these.
    pub fn start_over(&mut self) {
        self.written.clear();
    }
}

/// Keeps the ConfigMaps right while this replica leads. Ends when nobody gives roots or states any more.
pub async fn run<A: Api>(
    api: A,
    mut handed: watch::Receiver<Handed>,
    mut state: watch::Receiver<State>,
    mut leadership: Leadership,
    placed: watch::Sender<Placed>,
) {
    let (mut plans, mut said) = (<[Plan; 2]>::default(), None);
    let mut known: (Handed, BTreeSet<Str>) = Default::default();
    let mut next = Instant::now();
    loop {
        let now = Instant::now();
        let roots = handed.borrow_and_update().clone();
        let namespaces = namespaces(&state.borrow_and_update());
        if roots != known.0 {
            plans.iter_mut().for_each(Plan::start_over);
        }
        if (&roots, &namespaces) != (&known.0, &known.1) {
            known = (roots.clone(), namespaces);
            next = next.min(now + GATHER);
        }
        if now >= next && !roots.bundle.is_empty() {
            let leads = leadership.holds(now).is_some();
            let [of_roots, of_crl] = &mut plans;
            match round(&api, of_roots, &Map::roots(&roots), &known.1, leads).await {
                Ok(whole) => {
                    said = None;
                    placed.send_if_modified(|p| place(p, &roots.bundle, whole));
                }
                Err(e) => say(&mut said, e),
            }
            // Nobody waits for these.
            if leads && let Err(e) = round(&api, of_crl, &Map::crl(&roots), &known.1, leads).await {
                say(&mut said, e);
            }
            next = Instant::now() + PERIOD;
        }
        tokio::select! {
            () = sleep_until(next) => {}
            changed = handed.changed() => if changed.is_err() { return },
            changed = state.changed() => if changed.is_err() { return },
            () = leadership.changed() => next = Instant::now(),
        }
    }
}

fn say(said: &mut Option<ApiError>, error: ApiError) {
    if said.as_ref() != Some(&error) {
        tracing::warn!("roots are not handed out: {error}");
        *said = Some(error);
    }
}

/// What was handed out in a namespace, and what was kept with it; empty if nothing was.
pub async fn known<A: Api>(api: &A, namespace: &str) -> Result<(String, String), ApiError> {
    let path = format!("/api/v1/namespaces/{namespace}/configmaps?fieldSelector=metadata.name%3D{CONFIG_MAP}");
    let list = api.call(Call::get(path)).await?;
    let item = &list["items"][0];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok((text(&item["data"][KEY]), text(&item["metadata"]["annotations"][STATE])))
}

/// One ConfigMap as it should be in every namespace.
struct Map<'a> {
    name: &'static str,
    key: &'static str,
    content: &'a str,
    state: &'a str,
}

impl<'a> Map<'a> {
    fn roots(handed: &'a Handed) -> Self {
        Map { name: CONFIG_MAP, key: KEY, content: &handed.bundle, state: &handed.state }
    }

    fn crl(handed: &'a Handed) -> Self {
        Map { name: CRL_CONFIG_MAP, key: CRL_KEY, content: &handed.crl, state: "" }
    }
}

fn place(placed: &mut Placed, bundle: &Arc<str>, whole: bool) -> bool {
    let since = whole.then(SystemTime::now);
    if placed.bundle == *bundle && placed.since.is_some() == since.is_some() {
        return false;
    }
    *placed = Placed { bundle: bundle.clone(), since };
    true
}

fn namespaces(state: &State) -> BTreeSet<Str> {
    let all = state.snapshot.mesh.namespaces.keys();
    all.filter(|ns| !ns.is_empty() && !IGNORED.contains(&&***ns)).cloned().collect()
}

/// Looks at all of them and writes what is due; whether every namespace has it. What is empty is only written over what is not.
async fn round<A: Api>(api: &A, plan: &mut Plan, map: &Map<'_>, namespaces: &BTreeSet<Str>, leads: bool) -> Result<bool, ApiError> {
    let mut found = list(api, map).await?;
    if map.content.is_empty() {
        found.extend(namespaces.iter().filter(|ns| !found.contains_key(*ns)).map(|ns| (ns.clone(), String::new())).collect::<Vec<_>>());
    }
    let is_right = |ns: &&Str| found.get(*ns).map(String::as_str) == Some(map.content);
    let mut right = namespaces.iter().filter(is_right).count();
    if leads {
        let mut failed = None;
        for namespace in plan.due(map.content, namespaces, &found, Instant::now()) {
            match api.call(write(&namespace, map)).await {
                Ok(_) => right += 1,
                // A namespace that is going takes nothing new.
                Err(e) if matches!(e.code().map(|c| c.as_u16()), Some(403 | 404 | 409)) => {
                    tracing::debug!(ns = &*namespace, name = map.name, "not written: {e}");
                    failed = Some(e);
                }
                Err(e) => return Err(e),
            }
            plan.wrote(&namespace, Instant::now());
        }
        if let Some(e) = failed {
            return Err(e);
        }
    }
    Ok(right == namespaces.len())
}

async fn list<A: Api>(api: &A, map: &Map<'_>) -> Result<BTreeMap<Str, String>, ApiError> {
    let (mut found, mut more) = (BTreeMap::new(), String::new());
    let (name, key) = (map.name, map.key);
    loop {
        let path = format!("/api/v1/configmaps?fieldSelector=metadata.name%3D{name}&limit={PAGE}{more}");
        let page = api.call(Call::get(path)).await?;
        let text = |value: &Value, pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        for item in page["items"].as_array().into_iter().flatten() {
            found.insert(text(item, "/metadata/namespace").as_str().into(), text(item, &format!("/data/{key}")));
        }
        match text(&page, "/metadata/continue") {
            token if token.is_empty() => return Ok(found),
            token => more = format!("&continue={token}"),
        }
    }
}

fn write(namespace: &str, map: &Map<'_>) -> Call {
    let Map { name, key, content, state } = map;
    let path = format!("/api/v1/namespaces/{namespace}/configmaps/{name}?fieldManager={FIELD_MANAGER}&force=true");
    let mut metadata = json!({"name": name, "namespace": namespace, "labels": {"istio.io/config": "true"}});
    if !state.is_empty() {
        metadata["annotations"] = json!({STATE: state});
    }
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {*key: content}});
    Call { method: Method::PATCH, path, content_type: APPLY, body }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<Str> {
        names.iter().map(|n| Str::from(*n)).collect()
    }

    fn found(pairs: &[(&str, &str)]) -> BTreeMap<Str, String> {
        pairs.iter().map(|(ns, text)| (Str::from(*ns), (*text).to_owned())).collect()
    }

    #[test]
    fn only_what_is_wrong_is_written() {
        let (mut plan, now) = (Plan::default(), Instant::now());
        let due = plan.due("new", &set(&["a", "b", "c"]), &found(&[("a", "new"), ("b", "old"), ("x", "old")]), now);
        assert_eq!(due, [Str::from("b"), Str::from("c")]);
        assert_eq!(plan.due("new", &set(&["a"]), &found(&[("a", "new")]), now), Vec::<Str>::new());
    }

    #[test]
    fn a_deletion_is_healed_at_once_and_a_foreign_writer_tires_us() {
        let (mut plan, start) = (Plan::default(), Instant::now());
        let all = set(&["a"]);
        let mut writes = Vec::new();
        // Somebody changes it back at once, every time, for an hour.
        for second in 0..3600 {
            let now = start + Duration::from_secs(second);
            for namespace in plan.due("new", &all, &found(&[("a", "theirs")]), now) {
                writes.push(second);
                plan.wrote(&namespace, now);
            }
        }
        assert_eq!(writes[..7], [0, 5, 15, 35, 75, 155, 315]);
        assert_eq!(writes.len(), 17);
        // They have stopped; the day after, one deletion.
        let tomorrow = start + Duration::from_secs(86_400);
        assert_eq!(plan.due("new", &all, &found(&[("a", "new")]), tomorrow), Vec::<Str>::new());
        assert_eq!(plan.due("new", &all, &found(&[]), tomorrow), [Str::from("a")]);
        plan.wrote(&"a".into(), tomorrow);
        assert_eq!(plan.due("new", &all, &found(&[]), tomorrow + GIVE_WAY), [Str::from("a")]);
        // Other roots wait for nothing.
        plan.wrote(&"a".into(), tomorrow);
        plan.start_over();
        assert_eq!(plan.due("newer", &all, &found(&[("a", "new")]), tomorrow), [Str::from("a")]);
    }
}
