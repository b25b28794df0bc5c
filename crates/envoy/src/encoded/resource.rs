//! One encoded resource: [`Resource`]; and parts that several share: [`Fragment`].
//!
//! One buffer serves both protocols. A delta response holds as field 2 a `Resource`: version, name and, last, field 2 with the
//! Any. A state-of-the-world response holds the same Any as *its* field 2. So the whole buffer is a field that a
//! `DeltaDiscoveryResponse` takes verbatim, and its tail is what a `DiscoveryResponse` takes. The value is the Any's last field,
//! so it may be in fragments behind the buffer.
//!
//! ```text
//!   delta:  [ 12 len [ 0a len version ][ 1a len name ][ 12 len [ 0a len type URL ][ 12 len value ] ] ]
//!   sotw:                                             [ 12 len [ 0a len type URL ][ 12 len value ] ]
//!                                                                             rope: [ fragment ][ fragment ]...
//! ```

use std::fmt;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use prost::encoding::{WireType, decode_varint, encode_key, encode_varint};
use prost::{Message, Name};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use crate::any::type_url;
use crate::field;
use crate::pb::google::protobuf::Any;

/// A version made of content: equal on every replica and across restarts. XXH3, 128 bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Version(pub u128);

impl Version {
    /// As [`fmt::Display`] writes it.
    fn digits(self) -> [u8; VERSION_LEN] {
        std::array::from_fn(|at| b"0123456789abcdef"[(self.0 >> (4 * (VERSION_LEN - 1 - at))) as usize & 0xf])
    }

    /// Reads what [`fmt::Display`] wrote; `None` for anything else, such as another server's version.
    pub fn parse(text: &str) -> Option<Version> {
        (text.len() == 32).then(|| u128::from_str_radix(text, 16).ok().map(Version))?
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.digits()))
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The user's objects that something was made of, as `Kind/namespace/name`.
pub type Sources = Arc<[Arc<str>]>;

/// Encoded fields of a message, hashed once. Clones share the bytes.
#[derive(Clone)]
pub struct Fragment(Arc<FragmentInner>);

struct FragmentInner {
    bytes: Bytes,
    hash: u128,
    sources: Sources,
}

/// A fragment that is kept as long as somebody else keeps it.
#[derive(Clone, Debug)]
pub struct WeakFragment(Weak<FragmentInner>);

impl fmt::Debug for FragmentInner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.bytes.len())
    }
}

impl Fragment {
    /// `bytes` are whole fields, tags included.
    pub fn new(bytes: Bytes, sources: impl Into<Sources>) -> Self {
        Fragment(Arc::new(FragmentInner { hash: xxh3_128(&bytes), bytes, sources: sources.into() }))
    }

    /// The encoded fields.
    pub fn bytes(&self) -> &Bytes {
        &self.0.bytes
    }

    /// What it was made of.
    pub fn sources(&self) -> &Sources {
        &self.0.sources
    }

    /// Does not keep it.
    pub fn downgrade(&self) -> WeakFragment {
        WeakFragment(Arc::downgrade(&self.0))
    }
}

impl WeakFragment {
    /// The fragment, if somebody still has it.
    pub fn upgrade(&self) -> Option<Fragment> {
        self.0.upgrade().map(Fragment)
    }
}

impl fmt::Debug for Fragment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One encoded resource, the size of a pointer. Clones share the bytes.
#[derive(Clone)]
pub struct Resource(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    name: Arc<str>,
    version: Version,
    /// Everything up to the value of the Any, and the value where it is not in fragments.
    head: Bytes,
    /// Where in `head` the field with the Any begins.
    any_field: usize,
    fragments: Box<[Fragment]>,
    /// Length of the fragments together.
    tail_len: usize,
    sources: Sources,
}

/// A resource that is kept as long as somebody else keeps it.
#[derive(Clone)]
pub struct WeakResource(Weak<Inner>);

impl Resource {
    /// Encodes `message` under `name`.
    pub fn new<M: Message + Name>(name: impl Into<Arc<str>>, message: &M) -> Self {
        let (name, value_len) = (name.into(), message.encoded_len());
        let Head { mut bytes, version_at, any_field } = head(&name, &type_url::<M>(), value_len, value_len);
        let value_at = bytes.len();
        message.encode_raw(&mut bytes);
        // What the version is made of is written behind it.
        let version = Version(xxh3_128(&bytes[value_at..]));
        bytes[version_at..][..VERSION_LEN].copy_from_slice(&version.digits());
        Self::assemble(name, bytes, version, any_field, Box::default(), 0)
    }

