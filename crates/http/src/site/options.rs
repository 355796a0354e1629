//! The options of a site.

use crate::caching::CachePolicy;
use crate::conformance::Conformance;
use crate::negotiation::Encoding;
use crate::path::{PathRules, RequestPath};

/// How names that start with a dot are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dotfiles {
    /// Like all others.
    #[default]
    Allow,
    /// 403.
    Deny,
    /// 404.
    Ignore,
}

/// How a site answers. The defaults are those of `@fastify/static`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteOptions {
    /// Files that answer for their directory; the first that exists is served. Default `index.html`.
    pub index: Vec<String>,
    /// Extensions, without the dot, that are tried for a missing file without an extension. Default none.
    pub extensions: Vec<String>,
    /// Names that start with a dot. Default [`Dotfiles::Allow`].
    pub dotfiles: Dotfiles,
    /// Redirect a directory to its path with a slash; otherwise its index is served in place. Default false.
    pub redirect: bool,
    /// Content codings of precompressed variants, in the server's order of preference. Default none.
    pub pre_compressed: Vec<Encoding>,
    /// Send `Accept-Ranges` and serve ranges. Default true.
    pub accept_ranges: bool,
    /// `Cache-Control`.
    pub caching: CachePolicy,
    /// Send `Content-Type`. Default true.
    pub content_type: bool,
    /// Send `ETag`. Default true.
    pub etag: bool,
    /// Compute strong entity tags from the bytes of the file. Default false.
    pub content_tags: bool,
    /// Compute entity tags from size and times in nanoseconds: strong, unless the file changed a moment ago. Otherwise they
    /// are computed from size and modification time in milliseconds: weak. Default false.
    pub strong_tags: bool,
    /// Send `Last-Modified`. Default true.
    pub last_modified: bool,
    /// Default [`Conformance::FastifyStatic`].
    pub conformance: Conformance,
    /// Which percent escapes are decoded. Default [`PathRules::DecodeUri`].
    pub path_rules: PathRules,
    /// A `Range` header with more satisfiable ranges is answered with the whole file. Default 1000.
    pub max_ranges: usize,
    /// Answer several ranges with `multipart/byteranges`. Default false.
    pub multipart: bool,
    /// The caller lists directories: a path without its slash is [`Directory`](super::Directory) even if there is an index.
    /// Default false.
    pub listing: bool,
    /// A file below a root that answers, with 200, for missing paths without an extension. Default none.
    pub fallback: Option<String>,
}

impl Default for SiteOptions {
    fn default() -> Self {
        Self {
            index: vec!["index.html".to_owned()],
            extensions: Vec::new(),
            dotfiles: Dotfiles::Allow,
            redirect: false,
            pre_compressed: Vec::new(),
            accept_ranges: true,
            caching: CachePolicy::default(),
            content_type: true,
            etag: true,
            content_tags: false,
            strong_tags: false,
            last_modified: true,
            conformance: Conformance::FastifyStatic,
            path_rules: PathRules::DecodeUri,
            max_ranges: 1000,
            multipart: false,
            listing: false,
            fallback: None,
        }
    }
}

impl SiteOptions {
    /// Checks all values. The error is a message for the user.
    pub fn check(&self) -> Result<(), String> {
        let invalid =
            |option: &str, value: &str, remedy: &str| Err(format!("invalid {option} '{value}': use {remedy}"));
        if let Some(name) = self.index.iter().find(|name| !is_file_name(name)) {
            return invalid("index", name, "a file name below its directory, such as index.html");
        }
        if let Some(name) = self.fallback.as_ref().filter(|name| !is_file_name(name)) {
            return invalid("fallback", name, "a file below the root, such as index.html");
        }
        if let Some(name) = self.extensions.iter().find(|name| !is_extension(name)) {
            return invalid("extensions", name, "extensions without the dot, such as html");
        }
        for (at, encoding) in self.pre_compressed.iter().enumerate() {
            if self.pre_compressed[..at].contains(encoding) {
                return Err(format!("duplicate preCompressed '{}': list each coding once", encoding.as_str()));
            }
        }
        Ok(())
    }
}

fn is_file_name(name: &str) -> bool {
    !name.is_empty() && RequestPath::from_decoded(name).is_ok_and(|path| path.relative() == name)
}

fn is_extension(name: &str) -> bool {
    !name.contains('/') && RequestPath::from_decoded(name).is_ok_and(|path| !path.relative().is_empty())
}
