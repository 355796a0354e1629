//! The request parser: the end of a head, its fields, and refusals.

use zerosend_http::request::{BodyLength, HeadError, HeadScanner, Method, RequestHead, Target};

fn parse(lines: &str) -> Result<String, (u16, &'static str)> {
    let text = format!("{}\r\n\r\n", lines.replace('\n', "\r\n"));
    let head = RequestHead::parse(text.as_bytes(), 8).map_err(|error| (error.status(), error.as_str()))?;
    let target = match head.target {
        Target::Path { path, query: None } => path.to_owned(),
        Target::Path { path, query: Some(query) } => format!("{path} ? {query}"),
        Target::Asterisk => "asterisk".to_owned(),
        Target::Authority => "authority".to_owned(),
    };
    let body = match head.body {
        BodyLength::Known(bytes) => bytes.to_string(),
        BodyLength::Chunked => "chunked".to_owned(),
    };
    let connection = if head.keep_alive { "keep-alive" } else { "close" };
    Ok(format!("{:?} {target} {} {body} {connection}", head.method, head.host.unwrap_or("-")))
}

#[test]
fn valid_heads_are_parsed() {
    for (lines, expected) in [
        ("GET /a?b HTTP/1.1\nHost: h", "Get /a ? b h 0 keep-alive"),
        ("HEAD / HTTP/1.1\nhost:h:80\nConnection: Close", "Head / h:80 0 close"),
        ("GET / HTTP/1.0", "Get / - 0 close"),
        ("GET / HTTP/1.0\nConnection: keep-alive", "Get / - 0 keep-alive"),
        ("GET / HTTP/1.7\nHost: h", "Get / h 0 keep-alive"),
        ("GET http://a.example/x HTTP/1.1\nHost: h", "Get /x a.example 0 keep-alive"),
        ("GET https://[::1]:8080?q HTTP/1.1\nHost: h", "Get / ? q [::1]:8080 0 keep-alive"),
        ("OPTIONS * HTTP/1.1\nHost: h", "Options asterisk h 0 keep-alive"),
        ("OPTIONS http://a HTTP/1.1\nHost: h", "Options asterisk a 0 keep-alive"),
        ("CONNECT a:443 HTTP/1.1\nHost: h", "NotAllowed authority a:443 0 keep-alive"),
        ("POST / HTTP/1.1\nHost: h\nContent-Length: 0010", "NotAllowed / h 10 keep-alive"),
        ("BREW / HTTP/1.1\nHost:\nTransfer-Encoding: Chunked", "Unknown /  chunked keep-alive"),
    ] {
        assert_eq!(parse(lines).as_deref(), Ok(expected), "{lines:?}");
    }
}

#[test]
fn ambiguous_and_malformed_heads_are_refused() {
    let fields = |count| (0..count).map(|number| format!("\nx{number}: y")).collect::<String>();
    for (lines, status) in [
        ("GET / HTTP/1.1", 400),
        ("GET / HTTP/1.1\nHost: a\nHost: a", 400),
        ("GET / HTTP/1.1\nHost: a b", 400),
        ("GET / HTTP/1.1\nHost: a:65536", 400),
        ("GET / HTTP/1.1\nHost: h\nContent-Length: 1\nContent-Length: 1", 400),
        ("GET / HTTP/1.1\nHost: h\nContent-Length: +1", 400),
        ("GET / HTTP/1.1\nHost: h\nContent-Length: 99999999999999999999", 400),
        ("GET / HTTP/1.1\nHost: h\nContent-Length: 1\nTransfer-Encoding: chunked", 400),
        ("GET / HTTP/1.1\nHost: h\nTransfer-Encoding: chunked\nTransfer-Encoding: chunked", 400),
        ("GET / HTTP/1.1\nHost: h\nTransfer-Encoding: identity", 400),
        ("GET / HTTP/1.1\nHost: h\nTransfer-Encoding: gzip, chunked", 501),
        ("GET / HTTP/1.0\nTransfer-Encoding: chunked", 400),
        ("GET / HTTP/1.1\nHost : h", 400),
        ("GET / HTTP/1.1\nHost: h\n folded", 400),
        ("GET /#fragment HTTP/1.1\nHost: h", 400),
        ("GET a/b HTTP/1.1\nHost: h", 400),
        ("GET ftp://a/b HTTP/1.1\nHost: h", 400),
        ("GET http:///b HTTP/1.1\nHost: h", 400),
        ("GET * HTTP/1.1\nHost: h", 400),
        ("CONNECT a HTTP/1.1\nHost: h", 400),
        ("GET / HTTP/2.0\nHost: h", 505),
        ("GET  / HTTP/1.1\nHost: h", 400),
        (&format!("GET / HTTP/1.1\nHost: h{}", fields(8)), 431),
    ] {
        assert_eq!(parse(lines).map_err(|(status, _)| status), Err(status), "{lines:?}");
    }
    parse(&format!("GET / HTTP/1.1\nHost: h{}", fields(7))).expect("as many fields as the limit");
}

#[test]
fn fields_of_conditions_are_joined_or_ignored_when_repeated() {
    let text = "GET / HTTP/1.1\r\nHost: h\r\nIf-None-Match: \"a\"\r\nif-none-match: \"b\"\r\nRange: bytes=0-1\r\n\
                Range: bytes=2-3\r\nIf-Range: \"a\"\r\nExpect: 100-continue\r\nCookie: c\r\n\r\n";
    let head = RequestHead::parse(text.as_bytes(), 16).expect("a head");
    let conditions = head.conditions();
    assert_eq!((conditions.if_none_match, conditions.range), (Some("\"a\", \"b\""), None));
    assert_eq!((conditions.if_range, conditions.if_match), (Some("\"a\""), None));
    assert!(head.expects_continue && !head.expects_other && head.has_credentials && !head.upgrade);
    assert_eq!((head.method, head.raw_method), (Method::Get, "GET"));
}

#[test]
fn the_end_of_a_head_is_found_in_bytes_that_arrive_one_by_one() {
    let text = b"\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\nbody";
    let end = text.len() - 4;
    let mut scanner = HeadScanner::default();
    for length in 1..end {
        assert_eq!(scanner.scan(&text[..length], 100), Ok(None), "{length}");
        assert_eq!(scanner.has_begun(&text[..length]), length > 4 || length % 2 == 1, "{length}");
    }
    assert_eq!(scanner.scan(text, 100), Ok(Some(end)));
    assert_eq!(HeadScanner::default().scan(text, 100), Ok(Some(end)));

    let scan = |bytes: &[u8], max| HeadScanner::default().scan(bytes, max);
    assert_eq!(scan(text, end - 1), Err(HeadError::HeadTooLong));
    assert_eq!(scan(&[b'x'; 20], 20), Err(HeadError::TargetTooLong));
    assert_eq!(scan(b"GET / HTTP/1.1\n", 100), Err(HeadError::Bad("a line ends without CR")));
    assert_eq!(scan(&b"\r\n".repeat(5), 100), Err(HeadError::Bad("empty lines before the request")));
}
