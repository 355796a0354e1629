//! Conditional requests, RFC 9110 section 13: whether the client's copy is current, and whether its range applies.
//!
//! [`evaluate`] follows the order of section 13.2.2.

use super::conformance::Conformance;
use super::{date, etag};

/// The validators of the representation. A disabled validator is `None`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Validators<'a> {
    /// The entity tag, with its quotes.
    pub etag: Option<&'a str>,
    /// `Last-Modified` in seconds since 1970.
    pub last_modified: Option<i64>,
}

/// The request headers that select and condition the response. Fields are named like the headers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Conditions<'a> {
    pub if_match: Option<&'a str>,
    pub if_none_match: Option<&'a str>,
    pub if_modified_since: Option<&'a str>,
    pub if_unmodified_since: Option<&'a str>,
    pub if_range: Option<&'a str>,
    pub range: Option<&'a str>,
    pub cache_control: Option<&'a str>,
    pub accept_encoding: Option<&'a str>,
}

impl Conditions<'_> {
    /// True when the response can only be the whole file: no precondition and no range.
    pub fn is_plain(&self) -> bool {
        self.range.is_none() && !self.any_precondition()
    }

    /// True when there is a precondition for [`evaluate`].
    pub fn any_precondition(&self) -> bool {
        self.if_match.is_some()
            || self.if_none_match.is_some()
            || self.if_modified_since.is_some()
            || self.if_unmodified_since.is_some()
    }
}

/// The result of the preconditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Continue with the range.
    Proceed,
    /// 304.
    NotModified,
    /// 412.
    PreconditionFailed,
}

/// Evaluates the preconditions for GET and HEAD of a representation that exists.
pub fn evaluate(conditions: &Conditions<'_>, validators: &Validators<'_>, conformance: Conformance) -> Verdict {
    if !conditions.any_precondition() {
        return Verdict::Proceed;
    }
    match conformance {
        Conformance::Rfc9110 => evaluate_rfc(conditions, validators),
        Conformance::FastifyStatic => evaluate_fastify(conditions, validators),
    }
}

fn evaluate_rfc(conditions: &Conditions<'_>, validators: &Validators<'_>) -> Verdict {
    // 1. If-Match, strong comparison; 2. If-Unmodified-Since only without it.
    if let Some(header) = conditions.if_match {
        let holds = header.trim() == "*" || {
            validators.etag.is_some_and(|own| {
                etag::list(header, Conformance::Rfc9110).any(|candidate| etag::strong_eq(candidate, own))
            })
        };
        if !holds {
            return Verdict::PreconditionFailed;
        }
    } else if let (Some(limit), Some(modified)) =
        (conditions.if_unmodified_since.and_then(date::parse), validators.last_modified)
        && modified > limit
    {
        return Verdict::PreconditionFailed;
    }
    // 3. If-None-Match, weak comparison; 4. If-Modified-Since only without it.
    if let Some(header) = conditions.if_none_match {
        let matches = header.trim() == "*" || {
            validators.etag.is_some_and(|own| {
                etag::list(header, Conformance::Rfc9110).any(|candidate| etag::weak_eq(candidate, own))
            })
        };
        return if matches { Verdict::NotModified } else { Verdict::Proceed };
    }
    not_modified_since(conditions, validators)
}

/// `@fastify/send` differs: it compares `If-Match` weakly, evaluates `If-Unmodified-Since` beside `If-Match` and fails it without
/// `Last-Modified`, and does not answer 304 to `Cache-Control: no-cache`.
fn evaluate_fastify(conditions: &Conditions<'_>, validators: &Validators<'_>) -> Verdict {
    let listed = |header: &str| {
        let own = validators.etag.unwrap_or_default();
        !own.is_empty()
            && etag::list(header, Conformance::FastifyStatic)
                .any(|candidate| candidate == own || own.strip_prefix("W/") == Some(candidate))
    };
    let any_set =
        [conditions.if_match, conditions.if_none_match, conditions.if_modified_since, conditions.if_unmodified_since]
            .into_iter()
            .flatten()
            .any(|header| !header.is_empty());
    if !any_set {
        return Verdict::Proceed;
    }
    if let Some(header) = conditions.if_match.filter(|header| !header.is_empty())
        && header != "*"
        && !listed(header)
    {
        return Verdict::PreconditionFailed;
    }
    if let Some(limit) = conditions.if_unmodified_since.and_then(date::parse)
        && validators.last_modified.is_none_or(|modified| modified > limit)
    {
        return Verdict::PreconditionFailed;
    }
    if conditions.cache_control.is_some_and(|header| header.contains("no-cache")) {
        return Verdict::Proceed;
    }
    if let Some(header) = conditions.if_none_match {
        return if header == "*" || listed(header) { Verdict::NotModified } else { Verdict::Proceed };
    }
    not_modified_since(conditions, validators)
}

fn not_modified_since(conditions: &Conditions<'_>, validators: &Validators<'_>) -> Verdict {
    match (conditions.if_modified_since.and_then(date::parse), validators.last_modified) {
        (Some(since), Some(modified)) if modified <= since => Verdict::NotModified,
        _ => Verdict::Proceed,
    }
}

/// Step 5 of section 13.2.2: whether `Range` applies, given `If-Range`.
///
/// RFC 9110 section 13.1.5 requires a strong tag or the exact date; `@fastify/send` accepts its own weak tag anywhere in the
/// header, and any later date. Whether the date is strong yet (section 8.8.2.2) depends on the time, which the caller
/// checks.
pub fn range_applies(if_range: Option<&str>, validators: &Validators<'_>, conformance: Conformance) -> bool {
    let Some(header) = if_range else { return true };
    match conformance {
        Conformance::Rfc9110 => match header.trim() {
            tag if tag.contains('"') => validators.etag.is_some_and(|own| etag::strong_eq(tag, own)),
            text => date::parse(text).is_some_and(|date| validators.last_modified == Some(date)),
        },
        Conformance::FastifyStatic if header.contains('"') => validators.etag.is_some_and(|own| header.contains(own)),
        Conformance::FastifyStatic => {
            date::parse(header).is_some_and(|date| validators.last_modified.is_none_or(|modified| modified <= date))
        }
    }
}
