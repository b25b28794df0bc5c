use std::fs;

use pretty_assertions::assert_eq;
use tempfile::TempDir;

use super::*;

fn service(name: &str, port: u16) -> String {
    format!("apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{port: {port}}}]}}\n---\n")
}

fn route(name: &str, extra: &str) -> String {
    format!("apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata:\n  name: {name}\nspec:\n  hosts: [a]\n{extra}---\n")
}

/// Events in a form that reads well: `+name` and `-name`.
fn names(events: &[SourceEvent]) -> Vec<String> {
    let mut names: Vec<_> = events
        .iter()
        .map(|e| match e {
            SourceEvent::Apply(o, _) => format!("+{}", o.id.name),
            SourceEvent::Delete(id) => format!("-{}", id.name),
        })
        .collect();
    names.sort();
    names
}

struct Folder {
    dir: TempDir,
    source: FileSource,
}

impl Folder {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let source = FileSource::new(vec![dir.path().to_owned()]).unwrap();
        Folder { dir, source }
    }

    fn write(&self, name: &str, text: &str) {
        fs::create_dir_all(self.dir.path().join(name).parent().unwrap()).unwrap();
        fs::write(self.dir.path().join(name), text).unwrap();
    }

    fn scan(&mut self) -> Vec<String> {
        names(&self.source.scan(Scan::Full))
    }

    /// Problems as `document:line field: message`.
    fn problems(&self) -> Vec<String> {
        self.source.problems().iter().map(|p| format!("{}:{} {}: {}", p.document, p.line, p.field, p.message)).collect()
    }
}

