//! Output of logs and mirrors to files, FIFOs, pipes and terminals.
//!
//! | file | subject |
//! |---|---|
//! | `open` | opens by name, without waiting for a reader of a FIFO |
//! | `writer` | one writer for each file in the process, by device and inode |
//! | `serial` | runs the jobs of one file one after another on the pool |

mod open;
mod serial;
mod writer;

pub use open::{Output, create_new, open, standard_output};
pub use serial::Serial;
pub use writer::FileWriter;
