//! Shared memory and mappings.
