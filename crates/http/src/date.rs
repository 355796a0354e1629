//! HTTP dates, RFC 9110 section 5.6.7, as seconds since 1970.
//!
//! The three forms of the RFC are parsed, IMF-fixdate is written. The other formats of JavaScript's `Date.parse` are not HTTP
//! dates.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use httpdate::HttpDate;

/// The last second of a four-digit year: 9999-12-31T23:59:59Z.
const LAST_SECOND: u64 = 253_402_300_799;

const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const LONG_DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

/// Formats as IMF-fixdate. A time before 1970 or after 9999, which the format cannot express, becomes that bound.
pub fn format(seconds: i64) -> String {
    let seconds = u64::try_from(seconds).unwrap_or(0).min(LAST_SECOND);
    HttpDate::from(UNIX_EPOCH + Duration::from_secs(seconds)).to_string()
}

/// Formats `time` as in RFC 3339, in UTC and with milliseconds: `2026-11-23T18:04:05.678Z`.
pub fn format_iso8601(time: SystemTime) -> String {
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let date = httpdate::fmt_http_date(time);
    let month = MONTHS.find(&date[8..11]).unwrap_or(0) / 3 + 1;
    let millis = time.duration_since(UNIX_EPOCH).unwrap_or_default().subsec_millis();
    format!("{}-{month:02}-{}T{}.{millis:03}Z", &date[12..16], &date[5..7], &date[17..25])
}

/// Parses any of the three forms; `None` for everything else. A wrong day of the week is ignored, as nginx and browsers do. A leap
/// second equals the first second of the next minute.
pub fn parse(text: &str) -> Option<i64> {
    let text = text.trim();
    match text.replacen(":60 ", ":59 ", 1) {
        earlier if earlier != text => parse_second(&earlier)?.checked_add(1),
        _ => parse_second(text),
    }
}

fn parse_second(text: &str) -> Option<i64> {
    let date = text.parse::<HttpDate>().ok().or_else(|| with_other_weekday(text))?;
    i64::try_from(SystemTime::from(date).duration_since(UNIX_EPOCH).ok()?.as_secs()).ok()
}

/// Parses a date with a wrong day of the week by trying all seven.
fn with_other_weekday(text: &str) -> Option<HttpDate> {
    let (days, rest) = [LONG_DAYS, DAYS].into_iter().find_map(|days| {
        let rest = days.iter().find_map(|day| text.strip_prefix(day))?;
        Some((days, rest))
    })?;
    days.iter().find_map(|day| format!("{day}{rest}").parse().ok())
}
