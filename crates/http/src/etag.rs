//! Entity tags, RFC 9110 section 8.8.3: computed from size and time of a file, compared, and parsed in lists.
//!
//! The weak tag equals that of `@fastify/send`, so that copies in browser caches stay valid when the plugin is replaced. The strong
//! tag has the times in nanoseconds, including the change time, which programs cannot set.

use super::conformance::Conformance;

/// Milliseconds since 1970 like Node's `stat.mtime.getTime()`: rounded to the nearest in double arithmetic.
pub fn node_mtime_ms(mtime_ns: i64) -> i64 {
    let (seconds, nanos) = (mtime_ns.div_euclid(1_000_000_000), mtime_ns.rem_euclid(1_000_000_000));
    // Node: lib/internal/fs/utils.js, `sec * 1e3 + nsec / 1e6`, then rounded half up.
    ((seconds as f64) * 1e3 + (nanos as f64) / 1e6 + 0.5).floor() as i64
}

/// `W/"<size>-<mtime in ms>"`, both in lower-case hexadecimal.
pub fn weak(size: u64, mtime_ms: i64) -> String {
    let sign = if mtime_ms < 0 { "-" } else { "" };
    format!("W/\"{size:x}-{sign}{:x}\"", mtime_ms.unsigned_abs())
}

/// `"<size>-<mtime in ns>-<ctime in ns>"`, all in lower-case hexadecimal, times as 64 bits.
pub fn strong(size: u64, mtime_ns: i64, ctime_ns: i64) -> String {
    format!("\"{size:x}-{mtime_ns:x}-{ctime_ns:x}\"")
}

/// Weak comparison, RFC 9110 section 8.8.3.2: the opaque tags are equal.
pub fn weak_eq(a: &str, b: &str) -> bool {
    opaque(a) == opaque(b)
}

/// Strong comparison: the tags are equal and not weak.
pub fn strong_eq(a: &str, b: &str) -> bool {
    a == b && !a.starts_with("W/")
}

fn opaque(tag: &str) -> &str {
    tag.strip_prefix("W/").unwrap_or(tag)
}

/// The tags of an `If-Match` or `If-None-Match` list. With [`Conformance::Rfc9110`] a comma inside quotes is part of the tag and
/// invalid members are skipped; `@fastify/send` splits at every comma and trims blanks.
pub fn list(header: &str, conformance: Conformance) -> impl Iterator<Item = &str> {
    let mut rest = header;
    std::iter::from_fn(move || {
        match conformance {
            Conformance::FastifyStatic => {
                while !rest.is_empty() {
                    let (item, tail) = rest.split_once(',').unwrap_or((rest, ""));
                    rest = tail;
                    let item = item.trim_matches(' ');
                    if !item.is_empty() {
                        return Some(item);
                    }
                }
            }
            Conformance::Rfc9110 => {
                while !rest.is_empty() {
                    let item = rest.trim_start_matches([' ', '\t', ',']);
                    if let Some((tag, tail)) = split_tag(item) {
                        rest = tail;
                        return Some(tag);
                    }
                    rest = item.split_once(',').map_or("", |(_, tail)| tail);
                }
            }
        }
        None
    })
}

/// Splits off a tag at the start of `text`, if a comma or the end follows it.
fn split_tag(text: &str) -> Option<(&str, &str)> {
    let prefix = if text.starts_with("W/\"") { 3 } else { 1 };
    let inner = text.get(prefix..).filter(|_| text[prefix - 1..].starts_with('"'))?;
    let end = prefix + inner.find('"')? + 1;
    let (tag, tail) = text.split_at(end);
    let tail = tail.trim_start_matches([' ', '\t']);
    (tail.is_empty() || tail.starts_with(',')).then_some((tag, tail))
}
