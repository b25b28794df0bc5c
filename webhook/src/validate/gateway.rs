//! Gateways and Sidecars: what listens, and for what.

use std::collections::BTreeSet;

use super::cursor::{At, Findings};
use super::destination_rule::connection_pool;
use super::{names, tls};

pub(crate) fn gateway(f: &mut Findings, spec: &At<'_>) {
    let servers = spec.items("servers");
    f.require(!servers.is_empty(), &spec.get("servers"), "gateway must have at least one server");
    let mut port_names = BTreeSet::new();
    for server in &servers {
        f.require(server.get("hosts").is_set(), &server.get("hosts"), "server config must contain at least one host");
        for host in server.items("hosts") {
            names::scoped_host(f, &host, true);
        }
        let port = server.get("port");
        let bind = server.get("bind");
        if !port.exists() {
            f.error(&port, "port is required");
            continue;
        }
        server_port(f, &port, bind.text().unwrap_or_default());
        f.require(!port.str("protocol").is_empty(), &port.get("protocol"), "port must have a protocol");
        if bind.is_set() {
            server_bind(f, &bind);
        }
        let name = port.str("name");
        f.require(!name.is_empty(), &port.get("name"), "port name must be set");
        f.require(port_names.insert(name), &port.get("name"), format!("port names in servers must be unique: duplicate name {name}"));
        server_tls(f, server, port.str("protocol"));
    }
}

fn server_port(f: &mut Findings, port: &At<'_>, bind: &str) {
    let protocol = port.str("protocol");
    f.require(names::protocol(protocol), &port.get("protocol"), format!("unsupported protocol: {protocol}"));
    if bind.starts_with("unix://") {
        f.require(!port.get("number").is_set(), &port.get("number"), "port number must be 0 for unix domain socket");
    } else {
        names::port(f, &port.get("number"));
    }
}

fn server_bind(f: &mut Findings, bind: &At<'_>) {
    let text = bind.text().unwrap_or_default();
    if text.starts_with("unix://") {
        f.check(bind, names::unix_path(text));
    } else {
        f.require(names::ip(text), bind, format!("{text} is not a valid IP"));
    }
}

fn server_tls(f: &mut Findings, server: &At<'_>, protocol: &str) {
    let tls = server.get("tls");
    let redirect = tls.flag("httpsRedirect");
    if names::is_tls(protocol) {
        f.require(tls.exists(), &tls, "server must have TLS settings for HTTPS/TLS protocols");
        if redirect {
            f.warning(&tls.get("httpsRedirect"), "should only be used with http servers");
        }
    } else if tls.exists() {
        // A redirect is all that TLS settings of a plain server can say.
        f.require(redirect && names::is_http(protocol), &tls, "server cannot have TLS settings for non HTTPS/TLS ports");
    }
    if tls.exists() {
        tls::server(f, &tls);
    }
}

pub(crate) fn sidecar(f: &mut Findings, spec: &At<'_>) {
    let selector = spec.get("workloadSelector");
    super::workload_selector(f, &selector, "labels");
    ingress(f, spec);
    egress(f, spec);
    let pool = spec.get("inboundConnectionPool");
    if pool.exists() {
        connection_pool(f, &pool);
    }
    let policy = spec.get("outboundTrafficPolicy");
    let mode = policy.str("mode");
    f.require(mode != "ALLOW_ANY_DYNAMIC_DNS", &policy.get("mode"), "ALLOW_ANY_DYNAMIC_DNS mode is only supported in MeshConfig");
    let proxy = policy.get("egressProxy");
    if proxy.exists() {
        f.require(mode == "ALLOW_ANY", &proxy, "must be set only with ALLOW_ANY outboundTrafficPolicy mode");
        f.check(&proxy.get("host"), names::fqdn(proxy.str("host")));
    }
}

