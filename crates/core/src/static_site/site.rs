//! Roots and options: answers requests. The Fastify plugin, the Node handler and the native server all call [`Site::respond`].
//!
//! Routes, prefixes, listings and error bodies belong to the caller.

use std::path::PathBuf;
use std::sync::Arc;

use nix::errno::Errno;

use super::head_cache::HeadCache;
use super::response::{Outcome, Response, Source};
use super::validators;
use crate::cache::{CachedFile, Fetched, FileCache};
use crate::error::{Code, Error, Result};
use crate::fs::content_tag::{ContentTag, ContentTags, Hashing};
use crate::fs::meta::now_ns;
use crate::fs::pseudo_file::{Inspection, inspect};
use crate::fs::root::{Access, Lookup, Root, Symlinks, Visit};
use crate::io::pool::{Lane, Volume};
use zerosend_http::site::plan::{Plan, plan};
use zerosend_http::site::resolver::{Found, Resolution, Resolver};
use zerosend_http::site::{Body, FileValidators, Overrides, Request, SiteOptions};

/// Roots and options, checked.
#[derive(Debug)]
pub struct Site {
    roots: Vec<Root>,
    options: SiteOptions,
    cache: Option<Arc<FileCache>>,
    heads: HeadCache,
    tags: ContentTags,
}

impl Site {
    /// A site that follows symbolic links. Checks the options; a root need not exist yet.
    pub fn new(roots: Vec<PathBuf>, options: SiteOptions) -> Result<Self> {
        let roots = roots.into_iter().map(|path| Root::new(path, Symlinks::Follow)).collect::<Result<_>>()?;
        Self::with_roots(roots, options)
    }

    /// Checks the options.
    pub fn with_roots(roots: Vec<Root>, options: SiteOptions) -> Result<Self> {
        if roots.is_empty() {
            return Err(Error::new(Code::InvalidArgument, "roots is empty: give one directory or more"));
        }
        options.check().map_err(|message| Error::new(Code::InvalidArgument, message))?;
        Ok(Self { roots, options, cache: None, heads: HeadCache::default(), tags: ContentTags::default() })
    }

    /// Serves files from `cache`.
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

    /// The file system that a request accesses, for [`crate::io::pool::Pool::run`].
    pub fn volume(&self, request: &Request<'_>) -> Volume {
        let Some(root) = self.roots.get(request.root_index) else { return Volume::NONE };
        let path = request.path.parse(self.options.path_rules);
        Volume::of_path(&path.map_or_else(|_| root.path().to_owned(), |path| root.path().join(path.relative())))
    }

    /// The lane of the pool for [`Site::respond_step`].
    pub fn lane(&self) -> Lane {
        if self.options.content_tags && self.options.etag { Lane::Long } else { Lane::Short }
    }

    /// Answers a request. An error is a fault of the server (`EMFILE`, `EIO`, an unreadable file): 500.
    pub fn respond(&self, request: &Request<'_>, access: Access) -> Result<Outcome> {
        self.answer(request, access, Hashing::Whole)
    }

    /// Like [`Site::respond`] with [`Access::MayBlock`], but hashes a bounded number of bytes: after [`Outcome::WouldBlock`] call
    /// it again.
    pub fn respond_step(&self, request: &Request<'_>) -> Result<Outcome> {
        self.answer(request, Access::MayBlock, Hashing::Chunk)
    }

    fn answer(&self, request: &Request<'_>, access: Access, hashing: Hashing) -> Result<Outcome> {
        // 1. Check the path.
        let mut resolver = match Resolver::new(&self.options, request, self.roots.len()) {
            Ok(resolver) => resolver,
            Err(refusal) => return Ok(refusal.into()),
        };
        // 2. Look up candidates until one answers.
        let file = match self.resolve(&mut resolver, access)? {
            None => return Ok(Outcome::WouldBlock),
            Some(Resolution::File(file)) => file,
            Some(Resolution::Redirect) => return Ok(Outcome::Redirect),
            Some(Resolution::Directory(directory)) => return Ok(Outcome::Directory(directory)),
            Some(Resolution::Refused(refusal)) => return Ok(refusal.into()),
            Some(Resolution::Unreadable) => {
                let selected = resolver.lookup();
                let path = self.roots[selected.root_index].path().join(selected.path);
                return Err(Error::system("open", Errno::EACCES).with_path(path));
            }
        };
        let selected = resolver.lookup();
        let meta = *file.meta();

        // 3. Reuse the head of an earlier response: all plain requests for a version of a file have the same.
        let is_plain = !file.is_snapshot()
            && !request.head_only
            && request.overrides == Overrides::default()
            && request.conditions.is_plain();
        if is_plain && let Some(head) = self.heads.get(&file, selected) {
            let body = Body::File { file, offset: 0, length: meta.size };
            return Ok(Outcome::Response(Response { status: 200, head, body, meta }));
        }

        // 4. Compute the entity tag and the date.
        let Some(validators) = self.validators(&file, request, access, hashing)? else {
            return Ok(Outcome::WouldBlock);
        };

        // 5. Plan the response: preconditions, range, headers and body.
        let Plan { status, head, body } = plan(file, meta.size, selected, &validators, request, &self.options);

        // 6. Keep the head for the next plain request.
        let head = match &body {
            Body::File { file, .. } if is_plain && validators.is_final => self.heads.insert(file, head),
            _ => Arc::new(head),
        };
        Ok(Outcome::Response(Response { status, head, body, meta }))
    }

