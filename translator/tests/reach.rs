//! Every field of every kind, and every setting of the mesh, changes what proxies get: Istio's and plain Envoys, sidecars and gateways.
//! So does every value of an enumeration. Or it stands in `tests/reaching/unreached.txt` with the reason.
//!
//! Folders of `tests/reaching/meshes` are meshes with their proxies. In each, one field of one object at a time is left out or says
//! something else; the object must still be accepted. `REACH_TRACE=1` says what a mesh is good for.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod reaching;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Instant;

use pilotfish_model::MeshConfig;
use pilotfish_model::mesh_config::ProviderKind;
use reaching::{Bench, Change, ROLES, Role, alter, schema};
use serde_json::{Value, json};

/// What `MeshConfig` is called beside the kinds.
const SETTINGS: &str = "MeshConfig";
/// Webhooks and agents read them.
const ELSEWHERE: &[&str] = &["ProxyConfig", "WorkloadGroup"];
/// How often a field is tried in one mesh.
const TRIES: usize = 40;
/// In how many places of one mesh all values of a field are tried.
const PLACES: usize = 24;

/// Kind and path.
type Field = (String, String);

/// What is not shown yet.
#[derive(Default)]
struct Open {
    /// Who is not reached by a field.
    roles: BTreeMap<Field, BTreeSet<Role>>,
    /// Which values, or none at all, do the same.
    alike: BTreeMap<Field, BTreeSet<(String, String)>>,
}

/// What fields say somewhere in a mesh.
type Known = BTreeMap<Field, Vec<Value>>;

/// What objects of each kind may say, and the mesh's settings.
fn schemas() -> BTreeMap<String, Value> {
    let of = |crd: Value| {
        let spec = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        (name(&crd["spec"]["names"]["kind"]), spec.clone())
    };
    let kinds = pilotfish_crds::definition::definitions().into_iter().map(of);
    kinds.filter(|(kind, _)| !ELSEWHERE.contains(&&**kind)).chain([(SETTINGS.to_owned(), settings_schema())]).collect()
}

fn settings_schema() -> Value {
    let mut schema = schema::of::<MeshConfig>(&["extensionProviders"]);
    let mut provider = schema::of::<ProviderKind>(&[]);
    provider["properties"]["name"] = json!({"type": "string"});
    schema["properties"]["extensionProviders"] = json!({"items": provider});
    schema
}

fn roles(kind: &str) -> &'static [Role] {
    match kind {
        "Sidecar" => &["sidecar", "plain sidecar"],
        "Gateway" => &["gateway", "plain gateway"],
        _ => &ROLES,
    }
}

#[test]
fn every_field_reaches_a_proxy() {
    let schemas = schemas();
    let mut open = Open::default();
    for (kind, schema) in &schemas {
        let mut found = BTreeMap::new();
        alter::leaves(schema, "", &mut found);
        for (path, schema) in found {
            let field = (kind.clone(), path);
            if let Some(values) = schema["enum"].as_array() {
                let names: Vec<String> = values.iter().map(name).collect();
                let pairs = names.iter().enumerate().flat_map(|(i, a)| names[..i].iter().map(|b| (b.clone(), a.clone())));
                open.alike.insert(field.clone(), pairs.collect());
            }
            open.roles.insert(field, roles(kind).iter().copied().collect());
        }
    }
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reaching/meshes");
    for folder in pilotfish_testkit::golden::cases(&own) {
        let (start, before) = (Instant::now(), open.count());
        try_all(&folder, |_| (), &schemas, &mut open);
        // Policies say the same at other places.
        if folder.ends_with("destinations") || folder.ends_with("exports") {
            try_all(&folder, alter::policy_of_subset, &schemas, &mut open);
            try_all(&folder, alter::policy_of_port, &schemas, &mut open);
            try_all(&folder, alter::policy_of_subset_port, &schemas, &mut open);
        }
        if std::env::var_os("REACH_TRACE").is_some() {
            let name = folder.file_name().unwrap().to_string_lossy();
            println!("{name}: {before} -> {} in {:?}", open.count(), start.elapsed());
        }
    }
    let (unexplained, untrue) = open.explained(include_str!("reaching/unreached.txt"));
    assert!(
        unexplained.is_empty() && untrue.is_empty(),
        "{} change nothing:\n{}\n\nchange something after all:\n{}",
        unexplained.len(),
        unexplained.join("\n"),
        untrue.join("\n")
    );
}

