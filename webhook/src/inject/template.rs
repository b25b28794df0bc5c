//! Templates: Jinja that prints YAML. What a template prints is written as JSON, so that no text of a pod can add a field.

use std::collections::BTreeMap;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use serde_json::Value;

use super::{InjectError, quantity};

/// Our own templates and their parts.
const SHIPPED: &[(&str, &str)] = &[
    ("sidecar", include_str!("../../templates/sidecar.yaml")),
    ("gateway", include_str!("../../templates/gateway.yaml")),
    ("grpc-agent", include_str!("../../templates/grpc-agent.yaml")),
    ("grpc-simple", include_str!("../../templates/grpc-simple.yaml")),
    ("identity-env.yaml", include_str!("../../templates/identity-env.yaml")),
    ("workload-env.yaml", include_str!("../../templates/workload-env.yaml")),
    ("volume-mounts.yaml", include_str!("../../templates/volume-mounts.yaml")),
    ("podinfo-volumes.yaml", include_str!("../../templates/podinfo-volumes.yaml")),
    ("pull-secrets.yaml", include_str!("../../templates/pull-secrets.yaml")),
];

/// Steps that one template may take: a loop that does not end is an error, not a busy thread.
const FUEL: u64 = 200_000;

/// Templates by name, parsed once.
#[derive(Debug)]
pub(crate) struct Templates {
    environment: Environment<'static>,
    /// Templates in Go's language, which we do not speak. Using one is an error that says so.
    foreign: Vec<String>,
}

impl Templates {
    /// The shipped ones, and custom ones on top.
    pub(crate) fn new(custom: &BTreeMap<String, String>) -> Result<Templates, InjectError> {
        let mut environment = Environment::new();
        environment.set_auto_escape_callback(|_| AutoEscape::Json);
        environment.set_undefined_behavior(UndefinedBehavior::Chainable);
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|e| InjectError::Template { name: "all".to_owned(), reason: describe(&e) })?);
        environment.set_fuel(Some(FUEL));
        environment.add_filter("fields", |map: Serde<Value>| {
            let json = map.0.to_string();
            // The fields of a map without its braces, one a line.
            let fields = map.0.as_object().map(|m| m.iter().map(|(k, v)| format!("{}: {v}", Value::from(k.as_str()))).collect::<Vec<_>>());
            fields.map_or(json, |f| f.join("\n    "))
        });
        let fail = |name: &str, e: &minijinja::Error| InjectError::Template { name: name.to_owned(), reason: describe(e) };
        for (name, text) in SHIPPED {
            environment.add_template(name, text).map_err(|e| fail(name, &e))?;
        }
        let mut foreign = Vec::new();
        for (name, text) in custom {
            if is_go(text) {
                // Charts of others bring their own texts for names that we ship: ours serve the same purpose.
                if !SHIPPED.iter().any(|(shipped, _)| shipped == name) {
                    foreign.push(name.clone());
                }
                continue;
            }
            environment.add_template_owned(name.clone(), text.clone()).map_err(|e| fail(name, &e))?;
        }
        Ok(Templates { environment, foreign })
    }

    /// Whether a template of this name can be used.
    pub(crate) fn exists(&self, name: &str) -> Result<(), InjectError> {
        self.environment.get_template(name).map(drop).map_err(|_| InjectError::UnknownTemplate { name: name.to_owned() })
    }

    /// Renders one for a pod, in the form that the API server would give it.
    pub(crate) fn render(&self, name: &str, data: &minijinja::Value) -> Result<Value, InjectError> {
        let fail = |reason: String| InjectError::Template { name: name.to_owned(), reason };
        if self.foreign.iter().any(|f| f == name) {
            return Err(fail("is written in Go's template language; Pilotfish's templates are Jinja".to_owned()));
        }
        let parts = |n: &str| n.ends_with(".yaml");
        let template = match self.environment.get_template(name) {
            Ok(template) if !parts(name) => template,
            _ => return Err(InjectError::UnknownTemplate { name: name.to_owned() }),
        };
        let text = template.render(data).map_err(|e| fail(describe(&e)))?;
        let mut value: Value = yaml_serde::from_str(&text).map_err(|e| fail(e.to_string()))?;
        canonical(&mut value);
        Ok(value)
    }
}

fn describe(error: &minijinja::Error) -> String {
    let detail = error.detail().map(|d| format!(": {d}")).unwrap_or_default();
    let line = error.line().map(|l| format!(" (line {l})")).unwrap_or_default();
    format!("{}{detail}{line}", error.kind())
}

/// Whether a text uses what only Go's templates have: fields of a dot, variables with a dollar, `range` and `end`.
fn is_go(text: &str) -> bool {
    text.split("{{").skip(1).any(|rest| {
        let action = rest.split("}}").next().unwrap_or_default().trim_start_matches('-').trim();
        let word = action.split_whitespace().next().unwrap_or_default();
        action.starts_with(['.', '$', '/'])
            || matches!(word, "range" | "end" | "if" | "else" | "with" | "define" | "template" | "block")
            || action.contains(" .")
            || action.contains(" $")
    })
}

/// As the API server writes it: quantities in their shortest form, no fields that say nothing.
pub(crate) fn canonical(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for key in ["limits", "requests"] {
                for quantity in map.get_mut(key).and_then(Value::as_object_mut).into_iter().flat_map(|m| m.values_mut()) {
                    if let Some(short) = quantity.as_str().and_then(quantity::canonical) {
                        *quantity = Value::String(short);
                    }
                }
            }
            map.retain(|k, v| !(k == "initialDelaySeconds" && *v == 0));
            map.values_mut().for_each(canonical);
        }
        Value::Array(items) => items.iter_mut().for_each(canonical),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_cannot_add_fields() {
        let custom = BTreeMap::from([("x".to_owned(), "metadata:\n  annotations:\n    a: {{ annotations.a }}\n".to_owned())]);
        let templates = Templates::new(&custom).unwrap();
        let evil = "1\nspec: {hostNetwork: true} # \" ' {{ x }}";
        let data = minijinja::Value::from(Serde(serde_json::json!({"annotations": {"a": evil}})));
        assert_eq!(templates.render("x", &data).unwrap(), serde_json::json!({"metadata": {"annotations": {"a": evil}}}));
    }

    #[test]
    fn endless_templates_end() {
        let endless = "{% for a in range(10000) %}{% for b in range(10000) %}x{% endfor %}{% endfor %}";
        let templates = Templates::new(&BTreeMap::from([("x".to_owned(), endless.to_owned())])).unwrap();
        let e = templates.render("x", &minijinja::Value::UNDEFINED).unwrap_err();
        assert!(e.to_string().contains("fuel"), "{e}");
    }

    #[test]
    fn foreign_templates_are_refused_when_used() {
        let go = "metadata:\n  labels:\n    a: {{ .ObjectMeta.Name }}\n".to_owned();
        let templates = Templates::new(&BTreeMap::from([("x".to_owned(), go.clone()), ("sidecar".to_owned(), go)])).unwrap();
        let e = templates.render("x", &minijinja::Value::UNDEFINED).unwrap_err();
        assert!(e.to_string().contains("Go's template language"), "{e}");
        assert!(matches!(templates.render("podinfo-volumes.yaml", &minijinja::Value::UNDEFINED), Err(InjectError::UnknownTemplate { .. })));
        assert!(
            is_go("{{- range $i, $c := .Spec.Containers }}")
                && is_go("{{ valueOrDefault .X \"a\" }}")
                && !is_go("{{ values.x or \"a.b\" }}")
        );
    }
}
