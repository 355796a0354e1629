//! The rules that delay, fail or hang operations, and the counts of operations.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;

macro_rules! operations {
    ($($variant:ident $name:literal),+ $(,)?) => {
        /// An operation of the file system that a rule can match.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs)]
        pub enum Operation { $($variant),+ }

        impl Operation {
            /// All operations, in the order of their numbers.
            pub const ALL: &[Operation] = &[$(Operation::$variant),+];

            /// The name that a rule uses.
            pub fn name(self) -> &'static str {
                match self { $(Operation::$variant => $name),+ }
            }
        }
    };
}

operations! {
    Lookup "lookup", Getattr "getattr", Setattr "setattr", Readlink "readlink", Open "open", Create "create",
    Read "read", Write "write", Flush "flush", Fsync "fsync", Release "release", Opendir "opendir", Readdir "readdir",
    Mkdir "mkdir", Symlink "symlink", Remove "remove", Rename "rename", Statfs "statfs",
}

/// Delays the operations that it matches, then lets them fail.
#[derive(Clone, Debug, Default)]
pub struct Rule {
    /// `None` matches every operation.
    pub operation: Option<Operation>,
    /// A pattern for the path below the mount, which begins with `/`. `*` matches any characters, also `/`; `?` matches one.
    pub glob: String,
    /// The delay of the reply.
    pub delay: Duration,
    /// Delays the reply until the rule is replaced or cleared.
    pub hang: bool,
    /// The error to reply instead of the result.
    pub errno: Option<Errno>,
    /// How many times the rule applies; `None`: no limit.
    pub times: Option<u64>,
    /// Reads and writes that end at or before this offset do not match.
    pub from: u64,
}

/// Counts of an operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Calls since the mount.
    pub calls: u64,
    /// Calls that are delayed or hang now.
    pub waiting: u64,
}

/// The effect of the rules on one call.
pub(crate) struct Verdict {
    operation: Operation,
    rule: u64,
    hang: bool,
    until: Option<Instant>,
    errno: Option<Errno>,
}

impl Verdict {
    pub(crate) fn is_immediate(&self) -> bool {
        !self.hang && self.until.is_none()
    }

    pub(crate) fn result(&self) -> Result<(), Errno> {
        self.errno.map_or(Ok(()), Err)
    }
}

#[derive(Default)]
struct State {
    /// With a number that distinguishes a rule from the one it replaces. The last match wins.
    rules: Vec<(u64, Rule)>,
    last_rule: u64,
    counts: [Count; Operation::ALL.len()],
    closing: bool,
}

/// The rules of a mount, shared with its file system.
#[derive(Default)]
pub struct Rules {
    state: Mutex<State>,
    changed: Condvar,
}

impl Rules {
    /// Adds a rule, which replaces the rule for the same operation and pattern.
    pub fn set(&self, rule: Rule) {
        let mut state = self.state();
        state.last_rule += 1;
        let number = state.last_rule;
        state.rules.retain(|(_, old)| old.operation != rule.operation || old.glob != rule.glob);
        state.rules.push((number, rule));
        drop(state);
        self.changed.notify_all();
    }

    /// Removes all rules. Hanging operations continue; delays that have begun run to their end.
    pub fn clear(&self) {
        self.state().rules.clear();
        self.changed.notify_all();
    }

    /// Removes the rule for this operation and pattern.
    pub fn clear_one(&self, operation: Option<Operation>, glob: &str) {
        self.state().rules.retain(|(_, rule)| rule.operation != operation || rule.glob != glob);
        self.changed.notify_all();
    }

    /// The counts of an operation.
    pub fn count(&self, operation: Operation) -> Count {
        self.state().counts[operation as usize]
    }

    /// Lets all operations fail with EIO from now on, also those that are delayed or hang.
    pub fn close(&self) {
        self.state().closing = true;
        self.changed.notify_all();
    }

