//! HTTP dates, RFC 9110 section 5.6.7, as seconds since 1970.
//!
//! The three forms of the RFC are read, one is written. What else JavaScript's `Date.parse` takes is not an HTTP date
//! and reads as none.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use httpdate::HttpDate;

/// The last second a four-digit year can name: 9999-12-31T23:59:59Z.
const LAST_SECOND: u64 = 253_402_300_799;

/// Writes the IMF-fixdate form. A time before 1970 or after 9999 is written as that bound, since the form has no words
/// for it.
pub fn format(seconds: i64) -> String {
    let seconds = u64::try_from(seconds).unwrap_or(0).min(LAST_SECOND);
    HttpDate::from(UNIX_EPOCH + Duration::from_secs(seconds)).to_string()
}

/// Reads any of the three forms; `None` for everything else.
pub fn parse(text: &str) -> Option<i64> {
    let time = SystemTime::from(text.trim().parse::<HttpDate>().ok()?);
    i64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_secs()).ok()
}
