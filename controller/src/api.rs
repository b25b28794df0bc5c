//! [`Api`]: requests to a Kubernetes API beyond lists and watches, one at a time, as JSON.
//!
//! A trait, so that what decides can be tested against answers that a real server rarely gives.

#[cfg(test)]
pub(crate) mod fake;

use std::future::Future;
use std::time::{Duration, SystemTime};

use http::{Method, Request, StatusCode, header};
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;
use tokio::time::timeout;

use crate::source::kube::Connection;
use crate::source::{Cluster, ClusterError};

/// Server-side apply.
pub const APPLY: &str = "application/apply-patch+yaml";
/// A whole object.
pub const JSON: &str = "application/json";

/// A request.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// GET, POST, PUT or PATCH.
    pub method: Method,
    /// Path and query.
    pub path: String,
    /// What the body is; of no meaning without one.
    pub content_type: &'static str,
    /// The body; null for none.
    pub body: Value,
}

impl Call {
    /// Reads an object.
    pub fn get(path: impl Into<String>) -> Call {
        Call { method: Method::GET, path: path.into(), content_type: JSON, body: Value::Null }
    }
}

/// Why there is no answer, or not the one that was hoped for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// The server said no: nothing was changed.
    #[error("the API server says {code}: {message}")]
    Refused {
        /// HTTP status.
        code: u16,
        /// Its words.
        message: String,
    },
    /// No answer, or none that makes sense: something may have been changed.
    #[error("the API server does not answer: {0}")]
    Unknown(String),
}

impl ApiError {
    /// The HTTP status of a refusal.
    pub fn code(&self) -> Option<StatusCode> {
        match self {
            ApiError::Refused { code, .. } => StatusCode::from_u16(*code).ok(),
            ApiError::Unknown(_) => None,
        }
    }
}

/// A Kubernetes API.
pub trait Api: Clone + Send + Sync + 'static {
    /// Asks; the object that comes back.
    fn call(&self, call: Call) -> impl Future<Output = Result<Value, ApiError>> + Send;
}

/// A real one.
#[derive(Clone)]
pub struct KubeApi {
    connection: Connection,
    /// How long a request may take. A write that is given up may still happen in that time, and not later.
    patience: Duration,
}

impl KubeApi {
    /// Does not connect yet.
    pub async fn new(cluster: &Cluster, patience: Duration) -> Result<KubeApi, ClusterError> {
        Ok(KubeApi { connection: Connection::new(cluster).await?, patience })
    }
}

impl Api for KubeApi {
    async fn call(&self, call: Call) -> Result<Value, ApiError> {
        let body = if call.body.is_null() { Vec::new() } else { call.body.to_string().into_bytes() };
        let request = Request::builder().method(call.method).uri(call.path).header(header::CONTENT_TYPE, call.content_type).body(body);
        let request = request.map_err(|e| ApiError::Unknown(e.to_string()))?;
        match timeout(self.patience, self.connection.client().request::<Value>(request)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(kube::Error::Api(status))) => {
                if status.code == StatusCode::UNAUTHORIZED.as_u16() {
                    self.connection.renew().await;
                }
                Err(ApiError::Refused { code: status.code, message: status.message.clone() })
            }
            Ok(Err(e)) => {
                self.connection.renew().await;
                Err(ApiError::Unknown(crate::source::kube::chain(&e)))
            }
            Err(_) => Err(ApiError::Unknown(format!("nothing within {:?}", self.patience))),
        }
    }
}

/// A time as Kubernetes writes it, with so many digits after the second.
pub(crate) fn rfc3339(at: SystemTime, digits: usize) -> String {
    let time = Timestamp::try_from(at).unwrap_or(Timestamp::UNIX_EPOCH);
    format!("{time:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_kubernetes_does() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_250);
        assert_eq!(rfc3339(at, 6), "2023-11-14T22:13:20.250000Z");
        assert_eq!(rfc3339(at, 0), "2023-11-14T22:13:20Z");
    }
}
