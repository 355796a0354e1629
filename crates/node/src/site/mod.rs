//! Sites: which file answers a request, and with which headers.

use std::ops::ControlFlow;
use std::os::fd::IntoRawFd;
use std::sync::Arc;

use napi::Env;
use napi::bindgen_prelude::JsObjectValue;
use napi_derive::napi;
use zerosend_core::event_loop::slab::Token;
use zerosend_core::fs::directory;
use zerosend_core::fs::{Access, Root, Symlinks};
use zerosend_core::io::pool::Lane;
use zerosend_core::static_site::{Dotfiles, Outcome, Overrides, PathInput, Request, ServedRange, Site, SiteOptions};
use zerosend_core::transfer::{Disk, Method, Target, Transfer};
use zerosend_core::{Code, Error, Result};
use zerosend_http::Conformance;
use zerosend_http::caching::{CachePolicy, CacheRule};
use zerosend_http::conditional::Conditions;
use zerosend_http::glob::Glob;
use zerosend_http::headers::CacheControl;
use zerosend_http::negotiation::{self, Encoding};
use zerosend_http::path::PathRules;

use crate::engine::{Engine, Held, with};
use crate::events::Answer;

/// The options of a site, all given: defaults are the caller's matter.
#[napi(object)]
pub struct SiteSettings {
    /// Absolute directories; the first that has a file answers.
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
    /// `max-age` in seconds; absent: no `cache-control`.
    pub max_age: Option<f64>,
    pub immutable: bool,
    /// Names with a content hash are immutable for a year.
    pub immutable_hashed: bool,
    /// `cache-control` by file name; the first that matches decides.
    pub cache_rules: Vec<CacheRuleSetting>,
    pub content_type: bool,
    pub etag: bool,
    /// The entity tag is a hash of the content.
    pub content_tags: bool,
    /// The entity tag is strong, of size and times in nanoseconds.
    pub strong_tags: bool,
    pub last_modified: bool,
    #[napi(ts_type = "'fastify-static' | 'rfc9110'")]
    pub conformance: String,
    /// Which percent escapes of a path are decoded: as `decodeURI` does, for a router that has seen it before, or all.
    #[napi(ts_type = "'decode-uri' | 'full'")]
    pub path_rules: String,
    pub max_ranges: u32,
    pub multipart: bool,
    pub listing: bool,
    pub fallback: Option<String>,
    #[napi(ts_type = "ReturnType<typeof methodNames>[number]")]
    pub method: String,
    /// The token of the cache that files are taken from; absent: none.
    pub cache: Option<f64>,
}

/// A rule of `cache-control`.
#[napi(object)]
pub struct CacheRuleSetting {
    /// A glob.
    pub pattern: String,
    /// The header's value; absent: no header.
    pub value: Option<String>,
}

/// What one request is decided by: its headers, where they were sent, and what its response has in place of the options of
/// the site.
#[napi(object)]
#[derive(Default)]
pub struct RequestConditions {
    pub if_match: Option<String>,
    pub if_none_match: Option<String>,
    pub if_modified_since: Option<String>,
    pub if_unmodified_since: Option<String>,
    pub if_range: Option<String>,
    pub range: Option<String>,
    pub cache_control: Option<String>,
    pub accept_encoding: Option<String>,
    /// First byte of the stretch of the file that is served as if it were the whole. Default 0.
    pub start: Option<f64>,
    /// Its last byte. Default: the end of the file.
    pub last: Option<f64>,
    /// The longest answer to a single range, in bytes. Default: no limit.
    pub max_range_length: Option<f64>,
    /// `max-age` in seconds.
    pub max_age: Option<f64>,
    /// The entity tag that the response has, with its quotes.
    pub etag: Option<String>,
    /// `Last-Modified` that the response has.
    pub last_modified: Option<String>,
}