    /// The validators of `file`. `None`: to compute them would block.
    fn validators(
        &self,
        file: &Source,
        request: &Request<'_>,
        access: Access,
        hashing: Hashing,
    ) -> Result<Option<FileValidators>> {
        let options = &self.options;
        if let Some(tag) = file.snapshot_tag() {
            return Ok(Some(validators::of_snapshot(tag, options)));
        }
        let meta = file.meta();
        if !options.content_tags || !options.etag || request.overrides.etag.is_some() {
            return Ok(Some(validators::of_file(meta, None, options, now_ns())));
        }
        Ok(match self.tags.tag_of(meta, file.content(), access, hashing)? {
            ContentTag::Known(tag) => Some(validators::of_file(meta, Some(tag), options, now_ns())),
            ContentTag::Unsettled => {
                Some(FileValidators { is_final: false, ..validators::of_file(meta, None, options, now_ns()) })
            }
            ContentTag::WouldBlock => None,
        })
    }

    /// Looks up what `resolver` names until it ends. `None`: a lookup would block.
    fn resolve(&self, resolver: &mut Resolver<'_>, access: Access) -> Result<Option<Resolution<Source>>> {
        let mut visit: Option<(usize, Visit<'_>)> = None;
        loop {
            let lookup = resolver.lookup();
            let visit = match &visit {
                Some((root_index, visit)) if *root_index == lookup.root_index => visit,
                _ => {
                    let opened = Visit::new(&self.roots[lookup.root_index], access);
                    &visit.insert((lookup.root_index, opened)).1
                }
            };
            let found = match self.open(visit, lookup.path)? {
                Opened::File(file) => Found::File(file),
                Opened::Other(Lookup::WouldBlock) => return Ok(None),
                Opened::Other(Lookup::Directory) => Found::Directory,
                Opened::Other(Lookup::TooLong) => Found::TooLong,
                Opened::Other(Lookup::Refused) => Found::SymlinkRefused,
                Opened::Other(Lookup::Denied { file_exists }) => Found::Denied { file_exists },
                Opened::Other(Lookup::File(_) | Lookup::Missing | Lookup::NotADirectory | Lookup::NotRegular) => {
                    Found::Missing
                }
            };
            if let Some(resolution) = resolver.feed(found) {
                return Ok(Some(resolution));
            }
        }
    }

    /// Opens `relative` below the root of `visit`, through the cache if there is one.
    fn open(&self, visit: &Visit<'_>, relative: &str) -> Result<Opened> {
        // The root itself is a directory, which the cache does not hold.
        if let Some(cache) = &self.cache
            && !relative.is_empty()
        {
            return Ok(match cache.get_under(visit, relative)? {
                Fetched::File(file) => Opened::File(Source::Cached(file)),
                Fetched::Other(lookup) => Opened::Other(lookup),
            });
        }
        let file = match visit.open(relative)? {
            Lookup::File(file) => file,
            other => return Ok(Opened::Other(other)),
        };
        let path = || visit.root().path().join(relative);
        let inspection = inspect(&file, file.meta().size, visit.access()).map_err(|error| error.with_path(path()))?;
        Ok(match inspection {
            Inspection::Regular => Opened::File(Source::Open(Arc::new(file))),
            Inspection::WouldBlock => Opened::Other(Lookup::WouldBlock),
            Inspection::Pseudo(bytes) => {
                Opened::File(Source::Cached(Arc::new(CachedFile::snapshot(path(), &file, bytes))))
            }
        })
    }
}

/// The result of opening a path.
enum Opened {
    File(Source),
    /// Never [`Lookup::File`].
    Other(Lookup),
}
