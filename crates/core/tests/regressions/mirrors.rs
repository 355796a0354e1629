//! Mirrors of relays, and access logs: files that several writers append to.
