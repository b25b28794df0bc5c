//! The check itself: pure functions of rules and graphs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::rules::Rule;

/// A crate of the workspace.
#[derive(Clone, Debug)]
pub(crate) struct Crate {
    pub(crate) name: String,
    pub(crate) has_lib: bool,
    /// Declared normal and build dependencies: name and kind.
    pub(crate) dependencies: BTreeMap<String, String>,
}

/// Who depends on whom, by name, as one crate built alone sees it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Graph(BTreeMap<String, BTreeSet<String>>);

impl Graph {
    /// Of the lines `DEPTH NAME vVERSION ...` of `cargo tree --prefix depth --format ' {p}'`. Repeated subtrees are left
    /// out there, so the first occurrence of a crate shows its dependencies.
    pub(crate) fn of_cargo_tree(text: &str) -> Graph {
        let (mut graph, mut path) = (Graph::default(), Vec::<String>::new());
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let (Some(depth), Some(name)) = (words.next().and_then(|d| d.parse().ok()), words.next()) else { continue };
            path.truncate(depth);
            if let Some(parent) = path.last() {
                graph.0.entry(parent.clone()).or_default().insert(name.to_owned());
            }
            path.push(name.to_owned());
        }
        graph
    }

    /// The shortest way from a crate to each crate that it reaches, itself excluded.
    fn paths_from<'a>(&'a self, start: &'a str) -> BTreeMap<&'a str, Vec<&'a str>> {
        let (mut paths, mut queue) = (BTreeMap::from([(start, vec![start])]), VecDeque::from([start]));
        while let Some(at) = queue.pop_front() {
            let so_far = paths.get(at).cloned().unwrap_or_default();
            for next in self.0.get(at).into_iter().flatten().map(String::as_str) {
                if !paths.contains_key(next) {
                    paths.insert(next, so_far.iter().copied().chain([next]).collect());
                    queue.push_back(next);
                }
            }
        }
        paths.remove(start);
        paths
    }
}

/// Declared edges between the workspace's crates that no rule allows, declared bans (build dependencies included), and
/// crates without a rule.
pub(crate) fn members(rules: &[Rule], crates: &[Crate]) -> Vec<String> {
    let mut found = Vec::new();
    for krate in crates {
        let Some(rule) = rules.iter().find(|rule| rule.name == krate.name) else {
            found.push(format!("{} has no rule: say in xtask/src/arrows/rules.rs what it may know", krate.name));
            continue;
        };
        for (dependency, kind) in &krate.dependencies {
            let ours = crates.iter().any(|other| other.name == *dependency);
            if ours && !rule.may_import.contains(&dependency.as_str()) {
                found.push(format!("{} -> {dependency} ({kind}): {}", krate.name, rule.reason));
            }
        }
    }
    found.extend(
        rules
            .iter()
            .filter(|rule| !crates.iter().any(|c| c.name == rule.name))
            .map(|rule| format!("rule for {}, which does not exist", rule.name)),
    );
    found
}

/// What a crate reaches and must not, with the way to it.
pub(crate) fn reach(rules: &[Rule], name: &str, graph: &Graph) -> Vec<String> {
    let Some(rule) = rules.iter().find(|rule| rule.name == name) else { return Vec::new() };
    let paths = graph.paths_from(name);
    let banned = paths.iter().filter(|(reached, _)| rule.never.iter().any(|pattern| matches(pattern, reached)));
    banned.map(|(_, path)| format!("{}: {}", path.join(" -> "), rule.reason)).collect()
}

fn matches(pattern: &str, name: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == name, |prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::super::rules::RULES;
    use super::*;

    const FAKE: &[Rule] = &[
        Rule { name: "core", may_import: &[], never: &["tokio*", "kube"], reason: "pure" },
        Rule { name: "server", may_import: &["core"], never: &[], reason: "no tests" },
        Rule { name: "kit", may_import: &["server"], never: &[], reason: "-" },
    ];

    fn krate(name: &str, dependencies: &[(&str, &str)]) -> Crate {
        let dependencies = dependencies.iter().map(|(name, kind)| (name.to_string(), kind.to_string())).collect();
        Crate { name: name.into(), has_lib: true, dependencies }
    }

    #[test]
    fn allowed_edges_pass() {
        let crates =
            [krate("core", &[("serde", "normal")]), krate("server", &[("core", "normal"), ("tokio", "normal")]), krate("kit", &[])];
        assert_eq!(members(FAKE, &crates), Vec::<String>::new());
    }

    #[test]
    fn a_forbidden_edge_between_our_crates_is_found() {
        let crates = [krate("core", &[("server", "build")]), krate("server", &[("kit", "normal")]), krate("kit", &[])];
        assert_eq!(members(FAKE, &crates), ["core -> server (build): pure", "server -> kit (normal): no tests"]);
    }

    #[test]
    fn a_crate_without_a_rule_and_a_rule_without_a_crate_are_found() {
        let crates = [krate("core", &[]), krate("server", &[]), krate("new", &[])];
        assert_eq!(
            members(FAKE, &crates),
            ["new has no rule: say in xtask/src/arrows/rules.rs what it may know", "rule for kit, which does not exist"]
        );
    }

    #[test]
    fn a_forbidden_crate_behind_others_is_found_with_the_way_to_it() {
        let tree = "0 core v1 (/x)\n1 serde v1\n1 json v2\n2 serde v1 (*)\n2 net v3\n3 tokio-util v0.7\n1 kubelike v1\n";
        let graph = Graph::of_cargo_tree(tree);
        assert_eq!(reach(FAKE, "core", &graph), ["core -> json -> net -> tokio-util: pure"]);
        assert_eq!(reach(FAKE, "server", &graph), Vec::<String>::new());
    }

    #[test]
    fn only_tests_may_import_the_test_kit() {
        let who: Vec<&str> = RULES.iter().filter(|r| r.may_import.contains(&"pilotfish-testkit")).map(|r| r.name).collect();
        assert_eq!(who, ["pilotfish-tests"]);
    }
}
