use pretty_assertions::assert_eq;
use serde_json::json;

use super::*;

#[test]
fn documents_are_split_by_text() {
    let texts = |t| split(t).into_iter().map(|d| (d.first_line, d.text.to_owned())).collect::<Vec<_>>();
    assert_eq!(
        texts("a: 1\n---\n# nothing\n---\nb: [\n--- \nc: 1"),
        [(1, "a: 1".to_owned()), (5, "b: [".to_owned()), (7, "c: 1".to_owned())]
    );
    assert_eq!(texts("--- {a: 1}\n---\nt: |\n  ---\n  x\n"), [(1, " {a: 1}".to_owned()), (3, "t: |\n  ---\n  x\n".to_owned())]);
    assert_eq!(texts("\n# only a comment\n"), []);
    assert_eq!(texts("t: |\r\n  x\r\n---\r\na: 1\n"), [(1, "t: |\r\n  x".to_owned()), (4, "a: 1\n".to_owned())]);
    assert_eq!(split("t: |\n  x\n---\n").into_iter().map(|d| parse(d.text).unwrap()).collect::<Vec<_>>(), [json!({"t": "x"})]);
}

#[test]
fn scalars_follow_yaml_1_2() {
    assert_eq!(
        parse("{a: yes, b: on, c: true, d: 017, e: 1e3, f: ~, g: '5', h: 0x10}").unwrap(),
        json!({"a": "yes", "b": "on", "c": true, "d": "017", "e": 1000.0, "f": null, "g": "5", "h": 16})
    );
}

#[test]
fn merge_keys_are_applied_and_duplicates_refused() {
    let text = "base: &b {x: 1, y: 2}\nuse:\n  <<: *b\n  y: 3\n";
    assert_eq!(parse(text).unwrap()["use"], json!({"x": 1, "y": 3}));
    assert_eq!(parse("a: 1\nb: 2\na: 3\n").unwrap_err(), SyntaxError { line: 3, message: "duplicate key \"a\"".into() });
    assert!(parse("a: {<<: 5}").is_err());
}

#[test]
fn hostile_documents_are_refused_quickly() {
    let mut bomb = String::from("a: &a [x, x, x, x, x, x, x, x, x]\n");
    for (this, last) in ('b'..='j').zip('a'..='i') {
        bomb.push_str(&format!("{this}: &{this} [{}]\n", vec![format!("*{last}"); 9].join(", ")));
    }
    assert!(parse(&bomb).is_err());
    assert!(parse(&"[".repeat(100_000)).is_err());
    assert!(parse(&format!("a: {}1{}", "{b: ".repeat(100_000), "}".repeat(100_000))).is_err());
    assert!(parse("a: 123456789012345678901234567890").is_err());
    assert!(parse("a: !custom {b: 1}").is_err());
}

#[test]
fn a_path_has_a_line() {
    let text = "spec:\n  http:\n  - match:\n    - uri:\n        exact: /x\n    timeout: soon\n  # more\n  - name: [a,\n      b]\n";
    for (path, line) in [
        ("spec", 1),
        ("spec.http[0].match[0].uri.exact", 5),
        ("spec.http[0].timeout", 6),
        ("spec.http[1].name[1]", 9),
        ("spec.http[0].missing.deeper", 3),
        ("", 1),
    ] {
        assert_eq!(line_of(text, path), Some(line), "{path}");
    }
}

#[test]
fn long_texts_are_fine() {
    let text = format!("a: '{}'", "x".repeat(10 << 20));
    assert_eq!(parse(&text).unwrap()["a"].as_str().unwrap().len(), 10 << 20);
}
