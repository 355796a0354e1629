//! `Range`, as in RFC 9110 and as in recorded responses of `@fastify/send`.

use std::time::{Duration, Instant};

mod support;

use proptest::prelude::*;
use zerosend_http::Conformance;
use zerosend_http::range::{ByteRange, RangeDecision, RangePolicy, decide};

const RFC: RangePolicy = RangePolicy { max_ranges: 100, multipart: true, conformance: Conformance::Rfc9110 };
const FASTIFY: RangePolicy = RangePolicy { conformance: Conformance::FastifyStatic, multipart: false, ..RFC };

fn single(start: u64, end_exclusive: u64) -> RangeDecision {
    RangeDecision::Single(ByteRange { start, end_exclusive })
}

fn several(ranges: &[(u64, u64)]) -> RangeDecision {
    RangeDecision::Several(ranges.iter().map(|&(start, end_exclusive)| ByteRange { start, end_exclusive }).collect())
}

#[test]
fn ranges_are_parsed_as_in_rfc_9110() {
    use RangeDecision::{Unsatisfiable, Whole};
    let rows = [
        ("bytes=0-3", 10, single(0, 4)),
        ("BYTES=0-3", 10, single(0, 4)),
        ("bytes=4-", 10, single(4, 10)),
        ("bytes=-3", 10, single(7, 10)),
        ("bytes=-30", 10, single(0, 10)),
        ("bytes=8-99", 10, single(8, 10)),
        ("bytes=10-", 10, Unsatisfiable),
        ("bytes=-0", 10, Unsatisfiable),
        ("bytes=5-2", 10, Whole),
        ("bytes=abc", 10, Whole),
        ("bytes=", 10, Whole),
        ("bytes=,", 10, Whole),
        ("bytes=+1-2", 10, Whole),
        ("bytes=1-2x", 10, Whole),
        ("bytes=1", 10, Whole),
        ("bytes 1-2", 10, Whole),
        ("items=0-1", 10, Whole),
        ("bytes=0-0", 0, Whole),
        ("bytes=0-", 0, Whole),
        ("bytes=-0", 0, Whole),
        ("bytes=-5", 0, Whole),
        ("bytes=0-3,2-6", 10, single(0, 7)),
        ("bytes=0-3,4-6", 10, single(0, 7)),
        ("bytes=0-1, 5-6", 10, several(&[(0, 2), (5, 7)])),
        ("bytes=8-, ,0-1", 10, several(&[(8, 10), (0, 2)])),
        ("bytes=5-6,0-1,6-7", 10, several(&[(5, 8), (0, 2)])),
        ("bytes=0-1,20-30", 10, single(0, 2)),
        ("bytes=0-1,x", 10, Whole),
        ("bytes=99999999999999999999999-", 10, Unsatisfiable),
        ("bytes=0-99999999999999999999999", 10, single(0, 10)),
        ("bytes=-99999999999999999999999", 10, single(0, 10)),
        ("bytes=0-18446744073709551615", u64::MAX, single(0, u64::MAX)),
    ];
    for (header, size, expected) in rows {
        assert_eq!(decide(header, size, &RFC), expected, "{header} of {size}");
    }
}

#[test]
fn several_ranges_need_the_multipart_option() {
    let header = "bytes=0-1,5-6";
    assert_eq!(decide(header, 10, &RangePolicy { multipart: false, ..RFC }), RangeDecision::Whole);
    assert_eq!(decide(header, 10, &FASTIFY), RangeDecision::Whole);
    let parts = several(&[(0, 2), (5, 7)]);
    assert_eq!(decide(header, 10, &RangePolicy { multipart: true, ..FASTIFY }), parts);
}

#[test]
fn too_many_ranges_are_answered_with_the_whole_file() {
    for policy in [RFC, FASTIFY] {
        let policy = RangePolicy { max_ranges: 3, ..policy };
        assert_eq!(decide("bytes=0-0,1-1,2-2", 10, &policy), single(0, 3));
        assert_eq!(decide("bytes=0-0,1-1,2-2,3-3", 10, &policy), RangeDecision::Whole);
    }
}

