//! Make before break: which types wait for which, as one table.
//!
//! Types are sent in the order of [`TypeUrl::ALL`]. Beyond that order, what names other resources waits until the client
//! has taken these, and what others still name is removed only after the client has taken the others' new form. Only types
//! that the client subscribes to are waited for, and never for longer than the client's patience (see
//! [`crate::client::Client`]).

use pilotfish_envoy::TypeUrl::{self, Cluster, Endpoint, ExtensionConfig, Listener, NameTable, ProxyConfig, Route, Secret};

/// What one type waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Additions and changes wait until these have arrived.
    pub updates_after: &'static [TypeUrl],
    /// Removals wait until these have arrived.
    pub removals_after: &'static [TypeUrl],
}

/// The table.
pub const fn rule(type_url: TypeUrl) -> Rule {
    let (updates_after, removals_after): (&[TypeUrl], &[TypeUrl]) = match type_url {
        Cluster | Endpoint => (&[], &[Listener, Route]),
        Listener => (&[Cluster, Endpoint], &[]),
        Route => (&[Cluster, Endpoint], &[Listener]),
        ExtensionConfig => (&[], &[Listener]),
        // Removals of secrets are never sent, see [`crate::secret`].
        Secret | NameTable | ProxyConfig => (&[], &[]),
    };
    Rule { updates_after, removals_after }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waiting in a circle would end only with the patience.
    #[test]
    fn updates_wait_for_earlier_types_only_and_removals_for_no_update_that_waits_for_them() {
        for (i, t) in TypeUrl::ALL.into_iter().enumerate() {
            for dep in rule(t).updates_after {
                assert!(TypeUrl::ALL[..i].contains(dep), "{t:?} waits for {dep:?}, which is sent later");
            }
            assert!(!rule(t).removals_after.contains(&t));
        }
    }

    #[test]
    fn traffic_never_loses_its_target() {
        assert_eq!(TypeUrl::ALL[..4], [Cluster, Endpoint, Listener, Route]);
        assert_eq!(rule(Route).updates_after, [Cluster, Endpoint]);
        assert_eq!(rule(Cluster).removals_after, [Listener, Route]);
        assert_eq!(rule(Endpoint).removals_after, [Listener, Route]);
    }
}
