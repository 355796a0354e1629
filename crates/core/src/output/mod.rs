//! Where logs and mirrors are written to: files, FIFOs, pipes and terminals that a user names.
//!
//! | module | what it is for |
//! |---|---|
//! | `open` | opening by name without waiting for a reader of a FIFO, and without touching what cannot be written to |
//! | `writer` | one writer per file of the process, by device and inode |
//! | `serial` | jobs of one file or device, one after another on the pool |

mod open;
mod serial;
mod writer;

pub use open::{Output, create_new, open, standard_output};
pub use serial::Serial;
pub use writer::FileWriter;
