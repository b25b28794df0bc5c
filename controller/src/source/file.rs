//! [`FileSource`]: objects from files and folders.
//!
//! [`FileSource::scan`] reads what changed and says which objects came, changed and went. A file with a broken document
//! loses no object: what it had before stays until the file is whole again. Nothing here waits; see [`super::watch`].

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use pilotfish_model::diagnostic::Severity;
use pilotfish_model::{ContentHash, ObjectId};
use serde::Serialize;

use super::yaml::{self, Document};
use crate::object::{Decoded, Object, Place, decode};

/// The largest file that is read, in bytes.
pub const MAX_FILE_BYTES: u64 = 64 << 20;

/// Folders inside folders are followed this deep; symbolic links may make loops.
const MAX_DEPTH: usize = 16;

/// Why files cannot be a source at all. Fatal at start.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A path that was named does not exist or may not be read.
    #[error("--config-dir {}: {source}", path.display())]
    Unreadable {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What is wrong with a document, or with a whole file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// The file.
    pub file: PathBuf,
    /// Document within the file, from 1; 0 if it is about the file.
    pub document: usize,
    /// Line of the file, from 1.
    pub line: usize,
    /// How bad.
    pub severity: Severity,
    /// Path of the field; empty if it is about the whole document.
    pub field: String,
    /// What is wrong, for a person.
    pub message: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.document > 0 {
            write!(f, ", document {}, line {}", self.document, self.line)?;
        }
        if !self.field.is_empty() {
            write!(f, ", {}", self.field)?;
        }
        write!(f, ": {}", self.message)
    }
}

/// What a scan found.
#[derive(Clone, Debug, PartialEq)]
pub enum SourceEvent {
    /// An object is there, new or different from before.
    Apply(Arc<Object>, Place),
    /// An object is gone.
    Delete(ObjectId),
}

/// How thorough a scan is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scan {
    /// Reads every file: after a notification, when an edit may have kept size and time.
    Full,
    /// Reads files whose size, time or identity changed: for polling.
    Quick,
}

#[derive(Clone, PartialEq)]
struct Found {
    object: Arc<Object>,
    place: Place,
}

/// The last known state of a file.
#[derive(Default)]
struct FileState {
    stamp: Option<(u64, Option<SystemTime>, u64)>,
    hash: ContentHash,
    objects: BTreeMap<ObjectId, Found>,
    problems: Vec<Problem>,
    /// Was found empty once while it had objects.
    emptied: bool,
    /// How many documents there were of kinds that are none of the mesh's business.
    ignored: usize,
}

/// See the module's documentation.
pub struct FileSource {
    roots: Vec<PathBuf>,
    /// Which of the roots are folders.
    folders: Vec<bool>,
    files: BTreeMap<(usize, PathBuf), FileState>,
    current: BTreeMap<ObjectId, Found>,
    problems: Vec<Problem>,
}

impl FileSource {
    /// A source of these files and folders, all of which must exist.
    pub fn new(roots: Vec<PathBuf>) -> Result<Self, SourceError> {
        for path in &roots {
            let readable =
                fs::metadata(path).and_then(|m| if m.is_dir() { fs::read_dir(path).map(drop) } else { fs::File::open(path).map(drop) });
            readable.map_err(|source| SourceError::Unreadable { path: path.clone(), source })?;
        }
        let folders = roots.iter().map(|r| r.is_dir()).collect();
        Ok(FileSource { roots, folders, files: BTreeMap::new(), current: BTreeMap::new(), problems: Vec::new() })
    }

    /// The files and folders.
    pub fn roots(&self) -> &[PathBuf] {
        &self.roots
    }

    /// What is wrong at present, in the order of files.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// How many documents are ignored because their kind is none of the mesh's business.
    pub fn ignored(&self) -> usize {
        self.files.values().map(|f| f.ignored).sum()
    }

    /// Reads what changed. Problems are those of the whole state afterwards.
    pub fn scan(&mut self, scan: Scan) -> Vec<SourceEvent> {
        let mut listing = Listing::default();
        for (i, (root, folder)) in self.roots.iter().zip(&self.folders).enumerate() {
            listing.add_root(i, root, *folder);
        }
        let mut changed = false;
        // A folder that cannot be listed at this moment keeps its files; one that is gone does not.
        let unlisted = |path: &Path| listing.unlisted.iter().any(|dir| path.starts_with(dir));
        let gone: Vec<_> = self.files.keys().filter(|k| !listing.files.contains(*k) && !unlisted(&k.1)).cloned().collect();
        for key in gone {
            self.files.remove(&key);
            changed = true;
        }
        for key in listing.files {
            let state = self.files.entry(key.clone()).or_default();
            changed |= refresh(state, &key.1, scan);
        }
        let old_trouble = self.problems.iter().any(|p| p.document == 0);
        if changed || !listing.problems.is_empty() || old_trouble { self.merge(listing.problems) } else { Vec::new() }
    }

