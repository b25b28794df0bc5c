//! `bench`: instruction counts under callgrind, which repeat exactly, beside wall time, which people ask for.
//!
//! Each of [`COUNTED`] counts; [`TIMED`] prints `name<TAB>microseconds`, [`WEIGHED`] `name<TAB>bytes`. The baseline is the table
//! between the markers of `docs/measurements.md`. [`load`] measures the whole server instead, and [`chaos`]
//! what becomes of it without its API server.

pub(crate) mod chaos;
mod load;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use crate::{paths, setup, shell};

/// Package and bench. The names of cases are distinct across them.
const COUNTED: [(&str, &str); 4] = [
    ("pilotfish-model", "change_set"),
    ("pilotfish-push", "push"),
    ("pilotfish-translator", "translate"),
    ("pilotfish-xds-server", "serve"),
];
const TIMED: [(&str, &str); 2] = [("pilotfish-translator", "translate_wall"), ("pilotfish-ca", "issue")];
const WEIGHED: (&str, &str) = ("pilotfish-xds-server", "idle");
const BASELINE: &str = "docs/measurements.md";
const BEGIN: &str = "<!-- bench:begin -->";
const END: &str = "<!-- bench:end -->";

/// Arguments of `bench`.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    instead: Option<Instead>,
    /// Do not touch the table in docs/measurements.md, only compare with it.
    #[arg(long)]
    compare: bool,
    /// Only wall time: needs no valgrind.
    #[arg(long)]
    wall: bool,
}

impl Args {
    /// Prints the change against the recorded table and leaves that alone.
    pub(crate) fn compare() -> Self {
        Args { instead: None, compare: true, wall: false }
    }
}

#[derive(clap::Subcommand)]
enum Instead {
    /// The release binary under the load of thousands of proxies (see tests/load).
    Load(load::Args),
    /// The release binary while its API server is killed again and again (see tests/chaos).
    Chaos(chaos::Args),
}

/// What is measured of one case.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Row {
    instructions: Option<u64>,
    micros: Option<f64>,
    bytes: Option<f64>,
}

type Table = BTreeMap<String, Row>;

/// Runs the benches, prints the change, writes the table.
pub(crate) fn run(args: &Args) -> Result<()> {
    match &args.instead {
        Some(Instead::Load(args)) => return load::run(args),
        Some(Instead::Chaos(args)) => return chaos::run(args),
        None => {}
    }
    let mut now = Table::new();
    if !args.wall {
        for (name, n) in instructions(&counted()?) {
            now.entry(name).or_default().instructions = Some(n);
        }
    }
    for bench in TIMED {
        for (name, micros) in printed(bench)? {
            now.entry(name).or_default().micros = Some(micros);
        }
    }
    for (name, bytes) in printed(WEIGHED)? {
        now.entry(name).or_default().bytes = Some(bytes);
    }
    ensure!(!now.is_empty(), "the benches printed nothing");

    let path = paths::workspace().join(BASELINE);
    let page = fs::read_to_string(&path).context(BASELINE)?;
    let (head, table, tail) = split(&page)?;
    let before = parse(table);
    println!("\n{:44} {:>16} {:>9} {:>12} {:>9} {:>10} {:>9}", "case", "instructions", "change", "us", "change", "bytes", "change");
    for (name, row) in &now {
        let old = before.get(name).copied().unwrap_or_default();
        let change = |new: Option<f64>, old: Option<f64>| match (new, old) {
            (Some(new), Some(old)) if old > 0.0 => format!("{:+.1} %", (new / old - 1.0) * 100.0),
            _ => "-".to_owned(),
        };
        let counts = change(row.instructions.map(|n| n as f64), old.instructions.map(|n| n as f64));
        let (micros, bytes) = (change(row.micros, old.micros), change(row.bytes, old.bytes));
        let [n, us, b] = row.cells();
        println!("{name:44} {n:>16} {counts:>9} {us:>12} {micros:>9} {b:>10} {bytes:>9}");
    }
    if !args.compare {
        for (name, row) in &mut now {
            // Without valgrind what was counted stays.
            let counted = before.get(name).and_then(|known| known.instructions).filter(|_| args.wall);
            row.instructions = row.instructions.or(counted);
        }
        fs::write(&path, format!("{head}{BEGIN}\n{}{END}{tail}", render(&now)))?;
        println!("written to {BASELINE}");
    }
    Ok(())
}

fn counted() -> Result<Vec<String>> {
    setup::debian("valgrind", "valgrind")?;
    let mut bench = shell::cargo(["bench", "--locked"]);
    for (package, name) in COUNTED {
        bench.args(["--package", package, "--bench", name]);
    }
    let got = shell::tee(bench.env("GUNGRAUN_RUNNER", runner()?).env("GUNGRAUN_COLOR", "never").env("NO_COLOR", "1"))?;
    ensure!(got.status.success(), "the instruction-count bench failed ({})", got.status);
    Ok(got.lines)
}

/// What a bench prints itself: a name, a tab and a number per line.
fn printed((package, name): (&str, &str)) -> Result<Vec<(String, f64)>> {
    let text = shell::read(&mut shell::cargo(["bench", "--locked", "--package", package, "--bench", name]))?;
    Ok(text
        .lines()
        .filter_map(|line| line.split_once('\t'))
        .filter_map(|(name, number)| Some((name.to_owned(), number.trim().parse().ok()?)))
        .collect())
}

