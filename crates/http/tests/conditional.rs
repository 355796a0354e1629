//! Preconditions, `If-Range` and entity tags.

mod support;

use proptest::prelude::*;
use zerosend_http::Conformance::{FastifyStatic, Rfc9110};
use zerosend_http::conditional::Verdict::{NotModified, PreconditionFailed, Proceed};
use zerosend_http::conditional::{Conditions, Validators, evaluate, range_applies};
use zerosend_http::{date, etag};

const SECOND: i64 = 1_700_000_000;
const SAME: &str = "Tue, 14 Nov 2023 22:13:20 GMT";
const OLDER: &str = "Tue, 14 Nov 2023 22:13:19 GMT";
const NEWER: &str = "Tue, 14 Nov 2023 22:13:21 GMT";
const WEAK: Validators<'_> = Validators { etag: Some("W/\"a-1\""), last_modified: Some(SECOND) };
const STRONG: Validators<'_> = Validators { etag: Some("\"a-1\""), last_modified: Some(SECOND) };
const NONE: Validators<'_> = Validators { etag: None, last_modified: None };
const EMPTY: Conditions<'_> = Conditions {
    if_match: None,
    if_none_match: None,
    if_modified_since: None,
    if_unmodified_since: None,
    if_range: None,
    range: None,
    cache_control: None,
    accept_encoding: None,
};

#[test]
fn preconditions_follow_the_order_of_rfc_9110() {
    let rows = [
        (EMPTY, WEAK, Proceed),
        (Conditions { if_match: Some("*"), ..EMPTY }, WEAK, Proceed),
        (Conditions { if_match: Some("\"a-1\""), ..EMPTY }, STRONG, Proceed),
        (Conditions { if_match: Some("\"x\", \"a-1\""), ..EMPTY }, STRONG, Proceed),
        (Conditions { if_match: Some("\"a-1\""), ..EMPTY }, WEAK, PreconditionFailed),
        (Conditions { if_match: Some("W/\"a-1\""), ..EMPTY }, WEAK, PreconditionFailed),
        (Conditions { if_match: Some("\"a-1\""), ..EMPTY }, NONE, PreconditionFailed),
        (Conditions { if_match: Some("\"a-1\""), if_unmodified_since: Some(OLDER), ..EMPTY }, STRONG, Proceed),
        (Conditions { if_unmodified_since: Some(OLDER), ..EMPTY }, WEAK, PreconditionFailed),
        (Conditions { if_unmodified_since: Some(SAME), ..EMPTY }, WEAK, Proceed),
        (Conditions { if_unmodified_since: Some("soon"), ..EMPTY }, WEAK, Proceed),
        (Conditions { if_unmodified_since: Some(OLDER), ..EMPTY }, NONE, Proceed),
        (Conditions { if_none_match: Some("*"), ..EMPTY }, WEAK, NotModified),
        (Conditions { if_none_match: Some("\"a-1\""), ..EMPTY }, WEAK, NotModified),
        (Conditions { if_none_match: Some("W/\"a-1\""), ..EMPTY }, STRONG, NotModified),
        (Conditions { if_none_match: Some("\"x,a\", W/\"a-1\""), ..EMPTY }, WEAK, NotModified),
        (Conditions { if_none_match: Some("\"x\""), if_modified_since: Some(NEWER), ..EMPTY }, WEAK, Proceed),
        (Conditions { if_modified_since: Some(SAME), ..EMPTY }, WEAK, NotModified),
        (Conditions { if_modified_since: Some(OLDER), ..EMPTY }, WEAK, Proceed),
        (Conditions { if_modified_since: Some(SAME), cache_control: Some("no-cache"), ..EMPTY }, WEAK, NotModified),
        (Conditions { if_match: Some("\"x\""), if_none_match: Some("*"), ..EMPTY }, WEAK, PreconditionFailed),
    ];
    for (conditions, validators, verdict) in rows {
        assert_eq!(evaluate(&conditions, &validators, Rfc9110), verdict, "{conditions:?} {validators:?}");
    }
}

#[test]
fn preconditions_follow_fastify_send() {
    let rows = [
        (Conditions { if_match: Some("\"a-1\""), ..EMPTY }, WEAK, Proceed),
        (Conditions { if_match: Some("\"a-1\""), if_unmodified_since: Some(OLDER), ..EMPTY }, WEAK, PreconditionFailed),
        (Conditions { if_unmodified_since: Some(SAME), ..EMPTY }, NONE, PreconditionFailed),
        (Conditions { if_none_match: Some("*"), cache_control: Some("no-cache"), ..EMPTY }, WEAK, Proceed),
        (Conditions { if_none_match: Some(""), if_modified_since: Some(NEWER), ..EMPTY }, WEAK, Proceed),
    ];
    for (conditions, validators, verdict) in rows {
        assert_eq!(evaluate(&conditions, &validators, FastifyStatic), verdict, "{conditions:?} {validators:?}");
    }
}

