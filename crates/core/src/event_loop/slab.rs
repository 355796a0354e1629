//! A slab whose tokens are never good twice: each carries the generation of its slot, so that an event or a call that
//! comes late finds nothing instead of somebody else's entry.

use slab::Slab;

/// Names an entry of a [`Registry`]. Below 2^51: a JavaScript number keeps it with two bits to spare.
pub type Token = u64;

const INDEX_BITS: u32 = 24;
/// 27 bits of generation above 24 bits of index.
const GENERATION_MASK: u64 = (1 << 27) - 1;
const MAX_ENTRIES: usize = 1 << INDEX_BITS;

struct Entry<T> {
    generation: u64,
    value: T,
}

/// Entries by [`Token`].
pub struct Registry<T> {
    entries: Slab<Entry<T>>,
    generation: u64,
}

impl<T> Default for Registry<T> {
    fn default() -> Self {
        Self { entries: Slab::new(), generation: 0 }
    }
}

impl<T> Registry<T> {
    /// Adds an entry; gives it back when there are 2^24 of them already.
    pub fn insert(&mut self, value: T) -> Result<Token, T> {
        if self.entries.len() >= MAX_ENTRIES {
            return Err(value);
        }
        // One counter for all slots: a token comes back after 2^27 insertions at the earliest, and then only for its slot.
        self.generation = (self.generation + 1) & GENERATION_MASK;
        let index = self.entries.insert(Entry { generation: self.generation, value });
        Ok((self.generation << INDEX_BITS) | index as u64)
    }

    /// The entry, while it is there.
    pub fn get_mut(&mut self, token: Token) -> Option<&mut T> {
        let (index, generation) = split(token);
        self.entries.get_mut(index).filter(|entry| entry.generation == generation).map(|entry| &mut entry.value)
    }

    /// Takes the entry out, while it is there.
    pub fn remove(&mut self, token: Token) -> Option<T> {
        self.get_mut(token)?;
        self.entries.try_remove(split(token).0).map(|entry| entry.value)
    }

    /// All entries with their tokens.
    pub fn iter(&self) -> impl Iterator<Item = (Token, &T)> {
        self.entries.iter().map(|(index, entry)| ((entry.generation << INDEX_BITS) | index as u64, &entry.value))
    }

    /// The tokens of all entries.
    pub fn tokens(&self) -> impl Iterator<Item = Token> {
        self.iter().map(|(token, _)| token)
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True without any entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

fn split(token: Token) -> (usize, u64) {
    ((token & (MAX_ENTRIES as u64 - 1)) as usize, token >> INDEX_BITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_dies_with_its_entry() {
        let mut registry = Registry::default();
        let first = registry.insert("first").expect("room");
        assert_eq!(registry.remove(first), Some("first"));
        let second = registry.insert("second").expect("room");
        assert_eq!(split(first).0, split(second).0, "the slot is used again");
        assert_eq!(registry.get_mut(first), None);
        assert_eq!(registry.remove(first), None);
        assert_eq!(registry.get_mut(second), Some(&mut "second"));
        assert!(second < (1 << 51));
    }
}
