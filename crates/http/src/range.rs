//! The `Range` header for a file of known size: the whole file, some ranges, or none.
//!
//! The time is linear in the length of the header, plus one sort of `max_ranges` entries at most, and all numbers saturate.
//! Whether the range applies is decided in [`conditional`](crate::conditional).

use super::conformance::Conformance;

/// Bytes `start..end_exclusive` of a file; never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteRange {
    /// Offset of the first byte.
    pub start: u64,
    /// Offset after the last byte.
    pub end_exclusive: u64,
}

impl ByteRange {
    /// In bytes.
    pub fn length(self) -> u64 {
        self.end_exclusive.saturating_sub(self.start)
    }
}

/// The response to a `Range` header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RangeDecision {
    /// The whole file: 200.
    Whole,
    /// One range: 206.
    Single(ByteRange),
    /// Two or more ranges for `multipart/byteranges`, in the order of the request; none overlaps or touches another.
    Several(Vec<ByteRange>),
    /// 416.
    Unsatisfiable,
}

/// How ranges are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RangePolicy {
    /// A header with more satisfiable ranges is answered with the whole file, RFC 9110 section 14.2.
    pub max_ranges: usize,
    /// Answer several ranges with `multipart/byteranges`; otherwise with the whole file, as `@fastify/static` does.
    pub multipart: bool,
    /// The parser.
    pub conformance: Conformance,
}

/// Decides on a `Range` header for a file of `size` bytes. An empty file is served whole: none of its ranges is satisfiable, and a
/// proxy that requests every file in ranges (nginx's `slice`) would turn a 416 into an error for a plain GET.
pub fn decide(header: &str, size: u64, policy: &RangePolicy) -> RangeDecision {
    if size == 0 {
        return RangeDecision::Whole;
    }
    let parsed = match policy.conformance {
        Conformance::Rfc9110 => parse_rfc(header, size, policy.max_ranges),
        Conformance::FastifyStatic => parse_fastify(header, size, policy.max_ranges),
    };
    let Parsed::Ranges(ranges) = parsed else { return RangeDecision::Whole };
    match *merge(ranges).as_slice() {
        [] => RangeDecision::Unsatisfiable,
        [only] => RangeDecision::Single(only),
        ref ranges if policy.multipart => RangeDecision::Several(ranges.to_vec()),
        _ => RangeDecision::Whole,
    }
}

enum Parsed {
    /// The header is ignored.
    Ignore,
    Ranges(Vec<ByteRange>),
}

/// Joins ranges that overlap or touch, RFC 9110 section 15.3.7.2. Each result takes the place of its first member in the request.
fn merge(ranges: Vec<ByteRange>) -> Vec<ByteRange> {
    if ranges.len() < 2 {
        return ranges;
    }
    let mut sorted: Vec<(usize, ByteRange)> = ranges.into_iter().enumerate().collect();
    sorted.sort_by_key(|(_, range)| range.start);
    let mut merged: Vec<(usize, ByteRange)> = Vec::new();
    for (index, range) in sorted {
        match merged.last_mut() {
            Some((first, last)) if range.start <= last.end_exclusive => {
                last.end_exclusive = last.end_exclusive.max(range.end_exclusive);
                *first = index.min(*first);
            }
            _ => merged.push((index, range)),
        }
    }
    merged.sort_by_key(|(index, _)| *index);
    merged.into_iter().map(|(_, range)| range).collect()
}

