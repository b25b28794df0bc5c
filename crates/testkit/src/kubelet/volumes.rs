//! Volumes of a Pod as folders of this machine, filled as they say.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use base64::Engine;
use serde_json::{Value, json};

use super::{Settings, text};

/// A folder, and whether it can be written to.
pub(crate) struct Volume {
    pub(crate) path: PathBuf,
    pub(crate) writable: bool,
}

/// Files by name.
type Files = Vec<(String, Vec<u8>)>;

/// Makes one volume below `dir`.
pub(crate) async fn make(settings: &Settings, pod: &Value, volume: &Value, dir: &Path) -> anyhow::Result<Volume> {
    let fields = volume.as_object().context("a volume")?;
    let (kind, source) = fields.iter().find(|(key, _)| *key != "name").context("a volume without a source")?;
    let path = dir.join(text(&volume["name"]));
    fs::create_dir_all(&path)?;
    let files = match kind.as_str() {
        "emptyDir" => {
            only(source, &["medium", "sizeLimit"])?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o777))?;
            return Ok(Volume { path, writable: true });
        }
        "secret" => {
            only(source, &["secretName", "optional", "items", "defaultMode"])?;
            of_object(settings, "secrets", &source["secretName"], source).await?
        }
        "configMap" => {
            only(source, &["name", "optional", "items", "defaultMode"])?;
            of_object(settings, "configmaps", &source["name"], source).await?
        }
        "projected" => {
            only(source, &["sources", "defaultMode"])?;
            let mut files = Files::new();
            for source in source["sources"].as_array().into_iter().flatten() {
                files.extend(projected(settings, pod, source).await?);
            }
            files
        }
        other => bail!("volumes of kind {other} are not understood"),
    };
    write(&path, &files)?;
    Ok(Volume { path, writable: false })
}

async fn projected(settings: &Settings, pod: &Value, source: &Value) -> anyhow::Result<Files> {
    let (kind, source) = source.as_object().and_then(|s| s.iter().next()).context("an empty source")?;
    match kind.as_str() {
        "serviceAccountToken" => {
            only(source, &["audience", "expirationSeconds", "path"])?;
            let audiences = source["audience"].as_str().into_iter().collect::<Vec<_>>();
            let bound = json!({"apiVersion": "v1", "kind": "Pod", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]});
            let seconds = source["expirationSeconds"].as_u64().unwrap_or(3600);
            let spec = json!({"audiences": audiences, "expirationSeconds": seconds, "boundObjectRef": bound});
            let account = text(&pod["spec"]["serviceAccountName"]);
            let path = format!("/api/v1/namespaces/{}/serviceaccounts/{account}/token", settings.namespace);
            let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec});
            let answer = settings.post(&path, &request).await.with_context(|| format!("a token for {account}"))?;
            Ok(vec![(text(&source["path"]), text(&answer["status"]["token"]).into_bytes())])
        }
        "configMap" => {
            only(source, &["name", "optional", "items"])?;
            of_object(settings, "configmaps", &source["name"], source).await
        }
        "secret" => {
            only(source, &["name", "optional", "items"])?;
            of_object(settings, "secrets", &source["name"], source).await
        }
        "downwardAPI" => {
            only(source, &["items"])?;
            let items = source["items"].as_array().into_iter().flatten();
            items
                .map(|item| Ok((text(&item["path"]), super::sandbox::field(pod, &text(&item["fieldRef"]["fieldPath"]))?.into_bytes())))
                .collect()
        }
        other => bail!("sources of kind {other} are not understood"),
    }
}

/// The keys of a Secret or ConfigMap, all or those that `items` names.
async fn of_object(settings: &Settings, plural: &str, name: &Value, source: &Value) -> anyhow::Result<Files> {
    let Some(object) = object(settings, plural, &text(name), source["optional"] == true).await? else { return Ok(Files::new()) };
    let mut files = Files::new();
    for (key, value) in object["data"].as_object().into_iter().flatten() {
        let bytes = text(value).into_bytes();
        let bytes = if plural == "secrets" { base64::engine::general_purpose::STANDARD.decode(bytes)? } else { bytes };
        match source["items"].as_array() {
            None => files.push((key.clone(), bytes)),
            Some(items) => files.extend(items.iter().filter(|i| i["key"] == **key).map(|i| (text(&i["path"]), bytes.clone()))),
        }
    }
    Ok(files)
}

/// An object; nothing if there is none and that may be.
pub(crate) async fn object(settings: &Settings, plural: &str, name: &str, optional: bool) -> anyhow::Result<Option<Value>> {
    let path = format!("/api/v1/namespaces/{}/{plural}/{name}", settings.namespace);
    match settings.get(&path).await {
        Ok(object) => Ok(Some(object)),
        Err(e) if optional && matches!(e.downcast_ref(), Some(kube::Error::Api(status)) if status.code == 404) => Ok(None),
        Err(e) => Err(e.context(format!("{plural} {name}"))),
    }
}

/// As a kubelet does: a folder that a link names, so that all files change at once.
fn write(path: &Path, files: &Files) -> anyhow::Result<()> {
    fs::create_dir(path.join("..1"))?;
    symlink("..1", path.join("..data"))?;
    for (name, bytes) in files {
        ensure!(!name.contains('/') && !name.is_empty(), "file {name:?} of a volume");
        let file = path.join("..1").join(name);
        fs::write(&file, bytes)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644))?;
        symlink(Path::new("..data").join(name), path.join(name))?;
    }
    Ok(())
}

/// Refuses what is not in a list.
pub(crate) fn only(value: &Value, known: &[&str]) -> anyhow::Result<()> {
    let unknown: Vec<&String> =
        value.as_object().into_iter().flatten().map(|(key, _)| key).filter(|k| !known.contains(&k.as_str())).collect();
    ensure!(unknown.is_empty(), "{unknown:?} is not understood");
    Ok(())
}
