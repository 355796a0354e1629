//! Cache keys: the id of the root (0 for absolute paths) and the path.

/// A key as it is stored.
pub(super) type Key = Box<[u8]>;

/// A key for a lookup, which allocates for long paths only.
pub(super) struct LookupKey {
    inline: [u8; Self::INLINE],
    length: usize,
    heap: Vec<u8>,
}

impl LookupKey {
    const INLINE: usize = 192;

    pub fn new(root: u64, path: &[u8]) -> Self {
        let root = root.to_ne_bytes();
        let length = root.len() + path.len();
        let mut key = Self { inline: [0; Self::INLINE], length, heap: Vec::new() };
        if length <= Self::INLINE {
            key.inline[..root.len()].copy_from_slice(&root);
            key.inline[root.len()..length].copy_from_slice(path);
        } else {
            key.heap.reserve_exact(length);
            key.heap.extend_from_slice(&root);
            key.heap.extend_from_slice(path);
        }
        key
    }

    pub fn as_bytes(&self) -> &[u8] {
        if self.heap.is_empty() { &self.inline[..self.length] } else { &self.heap }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_the_root_and_the_whole_path_at_any_length() {
        for length in [0, 1, LookupKey::INLINE - 8, LookupKey::INLINE - 7, 4096] {
            let path = vec![b'x'; length];
            let key = LookupKey::new(7, &path);
            assert_eq!(key.as_bytes(), [&7_u64.to_ne_bytes()[..], &path].concat());
        }
    }
}
