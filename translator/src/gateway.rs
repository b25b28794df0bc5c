//! Gateway objects as one proxy serves them: servers of all Gateways that select it, merged by port and address.
//!
//! Listeners open what is here, one per [`MergedPort`]; route configurations are built for the servers of one route name.
//! Enter at [`merged`].

mod reached;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use pilotfish_model::gateway::{Gateway, GatewayHost, GatewayServer};
use pilotfish_model::name::{Host, Kind, ObjectId, Str, selects};
use pilotfish_model::service::Protocol;
use pilotfish_model::tls::ServerTlsMode;
use pilotfish_model::virtual_service::GatewayRef;

use crate::context::Context;

pub(crate) use reached::Reached;

/// Label of a gateway's Service that says: its ports are the ports to listen on, whatever the target ports are.
const NO_PORT_TRANSLATION: &str = "experimental.istio.io/disable-gateway-port-translation";

/// Everything a gateway serves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct MergedGateways {
    /// One per listener, in the order in which they were first named.
    pub ports: Vec<MergedPort>,
}

/// One port and address: one listener.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MergedPort {
    /// Where to listen: the port of the Gateway server led through the Service's target port.
    pub port: u16,
    /// Address to bind; `None`: all.
    pub bind: Option<Str>,
    /// Servers in order, never empty. Those of [`ServerKind::Http`] share one route name. Those of [`ServerKind::Tls`] have a
    /// filter chain each (no two have a server name in common).
    pub servers: Vec<MergedServer>,
    /// Those that end HTTPS are reached by HTTP/3 as well.
    pub http3: bool,
}

/// What a server reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ServerKind {
    /// Clear-text HTTP: one connection manager, one route configuration.
    Http,
    /// Clear-text bytes.
    Tcp,
    /// TLS, terminated or not; told apart by server names.
    Tls,
}

/// One server of one Gateway.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MergedServer {
    /// The Gateway.
    pub gateway: Arc<Gateway>,
    /// Which of its servers.
    pub index: usize,
    /// Name of the route configuration; `None` for what is not routed by HTTP (TCP, TLS, passthrough).
    pub route_name: Option<Str>,
    /// Server names of a TLS server, sorted, each once; `*` stands for any. Empty for clear text.
    pub sni_hosts: Vec<Host>,
}

impl MergedServer {
    /// The server as the user wrote it.
    pub fn server(&self) -> &GatewayServer {
        &self.gateway.servers[self.index]
    }

    /// What it reads.
    pub fn kind(&self) -> ServerKind {
        kind_of(self.server())
    }

    /// The object.
    pub fn object(&self) -> ObjectId {
        self.gateway.meta.id(Kind::Gateway)
    }

    /// What VirtualServices name to be attached.
    pub fn gateway_ref(&self) -> GatewayRef {
        GatewayRef::Gateway { namespace: self.gateway.meta.namespace.clone(), name: self.gateway.meta.name.clone() }
    }
}

impl MergedGateways {
    /// Servers by the route configuration that they share, in the order of names, with the port they listen on.
    pub fn by_route_name(&self) -> BTreeMap<Str, RouteServers<'_>> {
        let mut routes: BTreeMap<Str, RouteServers<'_>> = BTreeMap::new();
        for port in &self.ports {
            for server in &port.servers {
                if let Some(name) = &server.route_name {
                    let new = || RouteServers { http3: port.http3, servers: Vec::new() };
                    routes.entry(name.clone()).or_insert_with(new).servers.push(server);
                }
            }
        }
        routes
    }

    /// True if some server routes by the names that sidecars write (clusters need their alternative names then).
    pub fn has_auto_passthrough(&self) -> bool {
        self.ports
            .iter()
            .flat_map(|p| &p.servers)
            .any(|s| s.server().tls.as_ref().is_some_and(|t| t.mode == ServerTlsMode::AutoPassthrough))
    }
}

/// Servers that share a route configuration.
#[derive(Clone, Debug)]
pub struct RouteServers<'a> {
    /// Answers say that the host is reached by HTTP/3 as well.
    pub http3: bool,
    /// Never empty.
    pub servers: Vec<&'a MergedServer>,
}