/// The answer to a request.
#[napi(object, object_from_js = false)]
pub struct SiteAnswer {
    #[napi(ts_type = "'response' | 'redirect' | 'not-found' | 'forbidden' | 'bad-path' | 'directory'")]
    pub kind: &'static str,
    /// 200, 206, 304, 412 or 416 for a response; the status without a listing for a directory; else 0.
    pub status: u32,
    /// Name, value, name, value, ...
    pub headers: Vec<String>,
    /// Bytes of the body.
    pub length: f64,
    /// The file or directory chosen, relative to its root.
    pub path: String,
    pub root_index: u32,
    /// The coding of a precompressed file.
    pub encoding: Option<String>,
    /// Why it is forbidden, in words: `dot file`, `symbolic link refused`, ...
    pub reason: Option<&'static str>,
}

/// A site with what the binding adds.
pub struct HeldSite {
    site: Site,
    method: Method,
}

/// A request as JavaScript gives it.
struct Asked {
    path: String,
    encoded: bool,
    head_only: bool,
    root_index: u32,
    conditions: RequestConditions,
}

/// Makes a site and returns its token.
#[napi]
pub fn open_site(env: &Env, settings: SiteSettings) -> napi::Result<f64> {
    with(env, |engine| {
        let site = HeldSite::new(engine, settings)?;
        Ok(engine.hold(Held::Site(Arc::new(site)))? as f64)
    })
}

/// Answers a request for `path` (percent-encoded when `encoded`), without waiting for a disk. -1: the answer needs the
/// disk, ask `respondLater`. Else the answer is the current one until the next call: 0 is an answer like no other, and
/// every other number is the same answer each time, so that `describeCurrent` need be asked for it only once.
#[napi]
#[allow(clippy::too_many_arguments)]
pub fn respond(
    env: &Env,
    site: f64,
    path: String,
    encoded: bool,
    head_only: bool,
    root_index: u32,
    conditions: Option<RequestConditions>,
) -> napi::Result<f64> {
    with(env, |engine| {
        let asked = Asked { path, encoded, head_only, root_index, conditions: conditions.unwrap_or_default() };
        let site = engine.site(site)?;
        engine.current = None;
        match site.respond(&asked, Access::CachedOnly)? {
            Outcome::WouldBlock => Ok(-1.0),
            outcome => {
                let current = Current::new(&site, outcome);
                let id = current.id();
                engine.current = Some(current);
                Ok(id as f64)
            }
        }
    })
}

/// What the current answer says.
#[napi]
pub fn describe_current(env: &Env) -> napi::Result<SiteAnswer> {
    with(env, |engine| {
        let none = || Error::new(Code::Closed, "there is no answer to describe");
        engine.current.as_ref().map(Current::describe).ok_or_else(none)
    })
}

/// Keeps the transfer of the current answer for later, and returns its token; 0 when it has none.
#[napi]
pub fn hold_current(env: &Env) -> napi::Result<f64> {
    with(env, |engine| match engine.current.take().and_then(Current::into_transfer) {
        Some(transfer) => Ok(engine.hold(Held::Transfer(transfer))? as f64),
        None => Ok(0.0),
    })
}

/// Answers a request on a thread that may wait for the disk: the event of `request` has the `answer`, and the `token` of
/// its transfer if it has one.
#[napi]
#[allow(clippy::too_many_arguments)]
pub fn respond_later(
    env: &Env,
    request: f64,
    site: f64,
    path: String,
    encoded: bool,
    head_only: bool,
    root_index: u32,
    conditions: Option<RequestConditions>,
) -> napi::Result<()> {
    with(env, |engine| {
        let asked = Asked { path, encoded, head_only, root_index, conditions: conditions.unwrap_or_default() };
        let site = engine.site(site)?;
        let volume = site.site.volume(&asked.request());
        let lane = site.site.lane();
        engine.run_in_steps(lane, volume, request, move || match site.site.respond_step(&asked.request()) {
            Ok(Outcome::WouldBlock) => ControlFlow::Continue(()),
            outcome => ControlFlow::Break(outcome.map(|outcome| Answer::Outcome(site.clone(), Box::new(outcome)))),
        });
        Ok(())
    })
}