    /// Counts a call. `end` is the offset after the last byte of a read or write.
    pub(crate) fn enter(&self, operation: Operation, path: &Path, end: Option<u64>) -> Verdict {
        let mut state = self.state();
        state.counts[operation as usize].calls += 1;
        let mut verdict = Verdict { operation, rule: 0, hang: false, until: None, errno: None };
        if state.closing {
            verdict.errno = Some(Errno::EIO);
            return verdict;
        }
        let matching = |rule: &Rule| {
            rule.operation.is_none_or(|one| one == operation)
                && rule.times != Some(0)
                && end.is_none_or(|end| rule.from == 0 || end > rule.from)
                && matches(rule.glob.as_bytes(), path.as_os_str())
        };
        let Some((number, rule)) = state.rules.iter_mut().rev().find(|(_, rule)| matching(rule)) else {
            return verdict;
        };
        if let Some(times) = &mut rule.times {
            *times -= 1;
        }
        verdict.rule = *number;
        verdict.hang = rule.hang;
        verdict.until = (!rule.delay.is_zero()).then(|| Instant::now() + rule.delay);
        verdict.errno = rule.errno;
        if !verdict.is_immediate() {
            state.counts[operation as usize].waiting += 1;
        }
        verdict
    }

    /// Waits for the delay or hang of a verdict.
    pub(crate) fn wait(&self, verdict: &Verdict) -> Result<(), Errno> {
        let mut state = self.state();
        let result = loop {
            if state.closing {
                break Err(Errno::EIO);
            }
            if verdict.hang && state.rules.iter().any(|(number, _)| *number == verdict.rule) {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let left = verdict.until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                break verdict.result();
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        };
        state.counts[verdict.operation as usize].waiting -= 1;
        result
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a path matches a pattern of `*` and `?`.
fn matches(glob: &[u8], path: &OsStr) -> bool {
    let path = path.as_bytes();
    let (mut g, mut p) = (0, 0);
    // The position of the last `*`, and of the path where its match ends in the current try.
    let mut star = None;
    while p < path.len() {
        match glob.get(g) {
            Some(b'*') => {
                star = Some((g, p));
                g += 1;
            }
            Some(&c) if c == b'?' || c == path[p] => {
                g += 1;
                p += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    g = at + 1;
                    p = from + 1;
                }
                None => return false,
            },
        }
    }
    glob[g..].iter().all(|&c| c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn star_matches_any_characters_and_question_mark_matches_one() {
        for (glob, path, expected) in [
            ("*", "/a/b", true),
            ("/a", "/a", true),
            ("/a", "/ab", false),
            ("*.txt", "/dir/a.txt", true),
            ("*.txt", "/dir/a.txt.gz", false),
            ("/?", "/a", true),
            ("/?", "/", false),
            ("/a*b*c", "/aXbYbZc", true),
            ("/a*b*c", "/aXbYbZ", false),
            ("", "", true),
            ("**", "", true),
        ] {
            assert_eq!(matches(glob.as_bytes(), OsStr::new(path)), expected, "{glob} {path}");
        }
    }

    #[test]
    fn the_last_matching_rule_wins_and_ends_after_its_times() {
        let rules = Rules::default();
        let rule = |glob: &str, errno, times| Rule {
            operation: Some(Operation::Read),
            glob: glob.into(),
            errno: Some(errno),
            times,
            ..Rule::default()
        };
        rules.set(rule("*", Errno::EIO, None));
        rules.set(rule("/a", Errno::ESTALE, Some(1)));
        let read = |path: &str| rules.enter(Operation::Read, Path::new(path), Some(1)).result();
        assert_eq!(read("/a"), Err(Errno::ESTALE));
        assert_eq!(read("/a"), Err(Errno::EIO));
        assert_eq!(read("/b"), Err(Errno::EIO));
        assert_eq!(rules.enter(Operation::Open, Path::new("/a"), None).result(), Ok(()));
        rules.clear();
        assert_eq!(read("/a"), Ok(()));
        assert_eq!(rules.count(Operation::Read), Count { calls: 4, waiting: 0 });
    }
}
