//! The request target, RFC 9112 section 3.2, and the grammar of an authority.

use std::net::Ipv6Addr;

use super::error::HeadError;

/// A request target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target<'a> {
    /// A path, from origin-form or absolute-form, and the query after the `?`.
    Path {
        /// Percent-encoded, starts with a slash.
        path: &'a str,
        /// Without the `?`.
        query: Option<&'a str>,
    },
    /// `*`: the server itself.
    Asterisk,
    /// The host and port of a CONNECT.
    Authority,
}

/// Parses a target. Returns it and, for the absolute form and CONNECT, its authority.
pub(super) fn parse<'a>(method: &str, raw: &'a str) -> Result<(Target<'a>, Option<&'a str>), HeadError> {
    const MALFORMED: HeadError = HeadError::Bad("malformed request target");
    if raw.bytes().any(|byte| !byte.is_ascii_graphic() || byte == b'#') {
        return Err(MALFORMED);
    }
    let split = |text: &'a str| match text.split_once('?') {
        Some((path, query)) => Target::Path { path, query: Some(query) },
        None => Target::Path { path: text, query: None },
    };
    if method == "CONNECT" {
        // RFC 9110 section 9.3.6: with a port.
        let is_authority = is_authority(raw) && has_port(raw) && !raw.starts_with(':');
        return if is_authority { Ok((Target::Authority, Some(raw))) } else { Err(MALFORMED) };
    }
    if raw.starts_with('/') {
        return Ok((split(raw), None));
    }
    if raw == "*" {
        return if method == "OPTIONS" { Ok((Target::Asterisk, None)) } else { Err(MALFORMED) };
    }
    let (scheme, rest) = raw.split_once("://").ok_or(MALFORMED)?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Err(MALFORMED);
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    // An http URI with an empty host is invalid, RFC 9110 section 4.2.1.
    if authority.is_empty() || authority.starts_with(':') || !is_authority(authority) {
        return Err(MALFORMED);
    }
    let target = match split(path) {
        Target::Path { path: "", query: None } if method == "OPTIONS" => Target::Asterisk,
        Target::Path { path: "", query } => Target::Path { path: "/", query },
        target => target,
    };
    Ok((target, Some(authority)))
}

/// `uri-host [ ":" port ]` of RFC 9110 section 7.2, in the grammar of RFC 3986 section 3.2, without user information. The host
/// may be empty, as in a `Host` field.
pub(super) fn is_authority(value: &str) -> bool {
    let (host, port) = split_port(value);
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit()) && is_16_bits(port);
    port.is_none_or(is_port) && if host.starts_with('[') { is_ip_literal(host) } else { is_registered_name(host) }
}

fn has_port(value: &str) -> bool {
    split_port(value).1.is_some_and(|port| !port.is_empty())
}

/// Splits at the colon before the port; a colon inside an IP literal does not count.
fn split_port(value: &str) -> (&str, Option<&str>) {
    let host_end = value.rfind(']').map_or(0, |end| end + 1);
    match value[host_end..].find(':') {
        Some(colon) => (&value[..host_end + colon], Some(&value[host_end + colon + 1..])),
        None => (value, None),
    }
}

/// Whether digits are at most 65535. Leading zeros are ignored, no digits are allowed.
fn is_16_bits(digits: &str) -> bool {
    let digits = digits.trim_start_matches('0');
    digits.is_empty() || digits.parse::<u16>().is_ok()
}

fn is_ip_literal(host: &str) -> bool {
    let Some(address) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) else { return false };
    address.parse::<Ipv6Addr>().is_ok() || is_later_ip(address)
}

/// `IPvFuture` of RFC 3986.
fn is_later_ip(address: &str) -> bool {
    let Some((version, rest)) = address.strip_prefix(['v', 'V']).and_then(|rest| rest.split_once('.')) else {
        return false;
    };
    let is_hex = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hex(version) && !rest.is_empty() && rest.bytes().all(|byte| byte == b':' || is_name_char(byte))
}

/// `reg-name` of RFC 3986, without empty labels except one at the end.
fn is_registered_name(host: &str) -> bool {
    let mut bytes = host.bytes();
    while let Some(byte) = bytes.next() {
        let is_escape = |bytes: &mut std::str::Bytes<'_>| {
            (0..2).all(|_| bytes.next().is_some_and(|digit| digit.is_ascii_hexdigit()))
        };
        if !(is_name_char(byte) || byte == b'%' && is_escape(&mut bytes)) {
            return false;
        }
    }
    !host.starts_with('.') && !host.contains("..")
}

/// `unreserved` and `sub-delims` of RFC 3986.
fn is_name_char(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte)
}
