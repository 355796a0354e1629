//! Status, headers and body of a response, for a file of given size and validators.

mod support;

use zerosend_http::Conformance::{FastifyStatic, Rfc9110};
use zerosend_http::caching::CachePolicy;
use zerosend_http::conditional::Conditions;
use zerosend_http::headers::CacheControl;
use zerosend_http::negotiation::Encoding::Gzip;
use zerosend_http::site::plan::{Plan, plan};
use zerosend_http::site::resolver::Lookup;
use zerosend_http::site::{Body, FileValidators, Overrides, PathInput, Request, ServedRange, SiteOptions};

const SIZE: u64 = 10;
const TEXT: Lookup<'_> = Lookup { root_index: 0, path: "a.txt", encoding: None };

fn request() -> Request<'static> {
    Request {
        head_only: false,
        path: PathInput::Encoded("/a.txt"),
        conditions: Conditions::default(),
        overrides: Overrides::default(),
        root_index: 0,
    }
}

fn range(value: &str) -> Request<'_> {
    Request { conditions: Conditions { range: Some(value), ..Conditions::default() }, ..request() }
}

/// The validators of a file of 10 bytes, modified at 1700000000.25 s.
fn validators(options: &SiteOptions) -> FileValidators {
    FileValidators {
        etag: options.etag.then(|| "W/\"a-18bcfe568fa\"".to_owned()),
        last_modified: options.last_modified.then_some(1_700_000_000),
        date_is_exact: true,
        is_final: true,
    }
}

fn respond(options: &SiteOptions, request: &Request<'_>) -> Plan<()> {
    plan((), SIZE, TEXT, &validators(options), request, options)
}

fn header<'a>(plan: &'a Plan<()>, name: &str) -> Option<&'a str> {
    plan.head.headers.iter().find(|(key, _)| *key == name).map(|(_, value)| &**value)
}

/// Status, offset and length of a response with one range.
fn served(options: &SiteOptions, request: &Request<'_>) -> (u16, u64, u64) {
    let plan = respond(options, request);
    match plan.body {
        Body::Empty => (plan.status, 0, 0),
        Body::File { offset, length, .. } => (plan.status, offset, length),
        Body::Multipart { .. } => panic!("several parts"),
    }
}

fn rfc_9110() -> SiteOptions {
    SiteOptions { conformance: Rfc9110, multipart: true, ..SiteOptions::default() }
}

/// Replays every recorded response of `@fastify/send`, including the order of the headers.
#[test]
fn responses_equal_those_of_fastify_send() {
    for line in include_str!("vectors/send.tsv").lines().step_by(support::STEP) {
        let fields: Vec<_> = line.split('\t').collect();
        let [method, switches, rest @ ..] = &fields[..] else { panic!("{line}") };
        let [if_match, if_none_match, modified, unmodified, if_range, range, cache_control, status, headers] = rest
        else {
            panic!("{line}")
        };
        let on = |at: usize| switches.as_bytes()[at] == b'1';
        let options = SiteOptions {
            etag: on(0),
            last_modified: on(1),
            accept_ranges: on(2),
            caching: CachePolicy { otherwise: on(3).then(CacheControl::default), ..CachePolicy::default() },
            content_type: on(4),
            conformance: FastifyStatic,
            ..SiteOptions::default()
        };
        let conditions = Conditions {
            if_match: if_match.strip_prefix('='),
            if_none_match: if_none_match.strip_prefix('='),
            if_modified_since: modified.strip_prefix('='),
            if_unmodified_since: unmodified.strip_prefix('='),
            if_range: if_range.strip_prefix('='),
            range: range.strip_prefix('='),
            cache_control: cache_control.strip_prefix('='),
            accept_encoding: None,
        };
        let request = Request { head_only: *method == "HEAD", conditions, ..request() };
        let response = respond(&options, &request);
        let ours: Vec<_> = response.head.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        assert_eq!((response.status.to_string().as_str(), ours.join("|").as_str()), (*status, *headers), "{line}");
        let length = match response.status {
            200 | 206 if !request.head_only => header(&response, "content-length").unwrap().parse().unwrap(),
            _ => 0,
        };
        assert_eq!(response.body.length(), length, "{line}");
    }
}

