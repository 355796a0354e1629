//! Conditions, entity tags and dates: a parsed date is formatted equally; a tag matches itself; a list contains only tags.

use zerosend_http::Conformance;
use zerosend_http::conditional::{Conditions, Validators, Verdict, evaluate, range_applies};
use zerosend_http::{date, etag};

use super::take;

pub fn conditional(data: &[u8]) {
    let ([options, modified], bytes) = take::<2>(data);
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let conformance = if options & 1 == 0 { Conformance::Rfc9110 } else { Conformance::FastifyStatic };
    let mut fields = text.splitn(6, '\n');
    let mut next = || fields.next();
    let (a, b, c, d, e) = (next(), next(), next(), next(), next());
    for field in [a, b, c, d, e].into_iter().flatten() {
        if let Some(seconds) = date::parse(field) {
            let written = date::format(seconds);
            assert_eq!(date::parse(&written), Some(seconds), "{field:?} is written {written:?}");
        }
        for tag in etag::list(field, Conformance::Rfc9110) {
            let opaque = tag.strip_prefix("W/").unwrap_or(tag);
            assert!(opaque.len() >= 2 && opaque.starts_with('"') && opaque.ends_with('"'), "{tag:?} of {field:?}");
            assert!(etag::weak_eq(tag, opaque) && field.contains(tag));
        }
        assert!(etag::list(field, Conformance::FastifyStatic).all(|tag| !tag.is_empty() && !tag.contains(',')));
    }
    let conditions = Conditions {
        if_match: a,
        if_none_match: b,
        if_modified_since: c,
        if_unmodified_since: d,
        if_range: e,
        ..Conditions::default()
    };
    let own = etag::weak(u64::from(modified) << 8, i64::from(modified) * 1000);
    let validators = Validators {
        etag: (options & 2 == 0).then_some(&*own),
        last_modified: (options & 4 == 0).then_some(i64::from(modified) * 1_000_000),
    };
    let verdict = evaluate(&conditions, &validators, conformance);
    let _ = range_applies(e, &validators, conformance);
    assert_eq!(evaluate(&Conditions::default(), &validators, conformance), Verdict::Proceed);
    assert!(range_applies(None, &validators, conformance));
    if validators.etag.is_some() {
        let with_own = Conditions { if_none_match: Some(&own), ..Conditions::default() };
        assert_eq!(evaluate(&with_own, &validators, conformance), Verdict::NotModified);
    }
    if conformance == Conformance::Rfc9110 && b == Some("*") && a.is_none() && d.is_none() {
        assert_eq!(verdict, Verdict::NotModified);
    }
}
