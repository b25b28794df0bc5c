//! The descriptors of every Envoy message and of ours, with their options: what reflection (JSON, validation) reads.

use std::sync::LazyLock;

use prost_reflect::{DescriptorPool, MessageDescriptor};

/// Decoding takes about 20 ms and 18 MB, so it waits for the first use. A set that does not decode leaves the pool empty
/// (every type is then unknown, which all users of the pool report); a test holds that it decodes.
static POOL: LazyLock<DescriptorPool> = LazyLock::new(decode);

const ENCODED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// All descriptors, decoded on first use.
pub fn pool() -> &'static DescriptorPool {
    &POOL
}

/// A pool of its own, for who needs it once: it takes 20 MB.
pub(crate) fn decode() -> DescriptorPool {
    DescriptorPool::decode(ENCODED).unwrap_or_default()
}

/// The message that a type URL or a plain full name stands for.
pub fn message(type_url: &str) -> Option<MessageDescriptor> {
    pool().get_message_by_name(type_name(type_url))
}

/// The full name in a type URL; a name without a slash is itself.
pub fn type_name(type_url: &str) -> &str {
    type_url.rsplit_once('/').map_or(type_url, |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_of_envoy_and_ours_is_known() {
        let pool = DescriptorPool::decode(ENCODED).unwrap();
        assert!(pool.all_messages().len() > 1500, "{} messages", pool.all_messages().len());
        for url in ["type.googleapis.com/envoy.config.cluster.v3.Cluster", "istio.networking.nds.v1.NameTable", "udpa.type.v1.TypedStruct"]
        {
            assert_eq!(message(url).map(|m| m.full_name().to_owned()).as_deref(), Some(type_name(url)));
        }
    }
}
