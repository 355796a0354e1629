//! Relays and proxies: bytes, resets, addresses, limits.
