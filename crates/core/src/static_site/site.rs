//! Roots and options: which file answers a request. The Fastify plugin, the Node handler and the native server all call
//! [`Site::respond`].
//!
//! 1. check the path
//! 2. dot files
//! 3. in each root: coding variants, the file itself, extensions or index
//! 4. [`super::plan`] the response
//!
//! Routes, prefixes, listings and error bodies are the caller's.
//!
//! Known differences from `@fastify/static`, all where it answers from an accident: a NUL or a name over 255 bytes below
//! a missing directory is 403, not 400 or 404; a directory or file-as-directory in one root does not hide the next root; an index
//! is found whether or not a coding is accepted; a link that leads in a circle is 403, not 500; a directory that cannot
//! be listed still serves the files in it; an unreadable variant gives way to the plain file; case aliases on a case-insensitive file system are not looked for.

use std::path::PathBuf;
use std::sync::Arc;

use super::head_cache::Memo;
use super::overrides::Overrides;
use super::plan::{Body, Found, Response, Source, plan};
use super::validators::FileValidators;
use crate::cache::{CachedFile, Fetched, FileCache};
use crate::error::{Code, Error, Result};
use crate::fs::content_tag::{ContentTag, ContentTags, Hashing};
use crate::fs::meta::now_ns;
use crate::fs::pseudo_file::{Inspection, inspect};
use crate::fs::root::{Access, Lookup, Root, Symlinks, Visit};
use crate::io::pool::{Lane, Volume};
use zerosend_http::Conformance;
use zerosend_http::caching::CachePolicy;
use zerosend_http::conditional::Conditions;
use zerosend_http::negotiation::{self, Encoding};
use zerosend_http::path::{self, PathError, PathRules, RequestPath};

/// Why a name that begins with a dot is forbidden: the one refusal that is about a name and not about its spelling.
const DOT_FILE: &str = "dot file";

/// What to do with names that begin with a dot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dotfiles {
    /// Serve them.
    #[default]
    Allow,
    /// 403.
    Deny,
    /// 404.
    Ignore,
}

/// How a site answers. The default is the default of `@fastify/static`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteOptions {
    /// Files that stand for a directory, first found wins.
    pub index: Vec<String>,
    /// Extensions (without the dot) tried when a name without one is missing.
    pub extensions: Vec<String>,
    /// Names that begin with a dot.
    pub dotfiles: Dotfiles,
    /// Symbolic links.
    pub symlinks: Symlinks,
    /// A directory without its slash is a redirect; otherwise its index is served in place.
    pub redirect: bool,
    /// Codings whose files are looked for beside the plain one, in the server's order.
    pub pre_compressed: Vec<Encoding>,
    /// `Accept-Ranges` and ranges.
    pub accept_ranges: bool,
    /// `Cache-Control`.
    pub caching: CachePolicy,
    /// `Content-Type`.
    pub content_type: bool,
    /// `ETag`.
    pub etag: bool,
    /// Make it from the file's bytes: strong.
    pub content_tags: bool,
    /// Make it from size and times in nanoseconds: strong, unless the file was changed just now. Otherwise from size and
    /// modification time in milliseconds: weak.
    pub strong_tags: bool,
    /// `Last-Modified`.
    pub last_modified: bool,
    /// Whose reading of HTTP.
    pub conformance: Conformance,
    /// Which escapes are decoded.
    pub path_rules: PathRules,
    /// More satisfiable ranges than this in one header: the whole file.
    pub max_ranges: usize,
    /// Answer several ranges in parts.
    pub multipart: bool,
    /// Directories are listed: without its slash one is [`Outcome::Directory`], whatever index it has.
    pub listing: bool,
    /// The file below a root that answers, with 200, for paths without extension that name nothing.
    pub fallback: Option<String>,
}

