//! Who may have what: [`TABLE`]. What it does not list is denied.
//!
//! A row says, for something that can be asked for and a way by which requests come, who gets it. Who somebody is depends on
//! what it asks about: see [`Who`]. Clear text is for development and for Envoys that have no certificates: from this machine
//! it is as good as being there, from elsewhere it reaches configuration, as it always did in Istio, and never a key.

use std::net::SocketAddr;

use pilotfish_envoy::TypeUrl;
use pilotfish_model::{Caller, Identity};

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asset {
    /// Resources of a type, for a proxy.
    Type(TypeUrl),
    /// A certificate of one's own.
    Certificate,
    /// Debug pages about one proxy.
    ProxyPage,
    /// All other debug pages.
    MeshPage,
}

/// How a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// In clear text, from this machine.
    Local,
    /// In clear text, from elsewhere.
    Clear,
    /// Over TLS.
    Tls,
}

/// Who asks, as seen from what is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Nobody in particular.
    Anonymous,
    /// Another than the one that it is about: of another namespace, or (of a proxy) with another service account.
    OtherNamespace,
    /// Whom it is about.
    SameNamespace,
    /// A part of the control plane, which it is not about.
    ControlPlane,
}

impl Asset {
    /// Everything.
    pub fn all() -> impl Iterator<Item = Asset> {
        TypeUrl::ALL.into_iter().map(Asset::Type).chain([Asset::Certificate, Asset::ProxyPage, Asset::MeshPage])
    }
}

impl Way {
    /// Every one.
    pub const ALL: [Way; 3] = [Way::Local, Way::Clear, Way::Tls];

    /// How a request from this address came.
    pub fn of(peer: Option<SocketAddr>, tls: bool) -> Way {
        match peer {
            _ if tls => Way::Tls,
            Some(peer) if peer.ip().to_canonical().is_loopback() => Way::Local,
            _ => Way::Clear,
        }
    }
}

impl Who {
    /// Every one.
    pub const ALL: [Who; 4] = [Who::Anonymous, Who::OtherNamespace, Who::SameNamespace, Who::ControlPlane];

    /// A caller that speaks for a proxy of this namespace and, if that is claimed, service account.
    pub fn speaks_for(caller: &Caller, namespace: &str, account: Option<&str>, root_namespace: &str) -> Who {
        let is = |i: &Identity| &*i.namespace == namespace && account.is_none_or(|a| a == &*i.account);
        Who::of(caller, is, root_namespace)
    }

    /// A caller that looks at something of this namespace; at what is of none, if it is empty.
    pub fn looks_at(caller: &Caller, namespace: &str, root_namespace: &str) -> Who {
        if caller.identities.iter().any(|i| &*i.namespace == root_namespace) {
            return Who::ControlPlane;
        }
        Who::of(caller, |i| !namespace.is_empty() && &*i.namespace == namespace, root_namespace)
    }

    fn of(caller: &Caller, is: impl Fn(&Identity) -> bool, root_namespace: &str) -> Who {
        if caller.is_anonymous() {
            Who::Anonymous
        } else if caller.identities.iter().any(is) {
            Who::SameNamespace
        } else if caller.identities.iter().any(|i| &*i.namespace == root_namespace) {
            Who::ControlPlane
        } else {
            Who::OtherNamespace
        }
    }
}

/// Its own.
const OWN: &[Who] = &[Who::SameNamespace];
/// Its own; nobody is asked who they are.
const OPEN: &[Who] = &[Who::Anonymous, Who::SameNamespace];
/// Whoever is somebody.
const KNOWN: &[Who] = &[Who::OtherNamespace, Who::SameNamespace, Who::ControlPlane];
/// Its own, and the control plane.
const OVERSEEN: &[Who] = &[Who::SameNamespace, Who::ControlPlane];
/// The control plane alone.
const OPERATORS: &[Who] = &[Who::ControlPlane];

/// See the module's documentation.
pub const TABLE: &[(Asset, Way, &[Who])] = &[
    (Asset::Type(TypeUrl::Cluster), Way::Local, OPEN),
    (Asset::Type(TypeUrl::Cluster), Way::Clear, OPEN),
    (Asset::Type(TypeUrl::Cluster), Way::Tls, OWN),
    (Asset::Type(TypeUrl::Endpoint), Way::Local, OPEN),
    (Asset::Type(TypeUrl::Endpoint), Way::Clear, OPEN),
    (Asset::Type(TypeUrl::Endpoint), Way::Tls, OWN),
    (Asset::Type(TypeUrl::Listener), Way::Local, OPEN),
    (Asset::Type(TypeUrl::Listener), Way::Clear, OPEN),
    (Asset::Type(TypeUrl::Listener), Way::Tls, OWN),
    (Asset::Type(TypeUrl::Route), Way::Local, OPEN),
    (Asset::Type(TypeUrl::Route), Way::Clear, OPEN),
    (Asset::Type(TypeUrl::Route), Way::Tls, OWN),
    // Keys cross a network encrypted only.
    (Asset::Type(TypeUrl::Secret), Way::Local, OPEN),
    (Asset::Type(TypeUrl::Secret), Way::Tls, OWN),
    (Asset::Type(TypeUrl::ExtensionConfig), Way::Local, OPEN),
    (Asset::Type(TypeUrl::ExtensionConfig), Way::Clear, OPEN),
    (Asset::Type(TypeUrl::ExtensionConfig), Way::Tls, OWN),
    (Asset::Type(TypeUrl::NameTable), Way::Local, OPEN),
    (Asset::Type(TypeUrl::NameTable), Way::Clear, OPEN),
    (Asset::Type(TypeUrl::NameTable), Way::Tls, OWN),
    (Asset::Type(TypeUrl::ProxyConfig), Way::Local, OPEN),
    (Asset::Type(TypeUrl::ProxyConfig), Way::Clear, OPEN),
    (Asset::Type(TypeUrl::ProxyConfig), Way::Tls, OWN),
    // Whose it will be follows from who asks.
    (Asset::Certificate, Way::Local, KNOWN),
    (Asset::Certificate, Way::Clear, KNOWN),
    (Asset::Certificate, Way::Tls, KNOWN),
    (Asset::ProxyPage, Way::Local, &Who::ALL),
    (Asset::ProxyPage, Way::Clear, OVERSEEN),
    (Asset::ProxyPage, Way::Tls, OVERSEEN),
    (Asset::MeshPage, Way::Local, &Who::ALL),
    (Asset::MeshPage, Way::Clear, OPERATORS),
    (Asset::MeshPage, Way::Tls, OPERATORS),
];

