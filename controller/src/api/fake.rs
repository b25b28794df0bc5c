//! An API server for tests: objects by path, versions, and outages.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use http::Method;
use serde_json::Value;

use super::{Api, ApiError, Call};

/// See the module's documentation. Clones are the same server.
#[derive(Clone, Default)]
pub(crate) struct FakeApi(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Value>,
    version: u64,
    down: bool,
    calls: Vec<Call>,
}

fn refused(code: u16) -> ApiError {
    ApiError::Refused { code, message: "no".into() }
}

impl FakeApi {
    pub(crate) fn set_down(&self, down: bool) {
        self.0.lock().unwrap().down = down;
    }

    /// Calls that got through, so far.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.0.lock().unwrap().calls.clone()
    }

    pub(crate) fn object(&self, path: &str) -> Option<Value> {
        self.0.lock().unwrap().objects.get(path).cloned()
    }

    /// Stores an object as somebody else.
    pub(crate) fn put(&self, path: &str, object: Value) -> Value {
        self.0.lock().unwrap().store(path.to_owned(), object)
    }

    fn answer(&self, call: Call) -> Result<Value, ApiError> {
        let state = &mut *self.0.lock().unwrap();
        if state.down {
            return Err(ApiError::Unknown("down".into()));
        }
        state.calls.push(call.clone());
        let path = call.path.split('?').next().unwrap_or_default().to_owned();
        let version_of = |o: &Value| o.pointer("/metadata/resourceVersion").and_then(Value::as_str).map(str::to_owned);
        let wanted = version_of(&call.body);
        match call.method {
            Method::GET => state.objects.get(&path).cloned().ok_or(refused(404)),
            Method::POST => {
                let path = format!("{path}/{}", call.body["metadata"]["name"].as_str().unwrap());
                if state.objects.contains_key(&path) { Err(refused(409)) } else { Ok(state.store(path, call.body)) }
            }
            _ => {
                let path = path.strip_suffix("/status").unwrap_or(&path).to_owned();
                let known = state.objects.get(&path).cloned().ok_or(refused(404))?;
                if wanted.is_some() && wanted != version_of(&known) {
                    return Err(refused(409));
                }
                if call.method == Method::PUT {
                    return Ok(state.store(path, call.body));
                }
                let mut next = known;
                let status = next.as_object_mut().unwrap().entry("status").or_insert(Value::Object(Default::default()));
                for (k, v) in call.body["status"].as_object().into_iter().flatten() {
                    status[k] = v.clone();
                }
                Ok(state.store(path, next))
            }
        }
    }
}

impl State {
    fn store(&mut self, path: String, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.objects.insert(path, object.clone());
        object
    }
}

impl Api for FakeApi {
    async fn call(&self, call: Call) -> Result<Value, ApiError> {
        tokio::task::yield_now().await;
        self.answer(call)
    }
}
