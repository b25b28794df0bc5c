//! Requests one after another until told to stop.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::task::JoinSet;

use super::get;
use crate::poll;

/// What a load has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Requests that got any answer or none.
    pub total: u64,
    /// Answers with status 200 by the backend that gave them; others count under the empty name.
    pub by_backend: BTreeMap<String, u64>,
    /// No answer, or a status other than 200.
    pub failed: u64,
    /// The first of the failures.
    pub failures: Vec<String>,
}

/// A running load; dropping it stops it.
pub struct Load {
    report: Arc<Mutex<Report>>,
    workers: JoinSet<()>,
    stop: tokio::sync::watch::Sender<bool>,
}

impl Load {
    /// `workers` clients that each send `GET path` for `host` over and over.
    pub fn start(workers: usize, addr: SocketAddr, host: &str, path: &str) -> Self {
        let report = Arc::new(Mutex::new(Report::default()));
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let mut set = JoinSet::new();
        for _ in 0..workers {
            let (report, stopped, host, path) = (report.clone(), stopped.clone(), host.to_owned(), path.to_owned());
            set.spawn(async move {
                while !*stopped.borrow() {
                    let result = get(addr, &host, &path, &[]).await;
                    record(&mut report.lock().unwrap(), result);
                }
            });
        }
        Load { report, workers: set, stop }
    }

    /// What has happened so far.
    pub fn report(&self) -> Report {
        self.report.lock().unwrap().clone()
    }

    /// Waits for that many requests from now on.
    pub async fn more(&self, requests: u64) {
        let goal = self.report().total + requests;
        let progress = async || {
            let total = self.report().total;
            if total >= goal { Ok(()) } else { Err(format!("{total} of {goal}")) }
        };
        poll::until("requests of the load", progress).await;
    }

    /// Lets requests on their way end, and stops.
    pub async fn stop(mut self) -> Report {
        let _ = self.stop.send(true);
        while self.workers.join_next().await.is_some() {}
        self.report()
    }
}

fn record(report: &mut Report, result: anyhow::Result<super::Response>) {
    const KEPT: usize = 20;
    report.total += 1;
    let failure = match result {
        Ok(response) if response.status == 200 => {
            let backend = serde_json::from_str::<super::Echo>(&response.body).map(|echo| echo.backend).unwrap_or_default();
            *report.by_backend.entry(backend).or_default() += 1;
            return;
        }
        Ok(response) => format!("{} {}", response.status, response.body),
        Err(error) => format!("{error:#}"),
    };
    report.failed += 1;
    if report.failures.len() < KEPT {
        report.failures.push(failure);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Backend;

    #[tokio::test]
    async fn counts_answers_and_failures() {
        let backend = Backend::start("b1").await;
        let load = Load::start(2, backend.addr(), "h", "/");
        load.more(10).await;
        assert_eq!(load.report().failed, 0);
        drop(backend);
        load.more(3).await;
        let report = load.stop().await;
        assert!(report.by_backend["b1"] >= 10 && report.failed > 0, "{report:?}");
        assert_eq!(report.total, report.by_backend["b1"] + report.failed);
    }
}