    /// Brings all files together. The first file that has an object wins.
    fn merge(&mut self, mut problems: Vec<Problem>) -> Vec<SourceEvent> {
        let mut merged: BTreeMap<ObjectId, &Found> = BTreeMap::new();
        for state in self.files.values() {
            problems.extend(state.problems.iter().cloned());
            for (id, found) in &state.objects {
                if let Some(first) = merged.get(id) {
                    let message = format!("{id} is already defined in {}; this one has no effect", first.place);
                    problems.push(problem(&found.place, Severity::Warning, String::new(), message));
                } else {
                    merged.insert(id.clone(), found);
                }
            }
        }
        let mut events: Vec<SourceEvent> =
            self.current.keys().filter(|id| !merged.contains_key(*id)).map(|id| SourceEvent::Delete(id.clone())).collect();
        for (id, found) in &merged {
            if self.current.get(id).is_none_or(|old| !Arc::ptr_eq(&old.object, &found.object) && old.object != found.object) {
                events.push(SourceEvent::Apply(found.object.clone(), found.place.clone()));
            }
        }
        self.current = merged.into_iter().map(|(id, found)| (id, found.clone())).collect();
        problems.sort();
        problems.dedup();
        self.problems = problems;
        events
    }
}

/// Files below the roots, each under the first root that has it.
#[derive(Default)]
struct Listing {
    files: BTreeSet<(usize, PathBuf)>,
    seen: BTreeSet<PathBuf>,
    unlisted: Vec<PathBuf>,
    problems: Vec<Problem>,
}

impl Listing {
    fn add_root(&mut self, root: usize, path: &Path, was_folder: bool) {
        match fs::metadata(path) {
            Ok(m) if m.is_dir() => self.add_folder(root, path, 0),
            Ok(_) => self.add_file(root, path),
            Err(e) => {
                // A whole folder that goes was unmounted rather than deleted: what it said stays.
                if was_folder {
                    self.unlisted.push(path.to_owned());
                }
                self.failed(path, &e);
            }
        }
    }

    fn add_file(&mut self, root: usize, path: &Path) {
        if self.seen.insert(path.to_owned()) {
            self.files.insert((root, path.to_owned()));
        }
    }

    fn add_folder(&mut self, root: usize, folder: &Path, depth: usize) {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(e) => return self.failed(folder, &e),
        };
        for entry in entries.flatten() {
            let path = entry.path();
            let name = entry.file_name();
            let name = name.to_string_lossy();
            // Hidden entries are editors' files and the inner folders of mounted ConfigMaps.
            if name.starts_with('.') || name.starts_with('#') || name.ends_with('~') {
                continue;
            }
            // Follows links: a mounted ConfigMap consists of them.
            match fs::metadata(&path) {
                Ok(m) if m.is_dir() && depth < MAX_DEPTH => self.add_folder(root, &path, depth + 1),
                Ok(m) if m.is_file() && is_config(&name) => self.add_file(root, &path),
                _ => {}
            }
        }
    }

    fn failed(&mut self, path: &Path, e: &io::Error) {
        if e.kind() != io::ErrorKind::NotFound {
            self.unlisted.push(path.to_owned());
        }
        self.problems.push(file_problem(path, e.to_string()));
    }
}

fn is_config(name: &str) -> bool {
    [".yaml", ".yml", ".json"].iter().any(|e| name.ends_with(e))
}

/// Reads a file if it changed; whether anything is different now.
fn refresh(state: &mut FileState, path: &Path, scan: Scan) -> bool {
    let before = state.problems.clone();
    let text = fs::metadata(path).and_then(|m| {
        let stamp = Some((m.len(), m.modified().ok(), inode(&m)));
        if scan == Scan::Quick && stamp == state.stamp {
            return Ok(None);
        }
        if m.len() > MAX_FILE_BYTES {
            return Err(io::Error::other(format!("has {} bytes; at most {MAX_FILE_BYTES} are read", m.len())));
        }
        let bytes = fs::read(path)?;
        state.stamp = stamp;
        Ok(Some(bytes))
    });
    match text {
        Ok(None) => false,
        Ok(Some(bytes)) => {
            let hash = ContentHash::of_bytes(&bytes);
            if hash == state.hash && state.stamp.is_some() && !state.problems.iter().any(|p| p.document == 0) {
                return false;
            }
            // Writers truncate first and write then. Only a file that is still empty at the next look is meant to be.
            if bytes.is_empty() && !state.objects.is_empty() && !state.emptied {
                state.emptied = true;
                state.stamp = None;
                return false;
            }
            state.hash = hash;
            match String::from_utf8(bytes) {
                Ok(text) => read(state, path, &text),
                Err(_) => state.problems = vec![file_problem(path, "is not UTF-8".into())],
            }
            true
        }
        // Not readable at this moment is no reason to forget what it said.
        Err(e) => {
            state.problems = vec![file_problem(path, e.to_string())];
            state.stamp = None;
            state.problems != before
        }
    }
}

