//! One container: an empty root with the image's files and the Pod's volumes, a user without rights, and the process in it.
//!
//! The root is a folder in a mount namespace of its own, made by a script of util-linux programs that ends by becoming the
//! container's program: its process id and its signals are the container's.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use serde_json::Value;
use tokio::process::Command;

use super::volumes::{Volume, object, only};
use super::{Image, NODE, Settings, text};

/// What every container has.
const DEVICES: [&str; 4] = ["/dev/null", "/dev/zero", "/dev/random", "/dev/urandom"];
/// Without effect here: what a scheduler, a puller of images or other components read.
const FIELDS: [&str; 14] = [
    "name",
    "image",
    "command",
    "args",
    "workingDir",
    "env",
    "volumeMounts",
    "readinessProbe",
    "securityContext",
    "ports",
    "resources",
    "imagePullPolicy",
    "terminationMessagePath",
    "terminationMessagePolicy",
];

/// What to run, with everything resolved.
pub(crate) struct Container<'a> {
    pub(crate) image: &'a Image,
    pub(crate) spec: &'a Value,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) volumes: Vec<(String, Volume)>,
    /// Security context of the Pod.
    pub(crate) pod_security: &'a Value,
    /// Address and name.
    pub(crate) ip: String,
    pub(crate) host: String,
}

impl Container<'_> {
    /// The command that becomes the container. `dir` is for its root.
    pub(crate) fn command(&self, dir: &Path) -> anyhow::Result<Command> {
        only(self.spec, &FIELDS)?;
        let root = dir.join("root");
        if let Some(files) = &self.image.root {
            let copied = std::process::Command::new("cp").arg("-a").arg(files).arg(&root).status()?;
            ensure!(copied.success(), "{} cannot be copied", files.display());
        }
        let mut script = vec!["set -e".to_owned()];
        let mut mount = |from: &Path, inside: &Path, writable: bool| -> anyhow::Result<()> {
            let at = root.join(inside.strip_prefix("/").with_context(|| format!("{} is not absolute", inside.display()))?);
            if from.is_dir() {
                fs::create_dir_all(&at)?;
            } else {
                fs::create_dir_all(at.parent().context("a file")?)?;
                fs::write(&at, "")?;
            }
            script.push(format!("mount --bind {} {}", quote(from), quote(&at)));
            if !writable {
                script.push(format!("mount -o remount,bind,ro {}", quote(&at)));
            }
            Ok(())
        };
        for (from, inside) in &self.image.files {
            mount(&fs::canonicalize(from).with_context(|| from.display().to_string())?, inside, false)?;
        }
        for device in DEVICES.iter().map(Path::new) {
            mount(device, device, true)?;
        }
        mount(Path::new("/proc"), Path::new("/proc"), false)?;
        for (name, content) in [
            ("hosts", format!("127.0.0.1 localhost\n{} {}\n", self.ip, self.host)),
            ("resolv.conf", "search svc.cluster.local cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n".to_owned()),
        ] {
            fs::write(dir.join(name), content)?;
            mount(&dir.join(name), &Path::new("/etc").join(name), false)?;
        }
        for wanted in self.spec["volumeMounts"].as_array().into_iter().flatten() {
            only(wanted, &["name", "mountPath", "readOnly", "recursiveReadOnly"])?;
            let (name, at) = (text(&wanted["name"]), PathBuf::from(text(&wanted["mountPath"])));
            let (_, volume) = self.volumes.iter().find(|(n, _)| *n == name).with_context(|| format!("no volume {name}"))?;
            mount(&volume.path, &at, volume.writable && wanted["readOnly"] != true)?;
        }
        let user = self.user()?;
        let security = &self.spec["securityContext"];
        // Mounting it makes it one, and only a mount can be read-only.
        script.insert(1, format!("mount --bind {0} {0}", quote(&root)));
        let folder = self.spec["workingDir"].as_str().map(PathBuf::from).or_else(|| self.image.folder.clone());
        ensure!(folder.is_none_or(|f| f == Path::new("/")), "working folders are not understood");
        if security["readOnlyRootFilesystem"] == true {
            script.push(format!("mount -o remount,bind,ro {}", quote(&root)));
        }
        // A process that is not root has no capabilities, so that none is left to drop.
        let privileges = if security["allowPrivilegeEscalation"] == false { "setpriv --no-new-privs " } else { "" };
        let env: Vec<String> = self.env.iter().map(|(key, value)| quote_text(&format!("{key}={value}"))).collect();
        let program: Vec<String> = self.program().iter().map(|word| quote_text(word)).collect();
        script.push(format!(
            "exec {privileges}env -i {} /usr/sbin/chroot --userspec={}:{} --groups= {} {}",
            env.join(" "),
            user.0,
            user.1,
            quote(&root),
            program.join(" ")
        ));
        let path = dir.join("start.sh");
        fs::write(&path, script.join("\n"))?;
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh"]).arg(path);
        Ok(command)
    }

    fn program(&self) -> Vec<String> {
        let list = |key: &str| self.spec[key].as_array().map(|l| l.iter().map(|w| expand(&text(w), &self.env)).collect::<Vec<_>>());
        let (command, args) = (list("command"), list("args"));
        // As Kubernetes has it: a command of the Pod takes the place of both.
        let arguments = match (&command, args) {
            (_, Some(args)) => args,
            (Some(_), None) => Vec::new(),
            (None, None) => self.image.command.clone(),
        };
        [command.unwrap_or_else(|| self.image.entrypoint.clone()), arguments].concat()
    }

    fn user(&self) -> anyhow::Result<(u32, u32)> {
        let own = &self.spec["securityContext"];
        only(own, &["allowPrivilegeEscalation", "readOnlyRootFilesystem", "runAsNonRoot", "runAsUser", "runAsGroup", "capabilities"])?;
        only(self.pod_security, &["runAsNonRoot", "runAsUser", "runAsGroup", "seccompProfile"])?;
        ensure!(own["capabilities"]["add"].is_null(), "capabilities are not understood");
        let number = |key: &str| own[key].as_u64().or_else(|| self.pod_security[key].as_u64()).and_then(|n| u32::try_from(n).ok());
        let image = self.image.user.unwrap_or((0, 0));
        let user = (number("runAsUser").unwrap_or(image.0), number("runAsGroup").unwrap_or(image.1));
        let wanted = own["runAsNonRoot"].as_bool().or_else(|| self.pod_security["runAsNonRoot"].as_bool()).unwrap_or_default();
        ensure!(!wanted || user.0 != 0, "runAsNonRoot, and the image's user is root");
        Ok(user)
    }
}

