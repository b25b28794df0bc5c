//! [`ProxyClass`]: all that a proxy's output depends on. Proxies of one class share every byte, and classes of one
//! [`ScopeClass`] share all that they see.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use pilotfish_model::name::{Labels, Str};
use pilotfish_model::{ChangeSet, ContentHash, Kind, Proxy};

use crate::facts::{self, OwnFacts, ScopeFacts};
use crate::leaf::{Key, Leaves};
use crate::world::World;

/// A class, compared by the hash of its facts.
#[derive(Clone)]
pub struct ProxyClass {
    hash: ContentHash,
    facts: Arc<ClassFacts>,
}

/// The facts. Nothing that tells two replicas of one Deployment apart may be in here unless the output shows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClassFacts {
    /// What it shares with other classes.
    pub scope: ScopeClass,
    /// The rest.
    pub own: OwnFacts,
}

/// The part of a class that outbound (and gateway) resources depend on, compared by the hash of its facts.
#[derive(Clone)]
pub struct ScopeClass {
    hash: ContentHash,
    facts: Arc<ScopeFacts>,
}

impl ProxyClass {
    /// Resolves a proxy against the mesh. Facts that `leaves` knows are shared: a class has many proxies, a scope many classes.
    pub(crate) fn of(leaves: &Leaves, world: &World, proxy: &Proxy) -> Self {
        let (scope, own) = facts::of(world, proxy);
        let hash = ContentHash::of(&scope);
        let scope = ScopeClass { hash, facts: leaves.kept_or(&Key::of("scope", &hash), || scope) };
        let facts = ClassFacts { scope, own };
        let hash = ContentHash::of(&facts);
        ProxyClass { hash, facts: leaves.kept_or(&Key::of("class", &hash), || facts) }
    }

    /// The facts.
    pub fn facts(&self) -> &ClassFacts {
        &self.facts
    }

    /// Namespace and labels of its workload, which selectors look at.
    pub fn workload(&self) -> (&Str, &Labels) {
        let scope = self.scope().facts();
        (&scope.namespace, &scope.own.as_ref().unwrap_or(&self.facts.own).labels)
    }

    /// What it shares with other classes.
    pub fn scope(&self) -> &ScopeClass {
        &self.facts.scope
    }
}

impl ScopeClass {
    /// The facts.
    pub fn facts(&self) -> &ScopeFacts {
        &self.facts
    }

    /// Namespace whose configuration applies.
    pub fn namespace(&self) -> &Str {
        &self.facts.namespace
    }

    /// Hash of the facts.
    pub fn hash(&self) -> ContentHash {
        self.hash
    }
}

/// Whether a change may move a proxy to another class. Who makes worlds must say in the change that classes differ where
/// [`World::same_keys`] does not hold.
pub fn reclassifies(changes: &ChangeSet, proxy: &Proxy) -> bool {
    changes.everything
        || changes.classes
        || proxy.ips.iter().any(|ip| changes.workloads.contains(ip))
        // Its own address is a fact if its service has no other, or a Sidecar opens ports on it. Both are of its namespace.
        || changes.services.iter().any(|s| s.namespace == proxy.namespace)
        || changes.objects.iter().any(|o| o.kind == Kind::Sidecar && o.namespace == proxy.namespace)
}

macro_rules! by_hash {
    ($class:ty) => {
        impl PartialEq for $class {
            fn eq(&self, other: &Self) -> bool {
                self.hash == other.hash
            }
        }

        impl Eq for $class {}

        impl Hash for $class {
            fn hash<H: Hasher>(&self, state: &mut H) {
                self.hash.hash(state);
            }
        }

        impl PartialOrd for $class {
            fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
                Some(self.cmp(other))
            }
        }

        impl Ord for $class {
            fn cmp(&self, other: &Self) -> std::cmp::Ordering {
                self.hash.cmp(&other.hash)
            }
        }
    };
}

by_hash!(ProxyClass);
by_hash!(ScopeClass);

impl fmt::Debug for ProxyClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let facts = self.scope().facts();
        write!(f, "{}/{:?}/{}", facts.namespace, facts.kind, &self.hash.to_string()[..8])
    }
}

impl fmt::Debug for ScopeClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:?}/scope {}", self.facts.namespace, self.facts.kind, &self.hash.to_string()[..8])
    }
}
