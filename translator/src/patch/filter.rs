//! [`Named`]: what listener filters, network filters and HTTP filters have in common.

use pilotfish_envoy::pb::envoy::config::listener::v3::{Filter, ListenerFilter, filter, listener_filter};
use pilotfish_envoy::pb::envoy::extensions::filters::network::http_connection_manager::v3::{HttpFilter, http_filter};
use pilotfish_envoy::pb::google::protobuf::Any;

/// A filter of any kind.
pub(super) trait Named {
    /// Its name, and its config if it has one of its own.
    fn parts(&mut self) -> (&mut String, Option<&mut Any>);
    /// That config.
    fn config(&self) -> Option<&Any>;
    /// That name.
    fn name(&self) -> &str;
}

macro_rules! named {
    ($type:ty, $config:path) => {
        impl Named for $type {
            fn parts(&mut self) -> (&mut String, Option<&mut Any>) {
                let config = match &mut self.config_type {
                    Some($config(config)) => Some(config),
                    _ => None,
                };
                (&mut self.name, config)
            }

            fn config(&self) -> Option<&Any> {
                match &self.config_type {
                    Some($config(config)) => Some(config),
                    _ => None,
                }
            }

            fn name(&self) -> &str {
                &self.name
            }
        }
    };
}

named!(ListenerFilter, listener_filter::ConfigType::TypedConfig);
named!(Filter, filter::ConfigType::TypedConfig);
named!(HttpFilter, http_filter::ConfigType::TypedConfig);