/// Opens a directory below a root of the site, to be listed, or any entry for its attributes, under the site's rule for
/// symbolic links: the event of `request` has its descriptor as `fd`, which is the receiver's to close.
#[napi]
pub fn open_entry(
    env: &Env,
    request: f64,
    site: f64,
    relative: String,
    root_index: u32,
    is_directory: bool,
) -> napi::Result<()> {
    with(env, |engine| {
        let site = engine.site(site)?;
        let kind = if is_directory { directory::Kind::Directory } else { directory::Kind::Entry };
        let asked = Asked {
            path: relative,
            encoded: false,
            head_only: false,
            root_index,
            conditions: RequestConditions::default(),
        };
        let volume = site.site.volume(&asked.request());
        engine.run(Lane::Short, volume, request, move || {
            let root = site.site.roots().get(root_index as usize);
            let root = root.ok_or_else(|| Error::new(Code::InvalidArgument, "the site has no such root"))?;
            let fd = directory::open(root, &asked.path, kind)?;
            Ok(Answer::Shape(Box::new(move |event| event.set_named_property("fd", fd.into_raw_fd()))))
        });
        Ok(())
    })
}

/// What to set `Vary` to so that it names `accept-encoding`; `null` when it already does.
#[napi]
pub fn merge_vary(existing: Option<String>) -> Option<String> {
    negotiation::merge_vary(existing.as_deref())
}

impl Engine {
    fn site(&mut self, token: f64) -> Result<Arc<HeldSite>> {
        match self.held.get_mut(token as Token) {
            Some(Held::Site(site)) => Ok(site.clone()),
            _ => Err(Error::new(Code::Closed, "the site was released")),
        }
    }
}

/// An answer, until JavaScript has said what is to become of it.
pub struct Current {
    outcome: Outcome,
    method: Method,
}

impl Current {
    pub fn new(site: &HeldSite, outcome: Outcome) -> Self {
        Self { outcome, method: site.method }
    }

    fn id(&self) -> u64 {
        match &self.outcome {
            Outcome::Response(response) => response.head.id,
            _ => 0,
        }
    }

    pub fn describe(&self) -> SiteAnswer {
        let empty = |kind| SiteAnswer {
            kind,
            status: 0,
            headers: Vec::new(),
            length: 0.0,
            path: String::new(),
            root_index: 0,
            encoding: None,
            reason: None,
        };
        match &self.outcome {
            Outcome::Redirect => empty("redirect"),
            Outcome::NotFound | Outcome::WouldBlock => empty("not-found"),
            Outcome::Forbidden(reason) => SiteAnswer { reason: Some(reason), ..empty("forbidden") },
            Outcome::BadPath => empty("bad-path"),
            Outcome::Directory(directory) => SiteAnswer {
                status: directory.status.into(),
                path: directory.path.clone(),
                root_index: directory.root_index as u32,
                ..empty("directory")
            },
            Outcome::Response(response) => SiteAnswer {
                status: response.status.into(),
                headers: response
                    .head
                    .headers
                    .iter()
                    .flat_map(|(name, value)| [(*name).to_string(), value.to_string()])
                    .collect(),
                length: response.body.length() as f64,
                path: response.head.path.clone(),
                root_index: response.head.root_index as u32,
                encoding: response.head.encoding.map(|encoding| encoding.as_str().to_string()),
                ..empty("response")
            },
        }
    }

    /// The transfer of its body; `None` when there are no bytes to send.
    pub fn into_transfer(self) -> Option<Box<Transfer>> {
        let Outcome::Response(response) = self.outcome else { return None };
        let transfer = Transfer::new(response.into_parts(), self.method, Target::Socket, Disk::ResidentOnly);
        (transfer.remaining() > 0).then(|| Box::new(transfer))
    }
}