#[cfg(unix)]
fn inode(m: &fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(m)
}

#[cfg(not(unix))]
fn inode(_: &fs::Metadata) -> u64 {
    0
}

/// Reads all documents of a file.
fn read(state: &mut FileState, path: &Path, text: &str) {
    let mut new = FileState { stamp: state.stamp, hash: state.hash, ..FileState::default() };
    let mut broken = false;
    for (i, document) in yaml::split(text).into_iter().enumerate() {
        let place = Place { file: path.to_owned(), document: i + 1, line: document.first_line };
        broken |= !read_document(&mut new, &place, document);
    }
    if broken {
        for (id, found) in std::mem::take(&mut state.objects) {
            new.objects.entry(id).or_insert(found);
        }
    }
    *state = new;
}

/// Reads one document; whether it is whole.
fn read_document(state: &mut FileState, place: &Place, document: Document<'_>) -> bool {
    let value = match yaml::parse(document.text) {
        Ok(value) => value,
        Err(e) => {
            let place = Place { line: document.first_line + e.line - 1, ..place.clone() };
            state.problems.push(problem(&place, Severity::Error, String::new(), e.message));
            return false;
        }
    };
    let is_list =
        value.get("kind").and_then(|k| k.as_str()).is_some_and(|k| k.ends_with("List")) && value.get("items").is_some_and(|i| i.is_array());
    if !is_list {
        return value.is_null() || read_object(state, place, document, value, "");
    }
    let mut whole = true;
    let items = match value {
        serde_json::Value::Object(mut map) => map.remove("items"),
        _ => None,
    };
    if let Some(serde_json::Value::Array(items)) = items {
        for (i, item) in items.into_iter().enumerate() {
            whole &= read_object(state, place, document, item, &format!("items[{i}]"));
        }
    }
    whole
}

/// Reads one object, which stands at `within` inside its document; whether it is whole.
fn read_object(state: &mut FileState, place: &Place, document: Document<'_>, value: serde_json::Value, within: &str) -> bool {
    let at = |field: &str| {
        let dot = if within.is_empty() || field.is_empty() { "" } else { "." };
        let line = yaml::line_of(document.text, &format!("{within}{dot}{field}")).unwrap_or(1);
        Place { line: document.first_line + line - 1, ..place.clone() }
    };
    match decode(value) {
        Ok(Decoded::Object(object)) => {
            let place = if within.is_empty() { place.clone() } else { at("") };
            if let Some(first) = state.objects.get(&object.id) {
                let message = format!("{} is already defined in {}; this one has no effect", object.id, first.place);
                state.problems.push(problem(&place, Severity::Warning, String::new(), message));
            } else {
                state.objects.insert(object.id.clone(), Found { object: Arc::new(*object), place });
            }
            true
        }
        Ok(Decoded::NotYet { kind }) => {
            let message = format!("{kind} is not translated yet and has no effect");
            state.problems.push(problem(&at("kind"), Severity::Warning, String::new(), message));
            true
        }
        Ok(Decoded::Foreign { kind }) => {
            tracing::debug!(file = %place.file.display(), document = place.document, kind, "ignored a kind that the mesh does not read");
            state.ignored += 1;
            true
        }
        Err(e) => {
            state.problems.push(problem(&at(&e.field), Severity::Error, e.field.clone(), e.message));
            false
        }
    }
}

fn problem(place: &Place, severity: Severity, field: String, message: String) -> Problem {
    Problem { file: place.file.clone(), document: place.document, line: place.line, severity, field, message }
}

fn file_problem(path: &Path, message: String) -> Problem {
    Problem { file: path.to_owned(), document: 0, line: 1, severity: Severity::Error, field: String::new(), message }
}

#[cfg(test)]
#[path = "file/tests.rs"]
mod tests;