    /// A resource whose message is the concatenation of fragments.
    pub fn rope(name: impl Into<Arc<str>>, type_url: &str, fragments: Vec<Fragment>) -> Self {
        let mut hasher = Xxh3::new();
        fragments.iter().for_each(|f| hasher.update(&f.0.hash.to_le_bytes()));
        let version = Version(hasher.digest128());
        let (name, tail_len) = (name.into(), fragments.iter().map(|f| f.bytes().len()).sum());
        let Head { mut bytes, version_at, any_field } = head(&name, type_url, tail_len, 0);
        bytes[version_at..][..VERSION_LEN].copy_from_slice(&version.digits());
        Self::assemble(name, bytes, version, any_field, fragments.into(), tail_len)
    }

    fn assemble(name: Arc<str>, head: Vec<u8>, version: Version, any_field: usize, fragments: Box<[Fragment]>, tail_len: usize) -> Self {
        Resource(Arc::new(Inner { name, version, head: head.into(), any_field, fragments, tail_len, sources: Arc::default() }))
    }

    /// The same, made of these objects (beside those of its fragments).
    pub fn with_sources(self, sources: impl Into<Sources>) -> Self {
        let mut inner = Arc::unwrap_or_clone(self.0);
        inner.sources = sources.into();
        Resource(Arc::new(inner))
    }

    /// The resource's name.
    pub fn name(&self) -> &Arc<str> {
        &self.0.name
    }

    /// Hash of the encoded content.
    pub fn version(&self) -> Version {
        self.0.version
    }

    /// The objects that it was made of; one may come several times.
    pub fn sources(&self) -> impl Iterator<Item = &Arc<str>> {
        self.0.sources.iter().chain(self.0.fragments.iter().flat_map(|f| f.sources().iter()))
    }

    /// One entry of `DeltaDiscoveryResponse.resources`, its tag and length included, in parts.
    pub fn delta_parts(&self) -> impl Iterator<Item = Bytes> {
        std::iter::once(self.0.head.clone()).chain(self.tail())
    }

    /// One entry of `DiscoveryResponse.resources`, its tag and length included, in parts.
    pub fn sotw_parts(&self) -> impl Iterator<Item = Bytes> {
        std::iter::once(self.0.head.slice(self.0.any_field..)).chain(self.tail())
    }

    fn tail(&self) -> impl Iterator<Item = Bytes> {
        self.0.fragments.iter().map(|f| f.bytes().clone())
    }

    /// The encoded message, where it is in one piece; a rope's is in its fragments.
    pub fn value(&self) -> &[u8] {
        let mut field = &self.0.head[self.0.any_field..];
        let mut length = || decode_varint(&mut field).unwrap_or_default();
        // Written by `head`: the field with the Any, and in it type URL and value, each with tag and length.
        let (_tag, _len, _tag_of_url, url_len) = (length(), length(), length(), length());
        let mut rest = field.get(url_len as usize..).unwrap_or_default();
        let (_tag, _len) = (decode_varint(&mut rest), decode_varint(&mut rest));
        rest
    }

    /// The resource as the Any that clients see.
    pub fn to_any(&self) -> Any {
        let field: Vec<u8> = self.sotw_parts().flatten().collect();
        let mut field = field.as_slice();
        // Written by `head` below: a tag, a length and an Any. An empty Any stands for bytes that are not.
        let _tag = decode_varint(&mut field);
        let _len = decode_varint(&mut field);
        Any::decode(field).unwrap_or_default()
    }

    /// Size of its entry in a delta response, in bytes.
    pub fn delta_len(&self) -> usize {
        self.0.head.len() + self.0.tail_len
    }

    /// Size of its entry in a state-of-the-world response, in bytes.
    pub fn sotw_len(&self) -> usize {
        self.delta_len() - self.0.any_field
    }

    /// Does not keep it.
    pub fn downgrade(&self) -> WeakResource {
        WeakResource(Arc::downgrade(&self.0))
    }

    /// Hash of name and version, of which versions of sets are made.
    pub(super) fn entry_hash(&self) -> u128 {
        let mut hasher = Xxh3::new();
        hasher.update(self.name().as_bytes());
        hasher.update(&self.version().0.to_le_bytes());
        hasher.digest128()
    }
}

impl WeakResource {
    /// The resource, if somebody still has it.
    pub fn upgrade(&self) -> Option<Resource> {
        self.0.upgrade().map(Resource)
    }
}

impl PartialEq for Resource {
    /// By name and content.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || (self.version() == other.version() && self.name() == other.name())
    }
}