impl HeldSite {
    pub fn into_parts(self) -> (Site, Method) {
        (self.site, self.method)
    }

    pub fn new(engine: &mut Engine, settings: SiteSettings) -> Result<Self> {
        let cache = settings.cache.map(|token| engine.cache(token)).transpose()?;
        let method: Method = settings.method.parse()?;
        let dotfiles = one_of("dotfiles", &settings.dotfiles, DOTFILES)?;
        let symlinks = one_of("symlinks", &settings.symlinks, SYMLINKS)?;
        let options = SiteOptions {
            index: settings.index,
            extensions: settings.extensions,
            dotfiles,
            redirect: settings.redirect,
            pre_compressed: settings
                .pre_compressed
                .iter()
                .map(|name| one_of("preCompressed", name, ENCODINGS))
                .collect::<Result<_>>()?,
            accept_ranges: settings.accept_ranges,
            caching: CachePolicy {
                rules: settings.cache_rules.into_iter().map(cache_rule).collect::<Result<_>>()?,
                hashed: settings.immutable_hashed,
                otherwise: settings
                    .max_age
                    .map(|seconds| CacheControl { max_age_secs: seconds as u64, immutable: settings.immutable }),
            },
            content_type: settings.content_type,
            etag: settings.etag,
            content_tags: settings.content_tags,
            strong_tags: settings.strong_tags,
            last_modified: settings.last_modified,
            conformance: one_of("conformance", &settings.conformance, CONFORMANCE)?,
            path_rules: one_of("pathRules", &settings.path_rules, PATH_RULES)?,
            max_ranges: settings.max_ranges as usize,
            multipart: settings.multipart,
            listing: settings.listing,
            fallback: settings.fallback,
        };
        let roots = settings.roots.into_iter().map(|path| Root::new(path, symlinks)).collect::<Result<_>>()?;
        let mut site = Site::with_roots(roots, options)?;
        // Who names a method that needs a file gets it from the file.
        if let (Some(cache), Method::Auto | Method::ReadWrite | Method::Mmap) = (cache, method) {
            site = site.with_cache(cache);
        }
        Ok(Self { site, method })
    }

    fn respond(&self, asked: &Asked, access: Access) -> Result<Outcome> {
        self.site.respond(&asked.request(), access)
    }
}

impl Asked {
    fn request(&self) -> Request<'_> {
        let conditions = &self.conditions;
        Request {
            head_only: self.head_only,
            path: if self.encoded { PathInput::Encoded(&self.path) } else { PathInput::Decoded(&self.path) },
            conditions: Conditions {
                if_match: conditions.if_match.as_deref(),
                if_none_match: conditions.if_none_match.as_deref(),
                if_modified_since: conditions.if_modified_since.as_deref(),
                if_unmodified_since: conditions.if_unmodified_since.as_deref(),
                if_range: conditions.if_range.as_deref(),
                range: conditions.range.as_deref(),
                cache_control: conditions.cache_control.as_deref(),
                accept_encoding: conditions.accept_encoding.as_deref(),
            },
            overrides: Overrides {
                served: ServedRange {
                    start: conditions.start.unwrap_or(0.0) as u64,
                    last: conditions.last.map(|byte| byte as u64),
                },
                max_range_length: conditions.max_range_length.map(|bytes| bytes as u64),
                max_age: conditions.max_age.map(|seconds| seconds as u64),
                etag: conditions.etag.as_deref(),
                last_modified: conditions.last_modified.as_deref(),
            },
            root_index: self.root_index as usize,
        }
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

/// Reads an option that is one of several words.
pub fn one_of<T: Copy>(option: &str, value: &str, words: &[(&str, T)]) -> Result<T> {
    words.iter().find(|(word, _)| *word == value).map(|(_, meaning)| *meaning).ok_or_else(|| {
        let allowed: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        let allowed = allowed.join(", ");
        Error::new(Code::InvalidArgument, format!("invalid {option} '{value}': use one of {allowed}"))
    })
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
