//! Webhook configurations of our revision: the CA bundle that the API server trusts us by, and the failure policy.
//!
//! What to change is pure ([`mutating`], [`validating`]); [`run`] looks often and writes only what differs. Replicas agree on
//! the bundle, so that no leader is needed.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::api::{Api, ApiError, Call, JSON};

/// A patch as a list of operations (RFC 6902).
const JSON_PATCH: &str = "application/json-patch+json";
const ROOT: &str = "/apis/admissionregistration.k8s.io/v1";
/// Label of configurations of a revision.
const REVISION: &str = "istio.io/rev";
/// Entries of mutating configurations that are ours end so.
const OURS: &str = "sidecar-injector.istio.io";
/// How often is looked.
const PERIOD: Duration = Duration::from_secs(10);
/// How soon after something failed, or while the webhook does not answer yet.
const SOON: Duration = Duration::from_secs(1);

/// What is looked after.
#[derive(Clone, Debug)]
pub struct Options {
    /// Our revision, or `default`.
    pub revision: String,
    /// Our namespace: the object that must be refused is tried there.
    pub namespace: String,
    /// Whether mutating configurations are ours to patch.
    pub injection: bool,
    /// Whether validating ones are.
    pub validation: bool,
}

/// Looks after the configurations until `stop` ends. `told` is called with every write and every failure of one.
pub async fn run<A: Api>(
    api: A,
    options: Options,
    mut bundle: watch::Receiver<String>,
    told: impl Fn(Result<(), &ApiError>) + Send,
    stop: impl Future<Output = ()>,
) {
    let mut stop = std::pin::pin!(stop);
    let mut answers = false;
    loop {
        let wanted = bundle.borrow_and_update().clone();
        let answered = answers;
        let outcome = tokio::select! {
            () = &mut stop => return,
            outcome = round(&api, &options, &wanted, &mut answers, &told) => outcome,
        };
        if let Err(e) = &outcome {
            tracing::warn!(error = %e, "webhook configurations cannot be looked after");
        }
        let pause = if outcome.is_err() || options.validation && !answered { SOON } else { PERIOD };
        let next = Instant::now() + pause;
        tokio::select! {
            () = &mut stop => return,
            () = sleep_until(next) => {}
            changed = bundle.changed() => {
                // Whoever makes bundles is gone: the last one stays good.
                if changed.is_err() {
                    sleep_until(next).await;
                }
            }
        }
    }
}

async fn round<A: Api>(
    api: &A,
    options: &Options,
    bundle: &str,
    answers: &mut bool,
    told: &(impl Fn(Result<(), &ApiError>) + Send),
) -> Result<(), ApiError> {
    if bundle.is_empty() {
        return Ok(());
    }
    let write = async |plural: &str, object: &Value, patch: Option<Value>| -> Result<(), ApiError> {
        let Some(patch) = patch else { return Ok(()) };
        let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        let path = format!("{ROOT}/{plural}/{name}");
        let outcome = api.call(Call { method: Method::PATCH, path, content_type: JSON_PATCH, body: patch }).await;
        match &outcome {
            // Somebody else was first: the next look tells what is left to do.
            Err(e) if e.code().is_some_and(|c| c == 409 || c == 422 || c == 404) => return Ok(()),
            Err(e) => told(Err(e)),
            Ok(_) => {
                tracing::info!(name, "webhook configuration patched");
                told(Ok(()));
            }
        }
        outcome.map(drop)
    };
    if options.injection {
        for object in list(api, "mutatingwebhookconfigurations", &options.revision).await? {
            write("mutatingwebhookconfigurations", &object, mutating(&object, bundle)).await?;
        }
    }
    if options.validation {
        let all = list(api, "validatingwebhookconfigurations", &options.revision).await?;
        // The bundle first: without it no call reaches us, and the question would not be answered.
        for object in &all {
            write("validatingwebhookconfigurations", object, validating(object, bundle, *answers)).await?;
        }
        if !*answers && !all.is_empty() {
            *answers = probe(api, options).await;
        }
    }
    Ok(())
}

async fn list<A: Api>(api: &A, plural: &str, revision: &str) -> Result<Vec<Value>, ApiError> {
    let answer = api.call(Call::get(format!("{ROOT}/{plural}?labelSelector={REVISION}%3D{revision}"))).await?;
    Ok(answer.get("items").and_then(Value::as_array).cloned().unwrap_or_default())
}

/// Whether the validating webhook refuses what must always be refused.
async fn probe<A: Api>(api: &A, options: &Options) -> bool {
    let gateway = json!({
        "apiVersion": "networking.istio.io/v1", "kind": "Gateway",
        "metadata": {
            "name": "invalid-gateway", "namespace": options.namespace, "labels": {REVISION: options.revision},
            "annotations": {"internal.istio.io/webhook-always-reject": "true"},
        },
        "spec": {},
    });
    let path = format!("/apis/networking.istio.io/v1/namespaces/{}/gateways?dryRun=All", options.namespace);
    let answer = api.call(Call { method: Method::POST, path, content_type: JSON, body: gateway }).await;
    answers(&answer)
}

