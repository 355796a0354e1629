//! Which file answers a request: index files, extensions, precompressed variants, the fallback, and redirects, in several roots.
//!
//! The resolver makes no system call. [`Resolver::lookup`] names a path below a root, the caller looks it up and passes the
//! result to [`Resolver::feed`], until that returns a [`Resolution`]:
//!
//! 1. [`Resolver::new`] checks the path and the rule for dot files
//! 2. in each root: the precompressed variants of the name, the name itself, then its extensions or the index of the directory
//! 3. the same for the fallback
//!
//! Known differences from `@fastify/static`, each where its behavior is accidental: a NUL or a name over 255 bytes below a missing
//! directory is 403, not 400 or 404; a directory in one root does not hide a file in the next root; an index is found whether or
//! not a coding is accepted; a loop of symbolic links is 403, not 500; a directory that cannot be listed still serves its
//! files; an unreadable variant is skipped in favor of the plain file; case aliases on a case-insensitive file system are not
//! detected.

use super::options::{Dotfiles, SiteOptions};
use super::request::{PathInput, Request};
use crate::conformance::Conformance;
use crate::negotiation::{Encoding, Preferences, preferences};
use crate::path::{PathError, RequestPath};

/// The reason of a refusal by [`Dotfiles::Deny`].
const DOT_FILE: &str = "dot file";

/// A path to look up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lookup<'a> {
    /// The root.
    pub root_index: usize,
    /// Relative to the root, without a slash at either end; empty for the root itself.
    pub path: &'a str,
    /// The coding of the file, when `path` is a precompressed variant.
    pub encoding: Option<Encoding>,
}

impl<'a> Lookup<'a> {
    /// The path without the suffix of the coding, which determines the content type.
    pub fn plain_path(&self) -> &'a str {
        let suffix = self.encoding.map_or("", Encoding::suffix);
        self.path.strip_suffix(suffix).unwrap_or(self.path)
    }
}

/// The result of a lookup. `F` is the caller's handle of an open file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found<F> {
    /// A regular file.
    File(F),
    /// A directory.
    Directory,
    /// Nothing that can be served: no such name, a name below a file, a FIFO, a socket, a device.
    Missing,
    /// The file system does not allow names of this length.
    TooLong,
    /// A loop of symbolic links, or a link that the policy does not allow.
    SymlinkRefused,
    /// Permission denied.
    Denied {
        /// The file itself exists and cannot be read; otherwise a directory on the way cannot be searched.
        file_exists: bool,
    },
}

/// The result of the resolution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolution<F> {
    /// This file answers; [`Resolver::lookup`] still names it.
    File(F),
    /// 301 to the same path with a slash.
    Redirect,
    /// A directory without an index.
    Directory(Directory),
    /// An error response.
    Refused(Refusal),
    /// The file of the current lookup exists and cannot be read: 500.
    Unreadable,
}

/// A directory that exists and has no index, for a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory {
    /// Relative to its root, without a slash at either end.
    pub path: String,
    /// The root.
    pub root_index: usize,
    /// The status without a listing: 404, or 403 when there are no index names and the path ended in a slash.
    pub status: u16,
}

/// Why no file answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// 404.
    NotFound,
    /// 403, with the reason for a log.
    Forbidden(&'static str),
    /// 400.
    BadPath,
}

/// What the current lookup is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The path itself.
    Name,
    /// The index of this number.
    Index(usize),
    /// The extension of this number.
    Extension(usize),
    /// Whether the path, which ends in a slash, is a directory.
    Directory,
}

/// The state of one resolution.
#[derive(Debug)]
pub struct Resolver<'a> {
    options: &'a SiteOptions,
    request: &'a Request<'a>,
    roots: usize,
    /// The path being resolved: first that of the request, then the fallback.
    target: RequestPath<'a>,
    root_index: usize,
    step: Step,
    /// The variants of the current name that are still to be tried.
    variants: Option<Preferences<'a>>,
    encoding: Option<Encoding>,
    /// The path of the current lookup where it differs from `target`.
    candidate: String,
    /// The first root in which `target` is a directory.
    directory: Option<usize>,
    /// The result for the path of the request, while the fallback is resolved.
    unresolved: Option<Unresolved>,
}

