//! The table in docs/measurements.md. Rows of runs that were left out stay as they were: each row says of which commit it is.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::report::Report;
use crate::targets::{TARGETS, Target};

const BEGIN: &str = "<!-- load:begin -->";
const END: &str = "<!-- load:end -->";

/// A row by run and name of the figure.
pub(crate) type Rows = BTreeMap<(String, String), Vec<String>>;

/// The rows of these reports.
pub(crate) fn rows(reports: &BTreeMap<&str, Report>, commit: &str) -> Rows {
    let measured = TARGETS.iter().filter_map(|target| Some((target, reports.get(target.run)?)));
    measured.map(|(target, report)| (key(target), row(target, (target.measure)(report), commit))).collect()
}

fn key(target: &Target) -> (String, String) {
    (target.run.to_owned(), target.name.to_owned())
}

fn row(target: &Target, ours: Option<f64>, commit: &str) -> Vec<String> {
    let figure = |n: Option<f64>| n.map_or_else(|| "-".to_owned(), |n| format!("{} {}", digits(n), target.unit).trim().to_owned());
    let ratio = match (target.reference, ours) {
        // Below the resolution of what is measured there is no ratio.
        (Some(reference), Some(ours)) if ours > 0.0 && reference > 0.0 => format!("{}x", digits(reference / ours)),
        _ => "-".to_owned(),
    };
    let met = match (ours, target.must, target.aim) {
        (_, None, _) => "",
        (None, ..) => "**not measured**",
        (Some(ours), _, Some(aim)) if ours <= aim => "yes, and the aim",
        (Some(ours), Some(must), _) if ours <= must => "yes",
        _ => "**no**",
    };
    let cells = [figure(ours), figure(target.reference), figure(target.must), figure(target.aim), ratio, met.to_owned(), commit.to_owned()];
    [vec![target.run.to_owned(), target.name.to_owned()], cells.to_vec()].concat()
}

/// Three significant digits; whole numbers above that.
fn digits(n: f64) -> String {
    match n.abs() {
        a if a >= 100.0 || a.fract() == 0.0 => format!("{n:.0}"),
        a if a >= 10.0 => format!("{n:.1}"),
        a if a >= 1.0 => format!("{n:.2}"),
        _ => format!("{n:.3}"),
    }
}

/// The table, in the order of the targets.
pub(crate) fn table(rows: &Rows) -> String {
    let head = ["run", "measure", "ours", "reference", "must reach", "aim", "better by", "met", "measured"];
    let mut text = format!("| {} |\n| --- | --- |{}\n", head.join(" | "), " ---: |".repeat(5) + " --- | --- |");
    for row in TARGETS.iter().filter_map(|target| rows.get(&key(target))) {
        text.push_str(&format!("| {} |\n", row.join(" | ")));
    }
    text
}

/// Puts these rows into the page, beside those that are there.
pub(crate) fn write(path: &Path, rows: &Rows, machine: &str) {
    let page = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    fs::write(path, updated(&page, rows, machine)).unwrap();
}

fn updated(page: &str, rows: &Rows, machine: &str) -> String {
    let (head, rest) = page.split_once(BEGIN).expect("the page has a place for the table");
    let (old, tail) = rest.split_once(END).expect("the place has an end");
    let mut all = parse(old);
    all.extend(rows.clone());
    format!("{head}{BEGIN}\n{}\n{machine}\n{END}{tail}", table(&all))
}

fn parse(table: &str) -> Rows {
    let lines = table.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    let rows = lines.map(|line| line.split(" | ").map(|cell| cell.trim().to_owned()).collect::<Vec<_>>());
    rows.filter(|row| row.len() == 9).map(|row| ((row[0].clone(), row[1].clone()), row)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Target =
        Target { run: "r", name: "n", unit: "ms", reference: Some(46.0), must: Some(3.0), aim: Some(1.5), measure: |_| None };

    #[test]
    fn a_row_says_whether_it_is_good_enough() {
        let cells = |ours| row(&TARGET, ours, "c").join(" | ");
        assert_eq!(cells(Some(2.0)), "r | n | 2 ms | 46 ms | 3 ms | 1.50 ms | 23x | yes | c");
        assert_eq!(cells(Some(1.5)), "r | n | 1.50 ms | 46 ms | 3 ms | 1.50 ms | 30.7x | yes, and the aim | c");
        assert_eq!(cells(Some(3.01)), "r | n | 3.01 ms | 46 ms | 3 ms | 1.50 ms | 15.3x | **no** | c");
        assert_eq!(cells(None), "r | n | - | 46 ms | 3 ms | 1.50 ms | - | **not measured** | c");
    }

    #[test]
    fn rows_of_other_runs_stay() {
        let real = |i: usize, commit: &str| (key(&TARGETS[i]), row(&TARGETS[i], Some(1.0), commit));
        let page = |rows: &Rows| format!("before {BEGIN}\n{}\nsome machine\n{END} after", table(rows));
        let old = Rows::from([real(0, "old"), real(1, "old")]);
        let new = updated(&page(&old), &Rows::from([real(1, "new")]), "some machine");
        assert_eq!(new, page(&Rows::from([real(0, "old"), real(1, "new")])));
    }
}