#[test]
fn head_has_the_headers_of_get_and_no_body() {
    let options = SiteOptions::default();
    let get = respond(&options, &request());
    let head = respond(&options, &Request { head_only: true, ..request() });
    assert_eq!(head.head.headers, get.head.headers);
    assert_eq!((head.body, get.body), (Body::Empty, Body::File { file: (), offset: 0, length: SIZE }));
    let empty = plan((), 0, TEXT, &validators(&options), &request(), &options);
    assert_eq!((empty.status, header(&empty, "content-length")), (200, Some("0")));
}

#[test]
fn ranges_follow_rfc_9110() {
    let options = rfc_9110();
    assert_eq!(served(&options, &range("bytes=-30")), (206, 0, 10));
    assert_eq!(served(&options, &range("bytes=4-6")), (206, 4, 3));
    assert_eq!(served(&options, &range("bytes=abc")), (200, 0, 10));
    assert_eq!(served(&options, &Request { head_only: true, ..range("bytes=0-1") }), (200, 0, 0));
    let unsatisfiable = respond(&options, &range("bytes=20-"));
    assert_eq!((unsatisfiable.status, header(&unsatisfiable, "content-range")), (416, Some("bytes */10")));
    assert_eq!(unsatisfiable.head.headers.len(), 1);
}

#[test]
fn several_ranges_are_parts_with_a_unique_boundary() {
    let several = respond(&rfc_9110(), &range("bytes=0-1,5-6"));
    let content_type = header(&several, "content-type").unwrap();
    let boundary = content_type.strip_prefix("multipart/byteranges; boundary=").unwrap();
    let head = |range| {
        format!(
            "\r\n--{boundary}\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-range: bytes {range}/10\r\n\r\n"
        )
    };
    let Body::Multipart { parts, tail, .. } = &several.body else { panic!("one part") };
    let shown: Vec<_> = parts.iter().map(|part| (part.head.clone(), part.range.start, part.range.length())).collect();
    assert_eq!(shown, [(head("0-1"), 0, 2), (head("5-6"), 5, 2)]);
    assert_eq!(*tail, format!("\r\n--{boundary}--\r\n"));
    let length: usize = parts.iter().map(|part| part.head.len() + 2).sum::<usize>() + tail.len();
    assert_eq!((several.status, several.body.length()), (206, length as u64));
    assert_eq!(header(&several, "content-length"), Some(&*length.to_string()));
    assert_eq!(header(&several, "content-range"), None);
    let again = respond(&rfc_9110(), &range("bytes=0-1,5-6"));
    assert_ne!(header(&again, "content-type"), header(&several, "content-type"));
}

#[test]
fn a_served_range_is_treated_as_the_whole_file() {
    let overriding = |start, last, request: Request<'static>| {
        let overrides = Overrides { served: ServedRange { start, last }, ..Overrides::default() };
        Request { overrides, ..request }
    };
    for (options, conditions) in [(rfc_9110(), "bytes=1-2"), (SiteOptions::default(), "bytes=1-2")] {
        for (start, last, whole, part) in [
            (2, Some(4), (200, 2, 3), (206, 3, 2)),
            (0, Some(u64::MAX), (200, 0, 10), (206, 1, 2)),
            (8, None, (200, 8, 2), (206, 9, 1)),
            (u64::MAX, None, (200, u64::MAX, 0), (200, u64::MAX, 0)),
            (12, Some(3), (200, 12, 0), (200, 12, 0)),
        ] {
            assert_eq!(served(&options, &overriding(start, last, request())), whole, "{start} {last:?}");
            assert_eq!(served(&options, &overriding(start, last, range(conditions))), part, "{start} {last:?}");
        }
    }
}

#[test]
fn a_variant_has_the_type_of_the_plain_file() {
    let variant = Lookup { root_index: 3, path: "app.js.gz", encoding: Some(Gzip) };
    for (content_type, conformance, expected) in [
        (true, Rfc9110, Some("application/javascript; charset=utf-8")),
        (false, Rfc9110, None),
        (false, FastifyStatic, Some("application/javascript; charset=utf-8")),
    ] {
        let options = SiteOptions { content_type, conformance, pre_compressed: vec![Gzip], ..SiteOptions::default() };
        let response = plan((), SIZE, variant, &validators(&options), &request(), &options);
        assert_eq!(header(&response, "content-type"), expected);
        assert_eq!(header(&response, "content-encoding"), Some("gzip"));
        assert_eq!(header(&response, "vary"), Some("accept-encoding"));
        assert_eq!((response.head.path.as_str(), response.head.root_index), ("app.js.gz", 3));
    }
}
