//! Names of outbound route configurations. Listeners refer to them and routes are built for them, both by these rules.

use pilotfish_model::name::Str;
use pilotfish_model::service::{Protocol, Resolution, Service, ServicePort};
use pilotfish_model::sidecar::ListenerPort;

use crate::naming;

/// Routes of the HTTP proxy port.
pub const HTTP_PROXY: &str = "http_proxy";

/// The route configuration that an outbound listener for a service port names; `None` if the port is not routed by HTTP.
/// All HTTP ports of one number share one; a port whose protocol is found out on the wire has its own, as its listener is
/// bound to the service's own address. Where there is no such address see [`of_wildcard_port`].
pub fn of_service_port(service: &Service, port: &ServicePort) -> Option<Str> {
    if service.resolution == Resolution::Alias {
        return None;
    }
    match port.protocol {
        Protocol::Auto => Some(naming::host_port(service.host.as_str(), port.port).into()),
        p if p.is_http() => Some(port.port.to_string().into()),
        _ => None,
    }
}

/// The same for a listener on all addresses: the host tells services apart, whatever protocol was said.
pub fn of_wildcard_port(port: &ServicePort) -> Option<Str> {
    (port.protocol.is_http() || port.protocol == Protocol::Auto).then(|| port.port.to_string().into())
}

/// The route configuration of an egress listener with a port of its own: named by the port, or by the Unix path.
pub fn of_egress_port(port: &ListenerPort, bind: Option<&str>) -> Option<Str> {
    if !port.protocol.is_http() && port.protocol != Protocol::Auto {
        return None;
    }
    match port.number {
        0 => bind.map(Str::from),
        number => Some(number.to_string().into()),
    }
}
