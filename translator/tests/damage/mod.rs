//! Objects with odd values and without keys, at random.

use serde_json::{Value, json};

/// SplitMix64: good enough to choose where to damage.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n.max(1) as u64) as usize
    }
}

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