#[test]
#[cfg_attr(miri, ignore = "measures time")]
fn a_hostile_header_takes_linear_time() {
    let long = 200_000;
    let headers = [
        format!("bytes={}", "0-1,".repeat(long / 4)),
        format!("bytes={}", ",".repeat(long)),
        format!("bytes={}", "1,".repeat(long / 2)),
        format!("bytes={}{}", "1".repeat(long / 2), ",".repeat(long / 2)),
        format!("bytes={}", "-".repeat(long)),
        format!("bytes={}", " ".repeat(long)),
        format!("bytes={},{}1-2", ",".repeat(long / 2), " ".repeat(long / 2)),
    ];
    let started = Instant::now();
    for header in headers {
        for policy in [RFC, FASTIFY] {
            decide(&header, 1 << 40, &RangePolicy { max_ranges: usize::MAX, ..policy });
        }
    }
    // A quadratic algorithm would take 10^10 steps.
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[test]
fn decisions_equal_those_of_fastify_send() {
    for line in include_str!("vectors/range.tsv").lines().step_by(support::STEP) {
        let [size, header, expected] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let decision = match decide(header, size.parse().unwrap(), &FASTIFY) {
            RangeDecision::Whole => "whole".to_owned(),
            RangeDecision::Unsatisfiable => "unsatisfiable".to_owned(),
            RangeDecision::Single(range) => format!("{}-{}", range.start, range.end_exclusive),
            RangeDecision::Several(_) => panic!("{line}"),
        };
        // An empty file is answered whole, unlike there.
        let expected = if size == "0" { "whole" } else { expected };
        assert_eq!(decision, expected, "{header:?} of {size}");
    }
}

/// For each byte of the file, whether a well-formed list of ranges selects it.
fn naive(specs: &[(Option<u8>, Option<u8>)], size: u64) -> Vec<bool> {
    let asked = |at: u64| {
        specs.iter().any(|spec| match *spec {
            (Some(first), Some(last)) => at >= first.into() && at <= last.into(),
            (Some(first), None) => at >= first.into(),
            (None, Some(suffix)) => at + u64::from(suffix) >= size,
            (None, None) => false,
        })
    };
    (0..size).map(asked).collect()
}

proptest! {
    #![proptest_config(support::config())]

    #[test]
    fn exactly_the_requested_bytes_are_served(
        specs in prop::collection::vec((prop::option::of(0_u8..40), prop::option::of(0_u8..40)), 1..12),
        size in 1_u64..40,
    ) {
        let specs: Vec<_> = specs
            .into_iter()
            .filter(|spec| *spec != (None, None) && !matches!(spec, (Some(a), Some(b)) if a > b))
            .collect();
        prop_assume!(!specs.is_empty());
        let number = |value: Option<u8>| value.map_or(String::new(), |value| value.to_string());
        let list: Vec<_> = specs.iter().map(|(a, b)| format!("{}-{}", number(*a), number(*b))).collect();
        let expected = naive(&specs, size);
        let ranges = match decide(&format!("bytes={}", list.join(",")), size, &RFC) {
            RangeDecision::Single(range) => vec![range],
            RangeDecision::Several(ranges) => ranges,
            RangeDecision::Unsatisfiable => vec![],
            RangeDecision::Whole => panic!("a well-formed header was ignored"),
        };
        let mut served = vec![0_u8; expected.len()];
        for range in &ranges {
            prop_assert!(range.start < range.end_exclusive && range.end_exclusive <= size);
            for slot in &mut served[range.start as usize..range.end_exclusive as usize] {
                *slot += 1;
            }
        }
        prop_assert_eq!(served, expected.into_iter().map(u8::from).collect::<Vec<_>>());
    }

    #[test]
    fn any_header_yields_ranges_within_the_file(header in "(bytes=)?[-0-9, a=+]{0,40}", size in any::<u64>()) {
        for policy in [RFC, FASTIFY] {
            if let RangeDecision::Single(range) = decide(&header, size, &policy) {
                prop_assert!(range.start < range.end_exclusive && range.end_exclusive <= size);
            }
        }
    }
}
