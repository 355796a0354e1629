//! `Range`: ranges are within the file, do not overlap, and a single range is what a simple parser finds.

use zerosend_http::Conformance;
use zerosend_http::range::{RangeDecision, RangePolicy, decide};

use super::take;

pub fn range(data: &[u8]) {
    let ([options, a, b], bytes) = take::<3>(data);
    let Ok(header) = std::str::from_utf8(bytes) else { return };
    let size = match options & 3 {
        0 => u64::from(a),
        1 => u64::from(a) << (b % 56),
        2 => (i64::MAX as u64) - u64::from(a),
        _ => 0,
    };
    let conformance = if options & 4 == 0 { Conformance::Rfc9110 } else { Conformance::FastifyStatic };
    let policy = RangePolicy { max_ranges: usize::from(b % 40), multipart: options & 8 == 0, conformance };
    let decision = decide(header, size, &policy);
    match &decision {
        RangeDecision::Whole | RangeDecision::Unsatisfiable => {}
        RangeDecision::Single(one) => {
            assert!(one.start < one.end_exclusive && one.end_exclusive <= size, "{header:?} of {size}")
        }
        RangeDecision::Several(ranges) => {
            assert!(policy.multipart && ranges.len() >= 2 && ranges.len() <= policy.max_ranges, "{header:?} of {size}");
            let mut sorted = ranges.clone();
            sorted.sort_by_key(|range| range.start);
            assert!(
                sorted.iter().all(|one| one.start < one.end_exclusive && one.end_exclusive <= size),
                "{header:?} of {size}"
            );
            assert!(sorted.windows(2).all(|two| two[0].end_exclusive < two[1].start), "{header:?} of {size}");
            assert!(sorted.iter().map(|range| range.length()).sum::<u64>() <= size);
        }
    }
    if policy.max_ranges > 0
        && conformance == Conformance::Rfc9110
        && let Some((start, last)) = parse_simple(header)
    {
        let expected = start < size && start <= last;
        let found = match decision {
            RangeDecision::Single(one) => Some((one.start, one.end_exclusive - 1)),
            _ => None,
        };
        assert_eq!(found, expected.then(|| (start, last.min(size - 1))), "{header:?} of {size}");
    }
}

/// `bytes=<first>-<last>` with numbers of at most 18 digits.
fn parse_simple(header: &str) -> Option<(u64, u64)> {
    let (first, last) = header.strip_prefix("bytes=")?.split_once('-')?;
    let digits = |text: &str| !text.is_empty() && text.len() <= 18 && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits(first) && digits(last) { Some((first.parse().ok()?, last.parse().ok()?)) } else { None }
}
