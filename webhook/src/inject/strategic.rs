//! Kubernetes' strategic merge: maps merge, lists merge by the key that Kubernetes gives them, everything else is replaced.

use serde_json::Value;

/// The key that identifies items of a list; `None` if the list is replaced as a whole.
fn merge_key(field: &str) -> Option<&'static str> {
    Some(match field {
        "containers"
        | "initContainers"
        | "ephemeralContainers"
        | "env"
        | "volumes"
        | "imagePullSecrets"
        | "resourceClaims"
        | "schedulingGates" => "name",
        "volumeMounts" => "mountPath",
        "volumeDevices" => "devicePath",
        "ports" => "containerPort",
        "hostAliases" => "ip",
        "topologySpreadConstraints" => "topologyKey",
        "ownerReferences" => "uid",
        _ => return None,
    })
}

/// Lays `patch` over `base`. A null takes a field away; `$patch: delete` an item, `$patch: replace` what was there.
pub(crate) fn merge(base: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        base.clone_from(patch);
        return;
    };
    if fields.get("$patch").is_some_and(|d| d == "replace") {
        *base = plain(patch);
        return;
    }
    if !base.is_object() {
        *base = Value::Object(serde_json::Map::new());
    }
    let Some(target) = base.as_object_mut() else { return };
    for (key, value) in fields.iter().filter(|(k, _)| !k.starts_with('$')) {
        match (value, merge_key(key)) {
            (Value::Null, _) => {
                target.remove(key);
            }
            (Value::Object(_), _) => merge(target.entry(key).or_insert(Value::Null), value),
            (Value::Array(items), Some(by)) => {
                let old = target.remove(key);
                let old = old.and_then(|v| if let Value::Array(list) = v { Some(list) } else { None }).unwrap_or_default();
                target.insert(key.clone(), Value::Array(merge_list(old, items, by)));
            }
            _ => drop(target.insert(key.clone(), plain(value))),
        }
    }
}

/// Items of the patch keep the patch's order; an item that only the base has goes before the first item that it preceded
/// there, or else to the end.
fn merge_list(base: Vec<Value>, patch: &[Value], by: &str) -> Vec<Value> {
    let place = |item: &Value| base.iter().position(|b| b.get(by).is_some() && b.get(by) == item.get(by));
    let mut patched: Vec<(Option<usize>, Value)> = Vec::with_capacity(patch.len());
    let mut touched = vec![false; base.len()];
    for item in patch {
        let at = place(item);
        if let Some(i) = at {
            touched[i] = true;
        }
        if item.get("$patch").is_some_and(|d| d == "delete") {
            continue;
        }
        // The same key twice in one patch is one item.
        if let Some((_, same)) = patched.iter_mut().find(|(_, p)| p.get(by).is_some() && p.get(by) == item.get(by)) {
            merge(same, item);
            continue;
        }
        let mut merged = at.and_then(|i| base.get(i)).cloned().unwrap_or(Value::Null);
        merge(&mut merged, item);
        patched.push((at, merged));
    }
    let mut rest = base.into_iter().enumerate().filter(|(i, _)| !touched.get(*i).copied().unwrap_or_default()).peekable();
    let mut merged = Vec::new();
    for (at, item) in patched {
        while let Some((_, before)) = rest.next_if(|(i, _)| at.is_some_and(|at| *i < at)) {
            merged.push(before);
        }
        merged.push(item);
    }
    merged.extend(rest.map(|(_, item)| item));
    merged
}

/// Without nulls and directives, as they mean nothing where there is nothing to take away.
fn plain(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.iter().filter(|(k, v)| !k.starts_with("$patch") && !v.is_null());
            Value::Object(kept.map(|(k, v)| (k.clone(), plain(v))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(plain).collect()),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(mut base: Value, patch: Value, wanted: Value) {
        merge(&mut base, &patch);
        assert_eq!(base, wanted);
    }

    #[test]
    fn lists_merge_by_key_and_the_patch_orders() {
        check(
            json!({"env": [{"name": "a", "value": "1"}, {"name": "b", "value": "2"}]}),
            json!({"env": [{"name": "c", "value": "3"}, {"name": "b", "value": "4"}]}),
            json!({"env": [{"name": "c", "value": "3"}, {"name": "a", "value": "1"}, {"name": "b", "value": "4"}]}),
        );
    }

    #[test]
    fn a_list_without_key_is_replaced() {
        check(json!({"args": ["a", "b"]}), json!({"args": ["c"]}), json!({"args": ["c"]}));
        check(json!({"tolerations": [{"key": "a"}]}), json!({"tolerations": []}), json!({"tolerations": []}));
    }

    #[test]
    fn nulls_and_directives_take_away() {
        check(json!({"a": 1, "b": {"c": 1}}), json!({"a": null, "b": {"c": null}, "d": null}), json!({"b": {}}));
        check(
            json!({"env": [{"name": "a"}, {"name": "b"}]}),
            json!({"env": [{"name": "a", "$patch": "delete"}]}),
            json!({"env": [{"name": "b"}]}),
        );
        check(json!({"x": {"a": 1}}), json!({"x": {"$patch": "replace", "b": 2}}), json!({"x": {"b": 2}}));
    }
}
