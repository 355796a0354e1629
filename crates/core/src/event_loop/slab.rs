//! A slab with generation-checked tokens: a token of a removed entry never finds the entry that took its slot, so that a late
//! event, message or call finds nothing.

/// Key of an entry of a [`Slab`]. Less than 2^51, so that a JavaScript number holds it and two tag bits exactly.
pub type Token = u64;

const INDEX_BITS: u32 = 24;
/// 27 bits of generation above 24 bits of index.
const GENERATION_MASK: u64 = (1 << 27) - 1;
const MAX_ENTRIES: usize = 1 << INDEX_BITS;

struct Entry<T> {
    generation: u64,
    value: T,
}

/// Up to 2^24 entries, stored by [`Token`].
pub struct Slab<T> {
    entries: slab::Slab<Entry<T>>,
    generation: u64,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { entries: slab::Slab::new(), generation: 0 }
    }
}

impl<T> Slab<T> {
    /// Adds an entry; returns `value` as an error when the slab is full.
    pub fn insert(&mut self, value: T) -> Result<Token, T> {
        if self.entries.len() >= MAX_ENTRIES {
            return Err(value);
        }
        // One counter for all slots: a token repeats after 2^27 insertions at the earliest, and only for the same slot.
        self.generation = (self.generation + 1) & GENERATION_MASK;
        let index = self.entries.insert(Entry { generation: self.generation, value });
        Ok((self.generation << INDEX_BITS) | index as u64)
    }

    /// The entry; `None` after it was removed.
    pub fn get_mut(&mut self, token: Token) -> Option<&mut T> {
        let (index, generation) = split(token);
        self.entries.get_mut(index).filter(|entry| entry.generation == generation).map(|entry| &mut entry.value)
    }

    /// Removes the entry and returns it.
    pub fn remove(&mut self, token: Token) -> Option<T> {
        self.get_mut(token)?;
        self.entries.try_remove(split(token).0).map(|entry| entry.value)
    }

    /// All entries with their tokens, in the order of their slots.
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

    /// True without entries.
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
    fn a_token_of_a_removed_entry_finds_nothing() {
        let mut slab = Slab::default();
        let first = slab.insert("first").expect("room");
        assert_eq!(slab.remove(first), Some("first"));
        let second = slab.insert("second").expect("room");
        assert_eq!(split(first).0, split(second).0, "the slot is reused");
        assert_eq!(slab.get_mut(first), None);
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab.get_mut(second), Some(&mut "second"));
        assert!(second < (1 << 51));
    }
}
