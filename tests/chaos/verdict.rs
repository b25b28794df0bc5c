//! What came of a run: compared with a process that never saw any of it.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use pilotfish_testkit::Pilotfish;
use pilotfish_testkit::ads::{Held, Watcher};
use tokio::time::sleep;

use crate::{Args, connect};

const BEGIN: &str = "<!-- chaos:begin -->";
const END: &str = "<!-- chaos:end -->";
/// How long clients may take to get the last changes.
const SETTLE: Duration = Duration::from_secs(60);
/// From so many samples (seconds) on the slope of memory is judged.
const JUDGED: usize = 280;

pub(crate) struct Verdict {
    rows: Vec<(&'static str, String)>,
    faults: Vec<String>,
}

impl Verdict {
    #[allow(clippy::too_many_arguments)]
    pub(crate) async fn of(
        args: &Args,
        server: &mut Pilotfish,
        fresh: &mut Pilotfish,
        clients: &[Watcher],
        tried: u64,
        accepted: u64,
        recoveries: &[Duration],
        rss: &[f64],
    ) -> Verdict {
        let mut faults = Vec::new();
        let expected = connect(fresh, 0).await.quiet(Duration::from_secs(3)).await.held;
        let lost = lost(server, clients, &expected).await;
        if !lost.is_empty() {
            faults.push(format!(
                "{} resources are not what a fresh process has: {:?}",
                lost.len(),
                lost.iter().take(20).collect::<Vec<_>>()
            ));
        }
        let seen: Vec<_> = clients.iter().map(Watcher::seen).collect();
        let kept = |cluster: &&String| cluster.starts_with("outbound|80||svc-") || cluster.starts_with("outbound|80||probe");
        let emptied: BTreeSet<String> = seen.iter().flat_map(|s| s.emptied.iter()).filter(kept).cloned().collect();
        if !emptied.is_empty() {
            faults.push(format!("endpoints were emptied: {emptied:?}"));
        }
        if let Some(ended) = seen.iter().find_map(|s| s.ended.clone()) {
            faults.push(format!("a stream ended: {ended}"));
        }
        let warm = &rss[rss.len() / 5..];
        let (mean, slope) = (warm.iter().sum::<f64>() / warm.len().max(1) as f64, slope(warm));
        let growth = 100.0 * slope * warm.len() as f64 / mean;
        if warm.len() >= JUDGED && growth > 5.0 {
            faults.push(format!("memory grew by {growth:.1} % over the last {} s", warm.len()));
        }
        let seconds = |d: Option<&Duration>| d.map_or_else(|| "-".into(), |d| format!("{:.2} s", d.as_secs_f64()));
        let mut sorted = recoveries.to_vec();
        sorted.sort_unstable();
        let resources: usize = expected.values().map(|held| held.len()).sum();
        let rows = vec![
            ("length, kills of the API server", format!("{} minutes, {}", args.minutes, recoveries.len())),
            ("changes tried, accepted by the API server", format!("{tried}, {accepted} ({:.1}/s)", accepted as f64 / args.minutes / 60.0)),
            (
                "clients, responses to each",
                format!("{}, {}", clients.len(), seen.iter().map(|s| s.responses).sum::<u64>() / clients.len() as u64),
            ),
            (
                "from a ready API server to a new change at a client, median, longest",
                format!("{}, {}", seconds(sorted.get(sorted.len() / 2)), seconds(sorted.last())),
            ),
            ("resources that differ from a fresh process, of", format!("{}, {resources}", lost.len())),
            ("endpoint sets that were empty at any client at any time", emptied.len().to_string()),
            (
                "resident memory: mean, slope after the first fifth",
                format!("{mean:.1} MiB, {:+.3} MiB/min ({growth:+.1} % in all)", slope * 60.0),
            ),
        ];
        Verdict { rows, faults }
    }

    pub(crate) fn faults(&self) -> &[String] {
        &self.faults
    }

    pub(crate) fn table(&self) -> String {
        let rows: String = self.rows.iter().map(|(name, value)| format!("| {name} | {value} |\n")).collect();
        format!("| what | result |\n| --- | --- |\n{rows}")
    }

    pub(crate) fn write(&self, path: &Path, machine: &str, commit: &str) {
        let page = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let (head, rest) = page.split_once(BEGIN).expect("the page has a place for the table");
        let (_, tail) = rest.split_once(END).expect("the place has an end");
        let good = if self.faults.is_empty() { String::new() } else { format!("\nFAILED: {}\n", self.faults.join("; ")) };
        std::fs::write(path, format!("{head}{BEGIN}\n{}{good}\n{machine} Measured at {commit}.\n{END}{tail}", self.table())).unwrap();
    }
}

/// What a new client of the old server, or any client that was there all the time, does not have as it should.
async fn lost(server: &Pilotfish, clients: &[Watcher], expected: &Held) -> BTreeSet<String> {
    let started = Instant::now();
    loop {
        let now = connect(server, 0).await.quiet(Duration::from_secs(1)).await.held;
        let mut lost = differences(&now, expected);
        clients.iter().for_each(|client| lost.extend(differences(&client.seen().held, expected)));
        if lost.is_empty() || started.elapsed() > SETTLE {
            return lost;
        }
        sleep(Duration::from_secs(1)).await;
    }
}

fn differences(held: &Held, expected: &Held) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for type_url in held.keys().chain(expected.keys()) {
        let all = |from: &Held| from.get(type_url).cloned().unwrap_or_default();
        let (has, should) = (all(held), all(expected));
        let names = has.keys().chain(should.keys()).filter(|name| has.get(*name) != should.get(*name));
        found.extend(names.map(|name| format!("{type_url:?} {name}")));
    }
    found
}

/// Least squares, per sample.
fn slope(samples: &[f64]) -> f64 {
    let n = samples.len() as f64;
    if n < 2.0 {
        return 0.0;
    }
    let (mean_x, mean_y) = ((n - 1.0) / 2.0, samples.iter().sum::<f64>() / n);
    let (mut xy, mut xx) = (0.0, 0.0);
    for (i, y) in samples.iter().enumerate() {
        let x = i as f64 - mean_x;
        xy += x * (y - mean_y);
        xx += x * x;
    }
    xy / xx
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slope_is_that_of_the_line() {
        assert!((slope(&[1.0, 3.0, 5.0, 7.0]) - 2.0).abs() < 1e-9);
        assert!(slope(&[4.0, 4.0, 4.0]).abs() < 1e-9 && slope(&[1.0]).abs() < 1e-9);
    }
}