#[derive(Debug)]
enum Unresolved {
    Missing,
    Directory(Directory),
}

impl<'a> Resolver<'a> {
    /// Starts the resolution of `request` in `roots` roots. `options` have been [checked](SiteOptions::check).
    pub fn new(options: &'a SiteOptions, request: &'a Request<'a>, roots: usize) -> Result<Self, Refusal> {
        let target = request.path.parse(options.path_rules).map_err(|error| match (error, request.path) {
            (PathError::Malformed, _) | (PathError::Nul, PathInput::Decoded(_)) => Refusal::BadPath,
            (PathError::TooLong, _) => too_long(options, request),
            _ => Refusal::Forbidden(error.as_str()),
        })?;
        match options.dotfiles {
            Dotfiles::Deny if target.has_dotfile() => return Err(Refusal::Forbidden(DOT_FILE)),
            Dotfiles::Ignore if target.has_dotfile() => return Err(Refusal::NotFound),
            _ => {}
        }
        if request.root_index >= roots {
            return Err(Refusal::NotFound);
        }
        let mut resolver = Self {
            options,
            request,
            roots,
            target,
            root_index: request.root_index,
            step: Step::Name,
            variants: None,
            encoding: None,
            candidate: String::new(),
            directory: None,
            unresolved: None,
        };
        resolver.start_root();
        Ok(resolver)
    }

