//! Serving files from directories, without I/O: which file answers a request, and with which response.
//!
//! | module | what it is for |
//! |---|---|
//! | [`options`] | the options of a site |
//! | [`request`] | a request, and what it overrides |
//! | [`resolver`] | which file answers: a state machine that names lookups and is given their results |
//! | [`plan`] | status, headers and body for that file |

pub mod options;
pub mod plan;
pub mod request;
pub mod resolver;

pub use options::{Dotfiles, SiteOptions};
pub use plan::{Body, BodyPart, FileValidators, Head};
pub use request::{Overrides, PathInput, Request, ServedRange};
pub use resolver::{Directory, Refusal};