/// RFC 9110 sections 14.1.2 and 14.2: a header with an unknown unit or a syntax error is ignored as a whole.
fn parse_rfc(header: &str, size: u64, max_ranges: usize) -> Parsed {
    let Some((unit, set)) = header.trim().split_once('=') else { return Parsed::Ignore };
    if !unit.eq_ignore_ascii_case("bytes") {
        return Parsed::Ignore;
    }
    let mut ranges = Vec::new();
    let mut any_spec = false;
    let mut empty_but_satisfiable = false;
    for spec in set.split(',').map(|spec| spec.trim_matches([' ', '\t'])).filter(|spec| !spec.is_empty()) {
        any_spec = true;
        let Some((first, last)) = spec.split_once('-') else { return Parsed::Ignore };
        let range = match (digits(first), digits(last)) {
            (Some(first), Some(last)) if first > last => return Parsed::Ignore,
            (Some(start), Some(last)) => ByteRange { start, end_exclusive: last.saturating_add(1).min(size) },
            (Some(start), None) if last.is_empty() => ByteRange { start, end_exclusive: size },
            (None, Some(suffix)) if first.is_empty() => {
                // A suffix of an empty file is satisfiable, but Content-Range cannot express it.
                empty_but_satisfiable |= suffix > 0 && size == 0;
                ByteRange { start: size.saturating_sub(suffix), end_exclusive: size }
            }
            _ => return Parsed::Ignore,
        };
        if range.start < range.end_exclusive {
            if ranges.len() == max_ranges {
                return Parsed::Ignore;
            }
            ranges.push(range);
        }
    }
    if any_spec && !empty_but_satisfiable { Parsed::Ranges(ranges) } else { Parsed::Ignore }
}

/// `1*DIGIT`, saturating.
fn digits(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(text.bytes().fold(0_u64, |sum, byte| sum.saturating_mul(10).saturating_add(u64::from(byte - b'0'))))
}

/// The observable rules of `@fastify/send` 4.2.1, which parses numbers with `parseInt`: between two commas, the text before the
/// next dash is the start and the text after it the end, and the dash may be missing. A missing number means "from the end" or
/// "to the end"; invalid ranges are skipped.
fn parse_fastify(header: &str, size: u64, max_ranges: usize) -> Parsed {
    let Some(set) = header.trim_start_matches(' ').strip_prefix("bytes=") else { return Parsed::Ignore };
    let set = set.as_bytes();
    // File sizes are below 2^63 (off_t) and parsed numbers are clamped to +-2^62: sums do not overflow i128.
    let size = i128::from(size);
    let find = |wanted: u8, from: usize| {
        set.get(from..).and_then(|tail| tail.iter().position(|byte| *byte == wanted)).map(|offset| from + offset)
    };
    // Without a dash the end is parsed from the start of the set, like `slice(-1 + 1, comma)`. parseInt stops at the first comma
    // at the latest, so the number is the same for every piece.
    let head = parse_int(set);

    let mut ranges = Vec::new();
    let mut piece = 0;
    let mut dash = find(b'-', 0);
    loop {
        let comma = find(b',', piece);
        let piece_end = comma.unwrap_or(set.len());
        let (start, end) = match dash {
            Some(dash) => (set.get(piece..dash).and_then(parse_int), set.get(dash + 1..piece_end).and_then(parse_int)),
            // `slice(piece, -1)`: up to the last character of the header.
            None => (set.get(piece..set.len().saturating_sub(1)).and_then(parse_int), head),
        };
        let range = match (start, end) {
            (None, None) => None,
            (None, Some(suffix)) => Some((size - suffix, size - 1)),
            (Some(start), None) => Some((start, size - 1)),
            (Some(start), Some(end)) => Some((start, end.min(size - 1))),
        };
        if let Some((start, last)) = range.filter(|(start, last)| *start >= 0 && start <= last)
            && let (Ok(start), Ok(end_exclusive)) = (u64::try_from(start), u64::try_from(last + 1))
        {
            if ranges.len() == max_ranges {
                return Parsed::Ignore;
            }
            ranges.push(ByteRange { start, end_exclusive });
        }
        let Some(comma) = comma else { break };
        piece = comma + 1;
        dash = match dash {
            Some(dash) if dash < piece => find(b'-', piece),
            other => other,
        };
    }
    Parsed::Ranges(ranges)
}

/// ECMAScript `parseInt(text, 10)`: blanks, a sign, digits, then anything. `None` is NaN.
fn parse_int(text: &[u8]) -> Option<i128> {
    const BOUND: i128 = 1 << 62;
    let text = text.trim_ascii_start();
    let (sign, text) = match text {
        [b'-', rest @ ..] => (-1, rest),
        [b'+', rest @ ..] => (1, rest),
        _ => (1, text),
    };
    let mut value = None;
    for digit in text.iter().take_while(|byte| byte.is_ascii_digit()) {
        value = Some((value.unwrap_or(0) * 10 + i128::from(digit - b'0')).min(BOUND));
    }
    value.map(|value| sign * value)
}
