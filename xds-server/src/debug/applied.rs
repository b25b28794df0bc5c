//! "Is my change everywhere?": [`Applied`].
//!
//! A resource knows the objects that it was made of, and a stream knows which content of a resource its client has
//! confirmed: a pointer to the set that was sent last, and the response that is not answered yet. Nothing more is kept.

use std::collections::BTreeMap;
use std::sync::Arc;

use pilotfish_envoy::{Resource, Snapshot, TypeUrl};
use serde_json::{Value, json};

use super::Debug;
use crate::Translate;
use crate::store::Session;
use crate::subscription::Holding;

/// How many proxies are named of each sort; the rest is counted.
const NAMED: usize = 100;

/// How far an object has come.
#[derive(Debug, Default)]
struct Applied {
    total: usize,
    applied: usize,
    missing: Vec<Value>,
    rejected: Vec<Value>,
}

impl<T: Translate> Debug<T> {
    /// `applied`: which proxies have confirmed what was made of an object, given as `Kind/namespace/name`. `settled` is
    /// false while anything waits to be made: what is shown then may be older than the object.
    pub fn applied(&self, source: &str) -> Value {
        // Before the look at proxies: what was made before is in what they should have.
        let settled = self.store.is_idle();
        let mut by_snapshot: BTreeMap<*const Snapshot, Vec<(TypeUrl, Resource)>> = BTreeMap::new();
        let mut answer = Applied::default();
        for (session, snapshot) in self.store.served() {
            let made = by_snapshot.entry(Arc::as_ptr(&snapshot)).or_insert_with(|| made_of(&snapshot, source));
            answer.add(&session, made);
        }
        let Applied { total, applied, mut missing, mut rejected } = answer;
        let (unnamed, unnamed_rejected) = (missing.len().saturating_sub(NAMED), rejected.len().saturating_sub(NAMED));
        missing.truncate(NAMED);
        rejected.truncate(NAMED);
        json!({
            "object": source,
            "summary": summary(total, applied, missing.len() + unnamed, rejected.len() + unnamed_rejected, settled),
            "settled": settled,
            "generation": self.store.generation(),
            "proxies": total,
            "applied": applied,
            "missing": missing,
            "missingNotNamed": unnamed,
            "rejected": rejected,
            "rejectedNotNamed": unnamed_rejected,
        })
    }
}

fn summary(total: usize, applied: usize, missing: usize, rejected: usize, settled: bool) -> String {
    let mut text = match total {
        0 => "no connected proxy gets anything that was made of this object".to_owned(),
        _ => format!("{applied} of {total} proxies have it; {missing} missing, {rejected} rejected it"),
    };
    if !settled {
        text.push_str("; a push is under way");
    }
    text
}

fn made_of(snapshot: &Snapshot, source: &str) -> Vec<(TypeUrl, Resource)> {
    let of_type = |(type_url, set): (TypeUrl, &Arc<pilotfish_envoy::ResourceSet>)| {
        let made = set.iter().filter(|r| r.sources().any(|s| **s == *source));
        made.map(|r| (type_url, r.clone())).collect::<Vec<_>>()
    };
    snapshot.iter().flat_map(of_type).collect()
}

impl Applied {
    fn add(&mut self, session: &Session, made: &[(TypeUrl, Resource)]) {
        let client = session.client();
        let (mut concerned, mut missing, mut rejected) = (false, Vec::new(), Vec::new());
        for (type_url, resource) in made {
            let Some(subscription) = client.subscriptions().find(|s| s.type_url() == *type_url && s.wants(resource.name())) else {
                continue;
            };
            concerned = true;
            match subscription.holding(client.own(*type_url, resource)) {
                Holding::Confirmed => {}
                Holding::Missing => missing.push(json!({"type": type_url.short(), "name": &**resource.name()})),
                Holding::Rejected(reason) => {
                    rejected.push(json!({"type": type_url.short(), "name": &**resource.name(), "reason": reason}));
                }
            }
        }
        self.total += usize::from(concerned);
        self.applied += usize::from(concerned && missing.is_empty() && rejected.is_empty());
        if !rejected.is_empty() {
            self.rejected.push(json!({"proxy": session.connection_id, "resources": rejected}));
        } else if !missing.is_empty() {
            self.missing.push(json!({"proxy": session.connection_id, "resources": missing}));
        }
    }
}