/// Clear text, though it may redirect to TLS.
pub fn is_tls(server: &GatewayServer) -> bool {
    server.tls.is_some() && !server.protocol.is_http()
}

/// TLS that stays closed.
pub fn is_passthrough(server: &GatewayServer) -> bool {
    server.tls.as_ref().is_some_and(|t| matches!(t.mode, ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough))
}

/// Routed by HTTP, in clear text or behind terminated TLS.
pub fn is_http(server: &GatewayServer) -> bool {
    server.protocol.is_http() || (server.protocol == Protocol::Https && server.tls.is_some() && !is_passthrough(server))
}

/// All servers for a gateway class; none for others.
pub fn merged(context: &Context<'_>) -> MergedGateways {
    if !context.class.is_router() {
        return MergedGateways::default();
    }
    let mut gateways: Vec<&Arc<Gateway>> =
        context.mesh.gateways.values().filter(|g| selects(&g.selector, &context.class.labels)).filter(|g| is_near(context, g)).collect();
    gateways.sort_by(|a, b| a.meta.age_order().cmp(&b.meta.age_order()));
    let ports = PortTranslation::of(context);
    let mut merged = merge(gateways, &|port| ports.listen(port));
    if context.config().features.http3 {
        let has_udp = |number: u16| {
            let services = context.class.targets().iter().filter_map(|t| context.mesh.services.get(&t.service));
            services.flat_map(|s| &s.ports).any(|p| p.port == number && p.protocol == Protocol::Udp)
        };
        for port in &mut merged.ports {
            port.http3 = port.servers.iter().any(|s| s.kind() == ServerKind::Tls && s.route_name.is_some() && has_udp(s.server().port));
        }
    }
    merged
}

/// Where Gateways count within their namespace only: of that of the proxy.
fn is_near(context: &Context<'_>, gateway: &Gateway) -> bool {
    !context.config().features.gateways_of_namespace || gateway.meta.namespace == context.class.namespace
}

/// The servers of Gateways, oldest first, at the ports to `listen` on.
pub(crate) fn merge<'a>(gateways: impl IntoIterator<Item = &'a Arc<Gateway>>, listen: &dyn Fn(u16) -> u16) -> MergedGateways {
    let mut merger = Merger::default();
    for gateway in gateways {
        for (index, server) in gateway.servers.iter().enumerate() {
            merger.add(gateway, index, listen(server.port));
        }
    }
    merger.merged
}

/// Service ports of the gateway's own Services, oldest first, and where its workload listens for them.
struct PortTranslation(Vec<(u16, u16)>);

impl PortTranslation {
    fn of(context: &Context<'_>) -> Self {
        let direct = |t: &&pilotfish_model::mesh::ServiceTarget| {
            context.mesh.services.get(&t.service).is_some_and(|s| s.labels.contains_key(NO_PORT_TRANSLATION))
        };
        PortTranslation(context.class.targets().iter().filter(|t| !direct(t)).map(|t| (t.port, t.target_port)).collect())
    }

    /// A port that no Service knows is taken as it is; of several Services that know it the oldest says.
    fn listen(&self, number: u16) -> u16 {
        self.0.iter().find(|(port, _)| *port == number).map_or(number, |(_, target)| *target)
    }
}

/// Adds servers one by one; what does not go together with an older server on its port is left out.
#[derive(Default)]
struct Merger {
    merged: MergedGateways,
    /// By port and address.
    at: HashMap<Place, usize>,
    /// Server names that are taken.
    sni: HashMap<Place, BTreeSet<Host>>,
    /// Hosts that are redirected to TLS, or have it, which two servers cannot share either.
    secured: HashMap<Place, BTreeSet<GatewayHost>>,
    route_names: BTreeSet<Str>,
    /// The first server of each port says what else may be there.
    first: HashMap<u16, (ServerKind, Option<Str>)>,
    /// Where a port that began with TLS has further servers.
    further: BTreeSet<Place>,
}

/// Port and address.
type Place = (u16, Option<Str>);

