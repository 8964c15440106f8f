//! What kind of place an address is.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where an address leads, as far as its number says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The public internet, and the documentation ranges, which lead nowhere.
    Public,
    /// This machine, this site or this provider's inside; the word names the range.
    Private(&'static str),
    /// Never opened by any rule; the word says why.
    Never(&'static str),
}

/// Addresses at which cloud providers hand credentials to whoever asks from the inside: instance metadata
/// (AWS, Google, Azure, Oracle, Alibaba, Tencent), the ECS and EKS credential agents, Azure's wire server.
const METADATA: [IpAddr; 10] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 2)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 23)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 0, 23)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
];

/// An IPv4 address written as `::ffff:a.b.c.d` in its own form; every other address as it is.
#[must_use]
pub(super) fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// The IPv4 address to which a translator or tunnel would carry this IPv6 address: NAT64 (RFC 6052, the
/// well-known prefix), 6to4 (RFC 3056) and the old IPv4-compatible form (RFC 4291, 2.5.5.1).
#[must_use]
pub(super) fn embedded_v4(address: IpAddr) -> Option<IpAddr> {
    let IpAddr::V6(v6) = canonical(address) else { return None };
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    };
    match v6.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => Some(v4(high, low)),
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => Some(v4(high, low)),
        _ => None,
    }
}

/// The scope of an address; what an IPv6 address embeds counts as well.
#[must_use]
pub fn scope_of(address: IpAddr) -> Scope {
    let address = canonical(address);
    if METADATA.contains(&address) {
        return Scope::Never("a metadata address");
    }
    let own = match address {
        IpAddr::V4(v4) => scope_v4(v4),
        IpAddr::V6(v6) => scope_v6(v6),
    };
    match (own, embedded_v4(address)) {
        (Scope::Public, Some(inner)) => scope_of(inner),
        (own, _) => own,
    }
}

/// Ranges of the IANA special-purpose registry (RFC 6890) that do not lead to the internet.
fn scope_v4(address: Ipv4Addr) -> Scope {
    match address.octets() {
        [0, 0, 0, 0] => Scope::Never("the unspecified address"),
        [255, 255, 255, 255] => Scope::Never("the broadcast address"),
        [224..=239, ..] => Scope::Never("a multicast address"),
        [0, ..] => Scope::Private("this network"),
        [127, ..] => Scope::Private("loopback"),
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Scope::Private("private"),
        [169, 254, ..] => Scope::Private("link-local"),
        [100, 64..=127, ..] => Scope::Private("carrier-grade NAT"),
        [192, 0, 0, _] => Scope::Private("protocol assignments"),
        [198, 18..=19, ..] => Scope::Private("benchmarking"),
        [240..=255, ..] => Scope::Private("reserved"),
        _ => Scope::Public,
    }
}

/// As [`scope_v4`], for IPv6: only global unicast (`2000::/3`) and NAT64 are public.
fn scope_v6(address: Ipv6Addr) -> Scope {
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Scope::Never("the unspecified address"),
        [0, 0, 0, 0, 0, 0, 0, 1] => Scope::Private("loopback"),
        [0xff00..=0xffff, ..] => Scope::Never("a multicast address"),
        [0xfe80..=0xfebf, ..] => Scope::Private("link-local"),
        [0xfec0..=0xfeff, ..] => Scope::Private("site-local"),
        [0xfc00..=0xfdff, ..] => Scope::Private("unique local"),
        [0x2001, 0, ..] => Scope::Private("Teredo"),
        [0x2000..=0x3fff, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => Scope::Public,
        [0, 0, 0, 0, 0, 0, ..] => Scope::Private("IPv4-compatible"),
        _ => Scope::Private("reserved"),
    }
}
