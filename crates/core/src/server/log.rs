//! The access log. Workers hand over what happened in batches; a thread of its own makes lines of it and writes them, so
//! that no slow disk or terminal ever holds up a request. When it cannot keep up, lines are lost and counted.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::http::listing::json_string;
use crate::stats::Counter;

/// Entries that may wait at once.
const MOST_WAITING: usize = 65_536;

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

/// Where entries go to.
pub type Sink = Box<dyn FnMut(&[Entry]) + Send>;

struct State {
    waiting: Vec<Entry>,
    closed: bool,
}

struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    lost: Counter,
    asleep: AtomicBool,
}

/// A log and the thread that writes it.
pub struct AccessLog {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl AccessLog {
    /// A log into `sink`, which is called on the log's own thread.
    pub fn new(mut sink: Sink) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::new(State { waiting: Vec::new(), closed: false }),
            wake: Condvar::new(),
            lost: Counter::new(),
            asleep: AtomicBool::new(false),
        });
        let thread = crate::thread::spawn("zerosend-log", {
            let shared = shared.clone();
            move || {
                while let Some(entries) = shared.take() {
                    sink(&entries);
                }
            }
        })?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// A log of lines into `out`.
    pub fn lines(format: Format, mut out: impl std::io::Write + Send + 'static) -> std::io::Result<Self> {
        Self::new(Box::new(move |entries| {
            let text = entries.iter().fold(String::with_capacity(entries.len() * 128), |mut text, entry| {
                write_line(&mut text, entry, format);
                text
            });
            // A log that cannot be written is no reason to stop serving.
            let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        }))
    }

    /// Takes over all of `entries`.
    pub(super) fn add(&self, entries: &mut Vec<Entry>) {
        let mut state = self.shared.lock();
        let room = MOST_WAITING.saturating_sub(state.waiting.len());
        if entries.len() > room {
            self.shared.lost.add((entries.len() - room) as u64);
            entries.truncate(room);
        }
        state.waiting.append(entries);
        drop(state);
        if self.shared.asleep.load(Ordering::Relaxed) {
            self.shared.wake.notify_one();
        }
    }

    /// Entries that were lost.
    pub fn lost(&self) -> u64 {
        self.shared.lost.get()
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.wake.notify_one();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// Waits for entries; `None` when there will be no more.
    fn take(&self) -> Option<Vec<Entry>> {
        let mut state = self.lock();
        while state.waiting.is_empty() {
            if state.closed {
                return None;
            }
            self.asleep.store(true, Ordering::Relaxed);
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            self.asleep.store(false, Ordering::Relaxed);
        }
        Some(std::mem::take(&mut state.waiting))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
            iso_time(entry.time),
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

/// `2026-11-23T18:04:05.678Z`.
fn iso_time(time: SystemTime) -> String {
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let date = httpdate::fmt_http_date(time);
    let month = MONTHS.find(&date[8..11]).unwrap_or(0) / 3 + 1;
    let millis = time.duration_since(UNIX_EPOCH).unwrap_or_default().subsec_millis();
    format!("{}-{month:02}-{}T{}.{millis:03}Z", &date[12..16], &date[5..7], &date[17..25])
}

/// `23/Nov/2026:18:04:05 +0000`, from `Mon, 23 Nov 2026 18:04:05 GMT`.
fn common_time(time: SystemTime) -> String {
    let date = httpdate::fmt_http_date(time);
    format!("{}/{}/{}:{} +0000", &date[5..7], &date[8..11], &date[12..16], &date[17..25])
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn all_that_was_added_is_written_before_the_log_is_gone() {
        let written = Arc::new(Mutex::new(0));
        let log = AccessLog::new(Box::new({
            let written = written.clone();
            move |entries| *written.lock().expect("whole") += entries.len()
        }))
        .expect("a thread");
        for _ in 0..100 {
            log.add(&mut vec![entry(); 10]);
        }
        drop(log);
        assert_eq!(*written.lock().expect("whole"), 1000);
    }
}