impl Merger {
    fn add(&mut self, gateway: &Arc<Gateway>, index: usize, port: u16) {
        let server = &gateway.servers[index];
        let kind = kind_of(server);
        let key = (port, server.bind.clone());
        let route_name = route_name(gateway, server, port);
        let sni_hosts = if is_tls(server) { sni_hosts(server) } else { Vec::new() };
        if server.tls.is_some() {
            let names = self.sni.entry(key.clone()).or_default();
            let hosts = self.secured.entry(key.clone()).or_default();
            if sni_hosts.iter().any(|h| names.contains(h)) || server.hosts.iter().any(|h| hosts.contains(h)) {
                return;
            }
            names.extend(sni_hosts.iter().cloned());
            hosts.extend(server.hosts.iter().cloned());
        }
        match self.first.get(&port) {
            None => {
                self.first.insert(port, (kind, server.bind.clone()));
                self.route_names.extend(route_name.clone());
            }
            // Clear text can only be told from clear text as requests; what has another address is another listener.
            Some((ServerKind::Tls, _)) => {
                let is_new = self.further.insert(key.clone());
                // Each server beside TLS has its own chain, so its own routes, and clear text has no name to tell one from another.
                let is_routed = route_name.clone().is_none_or(|name| self.route_names.insert(name));
                if !is_routed || (server.tls.is_none() && !is_new) {
                    return;
                }
            }
            Some((first, bind)) => {
                if *bind == server.bind && (*first, kind) != (ServerKind::Http, ServerKind::Http) {
                    return;
                }
            }
        }
        let entry = MergedServer { gateway: gateway.clone(), index, route_name, sni_hosts };
        match self.at.get(&key) {
            None => {
                self.at.insert(key, self.merged.ports.len());
                self.merged.ports.push(MergedPort { port, bind: server.bind.clone(), servers: vec![entry], http3: false });
            }
            Some(at) => self.merged.ports[*at].servers.push(entry),
        }
    }
}

fn kind_of(server: &GatewayServer) -> ServerKind {
    if is_tls(server) {
        ServerKind::Tls
    } else if server.protocol.is_http() {
        ServerKind::Http
    } else {
        ServerKind::Tcp
    }
}

/// Clear-text servers of one port share routes; a TLS server has its own, named by the port as the user wrote it.
fn route_name(gateway: &Gateway, server: &GatewayServer, port: u16) -> Option<Str> {
    let bind = server.bind.as_deref().map(|b| format!(".{b}")).unwrap_or_default();
    if server.protocol.is_http() {
        Some(format!("http.{port}{bind}").into())
    } else if is_http(server) {
        let meta = &gateway.meta;
        Some(format!("https.{}.{}.{}.{}{bind}", server.port, server.port_name, meta.name, meta.namespace).into())
    } else {
        None
    }
}