/// The program that drives valgrind. It must have the very version of the library, which the lock file tells.
fn runner() -> Result<PathBuf> {
    let lock = fs::read_to_string(paths::workspace().join("Cargo.lock"))?;
    let version = locked_version(&lock, "gungraun").context("no bench uses gungraun yet")?;
    let root = paths::target().join("tools").join(format!("gungraun-runner-{version}"));
    let program = root.join("bin/gungraun-runner");
    if !program.is_file() {
        let mut install = shell::cargo(["install", "gungraun-runner", "--locked", "--quiet", "--version", &version, "--root"]);
        shell::run(install.arg(&root).env("CARGO_TARGET_DIR", paths::target().join("tools/build")))?;
    }
    Ok(program)
}

fn locked_version(lock: &str, name: &str) -> Option<String> {
    let wanted = format!("name = \"{name}\"");
    let version = lock.lines().skip_while(|line| *line != wanted).nth(1)?;
    version.strip_prefix("version = \"")?.strip_suffix('"').map(str::to_owned)
}

/// The case names and counts in what gungraun prints: a line `module::group::function id:...`, then indented figures.
fn instructions(lines: &[String]) -> Vec<(String, u64)> {
    let (mut case, mut found) = (String::new(), Vec::new());
    for line in lines {
        if !line.starts_with(char::is_whitespace) && line.contains("::") {
            let mut words = line.split_whitespace();
            let function = words.next().and_then(|path| path.rsplit("::").next()).unwrap_or_default();
            let id = words.next().and_then(|word| word.split(':').next()).unwrap_or_default();
            case = if id.is_empty() { function.to_owned() } else { format!("{function}/{id}") };
        }
        let figure = line.trim_start().strip_prefix("Instructions:").and_then(|rest| rest.split('|').next());
        if let Some(n) = figure.and_then(|n| n.trim().parse().ok()) {
            found.push((case.clone(), n));
        }
    }
    found
}

fn split(page: &str) -> Result<(&str, &str, &str)> {
    let (head, rest) = page.split_once(BEGIN).with_context(|| format!("{BASELINE} has no {BEGIN}"))?;
    let (table, tail) = rest.split_once(END).with_context(|| format!("{BASELINE} has no {END}"))?;
    Ok((head, table, tail))
}

impl Row {
    fn cells(&self) -> [String; 3] {
        let micros = self.micros.map_or("-".into(), |m| format!("{m:.1}"));
        [grouped(self.instructions), micros, grouped(self.bytes.map(|b| b as u64))]
    }
}

fn render(table: &Table) -> String {
    let mut text = String::from("| case | instructions | wall time, us | heap, bytes |\n| --- | ---: | ---: | ---: |\n");
    for (name, row) in table {
        text += &format!("| {name} | {} |\n", row.cells().join(" | "));
    }
    text
}

fn parse(table: &str) -> Table {
    let rows = table.lines().skip_while(|line| !line.starts_with("| ---")).skip(1);
    rows.filter_map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let (name, numbers) = cells.split_first()?;
        let number = |i: usize| numbers.get(i).map(|cell| cell.replace(' ', ""));
        let row =
            Row { instructions: number(0)?.parse().ok(), micros: number(1)?.parse().ok(), bytes: number(2).and_then(|b| b.parse().ok()) };
        Some((name.to_string(), row))
    })
    .collect()
}

/// Digits in groups of three.
fn grouped(n: Option<u64>) -> String {
    let Some(n) = n else { return "-".into() };
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_from_gungrauns_output() {
        let text = "translate::class::translate sidecar:mesh(1000)\n  Instructions:         123456|120000       (+2.88000%) [+1.02880x]\n  \
                    L1 Hits:              2|2\ntranslate::class::encode\n  Instructions:         7|N/A     (*********)\n";
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        assert_eq!(instructions(&lines), [("translate/sidecar".to_owned(), 123_456), ("encode".to_owned(), 7)]);
    }

    #[test]
    fn the_table_reads_back() {
        let table = Table::from([
            ("a".to_owned(), Row { instructions: Some(1_234_567), micros: Some(12.5), bytes: None }),
            ("b/c".to_owned(), Row { instructions: None, micros: Some(3.0), bytes: Some(4_500.0) }),
        ]);
        assert_eq!(parse(&render(&table)), table);
        assert!(render(&table).contains("| a | 1 234 567 | 12.5 | - |"));
    }

    #[test]
    fn the_page_keeps_what_is_around_the_table() {
        let page = format!("before {BEGIN}\nold\n{END} after");
        assert_eq!(split(&page).unwrap(), ("before ", "\nold\n", " after"));
        assert!(split("no markers").is_err());
    }

    #[test]
    fn the_runners_version_is_the_librarys() {
        let lock =
            "[[package]]\nname = \"gungraun-macros\"\nversion = \"0.1.0\"\n\n[[package]]\nname = \"gungraun\"\nversion = \"0.20.0\"\n";
        assert_eq!(locked_version(lock, "gungraun").as_deref(), Some("0.20.0"));
        assert_eq!(locked_version(lock, "absent"), None);
    }
}
