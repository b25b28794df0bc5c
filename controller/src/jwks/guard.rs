//! [`Guard`]: to which addresses a user's URL may lead. Users of the mesh write URLs that the control plane fetches, from
//! where it stands: what only it can reach must stay out of their reach.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// See the module. Private addresses are fine: issuers live in clusters.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    /// Ranges that are allowed in spite of everything.
    pub allow: Vec<IpNet>,
    /// Ranges that are forbidden beside the built-in ones. They weigh more.
    pub deny: Vec<IpNet>,
}

impl Guard {
    /// Whether to connect.
    pub fn permits(&self, ip: IpAddr) -> bool {
        let among = |ranges: &[IpNet], ip: &IpAddr| ranges.iter().any(|r| r.contains(ip));
        let inner = inner(ip);
        let all = [ip, inner];
        if all.iter().any(|ip| among(&self.deny, ip)) {
            return false;
        }
        all.iter().any(|ip| among(&self.allow, ip)) || !all.into_iter().any(is_forbidden)
    }
}

/// The IPv4 address that an IPv6 address stands for, if it does: mapped, compatible, translated (RFC 6052) or 6to4.
fn inner(ip: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = ip else { return ip };
    let s = v6.segments();
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    };
    match s {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => v4(high, low),
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => v4(high, low),
        [0x64, 0xff9b, 1, _, _, _, high, low] => v4(high, low),
        [0x2002, high, low, ..] => v4(high, low),
        _ => ip,
    }
}

/// Metadata services of clouds that are not at a link-local address.
const METADATA_V4: &[Ipv4Addr] = &[Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(168, 63, 129, 16), Ipv4Addr::new(192, 0, 0, 192)];
const METADATA_V6: &[Ipv6Addr] = &[Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)];

fn is_forbidden(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [first, ..] = ip.octets();
            // 0.0.0.0/8 is this network, 240.0.0.0/4 reserved and broadcast.
            first == 0 || first >= 240 || ip.is_loopback() || ip.is_link_local() || ip.is_multicast() || METADATA_V4.contains(&ip)
        }
        IpAddr::V6(ip) => {
            let site_local = ip.segments()[0] & 0xffc0 == 0xfec0;
            ip.is_unspecified()
                || ip.is_loopback()
                || ip.is_multicast()
                || ip.is_unicast_link_local()
                || site_local
                || METADATA_V6.contains(&ip)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_this_machine_reaches_is_out_of_reach() {
        let guard = Guard::default();
        let permits = |ip: &str| guard.permits(ip.parse().unwrap());
        for forbidden in [
            "127.0.0.1",
            "127.8.9.10",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "100.100.100.200",
            "168.63.129.16",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "fd00:ec2::254",
            "fd20:ce::254",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "64:ff9b::169.254.169.254",
            "64:ff9b:1::7f00:1",
            "2002:7f00:1::1",
        ] {
            assert!(!permits(forbidden), "{forbidden}");
        }
        for fine in ["10.0.0.1", "192.168.1.1", "172.16.0.1", "8.8.8.8", "fd00::1", "2001:db8::1", "::ffff:10.0.0.1"] {
            assert!(permits(fine), "{fine}");
        }
    }

    #[test]
    fn exceptions_both_ways() {
        let nets = |list: &[&str]| list.iter().map(|n| n.parse().unwrap()).collect();
        let guard = Guard { allow: nets(&["127.0.0.0/8", "10.0.0.0/8"]), deny: nets(&["10.1.0.0/16"]) };
        let permits = |ip: &str| guard.permits(ip.parse().unwrap());
        assert!(permits("127.0.0.1") && permits("::ffff:127.0.0.1") && permits("10.2.0.1"));
        assert!(!permits("10.1.0.1") && !permits("::ffff:10.1.0.1") && !permits("169.254.0.1"));
    }
}