fn ingress(f: &mut Findings, spec: &At<'_>) {
    let mut ports = BTreeSet::new();
    for listener in spec.items("ingress") {
        let port = listener.get("port");
        if !port.exists() {
            f.error(&port, "port is required for ingress listeners");
            continue;
        }
        let bind = listener.get("bind");
        server_port(f, &port, "");
        if bind.is_set() {
            f.require(names::ip(bind.text().unwrap_or_default()), &bind, format!("{} is not a valid IP", bind.text().unwrap_or_default()));
        }
        let number = port.get("number").number().unwrap_or_default();
        f.require(ports.insert(number as u32), &port, "ports on IP bound listeners must be unique");
        default_endpoint(f, &listener.get("defaultEndpoint"));
        let tls = listener.get("tls");
        if tls.exists() {
            let mode = tls.str("mode");
            f.require(
                !matches!(mode, "ISTIO_MUTUAL" | "AUTO_PASSTHROUGH"),
                &tls.get("mode"),
                format!("cannot be {mode} in sidecar ingress tls"),
            );
            for key in ["subjectAltNames", "credentialName", "credentialNames", "tlsCertificates", "httpsRedirect"] {
                f.require(!tls.get(key).is_set(), &tls.get(key), "is not supported in ingress tls");
            }
            server_tls(f, &listener, port.str("protocol"));
        }
        let pool = listener.get("connectionPool");
        if pool.exists() {
            connection_pool(f, &pool);
            if pool.has("http") && !names::is_http(port.str("protocol")) {
                f.warning(
                    &pool,
                    "HTTP connection pool settings are configured for a port whose protocol is not HTTP; only TCP settings will apply",
                );
            }
        }
    }
}

fn default_endpoint(f: &mut Findings, at: &At<'_>) {
    let Some(text) = at.text().filter(|t| !t.is_empty()) else { return };
    if text.starts_with("unix://") {
        return f.check(at, names::unix_path(text));
    }
    let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
    let known = matches!(host, "127.0.0.1" | "0.0.0.0" | "[::1]" | "[::]");
    f.require(known, at, "must be of form 127.0.0.1:<port>,0.0.0.0:<port>,[::1]:port,[::]:port,unix://filepath or unset");
    let fine = port.parse::<u16>().is_ok_and(|p| p > 0);
    f.require(!known || fine, at, format!("port ({port}) is not a number of a port"));
}

fn egress(f: &mut Findings, spec: &At<'_>) {
    let all = spec.items("egress");
    let mut ports = BTreeSet::new();
    for (i, listener) in all.iter().enumerate() {
        let port = listener.get("port");
        if port.exists() {
            let bind = listener.get("bind");
            let bind_text = bind.text().unwrap_or_default();
            server_port(f, &port, bind_text);
            if bind.is_set() {
                server_bind(f, &bind);
            }
            if !bind_text.starts_with("unix://") {
                let number = port.get("number").number().unwrap_or_default();
                f.require(ports.insert(number as u32), &port, "ports on IP bound listeners must be unique");
            }
        } else {
            f.require(i + 1 == all.len(), listener, "the egress listener with empty port should be the last listener in the list");
        }
        let hosts = listener.items("hosts");
        f.require(!hosts.is_empty(), &listener.get("hosts"), "egress listener must contain at least one host");
        let mut seen = BTreeSet::new();
        for host in &hosts {
            names::scoped_host(f, host, false);
            if !seen.insert(host.text()) {
                f.warning(host, format!("duplicated egress host: {}", host.text().unwrap_or_default()));
            }
        }
        for host in &hosts {
            let text = host.text().unwrap_or_default();
            if text == "*/*" && hosts.len() > 1 {
                f.warning(host, "`*/*` host select all resources, no other hosts can be added");
            } else if let Some((ns, name)) = text.split_once('/')
                && ns != "*"
                && name != "*"
                && seen.contains(&Some(format!("{ns}/*").as_str()))
            {
                f.warning(host, format!("duplicated egress host: {text}"));
            }
        }
    }
}
