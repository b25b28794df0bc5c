//! The mesh configuration file, re-read when it changes. A broken one keeps the last good settings.

use std::path::{Path, PathBuf};
use std::time::Duration;

use pilotfish_controller::Layer;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

/// How often the file is looked at. Settings of a whole mesh change rarely; a look is one small read.
const POLL: Duration = Duration::from_secs(1);

/// Sends new settings until the drain.
pub async fn watch(path: PathBuf, settings: mpsc::Sender<Layer>, drain: CancellationToken) -> anyhow::Result<()> {
    let mut seen = std::fs::read(&path).ok();
    let mut ticks = tokio::time::interval(POLL);
    loop {
        tokio::select! {
            () = drain.cancelled() => return Ok(()),
            _ = ticks.tick() => {}
        }
        let now = tokio::fs::read(&path).await.ok();
        if now == seen {
            continue;
        }
        // An editor may be half way through: what stays the same for one more look is meant.
        tokio::time::sleep(Duration::from_millis(50)).await;
        if tokio::fs::read(&path).await.ok() != now {
            continue;
        }
        seen = now;
        match load(&path) {
            Ok(layer) => {
                info!(path = %path.display(), "new mesh configuration");
                if settings.send(layer).await.is_err() {
                    return Ok(());
                }
            }
            Err(e) => error!("{e:#}; the last good settings stay"),
        }
    }
}

fn load(path: &Path) -> anyhow::Result<Layer> {
    crate::offline::mesh_config(Some(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_broken_file_keeps_the_last_good_settings() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "trustDomain: a\n").unwrap();
        let (sender, mut settings) = mpsc::channel(4);
        let drain = CancellationToken::new();
        let watching = tokio::spawn(watch(file.path().to_owned(), sender, drain.clone()));
        tokio::task::yield_now().await;
        for text in ["trustDomain: [\n", "trustDomian: c\n"] {
            std::fs::write(file.path(), text).unwrap();
            assert!(tokio::time::timeout(POLL * 5, settings.recv()).await.is_err(), "{text:?} was taken");
        }
        std::fs::write(file.path(), "trustDomain: b\n").unwrap();
        let layer = tokio::time::timeout(POLL * 60, settings.recv()).await.expect("the new settings come").unwrap();
        assert_eq!(layer, Layer::parse("trustDomain: b").unwrap());
        drain.cancel();
        watching.await.unwrap().unwrap();
    }
}
