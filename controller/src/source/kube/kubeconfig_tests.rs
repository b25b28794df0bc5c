//! Kubeconfigs with holes: a client or a reason, never a panic. `PROPTEST_CASES=100000` looks for longer.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::{Cluster, ClusterError, client};

/// All that a kubeconfig may have, but for programs that are to be run.
const WHOLE: &str = r#"apiVersion: v1
kind: Config
current-context: a
preferences: {}
clusters:
- name: a
  cluster: {server: "https://127.0.0.1:6443", certificate-authority-data: Zm9v, tls-server-name: a.example, insecure-skip-tls-verify: true, proxy-url: "http://127.0.0.1:1"}
contexts:
- name: a
  context: {cluster: a, user: a, namespace: b}
users:
- name: a
  user: {token: x, username: y, password: z, client-certificate-data: Zm9v, client-key-data: Zm9v, as: somebody, as-groups: [g]}
"#;

/// What may stand in place of a word.
const PIECES: &[&str] = &[
    "", "{}", "[]", "null", "~", "&a", "*a", "!!binary", "\"", "'", ":", "- ", "\n", "\t", "0", "-1", "1e999", "https://", "unix://",
    "://", "[::1]:x", "====", "Zm9", "\u{0}",
];

fn text() -> impl Strategy<Value = String> {
    let changes = vec((any::<Index>(), 0..12_usize, prop_oneof![select(PIECES).prop_map(str::to_owned), ".{0,8}"]), 1..5);
    let changed = changes.prop_map(|changes| {
        let mut text = WHOLE.to_owned();
        for (at, len, piece) in changes {
            let at = at.index(text.len());
            let ends = (at..text.len().min(at + len)).rfind(|i| text.is_char_boundary(*i));
            if let (true, Some(end)) = (text.is_char_boundary(at), ends) {
                text.replace_range(at..end, &piece);
            }
        }
        text
    });
    prop_oneof![4 => changed, 1 => ".{0,200}"]
}

proptest! {
    #[test]
    fn kubeconfigs_with_holes(text in text()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        std::fs::write(&path, &text).unwrap();
        match runtime.block_on(client(&Cluster::Kubeconfig(path))) {
            Ok(_) | Err(ClusterError::Kubeconfig { .. } | ClusterError::Client(_)) => {}
            Err(other) => prop_assert!(false, "{other}"),
        }
    }
}