#[test]
fn if_range_needs_a_matching_validator() {
    let rows = [
        (None, WEAK, true, true),
        (Some("\"a-1\""), STRONG, true, true),
        (Some("W/\"a-1\""), WEAK, false, true),
        (Some("\"a-1\""), WEAK, false, false),
        (Some("\"x\""), STRONG, false, false),
        (Some(SAME), WEAK, true, true),
        (Some(NEWER), WEAK, false, true),
        (Some(OLDER), WEAK, false, false),
        (Some("soon"), WEAK, false, false),
        (Some("\"a-1\""), NONE, false, false),
    ];
    for (header, validators, rfc, fastify) in rows {
        assert_eq!(range_applies(header, &validators, Rfc9110), rfc, "{header:?} {validators:?}");
        assert_eq!(range_applies(header, &validators, FastifyStatic), fastify, "{header:?} {validators:?}");
    }
}

#[test]
fn dates_are_parsed_in_three_forms() {
    for form in [SAME, "Tuesday, 14-Nov-23 22:13:20 GMT", "Tue Nov 14 22:13:20 2023"] {
        assert_eq!(date::parse(form), Some(SECOND), "{form}");
    }
    assert_eq!(date::format(SECOND), SAME);
    for nonsense in ["", "2023-11-14", "Tue, 32 Nov 2023 22:13:20 GMT", "Tue, 14 Nov 2023 25:13:20 GMT", "\u{1F4A9}"] {
        assert_eq!(date::parse(nonsense), None, "{nonsense}");
    }
    // Times that the form cannot express are clamped.
    assert_eq!(date::format(i64::MIN), "Thu, 01 Jan 1970 00:00:00 GMT");
    assert_eq!(date::format(i64::MAX), "Fri, 31 Dec 9999 23:59:59 GMT");
}

#[test]
fn tags_equal_those_of_fastify_send() {
    // Recorded from Node 20: stat.mtime rounds to the nearest millisecond.
    let rows = [
        (10, 1_700_000_000_250_000_000, "W/\"a-18bcfe568fa\""),
        (0, 0, "W/\"0-0\""),
        (255, 1_700_000_000_999_399_000, "W/\"ff-18bcfe56be7\""),
        (255, 1_700_000_000_999_599_000, "W/\"ff-18bcfe56be8\""),
        (1, -5_000_000, "W/\"1--5\""),
    ];
    for (size, mtime_ns, expected) in rows {
        assert_eq!(etag::weak(size, etag::node_mtime_ms(mtime_ns)), expected);
    }
    etag::weak(u64::MAX, etag::node_mtime_ms(i64::MIN));
}

#[test]
fn tag_lists_are_split_at_commas_outside_of_quotes() {
    let rfc = |header| etag::list(header, Rfc9110).collect::<Vec<_>>();
    assert_eq!(rfc("\"a\", W/\"b\" ,,\"c,d\""), ["\"a\"", "W/\"b\"", "\"c,d\""]);
    assert_eq!(rfc("a, \"b\""), ["\"b\""]);
    assert_eq!(rfc("\"a\"x, \"b\""), ["\"b\""]);
    assert_eq!(rfc("\"open"), [""; 0]);
    assert_eq!(rfc("W/, W/\"\""), ["W/\"\""]);
    let fastify = |header| etag::list(header, FastifyStatic).collect::<Vec<_>>();
    assert_eq!(fastify(" \"a\" , W/\"b\",, \"c,d\""), ["\"a\"", "W/\"b\"", "\"c", "d\""]);
}

proptest! {
    #![proptest_config(support::config())]

    #[test]
    fn a_joined_list_splits_into_the_same_tags(
        tags in prop::collection::vec("(W/)?\"[a-c,!]{0,4}\"", 0..8),
        separator in "[ \t]{0,2},[ \t,]{0,2}",
    ) {
        let header = tags.join(&separator);
        prop_assert_eq!(etag::list(&header, Rfc9110).collect::<Vec<_>>(), tags);
    }

    #[test]
    fn any_header_is_parsed_to_its_end(header in ".{0,60}", tokens in "[W/\", a*]{0,30}") {
        for text in [&header, &tokens] {
            for conformance in [Rfc9110, FastifyStatic] {
                prop_assert!(etag::list(text, conformance).count() <= text.len());
            }
            date::parse(text);
        }
    }

    #[test]
    fn every_formatted_date_parses_to_the_same_time(seconds in 0_i64..253_402_300_800) {
        prop_assert_eq!(date::parse(&date::format(seconds)), Some(seconds));
    }
}
