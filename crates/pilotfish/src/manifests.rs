//! `pilotfish inject` and `pilotfish validate`: what the webhooks would do, for manifests at hand.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use pilotfish_controller::mesh_config::combined;
use pilotfish_controller::object::decode;
use pilotfish_webhook::inject::document::inject_document;
use pilotfish_webhook::inject::{Config, NativeSidecars, Request};
use pilotfish_webhook::validate::{Verdict, review};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cli::{InjectArgs, Output, ValidateArgs};
use crate::offline;

/// Something in a manifest is not as it should be.
pub(crate) const BAD_DATA: u8 = 65;

/// A document with the place it was read from.
struct Document {
    file: String,
    number: usize,
    value: Value,
}

/// Reads files, all manifests of folders, and `-` for standard input.
fn read(paths: &[PathBuf]) -> anyhow::Result<Vec<Document>> {
    let mut documents = Vec::new();
    for path in paths {
        if path == Path::new("-") {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
            split("-", &text, &mut documents)?;
            continue;
        }
        for file in files(path)? {
            let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
            split(&file.display().to_string(), &text, &mut documents)?;
        }
    }
    Ok(documents)
}

fn files(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    let entries = fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else if path.extension().is_some_and(|e| ["yaml", "yml", "json"].iter().any(|known| e == *known)) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn split(file: &str, text: &str, documents: &mut Vec<Document>) -> anyhow::Result<()> {
    for (number, document) in yaml_serde::Deserializer::from_str(text).enumerate() {
        let value = Value::deserialize(document).with_context(|| format!("{file}, document {}", number + 1))?;
        if !value.is_null() {
            documents.push(Document { file: file.to_owned(), number: number + 1, value });
        }
    }
    Ok(())
}

/// Writes the documents with their sidecars.
pub fn inject(args: &InjectArgs) -> anyhow::Result<()> {
    let text = |path: &Option<PathBuf>| match path {
        Some(path) => fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display())),
        None => Ok(String::new()),
    };
    let mesh = combined([&offline::mesh_config(args.mesh_config_file.as_deref())?]);
    let mut config = Config::parse(&text(&args.inject_config_file)?, &text(&args.values_file)?, mesh)?;
    config.revision.clone_from(&args.revision);
    config.native = NativeSidecars::Forced(args.native_sidecars);
    config.check()?;
    let none = BTreeMap::new();
    let base = Request { pod: &Value::Null, namespace: "", namespace_annotations: &none, variables: &none, proxy_configs: &[] };
    let mut out = String::new();
    for Document { file, number, value } in read(&args.filename)? {
        let done = inject_document(&value, &base, &config).with_context(|| format!("{file}, document {number}"))?;
        done.warnings.iter().for_each(|w| eprintln!("{w}"));
        out.push_str(&yaml_serde::to_string(&done.value)?);
        out.push_str("---\n");
    }
    match &args.output {
        Some(path) => fs::write(path, out).with_context(|| format!("cannot write {}", path.display())),
        None => {
            print!("{out}");
            Ok(())
        }
    }
}

/// What is said of one object.
#[derive(Serialize)]
struct Finding {
    file: String,
    document: usize,
    kind: String,
    namespace: String,
    name: String,
    valid: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

/// Judges documents; those of kinds that are not Istio's are passed over.
pub fn validate(args: &ValidateArgs) -> anyhow::Result<ExitCode> {
    let documents = read(&args.filename)?;
    if documents.is_empty() {
        bail!("there is nothing to validate");
    }
    let mut findings = Vec::new();
    for document in documents {
        judge(&document.file, document.number, &document.value, &mut findings);
    }
    match args.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&findings)?),
        Output::Table => print!("{}", table(&findings)),
    }
    let fine = findings.iter().all(|f| f.valid);
    Ok(if fine { ExitCode::SUCCESS } else { ExitCode::from(BAD_DATA) })
}

fn judge(file: &str, number: usize, value: &Value, findings: &mut Vec<Finding>) {
    let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    if text("/kind") == "List" {
        for item in value.get("items").and_then(Value::as_array).into_iter().flatten() {
            judge(file, number, item, findings);
        }
        return;
    }
    let api_version = text("/apiVersion");
    if !api_version.split('/').next().is_some_and(|group| group.ends_with(".istio.io")) {
        return;
    }
    // An API server would prune unknown fields, or refuse them: in a file they are mistakes.
    let (error, warnings) = match (review(value), decode(value.clone())) {
        (Verdict::Invalid { message, .. }, _) => (Some(message), Vec::new()),
        (Verdict::Valid(_), Err(e)) if e.field.is_empty() => (Some(e.message), Vec::new()),
        (Verdict::Valid(_), Err(e)) => (Some(format!("{}: {}", e.field, e.message)), Vec::new()),
        (Verdict::Valid(warnings), Ok(_)) => (None, warnings),
    };
    let (kind, namespace, name) = (text("/kind"), text("/metadata/namespace"), text("/metadata/name"));
    findings.push(Finding { file: file.to_owned(), document: number, kind, namespace, name, valid: error.is_none(), error, warnings });
}

fn table(findings: &[Finding]) -> String {
    let rows = findings.iter().map(|f| {
        let object = if f.namespace.is_empty() { f.name.clone() } else { format!("{}/{}", f.namespace, f.name) };
        let verdict = if f.valid { "valid" } else { "INVALID" };
        let said = f.error.iter().chain(&f.warnings).cloned().collect::<Vec<_>>().join("; ");
        let place = format!("{}#{}", f.file, f.document);
        [place, f.kind.clone(), object, verdict.to_owned(), said.replace("\n\t* ", "; ").replace('\n', "")]
    });
    let head = ["FILE", "KIND", "NAME", "VERDICT", "MESSAGE"].map(str::to_owned);
    let rows: Vec<_> = std::iter::once(head).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|r| r[column].chars().count()).max().unwrap_or_default();
    let widths = [width(0), width(1), width(2), width(3)];
    let line = |row: &[String; 5]| {
        let cells: String = row.iter().zip(widths).map(|(cell, w)| format!("{cell:w$}   ")).collect();
        format!("{}\n", format!("{cells}{}", row[4]).trim_end())
    };
    rows.iter().map(line).collect()
}
