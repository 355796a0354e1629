//! `Cache-Control` by file name: rules for patterns, and names that contain a hash of the content.

use std::borrow::Cow;

use super::glob::Glob;
use super::headers::CacheControl;

/// For a name that changes with its content: one year, without revalidation, RFC 8246.
const HASHED: &str = "public, max-age=31536000, immutable";

/// A rule for some files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheRule {
    /// The files.
    pub pattern: Glob,
    /// The value of the header; `None`: no header.
    pub value: Option<String>,
}

/// `Cache-Control` of every file of a site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachePolicy {
    /// The first match applies.
    pub rules: Vec<CacheRule>,
    /// Files with a content hash in their name are immutable for one year, see [`has_content_hash`]. Rules take precedence.
    pub hashed: bool,
    /// All other files; `None`: no header.
    pub otherwise: Option<CacheControl>,
}

impl Default for CachePolicy {
    fn default() -> Self {
        Self { rules: Vec::new(), hashed: false, otherwise: Some(CacheControl::default()) }
    }
}

impl CachePolicy {
    /// The value for the file at `path` (relative, without the suffix of a coding). `max_age` in seconds replaces that of
    /// [`CachePolicy::otherwise`].
    pub fn value(&self, path: &str, max_age: Option<u64>) -> Option<Cow<'static, str>> {
        if let Some(rule) = self.rules.iter().find(|rule| rule.pattern.matches(path)) {
            return rule.value.clone().map(Cow::Owned);
        }
        if self.hashed && has_content_hash(path) {
            return Some(Cow::Borrowed(HASHED));
        }
        self.otherwise.map(|otherwise| {
            let max_age_secs = max_age.unwrap_or(otherwise.max_age_secs);
            CacheControl { max_age_secs, ..otherwise }.value()
        })
    }
}

/// True for a file name with a content hash before its extension, as bundlers write them: `index-BH3kT9aZ.js`,
/// `main.8f3a0c1d.css`.
///
/// A hash taken for a word costs a revalidation; a word taken for a hash keeps an old file for a year. So a hash is eight or
/// more letters and digits that either are hexadecimal with both kinds, or have capitals, small letters and digits; or exactly
/// eight capitals and small letters in an order that words do not have (`BHkTLaZq`).
pub fn has_content_hash(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    let mut pieces = name.split(['.', '-']);
    // The first piece is the name itself, the last one the extension: a name without either has no hash.
    pieces.next();
    let pieces: Vec<&str> = pieces.collect();
    let Some((_, middle)) = pieces.split_last().filter(|(last, _)| name.ends_with(&format!(".{last}"))) else {
        return false;
    };
    middle.iter().any(|piece| is_hash(piece))
}

fn is_hash(piece: &str) -> bool {
    let bytes = piece.as_bytes();
    if bytes.len() < 8 || !bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_') {
        return false;
    }
    let any = |test: fn(&u8) -> bool| bytes.iter().any(test);
    let digits = any(u8::is_ascii_digit);
    let (upper, lower) = (any(u8::is_ascii_uppercase), any(u8::is_ascii_lowercase));
    let hexadecimal = bytes.iter().all(|byte| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f'));
    if digits {
        return lower && (upper || hexadecimal);
    }
    // `MyWidget` and `README` are words. A hash has a capital after a capital, and two capitals after small letters.
    let pairs = |first: fn(&u8) -> bool, second: fn(&u8) -> bool| {
        bytes.windows(2).filter(|pair| first(&pair[0]) && second(&pair[1])).count()
    };
    bytes.len() == 8
        && pairs(u8::is_ascii_lowercase, u8::is_ascii_uppercase) >= 2
        && pairs(u8::is_ascii_uppercase, u8::is_ascii_uppercase) >= 1
}

#[cfg(test)]
mod tests {
    use super::{CachePolicy, CacheRule, has_content_hash};
    use crate::glob::Glob;

    #[test]
    fn content_hashes_are_told_from_words_and_dates() {
        for name in [
            "assets/index-BH3kT9aZ.js",
            "main.8f3a0c1d.css",
            "main.8f3a0c1d.css.map",
            "chunk.0a1b2c3d4e5f60718293.js",
            "logo-Dk3_f9Qa.svg",
            "a-BHkTLaZq.js",
        ] {
            assert!(has_content_hash(name), "{name}");
        }
        for name in [
            "index.html",
            "jquery-3.7.1.min.js",
            "backup-20260101.tar",
            "my-component.js",
            "my-MyWidget.js",
            "report-FINALREV.pdf",
            "deadbeef1",
            "8f3a0c1d.css",
            "x.8f3a0c1d",
            "photo-IMG12345.jpg",
            "facade-decade.js",
            "app.JavaScript.js",
        ] {
            assert!(!has_content_hash(name), "{name}");
        }
    }

    #[test]
    fn the_first_matching_rule_applies() {
        let rule = |pattern, value: Option<&str>| CacheRule {
            pattern: Glob::new(pattern).unwrap(),
            value: value.map(str::to_owned),
        };
        let rules = vec![rule("*.html", Some("no-cache")), rule("*.tmp", None), rule("**", Some("private"))];
        let policy = CachePolicy { rules, hashed: true, ..CachePolicy::default() };
        assert_eq!(policy.value("a/b.html", None).as_deref(), Some("no-cache"));
        assert_eq!(policy.value("b.tmp", None), None);
        assert_eq!(policy.value("b.tmp", Some(60)), None);
        assert_eq!(policy.value("main.8f3a0c1d.css", None).as_deref(), Some("private"));
        let policy = CachePolicy { hashed: true, ..CachePolicy::default() };
        assert_eq!(policy.value("main.8f3a0c1d.css", None).as_deref(), Some("public, max-age=31536000, immutable"));
        assert_eq!(policy.value("main.css", None).as_deref(), Some("public, max-age=0"));
        assert_eq!(policy.value("main.css", Some(60)).as_deref(), Some("public, max-age=60"));
    }
}
