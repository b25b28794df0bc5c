//! [`Security`]: what of the mesh applies to one workload.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use pilotfish_model::authorization_policy::{Action, AuthorizationPolicy};
use pilotfish_model::features::RemoteJwks;
use pilotfish_model::mesh::ObjectKey;
use pilotfish_model::name::{Host, Labels, Str};
use pilotfish_model::request_authentication::{JwksSource, JwtRule, Keys};
use pilotfish_model::{ContentHash, Kind, ObjectId};

use super::ext_authz::{self, BadProvider, Provider};
use super::trust_domain::TrustDomains;
use crate::attach::attached;
use crate::naming::{self, Direction};
use crate::world::World;

/// See the module. Compared by the hash of its content: rules may be large.
#[derive(Clone, Debug)]
pub struct Security {
    hash: ContentHash,
    pub(super) content: Content,
    /// Hosts that a provider was looked up by.
    hosts: BTreeSet<Host>,
}

/// What filters are made of.
#[derive(Clone, Debug, Hash)]
pub(super) struct Content {
    pub(super) domains: TrustDomains,
    /// Those of the root namespace first, each namespace's from old to young.
    pub(super) policies: Vec<Arc<AuthorizationPolicy>>,
    /// By the name that policies call them.
    pub(super) providers: BTreeMap<Str, Result<Provider, BadProvider>>,
    /// By issuer.
    pub(super) tokens: Vec<Token>,
    /// The objects that the tokens are of.
    token_objects: Vec<ObjectKey>,
    /// Routes may look at claims.
    pub(super) gateway: bool,
}

/// Tokens of one issuer, with the keys at hand.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Token {
    pub(super) rule: JwtRule,
    pub(super) keys: TokenKeys,
}

/// Where the keys of tokens are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum TokenKeys {
    /// Here. `None`: nobody has any, so no token is valid.
    Here(Option<Str>),
    /// Proxies fetch them.
    Remote {
        uri: Str,
        /// Cluster of the server.
        cluster: Str,
    },
}

impl Security {
    /// Of a workload; `None` if there is no policy for it.
    pub fn of(world: &World, namespace: &str, labels: &Labels, gateway: bool) -> Option<Arc<Security>> {
        let mesh = &*world.mesh;
        if mesh.authorization_policies.is_empty() && mesh.request_authentications.is_empty() {
            return None;
        }
        let root = &*mesh.config.root_namespace;
        let policies: Vec<_> = attached(&mesh.authorization_policies, root, namespace, labels).into_iter().cloned().collect();
        let mut authentications = attached(&mesh.request_authentications, root, namespace, labels);
        // Of rules for one issuer those of the own namespace come first.
        authentications.sort_by_key(|a| *a.meta.namespace != *namespace);
        if policies.is_empty() && authentications.is_empty() {
            return None;
        }
        let mut hosts = BTreeSet::new();
        let mut providers = BTreeMap::new();
        for name in policies.iter().filter(|p| !p.dry_run).filter_map(|p| provider(p)) {
            providers.entry(name.clone()).or_insert_with(|| ext_authz::resolve(world, name, &mut hosts));
        }
        if providers.len() > 1 && !mesh.config.features.several_providers {
            providers.values_mut().for_each(|p| *p = Err(BadProvider::Several));
        }
        let mut token = |rule: &JwtRule| Token {
            rule: rule.clone(),
            keys: match &rule.keys {
                Keys::Inline(keys) => TokenKeys::Here(Some(keys.clone())),
                Keys::Remote(source) => {
                    remote(world, source, &mut hosts).unwrap_or_else(|| TokenKeys::Here(mesh.jwks.get(source).cloned()))
                }
                Keys::Invalid => TokenKeys::Here(None),
            },
        };
        let mut tokens: Vec<Token> = Vec::new();
        authentications.iter().flat_map(|a| &a.rules).for_each(|rule| tokens.push(token(rule)));
        tokens.sort_by(|a, b| a.rule.issuer.cmp(&b.rule.issuer));
        let token_objects = authentications.iter().map(|a| ObjectKey { namespace: a.meta.namespace.clone(), name: a.meta.name.clone() });
        let content = Content {
            domains: TrustDomains::of(&mesh.config),
            policies,
            providers,
            tokens,
            token_objects: token_objects.collect(),
            gateway,
        };
        Some(Arc::new(Security { hash: ContentHash::of(&content), content, hosts }))
    }

    /// Hash of all that filters are made of.
    pub fn hash(&self) -> ContentHash {
        self.hash
    }

    /// The objects behind it.
    pub fn objects(&self) -> impl Iterator<Item = ObjectId> + '_ {
        let policies = self.content.policies.iter().map(|p| &p.meta);
        let policies = policies.map(|m| ObjectId::new(Kind::AuthorizationPolicy, m.namespace.clone(), m.name.clone()));
        let tokens = self.content.token_objects.iter();
        policies.chain(tokens.map(|k| ObjectId::new(Kind::RequestAuthentication, k.namespace.clone(), k.name.clone())))
    }

    /// Whether a provider was looked for under a host.
    pub(crate) fn asks_for(&self, host: &Host) -> bool {
        self.hosts.contains(host)
    }

    /// Whether an object may be, or have been, among those that apply to a workload.
    pub(crate) fn is_touched(known: Option<&Arc<Security>>, world: &World, id: &ObjectId, namespace: &str, labels: &Labels) -> bool {
        use pilotfish_model::attachment::Attached;
        let mesh = &*world.mesh;
        let key = ObjectKey::of(id);
        let covers = |object: Option<&dyn Attached>| object.is_some_and(|o| o.attachment().covers(labels));
        let near = *id.namespace == *namespace || id.namespace == mesh.config.root_namespace;
        let is_known = || known.is_some_and(|s| s.objects().any(|o| o == *id));
        match id.kind {
            Kind::AuthorizationPolicy => near && covers(mesh.authorization_policies.get(&key).map(|p| &**p as &dyn Attached)) || is_known(),
            Kind::RequestAuthentication => {
                near && covers(mesh.request_authentications.get(&key).map(|p| &**p as &dyn Attached)) || is_known()
            }
            _ => false,
        }
    }
}

/// Keys that proxies fetch by themselves; `None` where they do not.
fn remote(world: &World, source: &JwksSource, hosts: &mut BTreeSet<Host>) -> Option<TokenKeys> {
    let mode = world.mesh.config.features.remote_jwks;
    let JwksSource::Uri(uri) = source else { return None };
    if mode == RemoteJwks::Never {
        return None;
    }
    let (scheme, rest) = uri.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let (host, port) = match authority.rsplit_once(':').and_then(|(h, p)| Some((h, p.parse::<u16>().ok()?))) {
        Some(found) => found,
        None => (authority, if scheme == "https" { 443 } else { 80 }),
    };
    let known = ext_authz::find(world, host, hosts).filter(|h| world.services_of(h).iter().any(|s| s.port(port).is_some()));
    let host = known.or_else(|| (mode == RemoteJwks::Always).then(|| Host::new(host)))?;
    let cluster = naming::cluster(Direction::Outbound, port, "", host.as_str()).into();
    Some(TokenKeys::Remote { uri: uri.clone(), cluster })
}

/// The provider that a policy asks.
pub(super) fn provider(policy: &AuthorizationPolicy) -> Option<&Str> {
    match &policy.action {
        Action::Custom(name) => Some(name),
        _ => None,
    }
}

impl PartialEq for Security {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.hosts == other.hosts
    }
}

impl Eq for Security {}

impl Hash for Security {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.hash.hash(state);
    }
}