/// Whether the table gives it.
pub fn allows(asset: Asset, way: Way, who: Who) -> bool {
    TABLE.iter().any(|(a, w, to)| *a == asset && *w == way && to.contains(&who))
}

/// Whether there is any type that one may have.
pub(crate) fn may_connect(way: Way, who: Who) -> bool {
    TypeUrl::ALL.into_iter().any(|t| allows(Asset::Type(t), way, who))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(names: &[&str]) -> Caller {
        Caller { identities: names.iter().map(|n| n.parse().unwrap()).collect(), pod: None }
    }

    /// Each cell once, written down a second time: in words of rules, not of rows.
    #[test]
    fn the_whole_table() {
        for asset in Asset::all() {
            for way in Way::ALL {
                for who in Who::ALL {
                    let expected = match (asset, way, who) {
                        (Asset::Type(_), _, Who::OtherNamespace | Who::ControlPlane) => false,
                        (Asset::Type(TypeUrl::Secret), Way::Clear, _) => false,
                        (Asset::Type(_), way, Who::Anonymous) => way != Way::Tls,
                        (Asset::Type(_), _, Who::SameNamespace) => true,
                        (Asset::Certificate, _, who) => who != Who::Anonymous,
                        (Asset::ProxyPage | Asset::MeshPage, Way::Local, _) | (Asset::ProxyPage, _, Who::SameNamespace) => true,
                        (Asset::ProxyPage | Asset::MeshPage, _, who) => who == Who::ControlPlane,
                    };
                    assert_eq!(allows(asset, way, who), expected, "{asset:?} {way:?} {who:?}");
                }
            }
        }
        let mut rows: Vec<String> = TABLE.iter().map(|(asset, way, _)| format!("{asset:?} {way:?}")).collect();
        rows.sort();
        rows.dedup();
        assert_eq!(rows.len(), TABLE.len(), "a row comes twice");
    }

    #[test]
    fn who_somebody_is_depends_on_what_it_is_about() {
        let (a, root) = ("spiffe://td/ns/a/sa/x", "spiffe://td/ns/root/sa/pilot");
        let rows: &[(&[&str], &str, Option<&str>, Who)] = &[
            (&[], "a", None, Who::Anonymous),
            (&[a], "a", None, Who::SameNamespace),
            (&[a], "a", Some("x"), Who::SameNamespace),
            (&[a], "a", Some("y"), Who::OtherNamespace),
            (&[a], "b", None, Who::OtherNamespace),
            (&[a], "b", Some("x"), Who::OtherNamespace),
            (&[a], "", None, Who::OtherNamespace),
            (&[root], "a", None, Who::ControlPlane),
            (&[root], "root", None, Who::SameNamespace),
            (&[a, root], "a", Some("x"), Who::SameNamespace),
        ];
        for (names, namespace, account, who) in rows {
            assert_eq!(Who::speaks_for(&caller(names), namespace, *account, "root"), *who, "{names:?} {namespace} {account:?}");
        }
        assert_eq!(Who::looks_at(&caller(&[root]), "root", "root"), Who::ControlPlane);
        assert_eq!(Who::looks_at(&caller(&[a]), "a", "root"), Who::SameNamespace);
        assert_eq!(Who::looks_at(&caller(&[a]), "", "root"), Who::OtherNamespace);
    }

    #[test]
    fn addresses_of_this_machine() {
        let rows = [
            ("127.0.0.1:7", Way::Local),
            ("127.8.9.10:7", Way::Local),
            ("[::1]:7", Way::Local),
            ("[::ffff:127.0.0.1]:7", Way::Local),
            ("10.0.0.1:7", Way::Clear),
            ("0.0.0.0:7", Way::Clear),
            ("[::]:7", Way::Clear),
            ("[fe80::1]:7", Way::Clear),
            ("[::ffff:10.0.0.1]:7", Way::Clear),
        ];
        for (peer, expected) in rows {
            assert_eq!(Way::of(peer.parse().ok(), false), expected, "{peer}");
            assert_eq!(Way::of(peer.parse().ok(), true), Way::Tls, "{peer}");
        }
        assert_eq!(Way::of(None, false), Way::Clear);
    }
}
