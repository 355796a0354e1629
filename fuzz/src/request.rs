//! Request heads: the end is the same for every division of the input; the parsed head agrees with a simple parser, and is parsed
//! equally when it is written again.

use zerosend_http::conditional::Conditions;
use zerosend_http::request::{BodyLength, HeadError, HeadScanner, RequestHead, Target};

use super::take;

/// Limits of a head.
const MAX_BYTES: usize = 2048;
const MAX_FIELDS: usize = 40;

pub fn request(data: &[u8]) {
    let ([cut], bytes) = take::<1>(data);
    let whole = HeadScanner::default().scan(bytes, MAX_BYTES);
    assert_same(&whole, &scan_in_steps(bytes, 1), bytes);
    assert_same(&whole, &scan_in_steps(bytes, usize::from(cut).max(2)), bytes);
    match whole {
        Ok(None) => assert!(bytes.len() < MAX_BYTES, "a head over the limit is refused"),
        Ok(Some(end)) => {
            assert!(end <= MAX_BYTES + 1 && bytes[..end].ends_with(b"\r\n\r\n"), "a head ends with an empty line");
            match RequestHead::parse(&bytes[..end], MAX_FIELDS) {
                Ok(head) => {
                    check(&head, &bytes[..end]);
                    parse_again(&head);
                }
                Err(error) => check_status(error),
            }
        }
        Err(error) => check_status(error),
    }
}

fn check_status(error: HeadError) {
    assert!(matches!(error.status(), 400 | 414 | 431 | 501 | 505), "{error:?} has status {}", error.status());
    assert!(!error.as_str().is_empty());
}

/// Scans growing prefixes, as a connection does that receives the bytes in steps.
fn scan_in_steps(bytes: &[u8], step: usize) -> Result<Option<usize>, HeadError> {
    let mut scanner = HeadScanner::default();
    let mut have = 0;
    while have < bytes.len() {
        have = bytes.len().min(have + step);
        match scanner.scan(&bytes[..have], MAX_BYTES) {
            Ok(None) => {}
            found => return found,
        }
    }
    Ok(None)
}

/// Which error is found first may depend on the steps. Whether the head is accepted, and its length, may not.
fn assert_same(whole: &Result<Option<usize>, HeadError>, steps: &Result<Option<usize>, HeadError>, bytes: &[u8]) {
    let equal = match (whole, steps) {
        (Ok(a), Ok(b)) => a == b,
        (Err(_), Err(_)) => true,
        _ => false,
    };
    assert!(equal, "{whole:?} at once, but {steps:?} in steps: {}", bytes.escape_ascii());
}