#[test]
fn objects_come_change_and_go() {
    let mut f = Folder::new();
    f.write("a.yaml", &format!("{}{}", service("one", 1), service("two", 2)));
    f.write("deep/er/b.json", r#"{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "three"}}"#);
    f.write("c.yml", "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Node, metadata: {name: four}}\n");
    for ignored in ["notes.txt", ".hidden.yaml", "#a.yaml", "a.yaml~", "..data/x.yaml"] {
        f.write(ignored, &service("ignored", 1));
    }
    assert_eq!(f.scan(), ["+four", "+one", "+three", "+two"]);
    assert_eq!(f.scan(), Vec::<String>::new());
    f.write("a.yaml", &format!("# moved\n{}{}", service("two", 2), service("one", 10)));
    assert_eq!(f.scan(), ["+one"], "only what differs");
    fs::remove_file(f.dir.path().join("a.yaml")).unwrap();
    assert_eq!(f.scan(), ["-one", "-two"]);
    assert_eq!(f.problems(), Vec::<String>::new());
}

#[test]
fn a_broken_document_loses_only_itself() {
    let mut f = Folder::new();
    f.write("a.yaml", &format!("{}kind: [\n---\n{}", service("one", 1), service("two", 2)));
    assert_eq!(f.scan(), ["+one", "+two"]);
    assert_eq!(f.source.problems().len(), 1);
    assert_eq!((f.source.problems()[0].document, f.source.problems()[0].severity), (2, Severity::Error));
}

#[test]
fn a_broken_file_keeps_its_last_good_objects() {
    let mut f = Folder::new();
    let (one, two) = (service("one", 1), service("two", 2));
    f.write("a.yaml", &format!("{one}{two}"));
    assert_eq!(f.scan(), ["+one", "+two"]);
    // Half written: the second document ends in the middle, and a third object is not there yet.
    f.write("a.yaml", &format!("{}{}", service("one", 11), &two[..two.len() - 10]));
    assert_eq!(f.scan(), ["+one"], "what is whole is taken, what is not stays");
    assert_eq!(f.source.problems().len(), 1);
    f.write("a.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: 5}\n");
    assert_eq!(f.scan(), Vec::<String>::new());
    f.write("a.yaml", &service("two", 2));
    assert_eq!(f.scan(), ["-one"]);
    assert_eq!(f.problems(), Vec::<String>::new());
}

#[test]
fn a_truncated_file_is_given_time_to_be_written() {
    let mut f = Folder::new();
    f.write("a.yaml", &service("one", 1));
    f.scan();
    f.write("a.yaml", "");
    assert_eq!(f.scan(), Vec::<String>::new());
    f.write("a.yaml", &service("one", 2));
    assert_eq!(f.scan(), ["+one"]);
    f.write("a.yaml", "");
    assert_eq!(f.scan(), Vec::<String>::new());
    assert_eq!(names(&f.source.scan(Scan::Quick)), ["-one"], "it was meant");
}

#[test]
fn mistakes_are_named_by_document_line_and_field() {
    for (extra, at) in [
        ("  httpp: []\n", "2:12 spec.httpp: unknown field `httpp`, expected one of `hosts`, `gateways`, `http`, `tls`, `tcp`, `exportTo`"),
        (
            "  http:\n  - route:\n    - destination: {host: a}\n      weight: x\n",
            "2:15 spec.http[0].route[0].weight: invalid value: string \"x\", expected a number (i32)",
        ),
        (
            "  http:\n  - corsPolicy:\n      unmatchedPreflights: MAYBE\n",
            "2:14 spec.http[0].corsPolicy.unmatchedPreflights: unknown variant `MAYBE`, expected one of `UNSPECIFIED`, `FORWARD`, `IGNORE`",
        ),
        ("  http:\n  - name: a\n    name: b\n", "2:14 : spec.http[0]: duplicate key \"name\""),
        ("stauts: {}\n", "2:12 stauts: unknown field, expected one of `apiVersion`, `kind`, `metadata`, `spec`, `status`"),
    ] {
        let mut f = Folder::new();
        f.write("a.yaml", &format!("{}{}", service("one", 1), route("r", extra)));
        assert_eq!(f.scan(), ["+one"]);
        assert_eq!(f.problems(), [at], "{extra}");
    }
}

#[test]
fn kinds_are_known_in_every_version() {
    let mut f = Folder::new();
    let object =
        |api: &str, kind: &str, name: &str| format!("apiVersion: {api}\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {{}}\n---\n");
    let text = [
        object("networking.istio.io/v1", "Sidecar", "a"),
        object("networking.istio.io/v1beta1", "Sidecar", "b"),
        object("networking.istio.io/v1alpha3", "EnvoyFilter", "c"),
        object("extensions.istio.io/v1alpha1", "WasmPlugin", "d"),
        object("apps/v1", "Deployment", "e"),
        object("gateway.networking.k8s.io/v1", "Gateway", "f"),
        object("networking.istio.io/v1", "SideCar", "g"),
    ];
    f.write("a.yaml", &text.concat());
    assert_eq!(f.scan(), ["+a", "+b", "+c", "+d"]);
    assert_eq!(f.source.ignored(), 1);
    assert_eq!(
        f.problems(),
        [
            "6:27 : gateway.networking.k8s.io/v1 Gateway is not translated yet and has no effect",
            "7:32 kind: networking.istio.io/v1 SideCar is not a kind that Istio has",
        ]
    );
}

#[test]
fn the_first_of_two_files_wins() {
    let mut f = Folder::new();
    f.write("a.yaml", &service("one", 1));
    f.write("b.yaml", &service("one", 2));
    f.scan();
    assert_eq!(f.source.problems()[0].severity, Severity::Warning);
    assert!(f.source.problems()[0].file.ends_with("b.yaml"));
    fs::remove_file(f.dir.path().join("a.yaml")).unwrap();
    assert_eq!(f.scan(), ["+one"], "now the other one counts");
    assert_eq!(f.problems(), Vec::<String>::new());
}

#[test]
fn what_cannot_be_read_is_refused_at_start_and_kept_later() {
    let error = FileSource::new(vec!["/nowhere/at/all".into()]).map(drop).unwrap_err().to_string();
    assert!(error.starts_with("--config-dir /nowhere/at/all: "), "{error}");

    let mut f = Folder::new();
    f.write("a.yaml", &service("one", 1));
    f.scan();
    f.write("a.yaml", "");
    fs::write(f.dir.path().join("a.yaml"), [0xff, 0xfe, 0x00]).unwrap();
    assert_eq!(f.scan(), Vec::<String>::new());
    assert_eq!(f.problems(), ["0:1 : is not UTF-8"]);
    let moved = f.dir.path().with_extension("moved");
    fs::rename(f.dir.path(), &moved).unwrap();
    assert_eq!(f.scan(), Vec::<String>::new(), "a folder that vanishes takes nothing with it");
    fs::rename(&moved, f.dir.path()).unwrap();
    f.write("a.yaml", &service("one", 1));
    assert_eq!((f.scan(), f.problems()), (vec![], vec![]));
}

#[cfg(unix)]
#[test]
fn a_mounted_config_map_is_swapped() {
    use std::os::unix::fs::symlink;
    let mut f = Folder::new();
    let dir = f.dir.path().to_owned();
    f.write("..1/a.yaml", &service("one", 1));
    symlink("..1", dir.join("..data")).unwrap();
    symlink("..data/a.yaml", dir.join("a.yaml")).unwrap();
    assert_eq!(f.scan(), ["+one"]);
    f.write("..2/a.yaml", &service("two", 1));
    symlink("..2", dir.join("..new")).unwrap();
    fs::rename(dir.join("..new"), dir.join("..data")).unwrap();
    assert_eq!(names(&f.source.scan(Scan::Quick)), ["+two", "-one"]);
}

#[test]
fn large_files_are_fine_and_huge_ones_refused() {
    let mut f = Folder::new();
    f.write("big.yaml", &(0..20_000).map(|i| service(&format!("s{i}"), 1)).collect::<String>());
    assert_eq!(f.scan().len(), 20_000);
    let file = fs::File::create(f.dir.path().join("huge.yaml")).unwrap();
    file.set_len(MAX_FILE_BYTES + 1).unwrap();
    assert_eq!(f.scan(), Vec::<String>::new());
    assert_eq!(f.source.problems().len(), 1);
}
