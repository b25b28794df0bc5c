//! Resources encoded once: [`Resource`], [`ResourceSet`], [`Snapshot`].
//!
//! One buffer serves both protocols. A delta `Resource` is encoded as version, name and, last, field 2 with the Any; a
//! state-of-the-world response holds the same Any as *its* field 2. So the tail of the buffer, tag included, is what a
//! `DiscoveryResponse` takes verbatim, and the whole buffer is what a `DeltaDiscoveryResponse` takes.
//!
//! ```text
//!   delta:  [ 0a len version ][ 1a len name ][ 12 len Any ]
//!   sotw:                                    [ 12 len Any ]
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};
use prost::{Message, Name};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use crate::any::any;
use crate::pb::google::protobuf::Any;
use crate::types::TypeUrl;

/// A version made of content: equal on every replica and across restarts. XXH3, 128 bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Version(pub u128);

impl Version {
    /// Reads what [`fmt::Display`] wrote; `None` for anything else, such as another server's version.
    pub fn parse(text: &str) -> Option<Version> {
        (text.len() == 32).then(|| u128::from_str_radix(text, 16).ok().map(Version))?
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One encoded resource. Clones share the bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Resource {
    name: Arc<str>,
    version: Version,
    delta: Bytes,
    /// Where in `delta` the field with the Any begins.
    any_field: usize,
}

impl Resource {
    /// Encodes `message` under `name`.
    pub fn new<M: Message + Name>(name: impl Into<Arc<str>>, message: &M) -> Self {
        Self::from_any(name, &any(message))
    }

    /// Encodes a message that is already in its Any.
    pub fn from_any(name: impl Into<Arc<str>>, any: &Any) -> Self {
        let name = name.into();
        let version = Version(xxh3_128(&any.value));
        let text = version.to_string();
        let any_len = any.encoded_len();
        let mut buf = BytesMut::with_capacity(text.len() + name.len() + any_len + 24);
        put_bytes(1, text.as_bytes(), &mut buf);
        put_bytes(3, name.as_bytes(), &mut buf);
        let any_field = buf.len();
        encode_key(2, WireType::LengthDelimited, &mut buf);
        encode_varint(any_len as u64, &mut buf);
        any.encode_raw(&mut buf);
        Resource { name, version, delta: buf.freeze(), any_field }
    }

    /// The resource's name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Hash of the encoded content.
    pub fn version(&self) -> Version {
        self.version
    }

    /// An encoded `envoy.service.discovery.v3.Resource`.
    pub fn delta_message(&self) -> &Bytes {
        &self.delta
    }

    /// One entry of `DiscoveryResponse.resources`, its tag and length included.
    pub fn sotw_field(&self) -> Bytes {
        self.delta.slice(self.any_field..)
    }

    /// The resource as the Any that clients see.
    pub fn to_any(&self) -> Any {
        let mut field = &self.delta[self.any_field..];
        // Written by `from_any` above: a tag, a length and an Any. An empty Any stands for bytes that are not.
        let _tag = prost::encoding::decode_varint(&mut field);
        let _len = prost::encoding::decode_varint(&mut field);
        Any::decode(field).unwrap_or_default()
    }

    /// Size of the encoded resource in bytes, as delta sends it.
    pub fn encoded_len(&self) -> usize {
        self.delta.len()
    }
}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.version)
    }
}

fn put_bytes(tag: u32, value: &[u8], buf: &mut BytesMut) {
    encode_key(tag, WireType::LengthDelimited, buf);
    encode_varint(value.len() as u64, buf);
    buf.put_slice(value);
}

/// Length of a length-delimited field with a payload of `len` bytes, tag (below 16) included.
pub fn field_len(len: usize) -> usize {
    1 + encoded_len_varint(len as u64) + len
}

/// All resources of one type for one class of proxies, with the version of the whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourceSet {
    resources: BTreeMap<Arc<str>, Resource>,
    version: Version,
}

impl ResourceSet {
    /// Of two resources with one name the first stays.
    pub fn new(resources: impl IntoIterator<Item = Resource>) -> Self {
        let mut by_name = BTreeMap::new();
        for resource in resources {
            by_name.entry(resource.name.clone()).or_insert(resource);
        }
        let mut hasher = Xxh3::new();
        for resource in by_name.values() {
            hasher.update(resource.name.as_bytes());
            hasher.update(&resource.version.0.to_le_bytes());
        }
        ResourceSet { resources: by_name, version: Version(hasher.digest128()) }
    }

    /// Hash of names and versions.
    pub fn version(&self) -> Version {
        self.version
    }

    /// By name.
    pub fn get(&self, name: &str) -> Option<&Resource> {
        self.resources.get(name)
    }

    /// In the order of names.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Resource> {
        self.resources.values()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.resources.len()
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.resources.is_empty()
    }
}

/// Everything that one class of proxies gets, by type. A type that is absent has no resources.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    sets: BTreeMap<TypeUrl, Arc<ResourceSet>>,
}

impl Snapshot {
    /// An empty snapshot.
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces the resources of one type.
    pub fn insert(&mut self, type_url: TypeUrl, set: impl Into<Arc<ResourceSet>>) {
        self.sets.insert(type_url, set.into());
    }

    /// The resources of one type.
    pub fn get(&self, type_url: TypeUrl) -> Arc<ResourceSet> {
        self.sets.get(&type_url).cloned().unwrap_or_default()
    }

    /// The types that have resources.
    pub fn iter(&self) -> impl Iterator<Item = (TypeUrl, &Arc<ResourceSet>)> {
        self.sets.iter().map(|(t, s)| (*t, s))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::envoy::config::cluster::v3::Cluster;
    use crate::pb::envoy::service::discovery::v3 as discovery;

    fn cluster(name: &str) -> Cluster {
        Cluster { name: name.into(), ..Default::default() }
    }

    #[test]
    fn one_buffer_is_valid_in_both_protocols() {
        let resource = Resource::new("a", &cluster("a"));
        let delta = discovery::Resource::decode(resource.delta_message().clone()).unwrap();
        let sotw = discovery::DiscoveryResponse::decode(resource.sotw_field()).unwrap();
        assert_eq!((delta.name.as_str(), delta.version), ("a", resource.version().to_string()));
        assert_eq!(delta.resource.as_ref(), sotw.resources.first());
        assert_eq!(resource.to_any(), any(&cluster("a")));
    }

    #[test]
    fn versions_follow_content_only() {
        let set = |names: &[&str]| ResourceSet::new(names.iter().map(|n| Resource::new(*n, &cluster(n)))).version();
        assert_eq!(set(&["a", "b"]), set(&["b", "a"]));
        assert_ne!(set(&["a", "b"]), set(&["a"]));
        assert_eq!(Version::parse(&set(&["a"]).to_string()), Some(set(&["a"])));
        assert_eq!(Version::parse("2026-01-01T00:00:00Z/7"), None);
    }
}
