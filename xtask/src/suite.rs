//! What came of a suite, and the summary at the end of a run.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// What came of a suite.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It ran. What it counted, if it counts.
    Passed(Counts),
    /// It could not run here, because something is not there. An error in CI.
    Skipped(String),
}

/// Tests of a suite.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) ignored: u64,
    /// Tests that passed only by saying that they need something that is not there.
    pub(crate) skipped: u64,
}

impl Counts {
    /// Adds up what the test harness of each crate printed.
    pub(crate) fn of_cargo_test(lines: &[String]) -> Counts {
        let mut sum = Counts::default();
        for line in lines {
            if line.contains("SKIPPED: ") {
                sum.skipped += 1;
            }
            let Some(result) = line.strip_prefix("test result: ") else { continue };
            for part in result.split([';', '.']) {
                let mut words = part.split_whitespace();
                match (words.next().and_then(|n| n.parse::<u64>().ok()), words.next()) {
                    (Some(n), Some("passed")) => sum.passed += n,
                    (Some(n), Some("failed")) => sum.failed += n,
                    (Some(n), Some("ignored")) => sum.ignored += n,
                    _ => {}
                }
            }
        }
        sum
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed", self.passed - self.skipped.min(self.passed))?;
        for (n, what) in [(self.failed, "failed"), (self.ignored, "ignored"), (self.skipped, "skipped")] {
            if n > 0 {
                write!(f, ", {n} {what}")?;
            }
        }
        Ok(())
    }
}

/// Runs suites one after the other, all of them, and judges at the end.
pub(crate) struct Summary {
    ci: bool,
    rows: Vec<(&'static str, Result<Outcome>, Duration)>,
}

impl Summary {
    /// With `ci`, a skipped suite fails the run.
    pub(crate) fn new(ci: bool) -> Self {
        Summary { ci, rows: Vec::new() }
    }

    /// Runs one suite.
    pub(crate) fn run(&mut self, name: &'static str, suite: impl FnOnce() -> Result<Outcome>) {
        println!("\n== {name}");
        let began = Instant::now();
        let result = suite();
        if let Err(error) = &result {
            println!("FAILED: {name}: {error:#}");
        }
        self.rows.push((name, result, began.elapsed()));
    }

    /// Prints the table; an error if anything failed, or was skipped in CI.
    pub(crate) fn finish(self) -> Result<()> {
        let (mut passed, mut failed, mut skipped, mut tests) = (0, 0, 0, Counts::default());
        println!("\n== summary");
        for (name, result, took) in &self.rows {
            let (mark, detail) = match result {
                Ok(Outcome::Passed(c)) => {
                    (tests.passed, tests.ignored, tests.skipped) =
                        (tests.passed + c.passed, tests.ignored + c.ignored, tests.skipped + c.skipped);
                    passed += 1;
                    ("ok", if *c == Counts::default() { String::new() } else { c.to_string() })
                }
                Ok(Outcome::Skipped(why)) => {
                    skipped += 1;
                    ("SKIPPED", why.clone())
                }
                Err(error) => {
                    failed += 1;
                    ("FAILED", error.to_string().lines().next().unwrap_or_default().to_owned())
                }
            };
            println!("{mark:8} {name:28} {:>6.1} s  {detail}", took.as_secs_f64());
        }
        println!("suites: {passed} passed, {failed} failed, {skipped} skipped; tests: {tests}");
        if failed > 0 {
            bail!("{failed} suites failed");
        }
        if self.ci && skipped + tests.skipped > 0 {
            bail!("skipped suites are errors in CI");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_add_up_over_crates() {
        let lines = [
            "running 3 tests",
            "SKIPPED: envoy needs a real Envoy",
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s",
            "test result: FAILED. 4 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.50s",
        ];
        let counts = Counts::of_cargo_test(&lines.map(str::to_owned));
        assert_eq!(counts, Counts { passed: 7, failed: 2, ignored: 1, skipped: 1 });
        assert_eq!(counts.to_string(), "6 passed, 2 failed, 1 ignored, 1 skipped");
    }

    #[test]
    fn a_skipped_suite_fails_in_ci_only() {
        let run = |ci| {
            let mut summary = Summary::new(ci);
            summary.run("there", || Ok(Outcome::Passed(Counts::default())));
            summary.run("absent", || Ok(Outcome::Skipped("no data".into())));
            summary.finish().is_ok()
        };
        assert_eq!((run(false), run(true)), (true, false));
    }

    #[test]
    fn a_skipped_test_fails_in_ci_only() {
        let run = |ci| {
            let mut summary = Summary::new(ci);
            summary.run("partly", || Ok(Outcome::Passed(Counts { passed: 2, skipped: 1, ..Counts::default() })));
            summary.finish().is_ok()
        };
        assert_eq!((run(false), run(true)), (true, false));
    }

    #[test]
    fn a_failed_suite_fails_the_run_but_not_the_next_suite() {
        let (mut summary, mut ran) = (Summary::new(false), false);
        summary.run("bad", || bail!("broken"));
        summary.run("good", || {
            ran = true;
            Ok(Outcome::Passed(Counts::default()))
        });
        assert!(ran && summary.finish().is_err());
    }
}
