//! What the access log says of a request, and how.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use crate::server::listing::json_string;

use zerosend_http::date;

mod file;
mod queue;

pub use file::LogFile;
pub use queue::{AccessLog, Sink};

/// What is written down of a request.
#[derive(Debug, Clone)]
pub struct Entry {
    /// When the head was complete.
    pub time: SystemTime,
    /// The client; `None` on a Unix socket.
    pub client: Option<SocketAddr>,
    /// As sent.
    pub method: String,
    /// As sent.
    pub target: String,
    /// `Host`, or the authority of the target.
    pub host: Option<String>,
    /// HTTP/1.0.
    pub is_http10: bool,
    /// Of the response.
    pub status: u16,
    /// Bytes of the response's body that were handed to the kernel.
    pub bytes: u64,
    /// Bytes of its head that were handed to the kernel.
    pub head_bytes: u64,
    /// From the head of the request to the last byte.
    pub duration: Duration,
    /// `Referer`.
    pub referer: Option<String>,
    /// `User-Agent`.
    pub user_agent: Option<String>,
    /// The response was cut off.
    pub aborted: bool,
}

/// What a line looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The Common Log Format.
    Common,
    /// That with referer and user agent.
    Combined,
    /// A JSON object.
    Json,
}

/// Appends the line of `entry`. Nothing that a client sends can end a line or a quoted string.
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
    let (method, target) = (quotable(method), quotable(target));
    let _ = write!(
        text,
        "{client} - - [{}] \"{method} {target} HTTP/{version}\" {status} {bytes}",
        common_time(entry.time)
    );
    if format == Format::Combined {
        let quoted = |value: &Option<String>| value.as_deref().map_or_else(|| "-".to_owned(), quotable);
        let _ = write!(text, " \"{}\" \"{}\"", quoted(&entry.referer), quoted(&entry.user_agent));
    }
    text.push('\n');
}

/// As Apache writes it: `\xhh` for what would end the string or the line.
fn quotable(value: &str) -> String {
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

/// `23/Nov/2026:18:04:05 +0000`, from `Mon, 23 Nov 2026 18:04:05 GMT`.
fn common_time(time: SystemTime) -> String {
    let date = httpdate::fmt_http_date(time);
    format!("{}/{}/{}:{} +0000", &date[5..7], &date[8..11], &date[12..16], &date[17..25])
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn entry() -> Entry {
        Entry {
            time: UNIX_EPOCH + Duration::from_millis(1_709_210_096_789),
            client: Some("[::ffff:10.0.0.1]:1234".parse().expect("an address")),
            method: "GET".into(),
            target: "/a\"b".into(),
            host: None,
            is_http10: false,
            status: 200,
            bytes: 12,
            head_bytes: 180,
            duration: Duration::from_micros(1500),
            referer: None,
            user_agent: Some("curl\n\"x\"".into()),
            aborted: false,
        }
    }

    fn line(format: Format) -> String {
        let mut text = String::new();
        write_line(&mut text, &entry(), format);
        text
    }

    #[test]
    fn lines() {
        let common = "10.0.0.1 - - [29/Feb/2024:12:34:56 +0000] \"GET /a\\\"b HTTP/1.1\" 200 12";
        assert_eq!(line(Format::Common), format!("{common}\n"));
        assert_eq!(line(Format::Combined), format!("{common} \"-\" \"curl\\x0a\\\"x\\\"\"\n"));
        assert_eq!(
            line(Format::Json),
            "{\"time\":\"2024-02-29T12:34:56.789Z\",\"client\":\"10.0.0.1\",\"method\":\"GET\",\"target\":\"/a\\\"b\",\
             \"version\":\"1.1\",\"status\":200,\"bytes\":12,\"headBytes\":180,\"durationMs\":1.500,\"referer\":null,\
             \"userAgent\":\"curl\\n\\\"x\\\"\",\"aborted\":false}\n"
        );
    }
}