/// Refused by a webhook: it answers. No such kind, or another webhook that cannot be asked without effect: nobody can know, and
/// waiting would not help.
fn answers(outcome: &Result<Value, ApiError>) -> bool {
    match outcome {
        Err(ApiError::Refused { message, .. }) if message.contains("denied the request") => true,
        Err(ApiError::Refused { message, .. }) if message.contains("does not support dry run") => true,
        Err(ApiError::Refused { code: 404, message }) => !message.contains("namespaces"),
        _ => false,
    }
}

fn entries(object: &Value) -> impl Iterator<Item = (usize, &Value)> {
    object.get("webhooks").and_then(Value::as_array).into_iter().flatten().enumerate()
}

fn bundle_patch(i: usize, entry: &Value, bundle: &str) -> Option<Value> {
    let encoded = base64(bundle);
    (entry.pointer("/clientConfig/caBundle").and_then(Value::as_str) != Some(encoded.as_str()))
        .then(|| json!({"op": "add", "path": format!("/webhooks/{i}/clientConfig/caBundle"), "value": encoded}))
}

/// Operations, behind a test that nobody else wrote meanwhile.
fn patch(object: &Value, operations: Vec<Value>) -> Option<Value> {
    if operations.is_empty() {
        return None;
    }
    let version = object.pointer("/metadata/resourceVersion").cloned().unwrap_or_default();
    let test = json!({"op": "test", "path": "/metadata/resourceVersion", "value": version});
    Some(Value::Array(std::iter::once(test).chain(operations).collect()))
}

/// What to change in a mutating configuration: the bundle of entries that are ours by name.
pub fn mutating(object: &Value, bundle: &str) -> Option<Value> {
    let ours = |e: &Value| e.get("name").and_then(Value::as_str).is_some_and(|n| n.ends_with(OURS));
    patch(object, entries(object).filter(|(_, e)| ours(e)).filter_map(|(i, e)| bundle_patch(i, e, bundle)).collect())
}

/// What to change in a validating one: the bundle of all entries, and, once the webhook answers, what happens when it does not.
pub fn validating(object: &Value, bundle: &str, answers: bool) -> Option<Value> {
    let mut operations = Vec::new();
    for (i, entry) in entries(object) {
        operations.extend(bundle_patch(i, entry, bundle));
        if answers && entry.get("failurePolicy").is_none_or(|p| p != "Fail") {
            operations.push(json!({"op": "add", "path": format!("/webhooks/{i}/failurePolicy"), "value": "Fail"}));
        }
    }
    patch(object, operations)
}

/// Bytes as the API writes them.
fn base64(text: &str) -> String {
    let bytes = k8s_openapi::ByteString(text.as_bytes().to_vec());
    serde_json::to_value(bytes).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;

    use super::*;

    #[test]
    fn only_our_entries_are_patched_and_only_if_they_differ() {
        let object = json!({"metadata": {"name": "x", "resourceVersion": "7"}, "webhooks": [
            {"name": "rev.namespace.sidecar-injector.istio.io", "clientConfig": {}},
            {"name": "other.example.com", "clientConfig": {}},
            {"name": "object.sidecar-injector.istio.io", "clientConfig": {"caBundle": "YQ=="}},
        ]});
        let wanted = json!([
            {"op": "test", "path": "/metadata/resourceVersion", "value": "7"},
            {"op": "add", "path": "/webhooks/0/clientConfig/caBundle", "value": "YQ=="},
        ]);
        assert_eq!(mutating(&object, "a"), Some(wanted));
        let done = json!({"webhooks": [{"name": "a.sidecar-injector.istio.io", "clientConfig": {"caBundle": "YQ=="}}]});
        assert_eq!(mutating(&done, "a"), None);
    }

    #[test]
    fn the_policy_waits_for_an_answer() {
        let object =
            json!({"metadata": {"resourceVersion": "7"}, "webhooks": [{"failurePolicy": "Ignore", "clientConfig": {"caBundle": "YQ=="}}]});
        assert_eq!(validating(&object, "a", false), None);
        let wanted = json!([
            {"op": "test", "path": "/metadata/resourceVersion", "value": "7"},
            {"op": "add", "path": "/webhooks/0/failurePolicy", "value": "Fail"},
        ]);
        assert_eq!(validating(&object, "a", true), Some(wanted));
    }

    #[test]
    fn what_counts_as_an_answer() {
        let refused = |code, message: &str| Err(ApiError::Refused { code, message: message.into() });
        assert!(answers(&refused(400, "admission webhook \"validation.istio.io\" denied the request: configuration is invalid")));
        assert!(answers(&refused(404, "the server could not find the requested resource")));
        assert!(!answers(&refused(404, "namespaces \"istio-system\" not found")));
        assert!(!answers(&refused(500, "failed calling webhook: connection refused")));
        assert!(!answers(&Ok(json!({}))));
        assert!(!answers(&Err(ApiError::Unknown("down".into()))));
    }
}
