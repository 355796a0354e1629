//! How much one turn may send, so that one fast receiver cannot starve the others.

/// The bytes a turn may still send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    left: u64,
}

impl Budget {
    /// A budget of `bytes`.
    pub fn new(bytes: u64) -> Self {
        Self { left: bytes }
    }

    /// No bound: for a thread that serves one transfer only.
    pub fn unlimited() -> Self {
        Self { left: u64::MAX }
    }

    /// Bytes that may still be sent.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// Takes `count` bytes off.
    pub fn spend(&mut self, count: usize) {
        self.left = self.left.saturating_sub(count as u64);
    }
}