impl Eq for Resource {}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name(), self.version())
    }
}

/// Digits of a version.
const VERSION_LEN: usize = 32;

/// Everything up to the value.
struct Head {
    bytes: Vec<u8>,
    /// Where the version belongs; zeros until then.
    version_at: usize,
    /// Where the field with the Any begins.
    any_field: usize,
}

/// The head of a value of `value_len` bytes, with room for `room` of them.
fn head(name: &str, type_url: &str, value_len: usize, room: usize) -> Head {
    let any_len = field::len(type_url.len()) + if value_len == 0 { 0 } else { field::len(value_len) };
    let len = field::len(VERSION_LEN) + field::len(name.len()) + field::len(any_len);
    let mut bytes = Vec::with_capacity(field::len(len) - value_len + room);
    encode_key(2, WireType::LengthDelimited, &mut bytes);
    encode_varint(len as u64, &mut bytes);
    field::put(1, &[b'0'; VERSION_LEN], &mut bytes);
    let version_at = bytes.len() - VERSION_LEN;
    field::put(3, name.as_bytes(), &mut bytes);
    let any_field = bytes.len();
    encode_key(2, WireType::LengthDelimited, &mut bytes);
    encode_varint(any_len as u64, &mut bytes);
    field::put(1, type_url.as_bytes(), &mut bytes);
    if value_len > 0 {
        encode_key(2, WireType::LengthDelimited, &mut bytes);
        encode_varint(value_len as u64, &mut bytes);
    }
    Head { bytes, version_at, any_field }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::any::any;
    use crate::pb::envoy::config::cluster::v3::Cluster;
    use crate::pb::envoy::config::route::v3::{RouteConfiguration, VirtualHost};
    use crate::pb::envoy::service::discovery::v3 as discovery;

    fn cluster(name: &str) -> Cluster {
        Cluster { name: name.into(), ..Default::default() }
    }

    fn bytes(parts: impl Iterator<Item = Bytes>) -> Bytes {
        parts.flatten().collect::<Vec<u8>>().into()
    }

    fn is_valid_in_both_protocols(resource: &Resource, any: &Any) {
        let delta = discovery::DeltaDiscoveryResponse::decode(bytes(resource.delta_parts())).unwrap().resources.remove(0);
        let sotw = discovery::DiscoveryResponse::decode(bytes(resource.sotw_parts())).unwrap();
        assert_eq!((delta.name.as_str(), delta.version), ("a", resource.version().to_string()));
        assert_eq!((delta.resource.as_ref(), sotw.resources.first()), (Some(any), Some(any)));
        assert_eq!((&resource.to_any(), resource.delta_len()), (any, bytes(resource.delta_parts()).len()));
        assert_eq!(resource.sotw_len(), bytes(resource.sotw_parts()).len());
        assert!(resource.value().is_empty() || resource.value() == any.value);
    }

    #[test]
    fn one_buffer_is_valid_in_both_protocols() {
        is_valid_in_both_protocols(&Resource::new("a", &cluster("a")), &any(&cluster("a")));
        assert_eq!(Resource::new("a", &cluster("a")).value(), cluster("a").encode_to_vec());
        is_valid_in_both_protocols(&Resource::new("a", &cluster("")), &any(&cluster("")));
    }

    #[test]
    fn fragments_make_the_message_that_is_encoded_at_once() {
        let host = |name: &str| VirtualHost { name: name.into(), domains: vec![name.into()], ..Default::default() };
        let only = |hosts: &[&str]| RouteConfiguration { virtual_hosts: hosts.iter().map(|h| host(h)).collect(), ..Default::default() };
        let head = RouteConfiguration { name: "a".into(), ..Default::default() };
        let fragment = |m: RouteConfiguration, source: &str| Fragment::new(m.encode_to_vec().into(), [Arc::from(source)]);
        let parts = vec![fragment(head.clone(), "x"), fragment(only(&["h1"]), "y"), fragment(only(&["h2"]), "z")];
        let type_url = any(&head).type_url;
        let rope = Resource::rope("a", &type_url, parts.clone()).with_sources([Arc::from("w")]);
        is_valid_in_both_protocols(&rope, &any(&RouteConfiguration { name: "a".into(), ..only(&["h1", "h2"]) }));
        assert_eq!(rope.sources().map(|s| &**s).collect::<Vec<_>>(), ["w", "x", "y", "z"]);
        assert_ne!(rope.version(), Resource::rope("a", &type_url, parts[..2].to_vec()).version());
    }
}
