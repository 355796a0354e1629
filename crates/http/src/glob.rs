//! Glob patterns for paths below a root: `*`, `?`, `**` and `{a,b}`; every other character matches itself.
//!
//! `*` and `?` do not match a slash; `**` as a whole segment matches any number of segments. A pattern without a slash is
//! compared with the last segment only, so `*.html` matches every page. Matching is case-sensitive and takes time proportional
//! to the product of the two lengths at most.

/// Maximum number of patterns that the braces expand to.
const MAX_ALTERNATIVES: usize = 256;

/// A compiled pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    /// One for each combination of the braces, split at slashes.
    alternatives: Vec<Vec<String>>,
    /// Compare the last segment only.
    by_name: bool,
}

impl Glob {
    /// Compiles a pattern. `None` for an empty pattern, unbalanced or nested braces, and braces that expand to more than
    /// 256 patterns.
    pub fn new(pattern: &str) -> Option<Self> {
        let pattern = pattern.strip_prefix('/').map_or(pattern, |rest| rest);
        if pattern.is_empty() {
            return None;
        }
        let segments = |text: String| text.split('/').map(str::to_owned).collect();
        let alternatives = expand(pattern)?.into_iter().map(segments).collect();
        Some(Self { alternatives, by_name: !pattern.contains('/') })
    }

    /// Whether the pattern matches `path` (relative, without a slash at either end).
    pub fn matches(&self, path: &str) -> bool {
        let path = if self.by_name { path.rsplit('/').next().unwrap_or_default() } else { path };
        let names: Vec<&str> = path.split('/').collect();
        self.alternatives.iter().any(|pattern| {
            wild(
                pattern,
                &names,
                |segment| segment == "**",
                |segment, name| {
                    let (segment, name): (Vec<char>, Vec<char>) = (segment.chars().collect(), name.chars().collect());
                    wild(&segment, &name, |char| *char == '*', |pattern, char| *pattern == '?' || pattern == char)
                },
            )
        })
    }
}

/// All combinations of the braces.
fn expand(pattern: &str) -> Option<Vec<String>> {
    let mut results = vec![String::new()];
    let mut rest = pattern;
    while let Some((before, tail)) = rest.split_once('{') {
        let (inside, after) = tail.split_once('}')?;
        if before.contains('}') || inside.contains('{') {
            return None;
        }
        let choices: Vec<&str> = inside.split(',').collect();
        if results.len() * choices.len() > MAX_ALTERNATIVES {
            return None;
        }
        results = results
            .iter()
            .flat_map(|start| choices.iter().map(move |choice| format!("{start}{before}{choice}")))
            .collect();
        rest = after;
    }
    if rest.contains('}') {
        return None;
    }
    Some(results.into_iter().map(|start| start + rest).collect())
}

/// Matches `items` with a pattern whose wild members match any number of items. Backtracking to the last wild member is
/// enough: it can match whatever an earlier one could.
fn wild<P, T>(pattern: &[P], items: &[T], is_wild: impl Fn(&P) -> bool, equal: impl Fn(&P, &T) -> bool) -> bool {
    let (mut at, mut item) = (0, 0);
    let mut retry = None;
    while item < items.len() {
        match pattern.get(at) {
            Some(member) if is_wild(member) => {
                retry = Some((at, item));
                at += 1;
            }
            Some(member) if items.get(item).is_some_and(|item| equal(member, item)) => {
                at += 1;
                item += 1;
            }
            _ => match retry {
                Some((wild_at, matched)) => {
                    retry = Some((wild_at, matched + 1));
                    at = wild_at + 1;
                    item = matched + 1;
                }
                None => return false,
            },
        }
    }
    pattern.iter().skip(at).all(is_wild)
}

#[cfg(test)]
mod tests {
    use super::Glob;

    #[test]
    fn patterns_match_names_and_paths() {
        let rows = [
            ("*.html", "a.html", true),
            ("*.html", "deep/er/a.html", true),
            ("*.html", "a.html.gz", false),
            ("/*.html", "deep/a.html", true),
            ("assets/*", "assets/a.js", true),
            ("assets/*", "assets/deep/a.js", false),
            ("assets/**", "assets/deep/a.js", true),
            ("assets/**", "other/assets/a.js", false),
            ("**/assets/*.{js,css}", "x/y/assets/a.css", true),
            ("**/assets/*.{js,css}", "assets/a.js", true),
            ("**/assets/*.{js,css}", "assets/a.map", false),
            ("a/**/b/**/c", "a/x/b/y/b/c", true),
            ("a/**/b/**/c", "a/x/y/c", false),
            ("?.txt", "é.txt", true),
            ("?.txt", "ab.txt", false),
            ("sw.js", "sw.js", true),
            ("a+b[1].txt", "a+b[1].txt", true),
            ("**", "anything/at/all", true),
        ];
        for (pattern, path, expected) in rows {
            assert_eq!(Glob::new(pattern).unwrap().matches(path), expected, "{pattern} {path}");
        }
        for wrong in ["", "/", "a{b", "a}b", "{a,{b,c}}", &"{a,b}".repeat(9)] {
            assert!(Glob::new(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn hostile_names_take_time_proportional_to_their_length() {
        let length = if cfg!(miri) { 200 } else { 20_000 };
        let pattern = Glob::new(&"*a".repeat(50)).unwrap();
        assert!(!pattern.matches(&"b".repeat(length)));
        assert!(pattern.matches(&"a".repeat(length)));
    }
}