/// The environment of a container: what every Pod has, and what it says.
pub(crate) async fn env(settings: &Settings, pod: &Value, container: &Value) -> anyhow::Result<Vec<(String, String)>> {
    let mut all = vec![
        ("PATH".to_owned(), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()),
        ("HOSTNAME".to_owned(), text(&pod["metadata"]["name"])),
        ("KUBERNETES_SERVICE_HOST".to_owned(), settings.api.ip().to_string()),
        ("KUBERNETES_SERVICE_PORT".to_owned(), settings.api.port().to_string()),
    ];
    for entry in container["env"].as_array().into_iter().flatten() {
        only(entry, &["name", "value", "valueFrom"])?;
        let value = match entry.get("valueFrom") {
            None => Some(expand(&text(&entry["value"]), &all)),
            Some(source) => from_source(settings, pod, source).await.with_context(|| text(&entry["name"]))?,
        };
        all.retain(|(name, _)| entry["name"] != name.as_str());
        all.extend(value.map(|value| (text(&entry["name"]), value)));
    }
    Ok(all)
}

async fn from_source(settings: &Settings, pod: &Value, source: &Value) -> anyhow::Result<Option<String>> {
    let (kind, source) = source.as_object().and_then(|s| s.iter().next()).context("an empty source")?;
    match kind.as_str() {
        "fieldRef" => field(pod, &text(&source["fieldPath"])).map(Some),
        "configMapKeyRef" => {
            let object = object(settings, "configmaps", &text(&source["name"]), source["optional"] == true).await?;
            Ok(object.and_then(|o| o["data"][text(&source["key"])].as_str().map(str::to_owned)))
        }
        other => bail!("{other} is not understood"),
    }
}

/// What the downward API says.
pub(crate) fn field(pod: &Value, path: &str) -> anyhow::Result<String> {
    Ok(match path {
        "spec.nodeName" => NODE.to_owned(),
        "metadata.name" | "metadata.namespace" | "metadata.uid" | "spec.serviceAccountName" | "status.podIP" | "status.hostIP" => {
            let found = path.split('.').fold(pod, |value, key| &value[key]);
            found.as_str().with_context(|| format!("{path} is not known yet"))?.to_owned()
        }
        other => bail!("the field {other} is not understood"),
    })
}

/// Replaces `$(NAME)` by what is known.
fn expand(text: &str, env: &[(String, String)]) -> String {
    env.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("$({name})"), value))
}

fn quote(path: &Path) -> String {
    quote_text(&path.display().to_string())
}

fn quote_text(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_put_in() {
        let env = [("A".to_owned(), "1".to_owned())];
        assert_eq!(expand("x$(A)y$(B)", &env), "x1y$(B)");
    }

    #[test]
    fn shells_see_what_is_meant() {
        assert_eq!(quote_text("it's $HOME"), "'it'\\''s $HOME'");
    }
}
