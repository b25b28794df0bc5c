//! The image: the last stage of the Dockerfile, built by buildah without a container engine, with a static binary of this
//! workspace for the stage before it. What comes out is looked at, run, and installed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::path::{Path, PathBuf};
use std::process::Command;

use pilotfish_testkit::kubelet::{Image, is_static};
use pilotfish_testkit::skip;
use pilotfish_tests::installed::{IMAGE, Installed, programs};
use serde_json::{Value, json};

/// What `buildah` knows, in a folder of the test's own.
struct Buildah(tempfile::TempDir);

impl Buildah {
    fn run(&self, args: &[&str]) -> String {
        let store = |name: &str| self.0.path().join(name);
        let mut command = Command::new("buildah");
        command.arg("--root").arg(store("root")).arg("--runroot").arg(store("run")).args(["--storage-driver", "vfs"]);
        let output = command.args(args).output().unwrap();
        assert!(output.status.success(), "buildah {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

impl Drop for Buildah {
    fn drop(&mut self) {
        // What is mounted cannot be removed with the folder.
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.run(&["rm", "--all"])));
    }
}

/// The static binary: `PILOTFISH_STATIC`, or what `cargo xtask` built.
fn static_binary() -> Option<PathBuf> {
    let built = || skip::target().join(format!("{}-unknown-linux-musl/debug/pilotfish", std::env::consts::ARCH));
    let path = std::env::var_os("PILOTFISH_STATIC").map_or_else(built, PathBuf::from);
    skip::needed("image", Some(path).filter(|p| p.is_file()), "a static binary (`cargo xtask e2e`, or PILOTFISH_STATIC)")
}

/// The image's files and its configuration.
fn build(binary: &Path) -> Option<(Buildah, PathBuf, Value)> {
    let there = Command::new("buildah").arg("--version").output().is_ok_and(|o| o.status.success());
    let is_root = Command::new("id").arg("-u").output().is_ok_and(|o| o.stdout == b"0\n");
    skip::needed("image", (there && is_root).then_some(()), "buildah and root (`cargo xtask setup` installs buildah)")?;
    let buildah = Buildah(tempfile::tempdir().unwrap());
    let context = buildah.0.path().join("build");
    let roots = "etc/ssl/certs/ca-certificates.crt";
    std::fs::create_dir_all(context.join(roots).parent().unwrap()).unwrap();
    std::fs::copy(binary, context.join("pilotfish")).unwrap();
    std::fs::copy(Path::new("/").join(roots), context.join(roots)).unwrap();
    let dockerfile = std::fs::read_to_string(skip::workspace().join("Dockerfile")).unwrap();
    let (_, last) = dockerfile.rsplit_once("\nFROM ").unwrap();
    let file = buildah.0.path().join("Dockerfile");
    std::fs::write(&file, format!("FROM {last}")).unwrap();
    let context_of = format!("build={}", context.display());
    let (file, dir) = (file.display().to_string(), buildah.0.path().display().to_string());
    buildah.run(&["bud", "--isolation", "chroot", "--build-context", &context_of, "--file", &file, "--tag", "pilotfish", &dir]);
    let config: Value = serde_json::from_str(&buildah.run(&["inspect", "--type", "image", "pilotfish"])).unwrap();
    let container = buildah.run(&["from", "--pull-never", "pilotfish"]);
    let root = PathBuf::from(buildah.run(&["mount", &container]));
    Some((buildah, root, config["OCIv1"]["config"].clone()))
}

fn files(dir: &Path, below: &Path, out: &mut Vec<String>) {
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            files(&entry.path(), below, out);
        } else {
            out.push(entry.path().strip_prefix(below).unwrap().display().to_string());
        }
    }
    out.sort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_image_is_a_static_binary_and_runs_as_the_charts_say() {
    let Some(binary) = static_binary() else { return };
    let Some((_buildah, root, config)) = build(&binary) else { return };
    let (user, entrypoint, command) = (&config["User"], &config["Entrypoint"], &config["Cmd"]);
    assert_eq!((user, entrypoint, command), (&json!("1337:1337"), &json!(["/usr/local/bin/pilotfish"]), &json!(["discovery"])));
    let mut all = Vec::new();
    files(&root, &root, &mut all);
    assert_eq!(all, ["etc/ssl/certs/ca-certificates.crt", "usr/local/bin/pilotfish"]);
    assert!(is_static(&root.join("usr/local/bin/pilotfish")).unwrap());

    // With nothing around it, as that user.
    let mut run = Command::new("/usr/sbin/chroot");
    run.args(["--userspec=1337:1337", "--groups="]).arg(&root).args(["/usr/local/bin/pilotfish", "version"]);
    let output = run.env_clear().output().unwrap();
    let version = format!("pilotfish {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!((String::from_utf8_lossy(&output.stdout), output.status.success()), (version.into(), true));

    let Some(mut programs) = programs("image") else { return };
    programs.image = Image::from_built(&root, &config).unwrap();
    Installed::run(programs, async |all: Installed| {
        all.upgrade("base", "base", &[]).await;
        all.upgrade("istiod", "pilotfish", &[IMAGE]).await;
        assert_eq!((all.kubelet.seen().crashes, all.kubelet.seen().logs.len()), (Vec::<String>::new(), 1));
    })
    .await;
}
