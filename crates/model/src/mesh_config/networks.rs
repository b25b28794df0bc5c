//! Networks of a mesh, and where one enters them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Deserialize;

use crate::name::Str;

/// The networks by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct MeshNetworks {
    pub networks: BTreeMap<Str, Network>,
}

/// One network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Network {
    pub endpoints: Vec<NetworkEndpoints>,
    pub gateways: Vec<NetworkGateway>,
}

/// What is in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum NetworkEndpoints {
    /// Addresses of a block.
    #[serde(deserialize_with = "cidr")]
    FromCidr((IpAddr, u8)),
    /// What a cluster has.
    FromRegistry(Str),
}

/// Where others enter it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, try_from = "Gateway")]
pub struct NetworkGateway {
    /// Where it is.
    pub at: GatewayPlace,
    /// Port.
    pub port: u16,
    /// Locality; empty if not given.
    pub locality: Str,
}

/// Where a gateway is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum GatewayPlace {
    /// An address or a name.
    Address(Str),
    /// A service of the registry.
    Service(Str),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Gateway {
    address: Option<Str>,
    registry_service_name: Option<Str>,
    port: u16,
    #[serde(default)]
    locality: Str,
}

impl TryFrom<Gateway> for NetworkGateway {
    type Error = &'static str;

    fn try_from(g: Gateway) -> Result<Self, Self::Error> {
        let at = match (g.address, g.registry_service_name) {
            (Some(address), None) => GatewayPlace::Address(address),
            (None, Some(service)) => GatewayPlace::Service(service),
            _ => return Err("needs either address or registryServiceName"),
        };
        Ok(NetworkGateway { at, port: g.port, locality: g.locality })
    }
}

fn cidr<'de, D: serde::Deserializer<'de>>(d: D) -> Result<(IpAddr, u8), D::Error> {
    let text = String::deserialize(d)?;
    let block = text.split_once('/').and_then(|(ip, bits)| {
        let (ip, bits) = (ip.parse::<IpAddr>().ok()?, bits.parse::<u8>().ok()?);
        (bits <= if ip.is_ipv4() { 32 } else { 128 }).then_some((ip, bits))
    });
    block.ok_or_else(|| serde::de::Error::custom(format!("{text:?} is not a block of addresses")))
}
