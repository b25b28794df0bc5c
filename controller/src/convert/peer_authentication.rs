//! PeerAuthentication.

use pilotfish_crds::security::peer_authentication as api;
use pilotfish_model::PeerAuthentication;
use pilotfish_model::peer_authentication::MtlsMode;

use super::fields::{Path, Scope, labels};

pub(super) fn convert(scope: &mut Scope<'_>, spec: &api::PeerAuthenticationSpec) -> PeerAuthentication {
    let selector = spec.selector.as_ref().map(|s| labels(&s.match_labels)).unwrap_or_default();
    let root = Path::SPEC;
    let path = root.field("portLevelMtls");
    if !spec.port_level_mtls.is_empty() && selector.is_empty() {
        scope.error(&path, "needs a selector");
    }
    if spec.port_level_mtls.keys().any(|p| p.0 == 0) {
        scope.error(&path.key("0"), "is not a port");
    }
    PeerAuthentication {
        meta: scope.meta_without_labels(),
        selector,
        mode: spec.mtls.and_then(mode),
        ports: spec.port_level_mtls.iter().map(|(p, m)| (p.0, mode(*m))).collect(),
    }
}

fn mode(m: api::MutualTls) -> Option<MtlsMode> {
    match m.mode {
        api::Mode::Unset => None,
        api::Mode::Disable => Some(MtlsMode::Disable),
        api::Mode::Permissive => Some(MtlsMode::Permissive),
        api::Mode::Strict => Some(MtlsMode::Strict),
    }
}