    /// The current lookup.
    pub fn lookup(&self) -> Lookup<'_> {
        let is_target = self.encoding.is_none() && matches!(self.step, Step::Name | Step::Directory);
        let path = if is_target { self.target.relative() } else { &self.candidate };
        Lookup { root_index: self.root_index, path, encoding: self.encoding }
    }

    /// Continues with the result of the current lookup. `None`: there is another lookup.
    pub fn feed<F>(&mut self, found: Found<F>) -> Option<Resolution<F>> {
        if self.encoding.is_some() && !matches!(found, Found::File(_)) {
            // A variant that cannot be served is skipped, whatever the reason.
            self.next_variant();
            return None;
        }
        match found {
            // A path that ends in a slash does not name a file.
            Found::File(_) if self.step == Step::Directory => self.next_root(),
            Found::File(file) => Some(Resolution::File(file)),
            Found::Directory => self.found_directory(),
            Found::Missing => self.found_nothing(),
            Found::TooLong => match too_long(self.options, self.request) {
                Refusal::NotFound => {
                    self.directory = None;
                    self.exhausted()
                }
                refusal => Some(Resolution::Refused(refusal)),
            },
            Found::SymlinkRefused => Some(Resolution::Refused(Refusal::Forbidden("symbolic link refused"))),
            Found::Denied { file_exists } => Some(match self.options.conformance {
                // `@fastify/static` answers 500 for an unreadable file, and 403 for an unreadable directory on the way.
                Conformance::FastifyStatic if file_exists || matches!(self.request.path, PathInput::Decoded(_)) => {
                    Resolution::Unreadable
                }
                _ => Resolution::Refused(Refusal::Forbidden("permission denied")),
            }),
        }
    }

    fn found_directory<F>(&mut self) -> Option<Resolution<F>> {
        match self.step {
            Step::Name if self.options.listing => self.next_root_after_directory(),
            Step::Name if self.options.redirect => Some(Resolution::Redirect),
            Step::Name => self.try_index(0),
            Step::Index(at) => self.try_index(at + 1),
            Step::Extension(at) => self.try_extension(at + 1),
            Step::Directory => self.next_root_after_directory(),
        }
    }

    fn found_nothing<F>(&mut self) -> Option<Resolution<F>> {
        match self.step {
            Step::Name if !self.target.relative().is_empty() && !self.target.has_extension() => self.try_extension(0),
            Step::Name | Step::Directory => self.next_root(),
            Step::Index(at) => self.try_index(at + 1),
            Step::Extension(at) => self.try_extension(at + 1),
        }
    }

    fn start_root(&mut self) {
        match self.target.wants_directory() {
            true if self.options.index.is_empty() => self.try_name(Step::Directory),
            true => self.try_name(Step::Index(0)),
            false => self.try_name(Step::Name),
        }
    }

    fn try_index<F>(&mut self, at: usize) -> Option<Resolution<F>> {
        if at < self.options.index.len() {
            self.try_name(Step::Index(at));
        } else if self.target.wants_directory() {
            self.try_name(Step::Directory);
        } else {
            return self.next_root_after_directory();
        }
        None
    }

    fn try_extension<F>(&mut self, at: usize) -> Option<Resolution<F>> {
        if at == self.options.extensions.len() {
            return self.next_root();
        }
        self.try_name(Step::Extension(at));
        None
    }

    /// Looks up the name of `step`, its variants first.
    fn try_name(&mut self, step: Step) {
        self.step = step;
        let has_variants = match step {
            Step::Name => !self.target.relative().is_empty(),
            Step::Index(_) => true,
            Step::Extension(_) | Step::Directory => false,
        };
        let SiteOptions { pre_compressed, conformance, .. } = self.options;
        self.variants = match self.request.conditions.accept_encoding {
            Some(header) if has_variants && !pre_compressed.is_empty() => {
                Some(preferences(header, pre_compressed, *conformance))
            }
            _ => None,
        };
        self.next_variant();
    }

    fn next_variant(&mut self) {
        self.encoding = self.variants.as_mut().and_then(Iterator::next);
        let relative = self.target.relative();
        let parts = match self.step {
            Step::Name | Step::Directory => [relative, "", ""],
            Step::Index(at) if relative.is_empty() => ["", "", &self.options.index[at]],
            Step::Index(at) => [relative, "/", &self.options.index[at]],
            Step::Extension(at) => [relative, ".", &self.options.extensions[at]],
        };
        self.candidate.clear();
        if self.encoding.is_none() && parts[2].is_empty() {
            // `lookup` returns the target itself.
            return;
        }
        for part in parts {
            self.candidate.push_str(part);
        }
        self.candidate.push_str(self.encoding.map_or("", Encoding::suffix));
    }

    fn next_root_after_directory<F>(&mut self) -> Option<Resolution<F>> {
        self.directory.get_or_insert(self.root_index);
        self.next_root()
    }

    fn next_root<F>(&mut self) -> Option<Resolution<F>> {
        self.root_index += 1;
        if self.root_index == self.roots {
            return self.exhausted();
        }
        self.start_root();
        None
    }

    /// No root has a file for `target`: goes on with the fallback, or ends.
    fn exhausted<F>(&mut self) -> Option<Resolution<F>> {
        let unresolved = match (self.unresolved.take(), self.directory.take()) {
            // The fallback is missing as well.
            (Some(unresolved), _) => return Some(unresolved.into()),
            (None, None) => Unresolved::Missing,
            (None, Some(root_index)) => {
                let is_forbidden = self.options.index.is_empty() && self.target.wants_directory();
                let status = if is_forbidden { 403 } else { 404 };
                Unresolved::Directory(Directory { path: self.target.relative().to_owned(), root_index, status })
            }
        };
        let allows_fallback = matches!(unresolved, Unresolved::Missing) || !self.options.listing;
        let fallback = self.options.fallback.as_deref().filter(|_| allows_fallback && !self.target.has_extension());
        let Some(Ok(fallback)) = fallback.map(RequestPath::from_decoded) else { return Some(unresolved.into()) };
        self.unresolved = Some(unresolved);
        self.target = fallback;
        self.root_index = self.request.root_index;
        self.start_root();
        None
    }
}

impl<F> From<Unresolved> for Resolution<F> {
    fn from(unresolved: Unresolved) -> Self {
        match unresolved {
            Unresolved::Missing => Self::Refused(Refusal::NotFound),
            Unresolved::Directory(directory) => Self::Directory(directory),
        }
    }
}

/// `@fastify/static` cannot verify the spelling of a name that is too long, hence 403; `send` alone answers 404.
fn too_long(options: &SiteOptions, request: &Request<'_>) -> Refusal {
    match (options.conformance, request.path) {
        (Conformance::FastifyStatic, PathInput::Encoded(_)) => Refusal::Forbidden(PathError::TooLong.as_str()),
        _ => Refusal::NotFound,
    }
}
