//! `/ready`, `/debug/*`, `/metrics` and `/version`.
//!
//! Debug answers come from [`crate::debug`], which knows nothing of HTTP: the same answers travel over ADS later. Who gets one
//! is in the table of [`pilotfish_xds_server::access`]: everybody on this machine, elsewhere whoever proves to be of the control
//! plane, and of pages about one proxy, whoever proves to be of its namespace.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use axum::Router;
use axum::extract::{ConnectInfo, Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use pilotfish_xds_server::access::{Asset, Who, allows};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::debug::{self, Answer, Debug};
use crate::identity::guard::{Callers, page_caller};

/// Whether new clients are welcome: the mesh was read, and whoever else has something to prepare has done so.
#[derive(Clone, Default)]
pub struct Readiness(Arc<Ready>);

#[derive(Default)]
struct Ready {
    set: AtomicBool,
    waiting: AtomicUsize,
}

/// Holds readiness back until it is opened. One that is dropped unopened holds it for ever.
pub struct Gate(Arc<Ready>);

impl Gate {
    /// What was to be prepared is.
    pub fn open(self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Readiness {
    /// From now on `/ready` answers 200, once all gates are open.
    pub fn set(&self) {
        self.0.set.store(true, Ordering::Release);
    }

    /// From now on `/ready` answers 503: no new proxies, please.
    pub fn clear(&self) {
        self.0.set.store(false, Ordering::Release);
    }

    /// Something that must be there before `/ready` answers 200.
    pub fn gate(&self) -> Gate {
        self.0.waiting.fetch_add(1, Ordering::AcqRel);
        Gate(self.0.clone())
    }

    fn get(&self) -> bool {
        self.0.set.load(Ordering::Acquire) && self.0.waiting.load(Ordering::Acquire) == 0
    }
}

/// What the pages show.
#[derive(Clone)]
pub struct Pages {
    /// See [`Readiness`].
    pub ready: Readiness,
    /// Debug answers.
    pub debug: Arc<Debug>,
    /// Who finds out who asks; nobody can prove anything without.
    pub callers: Option<Arc<Callers>>,
    /// The metrics page.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
}

/// Pages of the HTTP port; `with_metrics` where no monitoring port is served.
pub fn http_pages(pages: Pages, with_metrics: bool) -> Router {
    let router = Router::new().route("/ready", get(ready)).merge(debug_routes());
    let router = if with_metrics { router.merge(monitoring_routes()) } else { router };
    router.with_state(pages)
}

/// Pages of the monitoring port.
pub fn monitoring_pages(pages: Pages) -> Router {
    monitoring_routes().merge(debug_routes()).with_state(pages)
}

fn monitoring_routes() -> Router<Pages> {
    Router::new().route("/metrics", get(metrics)).route("/version", get(|| async { format!("{}\n", crate::VERSION) }))
}

fn debug_routes() -> Router<Pages> {
    Router::new().route("/debug", get(index)).route("/debug/{*path}", get(debug))
}

/// Serves pages until the drain.
pub async fn serve(listener: TcpListener, router: Router, drain: CancellationToken) -> anyhow::Result<()> {
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, service).with_graceful_shutdown(drain.cancelled_owned()).await?;
    Ok(())
}

async fn ready(State(pages): State<Pages>) -> StatusCode {
    if pages.ready.get() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

async fn metrics(State(pages): State<Pages>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], (pages.metrics)()).into_response()
}

async fn index(State(pages): State<Pages>, ConnectInfo(peer): ConnectInfo<SocketAddr>, headers: HeaderMap) -> Response {
    if let Err(refused) = admit(&pages, peer, &headers, "", &BTreeMap::new()).await {
        return refused.into_response();
    }
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], pages.debug.index()).into_response()
}

/// Whether somebody may see a page.
async fn admit(
    pages: &Pages,
    peer: SocketAddr,
    headers: &HeaderMap,
    path: &str,
    query: &BTreeMap<String, String>,
) -> Result<(), StatusCode> {
    let (way, caller) = page_caller(pages.callers.as_ref(), peer, headers).await.map_err(|_| StatusCode::UNAUTHORIZED)?;
    let proxy = query.get("proxyID").filter(|_| debug::PROXY_PAGES.contains(&path));
    let asset = if proxy.is_some() { Asset::ProxyPage } else { Asset::MeshPage };
    let namespace = proxy.and_then(|id| pages.debug.namespace_of(id)).unwrap_or_default();
    match Who::looks_at(&caller, &namespace, &pages.debug.root_namespace()) {
        who if allows(asset, way, who) => Ok(()),
        Who::Anonymous => Err(StatusCode::UNAUTHORIZED),
        // Whose proxies are connected is not for others to know.
        _ if asset == Asset::ProxyPage => Err(StatusCode::NOT_FOUND),
        _ => Err(StatusCode::FORBIDDEN),
    }
}

async fn debug(
    State(pages): State<Pages>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    Path(path): Path<String>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Response {
    if let Err(refused) = admit(&pages, peer, &headers, &path, &query).await {
        return refused.into_response();
    }
    // Dumps of a large mesh take time to render: not on the threads that serve streams.
    let (handle, pretty) = (pages.debug.clone(), query.contains_key("pretty"));
    let answer = tokio::task::spawn_blocking(move || handle.answer(&path, &query)).await;
    match answer {
        Ok(Answer::Json(value)) => {
            let text = if pretty { format!("{value:#}") } else { value.to_string() };
            ([(header::CONTENT_TYPE, "application/json")], text).into_response()
        }
        Ok(Answer::Text(text)) => text.into_response(),
        Ok(Answer::Invalid(text)) => (StatusCode::BAD_REQUEST, text).into_response(),
        Ok(Answer::NotFound(text)) => (StatusCode::NOT_FOUND, text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_gate_holds_readiness_back() {
        let ready = Readiness::default();
        let (one, other) = (ready.gate(), ready.gate());
        one.open();
        ready.set();
        assert!(!ready.get());
        other.open();
        assert!(ready.get());
        ready.clear();
        assert!(!ready.get());
    }
}
