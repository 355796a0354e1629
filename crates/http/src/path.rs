//! A request path, decoded once and checked, as the relative path it names below a root.
//!
//! The check is lexical and comes before any file is opened: a path that has a second spelling (`..`, `.`, `//`, `\`) is
//! refused, never normalised, because a router matched the first spelling and its guards with it. What the names mean on
//! a disk, symbolic links above all, is not known here.

use std::borrow::Cow;

/// Longest name of one segment: `NAME_MAX`, limits.h(0p).
pub const MAX_SEGMENT: usize = 255;
/// Longest decoded path: `PATH_MAX`, limits.h(0p).
pub const MAX_PATH: usize = 4096;

/// Which percent escapes are decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PathRules {
    /// As ECMAScript `decodeURI`: escapes of `; / ? : @ & = + $ , #` stay as written, save that `%23` and `%3F` are
    /// decoded, for find-my-way decodes those two before it matches a route and the file must be the one it guarded.
    #[default]
    DecodeUri,
    /// Everything but `%2F`, which stays as written: a decoded slash would make a segment that no router saw.
    Full,
}

/// Why a path names nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathError {
    /// A `.` or `..` segment.
    DotSegment,
    /// Two slashes in a row.
    EmptySegment,
    /// A backslash: a separator elsewhere, so a second spelling.
    Backslash,
    /// A NUL byte, which would end the name early in the kernel.
    Nul,
    /// A broken percent escape, or bytes that are not UTF-8.
    Malformed,
    /// A segment over [`MAX_SEGMENT`] or a path over [`MAX_PATH`] bytes.
    TooLong,
}

impl PathError {
    /// The reason in words.
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
    /// Checks a name that is already decoded, such as the argument of `sendFile(name)`. A `%` in it is a plain `%`.
    pub fn from_decoded(name: &'a str) -> Result<Self, PathError> {
        Self::check(Cow::Borrowed(name))
    }

    /// The path below the root: no slash at either end, empty for the root itself.
    pub fn relative(&self) -> &str {
        &self.relative
    }

    /// True when the path ended in a slash: only a directory will do.
    pub fn wants_directory(&self) -> bool {
        self.wants_directory
    }

    /// True when a segment begins with a dot.
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
        // A lone slash left over means that the path was `//`.
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

/// Decodes the path of a request target (no query) and checks it. `raw` may or may not begin with its slash.
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

/// The percent-encoded path `raw` without empty and `.` segments, which nginx and others merge: `//a/./b` is `/a/b`. `None`: there
/// are none. `..` stays, for [`decode`] to refuse.
///
/// Only for a server without a router in front of it: where one has matched the path as it was sent, a guard of the merged path
/// would not have been asked.
pub fn merge(raw: &str) -> Option<String> {
    // In the common case no slash is followed by any of these.
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

/// ECMA-262 `decodeURI`: the escapes of uriReserved and `#` are preserved.
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
