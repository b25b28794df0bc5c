//! What is spoken on a port.

use pilotfish_model::Protocol;

/// Ports whose servers speak first, so that waiting for the client to tell the protocol would hang.
const SERVER_FIRST: [u16; 4] = [25, 53, 3306, 27017];

/// The protocol of a Service port: UDP by its transport, then `appProtocol`, then the name's prefix, then a well-known
/// number, else to be told from the traffic.
pub(super) fn of_service_port(transport: &str, app_protocol: Option<&str>, name: &str, number: u16) -> Protocol {
    if transport.eq_ignore_ascii_case("UDP") {
        return Protocol::Udp;
    }
    let said = match app_protocol {
        Some(app) => match app.to_ascii_lowercase().as_str() {
            "kubernetes.io/h2c" => Some(Protocol::Http2),
            "kubernetes.io/ws" => Some(Protocol::Http),
            "kubernetes.io/wss" => Some(Protocol::Https),
            other => of_name(other),
        },
        None => of_name(name),
    };
    said.unwrap_or(if SERVER_FIRST.contains(&number) { Protocol::Tcp } else { Protocol::Auto })
}

/// By the part of a name before the first `-`; `grpc-web` is the one protocol with a dash of its own.
fn of_name(name: &str) -> Option<Protocol> {
    let name = name.to_ascii_lowercase();
    let prefix = if name.starts_with("grpc-web") { "grpc-web" } else { name.split('-').next().unwrap_or_default() };
    Protocol::parse(prefix).filter(|p| *p != Protocol::Hbone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_port_speaks() {
        for (transport, app, name, number, protocol) in [
            ("TCP", None, "http", 80, Protocol::Http),
            ("TCP", None, "HTTP2-x", 80, Protocol::Http2),
            ("TCP", None, "grpc-web-a", 80, Protocol::GrpcWeb),
            ("TCP", None, "grpc-a", 80, Protocol::Grpc),
            ("TCP", None, "httpx", 80, Protocol::Auto),
            ("TCP", None, "", 3306, Protocol::Tcp),
            ("TCP", Some("http"), "tcp-x", 3306, Protocol::Http),
            ("TCP", Some("kubernetes.io/h2c"), "tcp-x", 1, Protocol::Http2),
            ("TCP", Some("example.org/own"), "http", 80, Protocol::Auto),
            ("UDP", Some("http"), "http", 80, Protocol::Udp),
            ("", None, "redis", 1, Protocol::Redis),
        ] {
            assert_eq!(of_service_port(transport, app, name, number), protocol, "{transport} {app:?} {name} {number}");
        }
    }
}
