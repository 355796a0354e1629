//! The text of an entry.

use std::fmt::Write as _;
use std::time::SystemTime;

use super::entry::Entry;
use crate::server::json::json_string;
use zerosend_http::date;

/// Format of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The Common Log Format.
    Common,
    /// The Common Log Format with `Referer` and `User-Agent`.
    Combined,
    /// A JSON object per line.
    Json,
}

/// Appends the line of `entry`. Bytes that a client has sent cannot end the line or a quoted string.
pub fn write_line(text: &mut String, entry: &Entry, format: Format) {
    let client = entry.client.map_or_else(|| "-".to_owned(), |client| client.ip().to_canonical().to_string());
    let Entry { method, target, status, bytes, head_bytes, .. } = entry;
    let version = if entry.is_http10 { "1.0" } else { "1.1" };
    if format == Format::Json {
        let optional = |value: &Option<String>| value.as_deref().map_or_else(|| "null".to_owned(), json_string);
        let _ = writeln!(
            text,
            "{{\"time\":\"{}\",\"client\":{},\"method\":{},\"target\":{},\"version\":\"{version}\",\"status\":{status},\
             \"bytes\":{bytes},\"headBytes\":{head_bytes},\"durationMs\":{:.3},\"referer\":{},\"userAgent\":{},\"aborted\":{}}}",
            date::format_iso8601(entry.time),
            entry.client.map_or_else(|| "null".to_owned(), |_| json_string(&client)),
            json_string(method),
            json_string(target),
            entry.duration.as_secs_f64() * 1000.0,
            optional(&entry.referer),
            optional(&entry.user_agent),
            entry.aborted,
        );
        return;
    }
    let (method, target) = (escape(method), escape(target));
    let _ = write!(
        text,
        "{client} - - [{}] \"{method} {target} HTTP/{version}\" {status} {bytes}",
        common_time(entry.time)
    );
    if format == Format::Combined {
        let quoted = |value: &Option<String>| value.as_deref().map_or_else(|| "-".to_owned(), escape);
        let _ = write!(text, " \"{}\" \"{}\"", quoted(&entry.referer), quoted(&entry.user_agent));
    }
    text.push('\n');
}

/// Escapes quotes, backslashes and control characters, as Apache does.
fn escape(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for character in value.chars() {
        match character {
            '"' | '\\' => {
                text.push('\\');
                text.push(character);
            }
            control if control.is_control() => {
                let _ = write!(text, "\\x{:02x}", u32::from(control));
            }
            other => text.push(other),
        }
    }
    text
}

/// `23/Nov/2026:18:04:05 +0000`.
fn common_time(time: SystemTime) -> String {
    let date = httpdate::fmt_http_date(time);
    format!("{}/{}/{}:{} +0000", &date[5..7], &date[8..11], &date[12..16], &date[17..25])
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn line(format: Format) -> String {
        let entry = Entry {
            time: UNIX_EPOCH + Duration::from_millis(1_709_210_096_789),
            client: Some("[::ffff:10.0.0.1]:1234".parse().expect("an address")),
            target: "/a\"b".into(),
            user_agent: Some("curl\n\"x\"".into()),
            ..Entry::sample()
        };
        let mut text = String::new();
        write_line(&mut text, &entry, format);
        text
    }

    #[test]
    fn a_line_escapes_what_the_client_sent() {
        let common = "10.0.0.1 - - [29/Feb/2024:12:34:56 +0000] \"GET /a\\\"b HTTP/1.1\" 200 12";
        assert_eq!(line(Format::Common), format!("{common}\n"));
        assert_eq!(line(Format::Combined), format!("{common} \"-\" \"curl\\x0a\\\"x\\\"\"\n"));
        assert_eq!(
            line(Format::Json),
            "{\"time\":\"2024-02-29T12:34:56.789Z\",\"client\":\"10.0.0.1\",\"method\":\"GET\",\"target\":\"/a\\\"b\",\
             \"version\":\"1.1\",\"status\":200,\"bytes\":12,\"headBytes\":100,\"durationMs\":1.500,\"referer\":null,\
             \"userAgent\":\"curl\\n\\\"x\\\"\",\"aborted\":false}\n"
        );
    }
}
