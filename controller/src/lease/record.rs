//! What a Lease says: [`Record`].

use std::time::Duration;

use serde_json::{Value, json};

/// The part of a Lease that an election reads and writes. Times are texts of whoever wrote them: they are only compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Who leads; empty for nobody.
    pub holder: String,
    /// For how long after a renewal, in seconds.
    pub seconds: u64,
    /// Since when.
    pub acquired: String,
    /// The last renewal.
    pub renewed: String,
    /// How often the holder has changed.
    pub transitions: u64,
}

impl Record {
    /// For how long nobody else may lead after a renewal. A lease without a time gives none away.
    pub fn duration(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    /// Reads a Lease: the record, and the version of the object.
    pub fn read(lease: &Value) -> (Record, String) {
        let spec = lease.get("spec").unwrap_or(&Value::Null);
        let text = |name: &str| spec.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let number = |name: &str| spec.get(name).and_then(Value::as_u64).unwrap_or_default();
        let record = Record {
            holder: text("holderIdentity"),
            seconds: number("leaseDurationSeconds"),
            acquired: text("acquireTime"),
            renewed: text("renewTime"),
            transitions: number("leaseTransitions"),
        };
        let version = lease.pointer("/metadata/resourceVersion").and_then(Value::as_str).unwrap_or_default();
        (record, version.to_owned())
    }

    /// A Lease that says so; `version` is that of the one that it replaces.
    pub fn write(&self, namespace: &str, name: &str, version: Option<&str>) -> Value {
        let mut metadata = json!({"name": name, "namespace": namespace});
        if let Some(version) = version {
            metadata["resourceVersion"] = version.into();
        }
        json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata,
            "spec": {
                "holderIdentity": self.holder, "leaseDurationSeconds": self.seconds, "acquireTime": self.acquired,
                "renewTime": self.renewed, "leaseTransitions": self.transitions,
            },
        })
    }
}
