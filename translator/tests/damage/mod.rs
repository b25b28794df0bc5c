//! Objects with odd values and without keys, at random.

use pilotfish_testkit::Random;
use serde_json::{Value, json};

/// Walks down at random and damages where it ends. Identity (the first level) stays.
pub(crate) fn damage(value: &mut Value, random: &mut Random, depth: usize) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            let at = random.below(map.len());
            let key = map.keys().nth(at).unwrap().clone();
            match random.below(6) {
                0 if depth > 0 => drop(map.remove(&key)),
                _ => damage(map.get_mut(&key).unwrap(), random, depth + 1),
            }
        }
        Value::Array(list) if !list.is_empty() => {
            let at = random.below(list.len());
            match random.below(8) {
                0 => drop(list.remove(at)),
                1 => list.push(list[at].clone()),
                2 => list.clear(),
                _ => damage(&mut list[at], random, depth + 1),
            }
        }
        leaf if depth > 1 => *leaf = odd(leaf, random),
        _ => {}
    }
}

fn odd(leaf: &Value, random: &mut Random) -> Value {
    match leaf {
        Value::Number(_) => [json!(0), json!(1), json!(65535), json!(4_294_967_295_u64), json!(-1), json!(0.5)][random.below(6)].clone(),
        Value::Bool(b) => json!(!b),
        Value::String(text) => {
            let long = text.repeat(40);
            let texts = ["", "*", "~", "a b\u{e9}\n", "0s", "315576000000s", "1.5.5.5", "::", "*.x", "a.b.c.d.e", "/", "%", long.as_str()];
            json!(texts[random.below(texts.len())])
        }
        other => other.clone(),
    }
}
