//! JSON with the fields of Kubernetes' types in the order that Go's types give them, which people know and tools compare.

use std::fmt::Write;

use serde_json::Value;

/// One order is enough for all types: no two of them disagree.
#[rustfmt::skip]
const ORDER: &[&str] = &[
    "initContainers", "containers", "name", "image", "command", "args", "workingDir",
    // ports
    "hostPort", "containerPort", "protocol", "hostIP",
    "ports", "envFrom", "env",
    "value", "valueFrom", "fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "containerName", "resource", "divisor", "apiVersion", "fieldPath",
    "resources", "limits", "requests", "claims", "resizePolicy", "restartPolicy",
    "readOnly", "volumeMounts", "mountPath", "subPath", "mountPropagation", "subPathExpr", "volumeDevices", "devicePath",
    "livenessProbe", "readinessProbe", "startupProbe", "lifecycle", "postStart", "preStop",
    "exec", "httpGet", "tcpSocket", "grpc", "sleep", "path", "port", "service", "host", "scheme", "httpHeaders",
    "initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold", "terminationGracePeriodSeconds",
    "terminationMessagePath", "terminationMessagePolicy", "imagePullPolicy",
    "securityContext", "capabilities", "add", "drop", "privileged", "seLinuxOptions", "windowsOptions", "runAsUser", "runAsGroup",
    "runAsNonRoot", "readOnlyRootFilesystem", "allowPrivilegeEscalation", "procMount", "seccompProfile", "stdin", "stdinOnce", "tty",
];

/// Writes a container, a probe or another part of a pod.
pub(crate) fn json(value: &Value) -> String {
    let mut out = String::new();
    write(&mut out, value);
    out
}

fn write(out: &mut String, value: &Value) {
    match value {
        Value::Object(map) => {
            let rank = |key: &str| ORDER.iter().position(|k| *k == key).unwrap_or(ORDER.len());
            let mut fields: Vec<_> = map.iter().collect();
            fields.sort_by_key(|(k, _)| (rank(k), k.as_str()));
            out.push('{');
            for (i, (key, value)) in fields.into_iter().enumerate() {
                let comma = if i > 0 { "," } else { "" };
                let _ = write!(out, "{comma}{}:", Value::from(key.as_str()));
                write(out, value);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write(out, item);
            }
            out.push(']');
        }
        // Not ambiguous with formatting traits: serde_json's `Display` is JSON.
        other => {
            let _ = write!(out, "{other}");
        }
    }
}
