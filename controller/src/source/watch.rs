//! [`Watch`]: that something happened below some paths, not what.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

/// Tells that files may have changed. Where the system cannot watch, it never does, and polling has to find out.
pub struct Watch {
    changed: Arc<Notify>,
    // Watches as long as it lives.
    _watcher: Option<RecommendedWatcher>,
}

impl Watch {
    /// Watches files and folders, with all below.
    pub fn new(roots: &[PathBuf]) -> Watch {
        let changed = Arc::new(Notify::new());
        let sender = changed.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading is an event too, and would wake the reader for ever.
            if !event.is_ok_and(|e| matches!(e.kind, EventKind::Access(_))) {
                sender.notify_one();
            }
        });
        let mut watcher = match watcher {
            Ok(watcher) => watcher,
            Err(e) => {
                tracing::warn!("files cannot be watched and are polled instead: {e}");
                return Watch { changed, _watcher: None };
            }
        };
        for path in roots.iter().flat_map(|r| watched(r)).collect::<BTreeSet<_>>() {
            let mode = if path.is_dir() && roots.contains(&path) { RecursiveMode::Recursive } else { RecursiveMode::NonRecursive };
            if let Err(e) = watcher.watch(&path, mode) {
                tracing::warn!("{} cannot be watched and is polled instead: {e}", path.display());
            }
        }
        Watch { changed, _watcher: Some(watcher) }
    }

    /// Returns when something happened since the last call. Safe to cancel.
    pub async fn changed(&mut self) {
        self.changed.notified().await;
    }
}

/// What to watch for a root. A file is replaced more often than written, so its folder is watched.
fn watched(root: &Path) -> Vec<PathBuf> {
    if root.is_dir() {
        return vec![root.to_owned()];
    }
    match root.parent() {
        Some(parent) if parent.as_os_str().is_empty() => vec![PathBuf::from(".")],
        Some(parent) => vec![parent.to_owned()],
        None => vec![root.to_owned()],
    }
}
