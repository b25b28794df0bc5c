//! [`ConfigSource`]: where a client gets something, as it goes over the wire. There are a handful of them, and each cluster names
//! several.

use bytes::Bytes;
use prost::Message;
use prost_types::Duration;

use crate::field::{self, put};
use crate::pb::envoy::config::core::v3::{ApiConfigSource, ApiVersion};
use crate::raw::encoded;

/// An encoded `envoy.config.core.v3.ConfigSource`. Clones share the bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ConfigSource(Bytes);

const API_CONFIG_SOURCE: u32 = 2;
const ADS: u32 = 3;
const INITIAL_FETCH_TIMEOUT: u32 = 4;
const RESOURCE_API_VERSION: u32 = 6;

impl ConfigSource {
    /// The stream that the client has anyway. `wait`: how long what needs the resource waits for it; 0: without limit.
    pub fn ads(version: ApiVersion, wait: Option<Duration>) -> Self {
        Self::of(ADS, &[], version, wait)
    }

    /// A server of its own.
    pub fn api(source: &ApiConfigSource, version: ApiVersion, wait: Option<Duration>) -> Self {
        Self::of(API_CONFIG_SOURCE, &source.encode_to_vec(), version, wait)
    }

    fn of(specifier: u32, inner: &[u8], version: ApiVersion, wait: Option<Duration>) -> Self {
        let mut out = Vec::new();
        put(specifier, inner, &mut out);
        if let Some(wait) = wait {
            put(INITIAL_FETCH_TIMEOUT, &wait.encode_to_vec(), &mut out);
        }
        field::number(RESOURCE_API_VERSION, i32::from(version) as u64, &mut out);
        ConfigSource(out.into())
    }
}

encoded!(ConfigSource);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::envoy::config::core::v3::AggregatedConfigSource;

    /// The message as the generator would have it.
    #[derive(Clone, PartialEq, Message)]
    struct Typed {
        #[prost(message, optional, tag = "2")]
        api_config_source: Option<ApiConfigSource>,
        #[prost(message, optional, tag = "3")]
        ads: Option<AggregatedConfigSource>,
        #[prost(message, optional, tag = "4")]
        initial_fetch_timeout: Option<Duration>,
        #[prost(enumeration = "ApiVersion", tag = "6")]
        resource_api_version: i32,
    }

    #[test]
    fn a_source_has_the_bytes_that_its_typed_form_has() {
        let api = ApiConfigSource { set_node_on_first_message_only: true, ..Default::default() };
        for wait in [None, Some(Duration::default()), Some(Duration { seconds: 1, nanos: 0 })] {
            for version in [ApiVersion::Auto, ApiVersion::V3] {
                let ours = [ConfigSource::ads(version, wait), ConfigSource::api(&api, version, wait)];
                let both = Typed { initial_fetch_timeout: wait, resource_api_version: version.into(), ..Default::default() };
                let theirs = [
                    Typed { ads: Some(AggregatedConfigSource {}), ..both.clone() },
                    Typed { api_config_source: Some(api.clone()), ..both },
                ];
                assert_eq!(ours.each_ref().map(Message::encode_to_vec), theirs.each_ref().map(Message::encode_to_vec));
                assert_eq!(theirs.map(|t| ConfigSource::decode(t.encode_to_vec().as_slice()).unwrap()), ours);
            }
        }
    }
}
