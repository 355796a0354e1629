//! A site below a path prefix.

use std::sync::Arc;

use crate::static_site::Site;
use crate::transfer::Method;

/// Format of directory listings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ListFormat {
    /// HTML; JSON for clients whose `Accept` contains `application/json` and not `text/html`.
    #[default]
    Html,
    /// JSON for all clients.
    Json,
}

/// A site below a path prefix.
pub struct Mount {
    /// Starts and ends with a slash. The mount with the longest matching prefix serves a request.
    pub prefix: String,
    /// The roots and how files are found below them.
    pub site: Arc<Site>,
    /// How file bytes are sent.
    pub method: Method,
    /// Lists directories without an index in this format. Default: no listings.
    pub list: Option<ListFormat>,
    /// With [`super::ServerOptions::handoff`]: requests with `Authorization` or `Cookie` are handed off. Default false.
    pub exclude_credentials: bool,
    /// With [`super::ServerOptions::handoff`]: the server answers 404 for missing files, instead of handing the request off.
    /// Default false.
    pub respond_not_found: bool,
}

impl Mount {
    /// A mount with default options.
    pub fn new(prefix: impl Into<String>, site: Arc<Site>) -> Self {
        let prefix = prefix.into();
        Self { prefix, site, method: Method::Auto, list: None, exclude_credentials: false, respond_not_found: false }
    }
}
