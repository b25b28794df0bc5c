//! What parity must not fall below: a share of equal resources per type, and scenarios that must be fully equal.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// Equal and expected resources.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Score {
    pub(crate) equal: u64,
    pub(crate) expected: u64,
}

impl Score {
    fn parse(count: &Value) -> Score {
        let field = |name: &str| count[name].as_u64().unwrap_or_default();
        Score { equal: field("equal"), expected: field("expected") }
    }

    /// Equal by expected; nothing expected is all equal.
    pub(crate) fn share(self) -> f64 {
        if self.expected == 0 { 1.0 } else { self.equal as f64 / self.expected as f64 }
    }
}

/// What the tool reports of a run.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) total: Score,
    pub(crate) types: BTreeMap<String, Score>,
    /// Name, whether fully equal, and what went wrong if the run itself failed.
    pub(crate) scenarios: BTreeMap<String, (bool, Option<String>)>,
}

impl Report {
    pub(crate) fn parse(text: &str) -> Result<Report> {
        let json: Value = serde_json::from_str(text).context("the parity report")?;
        let types = json["by_type"].as_object().into_iter().flatten().map(|(name, count)| (name.clone(), Score::parse(count)));
        let mut scenarios = BTreeMap::new();
        for report in json["reports"].as_array().context("no reports in the parity report")? {
            let name = report["scenario"].as_str().context("a report without a scenario")?;
            let error = report["error"].as_str().filter(|e| !e.is_empty()).map(str::to_owned);
            let score = Score::parse(&report["total"]);
            let equal = error.is_none() && score.equal == score.expected && report["total"]["extra"].as_u64().unwrap_or_default() == 0;
            scenarios.insert(name.to_owned(), (equal, error));
        }
        Ok(Report { total: Score::parse(&json["total"]), types: types.collect(), scenarios })
    }
}

/// The floor, as kept in the repository.
#[derive(Debug, PartialEq)]
pub(crate) struct Floor {
    about: Value,
    total: f64,
    types: BTreeMap<String, f64>,
    fully_equal: BTreeSet<String>,
}

impl Floor {
    pub(crate) fn parse(text: &str) -> Result<Floor> {
        let json: Value = serde_json::from_str(text).context("the parity floor")?;
        let types = json["types"].as_object().context("no types in the parity floor")?;
        let names = json["fully_equal"].as_array().context("no fully_equal in the parity floor")?;
        Ok(Floor {
            about: json["about"].clone(),
            total: json["total"].as_f64().context("no total in the parity floor")?,
            types: types.iter().filter_map(|(name, share)| Some((name.clone(), share.as_f64()?))).collect(),
            fully_equal: names.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect(),
        })
    }

    /// The file.
    pub(crate) fn to_text(&self) -> String {
        let json = json!({"about": self.about, "total": self.total, "types": self.types, "fully_equal": self.fully_equal});
        format!("{json:#}\n")
    }

    /// Where the report falls below. With only `some` scenarios, shares say nothing.
    pub(crate) fn problems(&self, report: &Report, some: bool) -> Vec<String> {
        let mut found = Vec::new();
        for (name, (equal, error)) in &report.scenarios {
            if let Some(error) = error {
                found.push(format!("{name} failed: {error}"));
            } else if !equal && self.fully_equal.contains(name) {
                found.push(format!("{name} was fully equal and is not any more"));
            }
        }
        if some {
            return found;
        }
        found
            .extend(self.fully_equal.iter().filter(|name| !report.scenarios.contains_key(*name)).map(|name| format!("{name} did not run")));
        let total = std::iter::once(("all resources", self.total, report.total));
        let types = self.types.iter().map(|(name, share)| (name.as_str(), *share, report.types.get(name).copied().unwrap_or_default()));
        for (name, floor, score) in total.chain(types) {
            if score.share() < floor {
                found.push(format!(
                    "{name}: {}/{} equal is {:.4}, below the floor of {floor:.4}",
                    score.equal,
                    score.expected,
                    score.share()
                ));
            }
        }
        found
    }

    /// The better of both. Shares are cut, not rounded, so that the same run passes.
    pub(crate) fn raised(&self, report: &Report) -> Floor {
        let cut = |share: f64| (share * 10_000.0).floor() / 10_000.0;
        let mut types = self.types.clone();
        for (name, score) in &report.types {
            let share = types.entry(name.clone()).or_default();
            *share = share.max(cut(score.share()));
        }
        let equal = report.scenarios.iter().filter(|(_, (equal, _))| *equal).map(|(name, _)| name.clone());
        Floor {
            about: self.about.clone(),
            total: self.total.max(cut(report.total.share())),
            types,
            fully_equal: self.fully_equal.iter().cloned().chain(equal).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let count = |equal: u64, expected: u64, extra: u64| json!({"equal": equal, "expected": expected, "extra": extra});
        let text = json!({
            "total": count(7, 9, 1), "by_type": {"CDS": count(4, 4, 0), "LDS": count(3, 5, 1)},
            "reports": [
                {"scenario": "01-a", "total": count(4, 4, 0)},
                {"scenario": "02-b", "total": count(3, 3, 1)},
                {"scenario": "03-c", "total": count(0, 2, 0), "error": "not ready"},
            ],
        });
        Report::parse(&text.to_string()).unwrap()
    }

    fn floor(total: f64, lds: f64, fully_equal: &[&str]) -> Floor {
        Floor {
            about: Value::Null,
            total,
            types: BTreeMap::from([("LDS".to_owned(), lds)]),
            fully_equal: fully_equal.iter().map(|name| name.to_string()).collect(),
        }
    }

    #[test]
    fn a_crash_is_always_a_problem() {
        assert_eq!(floor(0.0, 0.0, &["01-a"]).problems(&report(), false), ["03-c failed: not ready"]);
    }

    #[test]
    fn a_lower_share_and_a_lost_scenario_are_problems() {
        let got = floor(0.7778, 0.6, &["02-b", "09-z"]).problems(&report(), false);
        assert_eq!(
            got,
            [
                "02-b was fully equal and is not any more",
                "03-c failed: not ready",
                "09-z did not run",
                "all resources: 7/9 equal is 0.7778, below the floor of 0.7778",
            ]
        );
    }

    #[test]
    fn shares_do_not_count_for_some_scenarios() {
        assert_eq!(floor(1.0, 1.0, &["09-z"]).problems(&report(), true), ["03-c failed: not ready"]);
    }

    #[test]
    fn raising_keeps_what_was_better_and_passes_the_same_run() {
        let raised = floor(0.1, 0.9, &["02-b"]).raised(&report());
        let mut expected = floor(0.7777, 0.9, &["01-a", "02-b"]);
        expected.types.insert("CDS".into(), 1.0);
        assert_eq!(raised, expected);
        assert_eq!(Floor::parse(&raised.to_text()).unwrap(), raised);
    }
}