fn sni_hosts(server: &GatewayServer) -> Vec<Host> {
    let hosts: BTreeSet<Host> = server.hosts.iter().map(|h| h.host.clone()).collect();
    hosts.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use pilotfish_model::tls::ServerTls;

    fn server(port: u16, name: &str, protocol: Protocol, hosts: &[&str], mode: Option<ServerTlsMode>) -> GatewayServer {
        let empty = Str::default;
        let tls = mode.map(|mode| ServerTls { credential_names: vec!["c".into()], ..ServerTls::of_mode(mode) });
        let hosts = hosts.iter().map(|h| pilotfish_model::gateway::GatewayHost { namespace: None, host: Host::new(h) }).collect();
        GatewayServer { port, port_name: name.into(), protocol, bind: None, hosts, tls, name: empty() }
    }

    /// Port, then the route name and server names of each server.
    fn merge(servers: Vec<GatewayServer>) -> Vec<(u16, Vec<String>)> {
        let meta = pilotfish_model::Meta { namespace: "ns".into(), name: "gw".into(), ..Default::default() };
        let gateway = Arc::new(Gateway { meta, selector: Default::default(), servers });
        let mut merger = Merger::default();
        (0..gateway.servers.len()).for_each(|i| merger.add(&gateway, i, gateway.servers[i].port));
        let text = |s: &MergedServer| format!("{} {:?}", s.route_name.as_deref().unwrap_or("-"), s.sni_hosts);
        merger.merged.ports.iter().map(|p| (p.port, p.servers.iter().map(text).collect())).collect()
    }

    #[test]
    fn clear_text_servers_of_a_port_share_routes_and_bytes_do_not_mix_in() {
        let http = |name| server(80, name, Protocol::Http, &["*"], None);
        let tcp = server(80, "t", Protocol::Tcp, &["*"], None);
        assert_eq!(merge(vec![http("a"), tcp.clone(), http("b")]), [(80, vec!["http.80 []".to_owned(), "http.80 []".to_owned()])]);
        assert_eq!(merge(vec![tcp.clone(), http("a"), tcp]), [(80, vec!["- []".to_owned()])]);
    }

    #[test]
    fn a_host_is_redirected_by_one_server() {
        let mode = Some(ServerTlsMode::Simple);
        let redirecting = |name, host| server(80, name, Protocol::Http, &[host], mode);
        let plain = server(80, "c", Protocol::Http, &["a"], None);
        let merged = merge(vec![redirecting("a", "a"), redirecting("b", "a"), plain, redirecting("d", "d")]);
        assert_eq!(merged, [(80, vec!["http.80 []".to_owned(); 3])]);
    }

    #[test]
    fn tls_servers_are_told_apart_by_name() {
        let https = |name, host| server(443, name, Protocol::Https, &[host], Some(ServerTlsMode::Simple));
        let raw = server(443, "raw", Protocol::Tls, &["b"], Some(ServerTlsMode::Passthrough));
        let http = server(443, "http", Protocol::Http, &["*"], None);
        let merged = merge(vec![https("x", "a"), https("y", "a"), raw, http]);
        assert_eq!(merged, [(443, vec!["https.443.x.gw.ns [\"a\"]".to_owned(), "- [\"b\"]".to_owned()])]);
    }

    #[test]
    fn clear_text_beside_tls_depends_on_who_was_first_and_where() {
        let https = |name, host| server(443, name, Protocol::Https, &[host], Some(ServerTlsMode::Simple));
        let http = |name| server(443, name, Protocol::Http, &["*"], None);
        let tcp = |name| server(443, name, Protocol::Tcp, &["*"], None);
        let redirect = |name, host| server(443, name, Protocol::Http, &[host], Some(ServerTlsMode::Simple));
        let elsewhere = |s: GatewayServer| GatewayServer { bind: Some("1.1.1.1".into()), ..s };
        let of = |name: &str, host: &str| format!("https.443.{name}.gw.ns [{host:?}]");
        let (plain, bytes) = ("http.443 []".to_owned(), "- []".to_owned());
        for (servers, expected) in [
            // Behind TLS the first other server may be clear text, but no more; requests that are only redirected may have one as well.
            (vec![https("a", "a"), http("b"), https("c", "c")], vec![vec![of("a", "a"), plain.clone(), of("c", "c")]]),
            (vec![https("a", "a"), tcp("b"), http("c")], vec![vec![of("a", "a"), bytes.clone()]]),
            (vec![https("a", "a"), https("b", "b"), http("c")], vec![vec![of("a", "a"), of("b", "b")]]),
            (
                vec![https("a", "a"), https("b", "b"), redirect("c", "c"), redirect("d", "d")],
                vec![vec![of("a", "a"), of("b", "b"), plain.clone()]],
            ),
            (vec![https("a", "a"), redirect("c", "a")], vec![vec![of("a", "a")]]),
            // In front of it, it is alone on its address.
            (vec![http("a"), https("b", "b"), tcp("c"), http("d")], vec![vec![plain.clone(), plain.clone()]]),
            (vec![tcp("a"), https("b", "b")], vec![vec![bytes.clone()]]),
            (
                vec![http("a"), elsewhere(https("b", "b")), elsewhere(tcp("c"))],
                vec![vec![plain.clone()], vec![format!("https.443.b.gw.ns.1.1.1.1 [\"b\"]"), bytes]],
            ),
        ] {
            let shown = format!("{servers:?}");
            assert_eq!(merge(servers).into_iter().map(|(_, s)| s).collect::<Vec<_>>(), expected, "{shown}");
        }
    }
}
