//! A request path, decoded once and checked, as a relative path below a root.
//!
//! The check is lexical and precedes every access to the file system: a path with a second spelling (`..`, `.`, `//`, `\`) is
//! refused and never normalized, because a router has matched the first spelling and applied its guards. Symbolic links are
//! checked when the file is opened.

use std::borrow::Cow;

/// Maximum bytes of a segment: `NAME_MAX`, limits.h(0p).
pub const MAX_SEGMENT: usize = 255;
/// Maximum bytes of a decoded path: `PATH_MAX`, limits.h(0p).
pub const MAX_PATH: usize = 4096;

/// Which percent escapes are decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PathRules {
    /// Like ECMAScript `decodeURI`, which preserves escapes of `; / ? : @ & = + $ , #`, except that `%23` and `%3F` are decoded:
    /// find-my-way decodes both before it matches a route, and the file must be the one that the route guards.
    #[default]
    DecodeUri,
    /// All but `%2F`, which is preserved: a decoded slash would separate segments that a router has not seen.
    Full,
}

/// Why a path is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathError {
    /// A `.` or `..` segment.
    DotSegment,
    /// Two slashes in a row.
    EmptySegment,
    /// A backslash, which is a separator on Windows.
    Backslash,
    /// A NUL byte, which ends a path in the kernel.
    Nul,
    /// An invalid percent escape, or bytes that are not UTF-8.
    Malformed,
    /// A segment over [`MAX_SEGMENT`] or a path over [`MAX_PATH`] bytes.
    TooLong,
}

impl PathError {
    /// The reason, for logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DotSegment => "dot segment in path",
            Self::EmptySegment => "empty segment in path",
            Self::Backslash => "backslash in path",
            Self::Nul => "NUL in path",
            Self::Malformed => "malformed percent escape in path",
            Self::TooLong => "path too long",
        }
    }
}

/// A decoded and checked path below a root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestPath<'a> {
    relative: Cow<'a, str>,
    wants_directory: bool,
}

impl<'a> RequestPath<'a> {
    /// Checks a name that is already decoded, such as the argument of `sendFile(name)`. `%` has no special meaning.
    pub fn from_decoded(name: &'a str) -> Result<Self, PathError> {
        Self::check(Cow::Borrowed(name))
    }

    /// The path below the root, without a slash at either end; empty for the root itself.
    pub fn relative(&self) -> &str {
        &self.relative
    }

    /// True when the path ended in a slash, so that it names a directory.
    pub fn wants_directory(&self) -> bool {
        self.wants_directory
    }

    /// True when a segment starts with a dot.
    pub fn has_dotfile(&self) -> bool {
        self.relative.split('/').any(|segment| segment.starts_with('.'))
    }

    /// True when the last segment has an extension in the sense of Node's `path.extname`: `a.` has one, `.a` has none.
    pub fn has_extension(&self) -> bool {
        let name = self.relative.rsplit('/').next().unwrap_or_default();
        name.rfind('.').is_some_and(|dot| dot > 0)
    }

    fn check(decoded: Cow<'a, str>) -> Result<Self, PathError> {
        let body = decoded.strip_prefix('/').unwrap_or(&decoded);
        let wants_directory = decoded.ends_with('/');
        let body = if body.is_empty() { body } else { body.strip_suffix('/').unwrap_or(body) };
        // Only `//` leaves an empty body here.
        if decoded.len() > 1 && body.is_empty() {
            return Err(PathError::EmptySegment);
        }
        check_segments(body)?;
        let start = decoded.len().min(usize::from(decoded.starts_with('/')));
        let end = start + body.len();
        let relative = match decoded {
            Cow::Borrowed(text) => Cow::Borrowed(&text[start..end]),
            Cow::Owned(mut text) => {
                text.truncate(end);
                text.drain(..start);
                Cow::Owned(text)
            }
        };
        Ok(Self { relative, wants_directory })
    }
}

/// Decodes and checks the path of a request target, without its query. The slash at the start is optional.
pub fn decode(raw: &str, rules: PathRules) -> Result<RequestPath<'_>, PathError> {
    if !raw.contains('%') {
        return RequestPath::check(Cow::Borrowed(raw));
    }
    let bytes = raw.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        if byte != b'%' {
            decoded.push(byte);
            at += 1;
            continue;
        }
        let escape = bytes.get(at..at + 3).ok_or(PathError::Malformed)?;
        let (Some(high), Some(low)) = (hex(escape[1]), hex(escape[2])) else { return Err(PathError::Malformed) };
        let value = high << 4 | low;
        if stays_encoded(value, rules) {
            decoded.extend_from_slice(escape);
        } else {
            decoded.push(value);
        }
        at += 3;
    }
    RequestPath::check(Cow::Owned(String::from_utf8(decoded).map_err(|_| PathError::Malformed)?))
}

/// Removes empty and `.` segments from the percent-encoded path `raw`, like nginx: `//a/./b` becomes `/a/b`. `None`: there are
/// none. `..` is preserved, and [`decode`] refuses it.
///
/// Only for a server without a router in front of it: a router matches the path as it was sent, without the guards of the merged
/// path.
pub fn merge(raw: &str) -> Option<String> {
    // The common case: no slash is followed by one of these.
    let may_merge = |pair: &[u8]| pair[0] == b'/' && matches!(pair[1], b'/' | b'.' | b'%');
    if !raw.as_bytes().windows(2).any(may_merge) {
        return None;
    }
    let is_dot = |segment: &str| segment == "." || segment.eq_ignore_ascii_case("%2e");
    let (kept, last) = raw.rsplit_once('/')?;
    let mut merged = String::with_capacity(raw.len());
    for segment in kept.split('/').filter(|segment| !segment.is_empty() && !is_dot(segment)) {
        merged.push('/');
        merged.push_str(segment);
    }
    merged.push('/');
    if !is_dot(last) {
        merged.push_str(last);
    }
    (merged != raw).then_some(merged)
}

/// ECMA-262 `decodeURI` preserves the escapes of uriReserved and `#`.
fn stays_encoded(byte: u8, rules: PathRules) -> bool {
    match rules {
        PathRules::DecodeUri => matches!(byte, b';' | b'/' | b':' | b'@' | b'&' | b'=' | b'+' | b'$' | b','),
        PathRules::Full => byte == b'/',
    }
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

fn check_segments(body: &str) -> Result<(), PathError> {
    if body.bytes().any(|byte| byte == 0) {
        return Err(PathError::Nul);
    }
    if body.contains('\\') {
        return Err(PathError::Backslash);
    }
    if body.is_empty() {
        return Ok(());
    }
    let mut too_long = body.len() > MAX_PATH;
    for segment in body.split('/') {
        match segment {
            "" => return Err(PathError::EmptySegment),
            "." | ".." => return Err(PathError::DotSegment),
            _ => too_long |= segment.len() > MAX_SEGMENT,
        }
    }
    if too_long { Err(PathError::TooLong) } else { Ok(()) }
}
