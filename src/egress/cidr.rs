//! Blocks of addresses.

use std::{fmt, net::IpAddr, str::FromStr};

use super::address::canonical;

/// Why a text is not a block of addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CidrError {
    /// Not `ADDRESS/PREFIX`.
    #[error("a block is ADDRESS/PREFIX, as in 203.0.113.0/24")]
    Form,
    /// The prefix is longer than the address.
    #[error("a prefix of {0} bits is longer than the address")]
    Prefix(u8),
    /// Bits set behind the prefix: most likely a slip of the pen, so it is not silently widened.
    #[error("bits are set behind the prefix; the block that holds this address is {0}")]
    HostBits(Cidr),
}

/// A block of addresses, held with its host bits zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cidr {
    network: IpAddr,
    prefix: u8,
}

impl Cidr {
    /// Whether the block holds the address (IPv4 in IPv6 clothes counts as IPv4).
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.network, canonical(address)) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
                (own.to_bits() ^ other.to_bits()) & mask == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix)).unwrap_or(0);
                (own.to_bits() ^ other.to_bits()) & mask == 0
            }
            _ => false,
        }
    }

    fn zeroed(address: IpAddr, prefix: u8) -> Self {
        let network = match address {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
                IpAddr::V4((v4.to_bits() & mask).into())
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
                IpAddr::V6((v6.to_bits() & mask).into())
            }
        };
        Self { network, prefix }
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let (address, prefix) = text.split_once('/').ok_or(CidrError::Form)?;
        let written: IpAddr = address.parse().map_err(|_| CidrError::Form)?;
        let mut prefix: u8 = prefix.parse().map_err(|_| CidrError::Form)?;
        if prefix > if written.is_ipv4() { 32 } else { 128 } {
            return Err(CidrError::Prefix(prefix));
        }
        let mut address = written;
        // ::ffff:10.0.0.0/104 is 10.0.0.0/8; shorter prefixes are real IPv6 blocks.
        if written.is_ipv6() && prefix >= 96 && canonical(written).is_ipv4() {
            address = canonical(written);
            prefix -= 96;
        }
        let block = Self::zeroed(address, prefix);
        if block.network == address { Ok(block) } else { Err(CidrError::HostBits(block)) }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}
