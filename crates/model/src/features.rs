//! Switches of this process, by which meshes turn on what is off by default.

/// What is on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Features {
    /// Gateways answer HTTP/3 beside HTTPS, where their Service has the port for UDP as well.
    pub http3: bool,
    /// Ingress listeners of Sidecars end the TLS that they ask for.
    pub sidecar_ingress_tls: bool,
    /// CUSTOM policies of one workload may ask several providers.
    pub several_providers: bool,
    /// Who fetches the keys of tokens.
    pub remote_jwks: RemoteJwks,
}

/// Who fetches the keys of tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RemoteJwks {
    /// This process.
    #[default]
    Never,
    /// Proxies, where the mesh knows the server that has them; else this process.
    Known,
    /// Proxies.
    Always,
}

/// A text that is none of the modes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is none of false, istiod, true, hybrid and envoy")]
pub struct BadMode(String);

impl std::str::FromStr for RemoteJwks {
    type Err = BadMode;

    fn from_str(text: &str) -> Result<Self, BadMode> {
        match text {
            "false" | "istiod" => Ok(RemoteJwks::Never),
            "true" | "hybrid" => Ok(RemoteJwks::Known),
            "envoy" => Ok(RemoteJwks::Always),
            _ => Err(BadMode(text.to_owned())),
        }
    }
}
