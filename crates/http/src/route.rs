//! Route patterns of Fastify (find-my-way) and Express (path-to-regexp), as far as needed to tell whether a router may match a
//! path. In doubt a pattern matches: a false match only sends a request to the router.

use super::path::{self, PathRules};

/// A compiled pattern such as `/users/:id/*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoutePattern {
    segments: Vec<Segment>,
    /// Any further segments match.
    is_open: bool,
}

/// A segment of a pattern, in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Literal(Box<str>),
    /// A segment with parameters: the text before the first parameter and after the last one.
    Parameter(Box<str>, Box<str>),
}

impl Segment {
    fn new(text: &str) -> Self {
        // `::` is an escaped colon.
        let text = text.replace("::", "\0");
        let literal = |text: &str| fold(&text.replace('\0', ":")).collect();
        let (Some(first), Some(last)) = (text.find(':'), text.rfind(':')) else { return Self::Literal(literal(&text)) };
        let rest = text[last + 1..].trim_start_matches(|letter: char| letter.is_alphanumeric() || letter == '_');
        Self::Parameter(literal(&text[..first]), literal(rest))
    }

    fn matches(&self, part: &str) -> bool {
        let lower = || fold(part);
        match self {
            Self::Literal(literal) => lower().eq(literal.chars()),
            Self::Parameter(before, after) => {
                let mut start = lower();
                let mut end = lower().rev();
                lower().count() >= before.chars().count() + after.chars().count()
                    && before.chars().all(|letter| start.next() == Some(letter))
                    && after.chars().rev().all(|letter| end.next() == Some(letter))
            }
        }
    }
}

impl RoutePattern {
    /// Compiles a pattern. A segment in an unknown syntax matches everything from there on.
    pub fn new(pattern: &str) -> Self {
        let mut segments = Vec::new();
        for segment in trim(pattern).split('/') {
            if segment.contains(['*', '(', '{']) || segment.ends_with(['?', '+']) {
                return Self { segments, is_open: true };
            }
            segments.push(Segment::new(segment));
        }
        Self { segments, is_open: false }
    }

    /// Whether a router may match the decoded `path`. Ignores case and slashes at the ends.
    pub fn matches(&self, path: &str) -> bool {
        let mut parts = trim(path).split('/');
        self.segments.iter().all(|segment| parts.next().is_some_and(|part| segment.matches(part)))
            && (self.is_open || parts.next().is_none())
    }
}

/// Whether a router may match the percent-encoded path `raw` with one of `patterns`, whether it decodes the path first or not.
/// Does not allocate for a path without escapes.
pub fn is_route(patterns: &[RoutePattern], raw: &str) -> bool {
    if patterns.is_empty() {
        return false;
    }
    let Ok(decoded) = path::decode(raw, PathRules::Full) else { return true };
    let matches = |path: &str| patterns.iter().any(|pattern| pattern.matches(path));
    matches(raw) || (raw.contains('%') && matches(decoded.relative()))
}

/// The letters in lower case. `str::to_lowercase` and JavaScript's `toLowerCase` map a sigma by its position; here both are one.
fn fold(text: &str) -> impl DoubleEndedIterator<Item = char> {
    text.chars().flat_map(char::to_lowercase).map(|letter| if letter == 'ς' { 'σ' } else { letter })
}

fn trim(path: &str) -> &str {
    path.trim_matches('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_the_paths_of_its_route() {
        let cases = [
            ("/static/private/*", "/static/private/a/b", true),
            ("/static/private/*", "/static/PRIVATE/a", true),
            ("/static/private/*", "/static/private", true),
            ("/static/private/*", "/static/privately", false),
            ("/static/config.json", "/static/config.json", true),
            ("/static/config.json", "/static/config.json/", true),
            ("/static/config.json", "/static/config.json/a", false),
            ("/static/:id/edit", "/static/7/edit", true),
            ("/static/:id/edit", "/static/7/view", false),
            ("/static/:id/edit", "/static/edit", false),
            ("/static/:id?", "/static", true),
            ("/static/:id?", "/static/7", true),
            ("/static/:at(^\\d+)h", "/static/12h", true),
            ("/static/a::b", "/static/a:b", true),
            ("/static/a::b", "/static/acb", false),
            ("/static/:a-:b", "/static/1-2", true),
            ("/static/:name.map", "/static/a.js.map", true),
            ("/static/:name.map", "/static/a.js", false),
            ("/static/v:n", "/static/V2", true),
            ("/static/v:n", "/static/2", false),
            ("/static/ab:n-b", "/static/ab-", false),
            ("/Ü/ΑΣ", "/ü/ας", true),
            ("*", "/anything", true),
            ("/", "/", true),
            ("/", "/a", false),
        ];
        for (pattern, path, expected) in cases {
            assert_eq!(RoutePattern::new(pattern).matches(path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn a_path_matches_as_sent_and_decoded_once() {
        let private = [RoutePattern::new("/static/private/*")];
        for (raw, expected) in [
            ("/static/private/a", true),
            ("/static/%70rivate/a", true),
            ("/static/%2570rivate/a", false),
            ("/static/privat%e9/a", true),
            ("/static/a", false),
        ] {
            assert_eq!(is_route(&private, raw), expected, "{raw}");
        }
        assert!(!is_route(&[], "/%"));
    }
}
