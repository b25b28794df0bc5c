//! Every long-running task has a name and an observed end.

use std::future::Future;

use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::info;

/// Runs named tasks until one ends that should not, or a drain is asked for.
pub struct Supervisor {
    tasks: JoinSet<(&'static str, anyhow::Result<()>)>,
    drain: CancellationToken,
}

impl Default for Supervisor {
    fn default() -> Self {
        Supervisor { tasks: JoinSet::new(), drain: CancellationToken::new() }
    }
}

impl Supervisor {
    /// Cancelled when everything should end.
    pub fn drain_token(&self) -> CancellationToken {
        self.drain.clone()
    }

    /// Starts a task. It ends with `Ok` only after the drain token was cancelled.
    pub fn spawn(&mut self, name: &'static str, task: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
        self.tasks.spawn(async move { (name, task.await) });
    }

    /// Waits for the drain, or for the first task that ends without being asked; then drains the rest within `grace`.
    pub async fn run(mut self, grace: std::time::Duration) -> anyhow::Result<()> {
        let outcome = tokio::select! {
            () = self.drain.cancelled() => Ok(()),
            ended = self.tasks.join_next() => self.unexpected(ended),
        };
        self.drain.cancel();
        let rest = async {
            let mut outcome = outcome;
            while let Some(ended) = self.tasks.join_next().await {
                let failed = Self::failure(ended);
                outcome = outcome.and(failed);
            }
            outcome
        };
        match tokio::time::timeout(grace, rest).await {
            Ok(outcome) => outcome,
            Err(_) => {
                info!(?grace, "the rest did not end in time and is cut off");
                Ok(())
            }
        }
    }

    fn unexpected(&self, ended: Option<Result<(&'static str, anyhow::Result<()>), JoinError>>) -> anyhow::Result<()> {
        match ended {
            // Two things may be ready at once: a task that ended because of the drain is not a failure.
            Some(Ok((_, Ok(())))) if self.drain.is_cancelled() => Ok(()),
            Some(Ok((name, Ok(())))) => Err(anyhow::anyhow!("task {name} ended unexpectedly")),
            Some(other) => Self::failure(other),
            None => Ok(()),
        }
    }

    fn failure(ended: Result<(&'static str, anyhow::Result<()>), JoinError>) -> anyhow::Result<()> {
        match ended {
            Ok((_, Ok(()))) => Ok(()),
            Ok((name, Err(error))) => Err(error.context(format!("task {name} failed"))),
            Err(panic) => Err(anyhow::anyhow!("a task panicked: {panic}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn a_task_that_ends_ends_everything() {
        let mut s = Supervisor::default();
        let drain = s.drain_token();
        s.spawn("early", async { Ok(()) });
        s.spawn("other", async move {
            drain.cancelled().await;
            Ok(())
        });
        assert_eq!(s.run(Duration::from_secs(1)).await.unwrap_err().to_string(), "task early ended unexpectedly");
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_does_not_drain_is_cut_off() {
        let mut s = Supervisor::default();
        s.spawn("stuck", std::future::pending());
        s.drain_token().cancel();
        s.run(Duration::from_secs(10)).await.unwrap();
    }

    #[tokio::test]
    async fn a_panic_is_an_error() {
        let mut s = Supervisor::default();
        s.spawn("bad", async { panic!("boom") });
        assert!(s.run(Duration::from_secs(1)).await.unwrap_err().to_string().contains("panicked"));
    }
}
