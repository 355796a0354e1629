//! The endpoints of a link, and the numbers by which epoll reports them.

/// One of the descriptors of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// The socket that connected, or the source of a session.
    Client,
    /// The socket that was connected to.
    Target,
    /// A mirror, by its index in [`LinkReport::mirrors`](super::LinkReport::mirrors).
    Mirror(usize),
}

/// Bits of an epoll token that hold the number of an endpoint; the others hold the token of the link.
pub(super) const ENDPOINT_BITS: u32 = 4;
/// Largest number of mirrors of a link.
pub const MAX_MIRRORS: usize = (1 << ENDPOINT_BITS) - 2;

impl Endpoint {
    /// The endpoint in the low bits of an epoll token.
    pub(super) fn from_number(number: u64) -> Self {
        match number & ((1 << ENDPOINT_BITS) - 1) {
            0 => Endpoint::Client,
            1 => Endpoint::Target,
            mirror => Endpoint::Mirror(mirror as usize - 2),
        }
    }

    pub(super) fn number(self) -> u64 {
        match self {
            Endpoint::Client => 0,
            Endpoint::Target => 1,
            Endpoint::Mirror(index) => index as u64 + 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_have_distinct_numbers() {
        for endpoint in [Endpoint::Client, Endpoint::Target, Endpoint::Mirror(0), Endpoint::Mirror(MAX_MIRRORS - 1)] {
            assert_eq!(Endpoint::from_number(endpoint.number()), endpoint);
            assert!(endpoint.number() < 1 << ENDPOINT_BITS);
        }
    }
}