fn name(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

impl Open {
    fn count(&self) -> usize {
        self.roles.values().map(BTreeSet::len).sum::<usize>() + self.alike.values().map(BTreeSet::len).sum::<usize>()
    }

    /// What no line explains, and the lines that explain nothing. A line is `subject: reason`; `*` in it is any text.
    fn explained(&self, list: &str) -> (Vec<String>, Vec<String>) {
        let roles = self.roles.iter().flat_map(|((kind, path), roles)| roles.iter().map(move |role| format!("{kind} {path} ({role})")));
        let alike = self.alike.iter().filter(|(field, _)| self.roles.get(field).is_none_or(|r| r.len() < roles_of(field)));
        let alike = alike.flat_map(|((kind, path), pairs)| pairs.iter().map(move |(a, b)| format!("{kind} {path} ({a} = {b})")));
        let lines = list.lines().filter(|l| !l.starts_with('#') && !l.is_empty());
        let subjects: Vec<&str> = lines.map(|l| l.split_once(": ").unwrap_or_else(|| panic!("no reason: {l}")).0).collect();
        let mut used = vec![false; subjects.len()];
        let mut unexplained = Vec::new();
        for open in roles.chain(alike) {
            let mut is_explained = false;
            for (subject, used) in subjects.iter().zip(&mut used) {
                if matches(subject, &open) {
                    (*used, is_explained) = (true, true);
                }
            }
            if !is_explained {
                unexplained.push(open);
            }
        }
        let untrue = subjects.iter().zip(used).filter(|(_, used)| !used).map(|(s, _)| (*s).to_owned()).collect();
        (unexplained, untrue)
    }
}

fn roles_of((kind, _): &Field) -> usize {
    roles(kind).len()
}

fn matches(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    text.strip_prefix(first).is_some_and(|text| (0..=text.len()).any(|i| text.is_char_boundary(i) && matches(rest, &text[i..])))
}

fn try_all(folder: &Path, made: fn(&mut Value), schemas: &BTreeMap<String, Value>, open: &mut Open) {
    let mut bench = Bench::of(folder, made);
    // What is said elsewhere in the mesh is likely to make sense here.
    let mut known = Known::new();
    let documents = bench.documents.iter().map(|d| (d["kind"].as_str().unwrap_or_default(), &d["spec"]));
    for (kind, value) in documents.chain([(SETTINGS, &bench.settings)]).filter(|(kind, _)| schemas.contains_key(*kind)) {
        let mut places = Vec::new();
        alter::places(value, "", "", &schemas[kind], &mut places);
        for place in places {
            let values = known.entry((kind.to_owned(), place.path)).or_default();
            let value = value.pointer(&place.pointer).unwrap();
            if values.len() < 4 && !values.contains(value) {
                values.push(value.clone());
            }
        }
    }
    let mut tried = BTreeMap::new();
    for document in bench.documents.clone() {
        let kind = document["kind"].as_str().unwrap_or_default();
        if !schemas.contains_key(kind) || !bench.accepts(&document) {
            continue;
        }
        let change = |spec: Value| {
            let mut after = document.clone();
            after["spec"] = spec;
            Change::Object { before: &document, after }
        };
        try_places(&mut bench, (kind, &document["spec"], &schemas[kind]), &known, open, &mut tried, change);
    }
    let settings = bench.settings.clone();
    try_places(&mut bench, (SETTINGS, &settings, &schemas[SETTINGS]), &known, open, &mut tried, Change::Settings);
}

fn try_places<'a>(
    bench: &mut Bench,
    (kind, value, schema): (&str, &Value, &Value),
    known: &Known,
    open: &mut Open,
    tried: &mut BTreeMap<Field, (usize, usize)>,
    change: impl Fn(Value) -> Change<'a>,
) {
    let mut places = Vec::new();
    alter::places(value, "", "", schema, &mut places);
    for place in places {
        let field = (kind.to_owned(), place.path.clone());
        let (tried, compared) = tried.entry(field.clone()).or_default();
        for altered in alter::alterations(value, &place, known.get(&field).into_iter().flatten()) {
            let Some(roles) = open.roles.get_mut(&field) else { break };
            *tried += 1;
            if *tried > TRIES {
                break;
            }
            let reached = bench.with(&change(altered), |bench, world, changes| bench.reached(world, changes, roles)).unwrap_or_default();
            roles.retain(|role| !reached.contains(role));
            if roles.is_empty() {
                open.roles.remove(&field);
            }
        }
        let Some(pairs) = open.alike.get_mut(&field).filter(|_| *compared < PLACES) else { continue };
        *compared += 1;
        let here = value.pointer(&place.pointer).unwrap();
        let mut outputs = vec![(name(here), bench.baseline())];
        for (value, altered) in alter::values(value, &place) {
            // What is refused or the same mesh is no evidence.
            if let Some(output) = bench.with(&change(altered), |bench, world, changes| bench.outputs(world, changes)) {
                outputs.push((name(&value), output));
            }
        }
        for (i, (a, of_a)) in outputs.iter().enumerate() {
            for (b, of_b) in &outputs[..i] {
                if of_a != of_b {
                    pairs.retain(|pair| *pair != (a.clone(), b.clone()) && *pair != (b.clone(), a.clone()));
                }
            }
        }
        if pairs.is_empty() {
            open.alike.remove(&field);
        }
    }
}
