//! Golden files: what a case produced is compared with a file beside it. `UPDATE_GOLDEN=1` rewrites the files, and removes
//! those that no case produces any more.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{env, fs};

use pretty_assertions::StrComparison;

/// The cases in `dir`: every entry is one, a folder or a file. Sorted by name; panics if there is none.
pub fn cases(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut cases: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(!cases.is_empty(), "{} has no cases", dir.display());
    cases
}

/// One file alone. For several in a folder use [`Goldens`], which also finds orphans.
pub fn assert_golden(dir: &Path, name: &str, actual: &str) {
    let mut goldens = Goldens::new(dir);
    goldens.check(name, actual);
    goldens.report();
}

/// The golden files of one folder. Every difference is collected, so that one run shows them all; [`Goldens::finish`]
/// reports them, and files that nothing produced.
#[must_use = "finish() reports the differences"]
pub struct Goldens {
    dir: PathBuf,
    update: bool,
    known: BTreeSet<String>,
    problems: Vec<String>,
}

impl Goldens {
    /// Of `dir`, which may hold inputs too: name them with [`Goldens::inputs`].
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        let update = env::var("UPDATE_GOLDEN").is_ok_and(|v| v == "1");
        Goldens { dir: dir.into(), update, known: BTreeSet::new(), problems: Vec::new() }
    }

    /// Files in the folder that are not goldens.
    pub fn inputs(mut self, names: &[&str]) -> Self {
        self.known.extend(names.iter().map(|name| name.to_string()));
        self
    }

    /// Compares one file; in update mode, writes it.
    pub fn check(&mut self, name: &str, actual: &str) {
        let path = self.dir.join(name);
        if !self.known.insert(name.to_owned()) {
            self.problems.push(format!("{} is produced twice", path.display()));
        }
        let expected = fs::read_to_string(&path);
        if expected.as_deref().is_ok_and(|expected| expected == actual) {
            return;
        }
        if self.update {
            fs::create_dir_all(path.parent().unwrap_or(&self.dir)).unwrap();
            fs::write(&path, actual).unwrap();
            return;
        }
        self.problems.push(match expected {
            Ok(expected) => format!("{} differs:\n{}", path.display(), StrComparison::new(&expected, actual)),
            Err(error) => format!("{}: {error}; produced was:\n{actual}", path.display()),
        });
    }

    /// Panics if anything differs or is left over.
    pub fn finish(mut self) {
        let entries = fs::read_dir(&self.dir).map(|entries| entries.map(|entry| entry.unwrap().path()).collect()).unwrap_or_default();
        let entries: Vec<PathBuf> = entries;
        for path in entries {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() || self.known.contains(&name) {
                continue;
            }
            if self.update {
                fs::remove_file(&path).unwrap();
            } else {
                self.problems.push(format!("{} is an orphan: no case produces it", path.display()));
            }
        }
        self.report();
    }

    fn report(&self) {
        let problems = &self.problems;
        assert!(problems.is_empty(), "{}\n{} problem(s). If this is meant: UPDATE_GOLDEN=1", problems.join("\n"), problems.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn goldens(dir: &Path, update: bool) -> Goldens {
        Goldens { update, ..Goldens::new(dir) }.inputs(&["input.yaml"])
    }

    #[test]
    fn an_update_makes_it_pass_and_removes_orphans() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["input.yaml", "old.json"] {
            fs::write(dir.path().join(name), "x").unwrap();
        }
        for update in [true, false] {
            let mut goldens = goldens(dir.path(), update);
            goldens.check("a.json", "1\n");
            goldens.finish();
        }
        let left: Vec<_> = cases(dir.path()).iter().map(|path| path.file_name().unwrap().to_owned()).collect();
        assert_eq!(left, ["a.json", "input.yaml"]);
    }

    #[test]
    fn a_difference_and_an_orphan_are_both_reported() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.json", "old.json"] {
            fs::write(dir.path().join(name), "1\n").unwrap();
        }
        let mut goldens = goldens(dir.path(), false);
        goldens.check("a.json", "2\n");
        goldens.check("new.json", "3\n");
        let panic = std::panic::catch_unwind(move || goldens.finish()).unwrap_err();
        let text = panic.downcast_ref::<String>().unwrap();
        for expected in ["a.json differs", "new.json: ", "old.json is an orphan", "3 problem(s)"] {
            assert!(text.contains(expected), "{expected} is not in: {text}");
        }
    }
}