/// Checks that a proxy in front of the server cannot understand the head differently.
fn check(head: &RequestHead<'_>, bytes: &[u8]) {
    let text = bytes.escape_ascii();
    let mut lines = bytes.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let line = lines.by_ref().find(|line| !line.is_empty()).unwrap_or_default();
    let parts: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    assert_eq!(parts.len(), 3, "the request line has three parts: {text}");
    assert_eq!((parts[0], parts[1]), (head.raw_method.as_bytes(), head.raw_target.as_bytes()), "{text}");
    assert!(!head.raw_method.is_empty() && head.raw_method.bytes().all(is_token), "{text}");

    let (mut hosts, mut lengths, mut codings) = (Vec::new(), Vec::new(), Vec::new());
    for line in lines.take_while(|line| !line.is_empty()) {
        let colon =
            line.iter().position(|byte| *byte == b':').unwrap_or_else(|| panic!("a line without a colon: {text}"));
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        assert!(!name.is_empty() && name.iter().copied().all(is_token), "a field name that is not a token: {text}");
        assert!(
            !value.iter().any(|byte| matches!(byte, 0 | b'\r' | b'\n')),
            "a field value with a line end or NUL: {text}"
        );
        match name.to_ascii_lowercase().as_slice() {
            b"host" => hosts.push(value),
            b"content-length" => lengths.push(value),
            b"transfer-encoding" => codings.push(value),
            _ => {}
        }
    }
    assert!(hosts.len() == 1 || hosts.is_empty() && head.is_http10, "exactly one Host: {text}");
    assert!(lengths.len() + codings.len() <= 1, "only one length: {text}");
    match head.body {
        BodyLength::Chunked => {
            assert!(codings[0].eq_ignore_ascii_case(b"chunked") && !head.is_http10, "{text}");
        }
        BodyLength::Known(length) => {
            assert!(codings.is_empty(), "{text}");
            let length_field = lengths
                .first()
                .map_or(0, |digits| digits.iter().fold(0_u128, |sum, digit| sum * 10 + u128::from(digit - b'0')));
            assert_eq!(u128::from(length), length_field, "{text}");
        }
    }
    if let Target::Path { path, query } = head.target {
        assert!(path.starts_with('/') && !path.contains(['?', '#', ' ']), "{text}");
        assert!(query.is_none_or(|query| !query.contains(['#', ' '])), "{text}");
        assert!(head.raw_target.contains(path) || path == "/", "{text}");
    }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// A head written from the parsed one is parsed equally.
fn parse_again(head: &RequestHead<'_>) {
    let mut text = format!("{} {} HTTP/1.{}\r\n", head.raw_method, head.raw_target, u8::from(!head.is_http10));
    let mut add = |name: &str, value: Option<&str>| {
        if let Some(value) = value {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
    };
    add("Host", head.host);
    add("Connection", Some(if head.keep_alive { "keep-alive" } else { "close" }));
    match head.body {
        BodyLength::Known(0) => {}
        BodyLength::Known(length) => add("Content-Length", Some(&length.to_string())),
        BodyLength::Chunked => add("Transfer-Encoding", Some("chunked")),
    }
    add("Expect", head.expects_continue.then_some("100-continue"));
    add("Cookie", head.has_credentials.then_some("a=b"));
    add("Referer", head.referer);
    add("User-Agent", head.user_agent);
    add("Accept", head.accept);
    add("Origin", head.origin);
    let conditions = head.conditions();
    add("If-Match", conditions.if_match);
    add("If-None-Match", conditions.if_none_match);
    add("If-Modified-Since", conditions.if_modified_since);
    add("If-Unmodified-Since", conditions.if_unmodified_since);
    add("If-Range", conditions.if_range);
    add("Range", conditions.range);
    add("Cache-Control", conditions.cache_control);
    add("Accept-Encoding", conditions.accept_encoding);
    text.push_str("\r\n");
    let same = RequestHead::parse(text.as_bytes(), MAX_FIELDS).unwrap_or_else(|error| panic!("{error:?}: {text:?}"));
    assert_eq!(
        (same.raw_method, same.method, same.raw_target, same.target, same.is_http10, same.keep_alive, same.body),
        (head.raw_method, head.method, head.raw_target, head.target, head.is_http10, head.keep_alive, head.body),
        "{text:?}"
    );
    assert_eq!(
        (same.host, same.has_credentials, same.expects_continue, same.referer, same.user_agent),
        (head.host, head.has_credentials, head.expects_continue, head.referer, head.user_agent),
        "{text:?}"
    );
    assert_eq!((same.accept, same.origin), (head.accept, head.origin), "{text:?}");
    assert_eq!(trimmed(same.conditions()), trimmed(conditions), "{text:?}");
}

/// Joined fields of which the last was empty end with a space.
fn trimmed(conditions: Conditions<'_>) -> Conditions<'_> {
    Conditions {
        if_match: conditions.if_match.map(str::trim_ascii),
        if_none_match: conditions.if_none_match.map(str::trim_ascii),
        cache_control: conditions.cache_control.map(str::trim_ascii),
        accept_encoding: conditions.accept_encoding.map(str::trim_ascii),
        ..conditions
    }
}