impl Default for SiteOptions {
    fn default() -> Self {
        Self {
            index: vec!["index.html".to_owned()],
            extensions: Vec::new(),
            dotfiles: Dotfiles::Allow,
            symlinks: Symlinks::Follow,
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

/// The path of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathInput<'a> {
    /// From a request target: percent-encoded, without the query.
    Encoded(&'a str),
    /// From code: `sendFile(name)`. Its errors are those of the code, so it is never "forbidden" for what a disk says.
    Decoded(&'a str),
}

/// One request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'a> {
    /// HEAD: the same headers, no body.
    pub head_only: bool,
    /// The path below the roots.
    pub path: PathInput<'a>,
    /// The headers that decide.
    pub conditions: Conditions<'a>,
    /// What its response has in place of the site's options.
    pub overrides: Overrides<'a>,
    /// The root to begin with.
    pub root_index: usize,
}

/// The answer to a request.
#[derive(Debug)]
pub enum Outcome {
    /// Send this.
    Response(Response),
    /// 301 to the same path with a slash.
    Redirect,
    /// 404.
    NotFound,
    /// 403, and why, for a log.
    Forbidden(&'static str),
    /// 400.
    BadPath,
    /// A directory without an index.
    Directory(Directory),
    /// Ask again with [`Access::MayBlock`] where waiting is allowed.
    WouldBlock,
}

impl Outcome {
    fn is_missing(&self) -> bool {
        matches!(self, Outcome::NotFound)
    }
}

/// A directory that exists and has no index, for a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory {
    /// Relative to its root, no slash at either end.
    pub path: String,
    /// Which root.
    pub root_index: usize,
    /// The status when there is no listing: 404, or 403 when there are no index names and the path had its slash.
    pub status: u16,
}

/// Roots and options, checked.
#[derive(Debug)]
pub struct Site {
    roots: Vec<Root>,
    options: SiteOptions,
    cache: Option<Arc<FileCache>>,
    memo: Memo,
    tags: ContentTags,
}

/// What one root has.
enum Step {
    Found(Found),
    Directory,
    Missing,
    Stop(Outcome),
}

impl Site {
    /// Checks the options. A root need not exist yet.
    pub fn new(roots: Vec<PathBuf>, options: SiteOptions) -> Result<Self> {
        if roots.is_empty() {
            return Err(Error::new(Code::InvalidArgument, "roots is empty; give at least one directory"));
        }
        for name in &options.index {
            if !RequestPath::from_decoded(name).is_ok_and(|path| path.relative() == name && !name.is_empty()) {
                return Err(invalid("index", name, "a file name below its directory, such as index.html"));
            }
        }
        if let Some(name) = &options.fallback
            && !RequestPath::from_decoded(name).is_ok_and(|path| path.relative() == name && !name.is_empty())
        {
            return Err(invalid("fallback", name, "a file below the root, such as index.html"));
        }
        for name in &options.extensions {
            if name.contains('/') || !RequestPath::from_decoded(name).is_ok_and(|path| !path.relative().is_empty()) {
                return Err(invalid("extensions", name, "an extension without its dot, such as html"));
            }
        }
        for (at, encoding) in options.pre_compressed.iter().enumerate() {
            if options.pre_compressed.iter().skip(at + 1).any(|other| other == encoding) {
                return Err(invalid("pre_compressed", encoding.as_str(), "each coding once"));
            }
        }
        let roots = roots.into_iter().map(|path| Root::new(path, options.symlinks)).collect::<Result<_>>()?;
        Ok(Self { roots, options, cache: None, memo: Memo::default(), tags: ContentTags::default() })
    }

    /// Takes files from `cache`, and puts them there.
    #[must_use]
    pub fn with_cache(mut self, cache: Arc<FileCache>) -> Self {
        self.cache = Some(cache);
        self
    }

    /// The options as given.
    pub fn options(&self) -> &SiteOptions {
        &self.options
    }

    /// The roots in order.
    pub fn roots(&self) -> &[Root] {
        &self.roots
    }

    /// The file system that has to be asked for a request, for [`crate::io::pool::Pool::run`].
    pub fn volume(&self, request: &Request<'_>) -> Volume {
        let Some(root) = self.roots.get(request.root_index) else { return Volume::NONE };
        let path = match request.path {
            PathInput::Encoded(raw) => path::decode(raw, self.options.path_rules),
            PathInput::Decoded(name) => RequestPath::from_decoded(name),
        };
        Volume::of_path(&path.map_or_else(|_| root.path().to_owned(), |path| root.path().join(path.relative())))
    }

    /// Answers a request. An error is the server's own trouble (`EMFILE`, `EIO`, an unreadable file): a 500.
    pub fn respond(&self, request: &Request<'_>, access: Access) -> Result<Outcome> {
        self.answer(request, access, Hashing::Whole)
    }

    /// As [`Site::respond`] with [`Access::MayBlock`], in bounded pieces: [`Outcome::WouldBlock`] asks for another call, after
    /// others had their turn.
    pub fn respond_piece(&self, request: &Request<'_>) -> Result<Outcome> {
        self.answer(request, Access::MayBlock, Hashing::Chunk)
    }

    /// The lane of the pool for [`Site::respond_piece`].
    pub fn lane(&self) -> Lane {
        if self.options.content_tags && self.options.etag { Lane::Long } else { Lane::Short }
    }

    fn answer(&self, request: &Request<'_>, access: Access, hashing: Hashing) -> Result<Outcome> {
        let path = match request.path {
            PathInput::Encoded(raw) => path::decode(raw, self.options.path_rules),
            PathInput::Decoded(name) => RequestPath::from_decoded(name),
        };
        let path = match path {
            Ok(path) => path,
            Err(error) => return Ok(self.refuse(error, request)),
        };
        if self.options.dotfiles != Dotfiles::Allow && path.has_dotfile() {
            return Ok(match self.options.dotfiles {
                Dotfiles::Deny => Outcome::Forbidden(DOT_FILE),
                _ => Outcome::NotFound,
            });
        }
        let outcome = self.find(&path, request, access, hashing)?;
        if !matches!(outcome, Outcome::NotFound | Outcome::Directory(_)) {
            return Ok(outcome);
        }
        match &self.options.fallback {
            Some(name) if !path.has_extension() && (outcome.is_missing() || !self.options.listing) => {
                let name =
                    RequestPath::from_decoded(name).map_err(|error| invalid("fallback", name, error.as_str()))?;
                match self.find(&name, request, access, hashing)? {
                    Outcome::Directory(_) | Outcome::NotFound => Ok(outcome),
                    fallback => Ok(fallback),
                }
            }
            _ => Ok(outcome),
        }
    }

    fn find(&self, path: &RequestPath<'_>, request: &Request<'_>, access: Access, hashing: Hashing) -> Result<Outcome> {
        let mut directory = None;
        for (root_index, root) in self.roots.iter().enumerate().skip(request.root_index) {
            let cache = self.cache.as_deref();
            let search = Search { options: &self.options, cache, visit: Visit::new(root, access), request };
            match search.path(path)? {
                Step::Found(found) => return self.plan(found, root_index, request, access, hashing),
                Step::Stop(outcome) => return Ok(outcome),
                Step::Directory => directory = directory.or(Some(root_index)),
                Step::Missing => {}
            }
        }
        let Some(root_index) = directory else { return Ok(Outcome::NotFound) };
        let status = if self.options.index.is_empty() && path.wants_directory() { 403 } else { 404 };
        Ok(Outcome::Directory(Directory { path: path.relative().to_owned(), root_index, status }))
    }

    /// The whole file for a request without conditions and overrides says the same each time, so it is worked out once per version.
    fn plan(
        &self,
        mut found: Found,
        root_index: usize,
        request: &Request<'_>,
        access: Access,
        hashing: Hashing,
    ) -> Result<Outcome> {
        let meta = *found.file.meta();
        let overridden = request.overrides != Overrides::default();
        let generated_tag = found.file.generated_tag();
        let is_generated = generated_tag.is_some();
        let plain = !is_generated && !request.head_only && !overridden && request.conditions.is_plain();
        if plain && let Some(head) = self.memo.get(&found.path, root_index, found.encoding, &meta) {
            let body = Body::File { file: found.file, offset: 0, length: meta.size };
            return Ok(Outcome::Response(Response { status: 200, head, body, meta }));
        }
        let mut settled = true;
        let wants_content_tag = self.options.content_tags && self.options.etag && request.overrides.etag.is_none();
        if wants_content_tag && !is_generated {
            match self.tags.tag_of(&meta, found.file.content(), access, hashing)? {
                ContentTag::Known(tag) => found.content_tag = Some(tag),
                ContentTag::Unsettled => settled = false,
                ContentTag::WouldBlock => return Ok(Outcome::WouldBlock),
            }
        }
        let validators = match generated_tag {
            Some(tag) => FileValidators::of_generated(tag, &self.options),
            None => FileValidators::new(&meta, found.content_tag.take(), &self.options, now_ns()),
        };
        let may_keep = plain && settled && validators.is_final;
        let response = plan(found, validators, root_index, request, &self.options);
        Ok(Outcome::Response(if may_keep { self.memo.keep(response) } else { response }))
    }

    fn refuse(&self, error: PathError, request: &Request<'_>) -> Outcome {
        match (error, request.path) {
            (PathError::Malformed, _) | (PathError::Nul, PathInput::Decoded(_)) => Outcome::BadPath,
            (PathError::TooLong, _) => too_long(&self.options, request),
            _ => Outcome::Forbidden(error.as_str()),
        }
    }
}

/// `@fastify/static` cannot verify the spelling of a name that is too long, hence 403; `send` alone says 404.
fn too_long(options: &SiteOptions, request: &Request<'_>) -> Outcome {
    match (options.conformance, request.path) {
        (Conformance::FastifyStatic, PathInput::Encoded(_)) => Outcome::Forbidden(PathError::TooLong.as_str()),
        _ => Outcome::NotFound,
    }
}

fn invalid(option: &str, value: &str, allowed: &str) -> Error {
    Error::new(Code::InvalidArgument, format!("{option}: {value:?} is not {allowed}"))
}

/// The search for one request in one root.
struct Search<'a> {
    options: &'a SiteOptions,
    cache: Option<&'a FileCache>,
    visit: Visit<'a>,
    request: &'a Request<'a>,
}

impl Search<'_> {
    fn path(&self, path: &RequestPath<'_>) -> Result<Step> {
        let relative = path.relative();
        if path.wants_directory() {
            return match self.index(relative)? {
                Step::Missing => self.directory(relative),
                step => Ok(step),
            };
        }
        match self.name(relative)? {
            Step::Directory if self.options.listing => Ok(Step::Directory),
            Step::Directory if self.options.redirect => Ok(Step::Stop(Outcome::Redirect)),
            Step::Directory => match self.index(relative)? {
                Step::Missing => Ok(Step::Directory),
                step => Ok(step),
            },
            Step::Missing if !relative.is_empty() && !path.has_extension() => self.extensions(relative),
            step => Ok(step),
        }
    }

    fn index(&self, directory: &str) -> Result<Step> {
        for name in &self.options.index {
            let path = if directory.is_empty() { name.clone() } else { format!("{directory}/{name}") };
            match self.name(&path)? {
                Step::Missing | Step::Directory => {}
                step => return Ok(step),
            }
        }
        Ok(Step::Missing)
    }

    fn extensions(&self, base: &str) -> Result<Step> {
        for extension in &self.options.extensions {
            let path = format!("{base}.{extension}");
            match self.plain(path)? {
                Step::Missing | Step::Directory => {}
                step => return Ok(step),
            }
        }
        Ok(Step::Missing)
    }

    /// A path with its slash names a directory or nothing.
    fn directory(&self, relative: &str) -> Result<Step> {
        match self.plain(relative.to_owned())? {
            Step::Found(_) => Ok(Step::Missing),
            step => Ok(step),
        }
    }

    /// The file in a coding the client takes, else the plain file.
    fn name(&self, path: &str) -> Result<Step> {
        let supported = &self.options.pre_compressed;
        if let Some(header) = self.request.conditions.accept_encoding
            && !supported.is_empty()
            && !path.is_empty()
        {
            for encoding in negotiation::preferences(header, supported, self.options.conformance) {
                let variant = format!("{path}{}", encoding.suffix());
                match self.open(&variant)? {
                    Opened::File(file) => {
                        let (path, encoding) = (variant, Some(encoding));
                        return Ok(Step::Found(Found { file, path, encoding, content_tag: None }));
                    }
                    Opened::Other(Lookup::WouldBlock) => return Ok(Step::Stop(Outcome::WouldBlock)),
                    // A variant that cannot be read is no reason to withhold the plain file.
                    _ => {}
                }
            }
        }
        self.plain(path.to_owned())
    }

    fn plain(&self, path: String) -> Result<Step> {
        let lookup = match self.open(&path)? {
            Opened::File(file) => return Ok(Step::Found(Found { file, path, encoding: None, content_tag: None })),
            Opened::Other(lookup) => lookup,
        };
        Ok(match lookup {
            // It was sorted out above.
            Lookup::File(_) => Step::Missing,
            Lookup::Directory => Step::Directory,
            Lookup::Missing | Lookup::NotADirectory | Lookup::NotRegular => Step::Missing,
            Lookup::TooLong => Step::Stop(too_long(self.options, self.request)),
            Lookup::Refused => Step::Stop(Outcome::Forbidden("symbolic link refused")),
            Lookup::Denied { file_exists } => {
                let forbidden = match self.options.conformance {
                    Conformance::Rfc9110 => true,
                    // An unreadable file is an error of the server there, an unreadable directory "unverifiable".
                    Conformance::FastifyStatic => !file_exists && matches!(self.request.path, PathInput::Encoded(_)),
                };
                if !forbidden {
                    let full = self.visit.root().path().join(&path);
                    return Err(Error::system("open", nix::errno::Errno::EACCES).with_path(full));
                }
                Step::Stop(Outcome::Forbidden("permission denied"))
            }
            Lookup::WouldBlock => Step::Stop(Outcome::WouldBlock),
        })
    }

    /// The only place where a site opens a file.
    fn open(&self, relative: &str) -> Result<Opened> {
        // The root itself and its directories are no files: nothing that a cache would have.
        if let Some(cache) = self.cache
            && !relative.is_empty()
        {
            return Ok(match cache.get_under(&self.visit, relative)? {
                Fetched::File(file) => Opened::File(Source::Cached(file)),
                Fetched::Other(lookup) => Opened::Other(lookup),
            });
        }
        let file = match self.visit.open(relative)? {
            Lookup::File(file) => file,
            other => return Ok(Opened::Other(other)),
        };
        let path = || self.visit.root().path().join(relative);
        let inspection =
            inspect(&file, file.meta().size, self.visit.access()).map_err(|error| error.with_path(path()))?;
        Ok(match inspection {
            Inspection::Regular => Opened::File(Source::Open(Arc::new(file))),
            Inspection::WouldBlock => Opened::Other(Lookup::WouldBlock),
            Inspection::Pseudo(bytes) => {
                Opened::File(Source::Cached(Arc::new(CachedFile::snapshot(path(), &file, bytes))))
            }
        })
    }
}

/// What was opened.
enum Opened {
    File(Source),
    Other(Lookup),
}
