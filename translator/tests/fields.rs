//! No field is accepted and then forgotten: taking it away from some valid object changes what is understood of that object, or it
//! stands in `tests/arbitrary/unread.txt` with the reason.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod arbitrary;

use std::collections::BTreeSet;
use std::sync::Arc;

use pilotfish_controller::convert::{Context, Fact, convert};
use pilotfish_controller::object::{Decoded, decode};
use pilotfish_controller::strings::Strings;
use pilotfish_model::diagnostic::Severity;
use pilotfish_testkit::Random;
use serde_json::Value;

/// Objects of each kind. The seeds are fixed, so a field is always or never found.
const ROUNDS: u64 = 2500;
/// Objects of these are kept as a whole: webhooks and agents read them.
const WHOLE: &[&str] = &["ProxyConfig", "WorkloadGroup"];

fn understood(object: &Value, context: &Context) -> Option<Fact> {
    let Ok(Decoded::Object(object)) = decode(object.clone()) else { return None };
    let converted = convert(&object, context);
    converted.fact.filter(|_| converted.diagnostics.iter().all(|d| d.severity == Severity::Warning))
}

/// A policy is the same wherever it stands.
fn canonical(path: &str) -> String {
    let path = path.replace("subsets[].trafficPolicy", "trafficPolicy");
    match path.strip_prefix("trafficPolicy.portLevelSettings[].") {
        Some(rest) if !rest.starts_with("port") => format!("trafficPolicy.{rest}"),
        _ => path,
    }
}

/// Fields that hold no others, by path.
fn leaves(schema: &Value, path: &str, found: &mut BTreeSet<String>) {
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    if let Some(properties) = schema["properties"].as_object() {
        properties.iter().for_each(|(name, of)| leaves(of, &below(name), found));
    } else if schema["items"]["properties"].is_object() {
        leaves(&schema["items"], &format!("{path}[]"), found);
    } else if schema["additionalProperties"]["properties"].is_object() {
        leaves(&schema["additionalProperties"], &format!("{path}{{}}"), found);
    } else {
        found.insert(canonical(path));
    }
}

/// Where such fields are in a value: pointer, and path.
fn places(value: &Value, pointer: &str, path: &str, schema: &Value, found: &mut Vec<(String, String)>) {
    let Some(map) = value.as_object() else { return };
    for (name, inner) in map {
        let of = if schema["properties"].is_object() { &schema["properties"][name] } else { &schema["additionalProperties"] };
        let step = name.replace('~', "~0").replace('/', "~1");
        let (pointer, path) = (
            format!("{pointer}/{step}"),
            match (schema["properties"].is_object(), path) {
                (false, path) => format!("{path}{{}}"),
                (true, "") => name.clone(),
                (true, path) => format!("{path}.{name}"),
            },
        );
        if of["properties"].is_object() || of["additionalProperties"]["properties"].is_object() {
            places(inner, &pointer, &path, of, found);
        } else if of["items"]["properties"].is_object() {
            for (i, item) in inner.as_array().into_iter().flatten().enumerate() {
                places(item, &format!("{pointer}/{i}"), &format!("{path}[]"), &of["items"], found);
            }
        } else {
            found.push((pointer, canonical(&path)));
        }
    }
}

fn without(object: &Value, pointer: &str) -> Value {
    let mut object = object.clone();
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    let field = field.replace("~1", "/").replace("~0", "~");
    object["spec"].pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(&field);
    object
}

#[test]
fn every_field_changes_what_is_understood() {
    let context = Context { domain: "cluster.local".into(), strings: Strings::default(), revision: "".into(), config_maps: Arc::from([]) };
    let mut unread = BTreeSet::new();
    for kind in arbitrary::kinds().iter().filter(|k| !WHOLE.contains(&&*k.name)) {
        let mut open = BTreeSet::new();
        leaves(kind.spec(), "", &mut open);
        for seed in 0..ROUNDS {
            if open.is_empty() {
                break;
            }
            let object = kind.object(&mut Random(seed), 1);
            let Some(whole) = understood(&object, &context) else { continue };
            let mut fields = Vec::new();
            places(&object["spec"], "", "", kind.spec(), &mut fields);
            for (pointer, path) in fields {
                // A field that cannot be missing is one that is read.
                if open.contains(&path) && understood(&without(&object, &pointer), &context).as_ref() != Some(&whole) {
                    open.remove(&path);
                }
            }
        }
        unread.extend(open.into_iter().map(|path| format!("{} {path}", kind.name)));
    }
    let known: BTreeSet<String> = include_str!("arbitrary/unread.txt")
        .lines()
        .filter(|l| !l.starts_with('#') && !l.is_empty())
        .map(|l| l.split_once(": ").unwrap_or_else(|| panic!("no reason: {l}")).0.to_owned())
        .collect();
    let list = |set: &BTreeSet<String>, other: &BTreeSet<String>| set.difference(other).cloned().collect::<Vec<_>>().join("\n");
    assert!(unread == known, "nothing reads:\n{}\n\nread after all:\n{}", list(&unread, &known), list(&known, &unread));
}
