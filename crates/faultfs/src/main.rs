//! `faultfs [options] <backing directory> <mount point>`: mounts, prints `mounted`, then runs the commands on standard input
//! until its end or SIGTERM, and unmounts. Each command is a line, and writes one line to standard output:
//!
//! - `set <operation or *> [delay=<ms>] [errno=<name or number>] [hang] [times=<n>] [from=<offset>] -- <glob>`: `ok`
//! - `clear <operation or *> -- <glob>`, `clear`: `ok`
//! - `count <operation>`: `<calls> <waiting>`
#![forbid(unsafe_code)]

use std::io::{BufRead, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use zerosend_faultfs::{Mount, Operation, Options, Rule, Rules};

const USAGE: &str = "usage: faultfs [--entry-timeout=<ms>] [--attr-timeout=<ms>] [--keep-cache] [--direct-io] [--zero-size] \
[--whole-seconds] [--no-auto-invalidate] <backing directory> <mount point>";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("faultfs: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let mut options = Options::default();
    let mut paths = Vec::new();
    for argument in std::env::args().skip(1) {
        match argument.split_once('=').unwrap_or((&argument, "")) {
            ("--entry-timeout", ms) => options.entry_timeout = milliseconds(ms)?,
            ("--attr-timeout", ms) => options.attr_timeout = milliseconds(ms)?,
            ("--keep-cache", "") => options.keep_cache = true,
            ("--direct-io", "") => options.direct_io = true,
            ("--zero-size", "") => options.zero_size = true,
            ("--whole-seconds", "") => options.whole_seconds = true,
            ("--no-auto-invalidate", "") => options.auto_invalidate = false,
            _ if argument.starts_with("--") => return Err(format!("unknown option '{argument}'; {USAGE}")),
            _ => paths.push(argument),
        }
    }
    let [backing, mount_point] = paths.as_slice() else { return Err(USAGE.into()) };

    // Blocked before any thread starts, so that only `wait` below receives them.
    let mut signals = SigSet::empty();
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().for_each(|signal| signals.add(signal));
    signals.thread_block().map_err(|errno| format!("cannot block signals: {errno}"))?;

    let mount = Mount::new(Path::new(backing), Path::new(mount_point), &options)
        .map_err(|error| format!("cannot mount '{mount_point}': {error}"))?;
    let (end, on_end) = channel();
    let on_signal: Sender<()> = end.clone();
    thread::spawn(move || {
        let _ = signals.wait();
        let _ = on_signal.send(());
    });
    let rules = Arc::clone(mount.rules());
    thread::spawn(move || {
        run_commands(&rules);
        let _ = end.send(());
    });
    println!("mounted");
    // Checks every 200 ms whether it was unmounted by another process.
    while on_end.recv_timeout(Duration::from_millis(200)) == Err(std::sync::mpsc::RecvTimeoutError::Timeout)
        && !mount.is_ended()
    {}
    mount.unmount().map_err(|error| format!("cannot unmount '{mount_point}': {error}"))
}

/// Runs the commands on standard input until its end.
fn run_commands(rules: &Rules) {
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { return };
        let answer = command(rules, &line).unwrap_or_else(|message| format!("error {message}"));
        if writeln!(std::io::stdout(), "{answer}").is_err() {
            return;
        }
    }
}

fn command(rules: &Rules, line: &str) -> Result<String, String> {
    let (words, glob) = line.split_once(" -- ").unwrap_or((line, "*"));
    let mut words = words.split_ascii_whitespace();
    let name = words.next();
    if name == Some("clear") && words.clone().next().is_none() {
        rules.clear();
        return Ok("ok".into());
    }
    let operation = match words.next() {
        Some("*") => None,
        Some(word) => Some(operation(word)?),
        None => return Err(format!("missing operation in '{line}'")),
    };
    match (name, operation) {
        (Some("set"), operation) => {
            let mut rule = Rule { operation, glob: glob.into(), ..Rule::default() };
            for word in words {
                match word.split_once('=').unwrap_or((word, "")) {
                    ("delay", ms) => rule.delay = milliseconds(ms)?,
                    ("errno", text) => rule.errno = Some(errno(text)?),
                    ("hang", "") => rule.hang = true,
                    ("times", text) => rule.times = Some(number(text)?),
                    ("from", text) => rule.from = number(text)?,
                    _ => return Err(format!("unknown setting '{word}'")),
                }
            }
            rules.set(rule);
            Ok("ok".into())
        }
        (Some("clear"), operation) => {
            rules.clear_one(operation, glob);
            Ok("ok".into())
        }
        (Some("count"), Some(operation)) => {
            let count = rules.count(operation);
            Ok(format!("{} {}", count.calls, count.waiting))
        }
        _ => Err(format!("unknown command '{line}'")),
    }
}

fn operation(name: &str) -> Result<Operation, String> {
    Operation::ALL.iter().find(|one| one.name() == name).copied().ok_or_else(|| format!("unknown operation '{name}'"))
}

fn milliseconds(text: &str) -> Result<Duration, String> {
    number(text).map(Duration::from_millis)
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("invalid number '{text}'"))
}

fn errno(text: &str) -> Result<Errno, String> {
    // The derived Debug of nix::Errno prints the names of errno(3).
    (1..=133)
        .map(Errno::from_raw)
        .find(|errno| format!("{errno:?}") == text || (*errno as i32).to_string() == text)
        .ok_or_else(|| format!("unknown error '{text}'"))
}
