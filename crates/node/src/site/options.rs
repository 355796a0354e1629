//! The options of a site.

use std::sync::Arc;

use napi_derive::napi;
use zerosend_core::cache::FileCache;
use zerosend_core::fs::{Root, Symlinks};
use zerosend_core::static_site::{Dotfiles, Site, SiteOptions};
use zerosend_core::transfer::Method;
use zerosend_core::{Code, Error, Result};
use zerosend_http::Conformance;
use zerosend_http::caching::{CachePolicy, CacheRule};
use zerosend_http::glob::Glob;
use zerosend_http::headers::CacheControl;
use zerosend_http::negotiation::Encoding;
use zerosend_http::path::PathRules;

use crate::engine::Engine;
use crate::engine::convert::parse_enum;
use crate::engine::static_site::StaticSite;

/// The options of a site. The TypeScript side has filled in the defaults.
#[napi(object)]
pub struct SiteSettings {
    /// Absolute paths of directories; the first that has the file is used.
    pub roots: Vec<String>,
    pub index: Vec<String>,
    pub extensions: Vec<String>,
    #[napi(ts_type = "'allow' | 'deny' | 'ignore'")]
    pub dotfiles: String,
    #[napi(ts_type = "'follow' | 'beneath' | 'deny'")]
    pub symlinks: String,
    pub redirect: bool,
    #[napi(ts_type = "('zstd' | 'br' | 'gzip' | 'deflate')[]")]
    pub pre_compressed: Vec<String>,
    pub accept_ranges: bool,
    /// `max-age` in seconds. Absent: no `cache-control`.
    pub max_age: Option<f64>,
    pub immutable: bool,
    /// Files with a content hash in their name are immutable for a year.
    pub immutable_hashed: bool,
    /// `cache-control` by file name; the first rule that matches is used.
    pub cache_rules: Vec<CacheRuleSetting>,
    pub content_type: bool,
    pub etag: bool,
    /// The entity tag is a hash of the content.
    pub content_tags: bool,
    /// The entity tag is strong, made from the size and the times in nanoseconds.
    pub strong_tags: bool,
    pub last_modified: bool,
    #[napi(ts_type = "'fastify-static' | 'rfc9110'")]
    pub conformance: String,
    /// Which percent escapes of a path are decoded: those that `decodeURI` decodes, for a path that a router has decoded
    /// already, or all.
    #[napi(ts_type = "'decode-uri' | 'full'")]
    pub path_rules: String,
    /// Maximum number of ranges in a request; a request with more gets the whole file.
    pub max_ranges: u32,
    pub multipart: bool,
    pub listing: bool,
    pub fallback: Option<String>,
    #[napi(ts_type = "ReturnType<typeof methodNames>[number]")]
    pub method: String,
    /// The handle of a cache. Absent: none.
    pub cache: Option<f64>,
}

/// A rule for `cache-control`.
#[napi(object)]
pub struct CacheRuleSetting {
    /// A glob.
    pub pattern: String,
    /// The value of the header. Absent: no header.
    pub value: Option<String>,
}

impl SiteSettings {
    pub fn open(self, engine: &mut Engine) -> Result<StaticSite> {
        let cache =
            self.cache.map(|handle| engine.handles.objects.get::<Arc<FileCache>>(handle).cloned()).transpose()?;
        let method: Method = self.method.parse()?;
        let dotfiles = parse_enum("dotfiles", &self.dotfiles, DOTFILES)?;
        let symlinks = parse_enum("symlinks", &self.symlinks, SYMLINKS)?;
        let options = SiteOptions {
            index: self.index,
            extensions: self.extensions,
            dotfiles,
            redirect: self.redirect,
            pre_compressed: self
                .pre_compressed
                .iter()
                .map(|name| parse_enum("preCompressed", name, ENCODINGS))
                .collect::<Result<_>>()?,
            accept_ranges: self.accept_ranges,
            caching: CachePolicy {
                rules: self.cache_rules.into_iter().map(cache_rule).collect::<Result<_>>()?,
                hashed: self.immutable_hashed,
                otherwise: self
                    .max_age
                    .map(|seconds| CacheControl { max_age_secs: seconds as u64, immutable: self.immutable }),
            },
            content_type: self.content_type,
            etag: self.etag,
            content_tags: self.content_tags,
            strong_tags: self.strong_tags,
            last_modified: self.last_modified,
            conformance: parse_enum("conformance", &self.conformance, CONFORMANCE)?,
            path_rules: parse_enum("pathRules", &self.path_rules, PATH_RULES)?,
            max_ranges: self.max_ranges as usize,
            multipart: self.multipart,
            listing: self.listing,
            fallback: self.fallback,
        };
        let roots = self.roots.into_iter().map(|path| Root::new(path, symlinks)).collect::<Result<_>>()?;
        let mut site = Site::with_roots(roots, options)?;
        // The other methods need an open file, which a cache of bytes does not have.
        if let (Some(cache), Method::Auto | Method::ReadWrite | Method::Mmap) = (cache, method) {
            site = site.with_cache(cache);
        }
        Ok(StaticSite { site: Arc::new(site), method })
    }
}

fn cache_rule(rule: CacheRuleSetting) -> Result<CacheRule> {
    let pattern = Glob::new(&rule.pattern).ok_or_else(|| {
        let pattern = &rule.pattern;
        let message = format!("invalid cacheControl pattern '{pattern}': use names, *, ?, ** and {{a,b}}");
        Error::new(Code::InvalidArgument, message)
    })?;
    Ok(CacheRule { pattern, value: rule.value })
}

const DOTFILES: &[(&str, Dotfiles)] =
    &[("allow", Dotfiles::Allow), ("deny", Dotfiles::Deny), ("ignore", Dotfiles::Ignore)];
const SYMLINKS: &[(&str, Symlinks)] =
    &[("follow", Symlinks::Follow), ("beneath", Symlinks::Beneath), ("deny", Symlinks::Deny)];
const ENCODINGS: &[(&str, Encoding)] =
    &[("zstd", Encoding::Zstd), ("br", Encoding::Br), ("gzip", Encoding::Gzip), ("deflate", Encoding::Deflate)];
const CONFORMANCE: &[(&str, Conformance)] =
    &[("fastify-static", Conformance::FastifyStatic), ("rfc9110", Conformance::Rfc9110)];
const PATH_RULES: &[(&str, PathRules)] = &[("decode-uri", PathRules::DecodeUri), ("full", PathRules::Full)];
