//! Patterns of routes, in the words of find-my-way (Fastify) and path-to-regexp (Express): which requests an application
//! wants to see itself. Only ever too generous: a path that a router would match matches here.

use super::path::{self, PathRules};

/// A pattern such as `/users/:id/*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoutePattern {
    segments: Vec<Segment>,
    /// Anything may follow.
    open: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    /// In lower case.
    Literal(String),
    /// One segment with a parameter: what stands before the first and after the last, in lower case.
    Parameter(String, String),
}

impl Segment {
    fn new(text: &str) -> Self {
        // Two colons are one, and no parameter.
        let text = text.replace("::", "\0");
        let plain = |text: &str| text.replace('\0', ":").to_lowercase();
        let (Some(first), Some(last)) = (text.find(':'), text.rfind(':')) else { return Self::Literal(plain(&text)) };
        let rest = text[last + 1..].trim_start_matches(|letter: char| letter.is_alphanumeric() || letter == '_');
        Self::Parameter(plain(&text[..first]), plain(rest))
    }

    fn matches(&self, part: &str) -> bool {
        let part = part.to_lowercase();
        match self {
            Self::Literal(literal) => part == *literal,
            Self::Parameter(before, after) => {
                part.len() >= before.len() + after.len() && part.starts_with(before) && part.ends_with(after)
            }
        }
    }
}

impl RoutePattern {
    /// Reads a pattern. Nothing is refused: what is not understood matches all that could follow.
    pub fn new(pattern: &str) -> Self {
        let mut segments = Vec::new();
        for segment in trim(pattern).split('/') {
            if segment.contains(['*', '(', '{']) || segment.ends_with(['?', '+']) {
                return Self { segments, open: true };
            }
            segments.push(Segment::new(segment));
        }
        Self { segments, open: false }
    }

    /// Whether a router could take `path`, which is decoded, for this pattern. Case and slashes at the end do not count.
    pub fn matches(&self, path: &str) -> bool {
        let mut parts = trim(path).split('/');
        for segment in &self.segments {
            if !parts.next().is_some_and(|part| segment.matches(part)) {
                return false;
            }
        }
        self.open || parts.next().is_none()
    }
}

/// Whether a router could take the percent-encoded path `raw` for one of `patterns`, however it decodes it.
pub fn is_route(patterns: &[RoutePattern], raw: &str) -> bool {
    if patterns.is_empty() {
        return false;
    }
    let Ok(decoded) = path::decode(raw, PathRules::Full) else { return true };
    patterns.iter().any(|pattern| pattern.matches(decoded.relative()) || pattern.matches(raw))
}

fn trim(path: &str) -> &str {
    path.trim_matches('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
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
            ("*", "/anything", true),
            ("/", "/", true),
            ("/", "/a", false),
        ];
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
        for (pattern, path, expected) in cases {
            assert_eq!(RoutePattern::new(pattern).matches(path), expected, "{pattern} {path}");
        }
    }
}
