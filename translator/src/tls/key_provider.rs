//! Private keys that hardware signs with: the key goes into the provider's settings instead of beside the certificate.

use std::time::Duration;

use pilotfish_envoy::any;
use pilotfish_envoy::pb::envoy::extensions::private_key_providers::cryptomb::v3alpha::{self as cryptomb, CryptoMbPrivateKeyMethodConfig};
use pilotfish_envoy::pb::envoy::extensions::private_key_providers::qat::v3alpha::{self as qat, QatPrivateKeyMethodConfig};
use pilotfish_envoy::pb::envoy::extensions::transport_sockets::tls::v3::{PrivateKeyProvider as Message, private_key_provider::ConfigType};
use pilotfish_model::proxy_config::{KeyProviderSettings, PrivateKeyProvider};

const USUAL_DELAY: Duration = Duration::from_millis(10);
/// Envoy takes none that is shorter.
const SHORTEST_DELAY: Duration = Duration::from_millis(1);

/// What a client that has it lists.
pub(crate) fn extension(provider: PrivateKeyProvider) -> &'static str {
    match provider {
        PrivateKeyProvider::Cryptomb(_) => "envoy.tls.key_providers.cryptomb",
        PrivateKeyProvider::Qat(_) => "envoy.tls.key_providers.qat",
    }
}

/// With this key.
pub(super) fn message(provider: PrivateKeyProvider, key: &[u8]) -> Message {
    let delay = |s: KeyProviderSettings| {
        Some(crate::listener::pack::duration(s.poll_delay.map_or(USUAL_DELAY, Duration::from).max(SHORTEST_DELAY)))
    };
    let (name, settings, config) = match provider {
        PrivateKeyProvider::Cryptomb(s) => {
            let private_key = Some(cryptomb::InlineBytes { inline_bytes: key.to_vec().into() });
            ("cryptomb", s, any(&CryptoMbPrivateKeyMethodConfig { private_key, poll_delay: delay(s) }))
        }
        PrivateKeyProvider::Qat(s) => {
            let private_key = Some(qat::InlineBytes { inline_bytes: key.to_vec().into() });
            ("qat", s, any(&QatPrivateKeyMethodConfig { private_key, poll_delay: delay(s) }))
        }
    };
    Message {
        provider_name: name.to_owned(),
        fallback: settings.fallback == Some(true),
        config_type: Some(ConfigType::TypedConfig(config)),
    }
}
