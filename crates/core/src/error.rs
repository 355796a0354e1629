//! One error type with what failed, on what, and what to do next.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

/// A result of the engine.
pub type Result<T> = std::result::Result<T, Error>;

/// The stable name of an error, as JavaScript sees it in `error.code`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// A syscall failed; the code is the name of the errno (`ENOENT`, `EPIPE`, ...).
    System(Errno),
    /// An argument is out of its domain.
    InvalidArgument,
    /// An offset or length lies outside the file.
    OutOfRange,
    /// The source is a directory, FIFO, socket or device.
    NotRegularFile,
    /// The file ended before the bytes that were announced.
    Truncated,
    /// No byte moved for the time allowed.
    Timeout,
    /// Cancelled by the caller.
    Aborted,
    /// The target, handle or engine is closed.
    Closed,
    /// The platform or kernel lacks what is needed.
    Unsupported,
    /// A bound of the engine was reached.
    Limit,
    /// Somebody else has what can be had only once.
    Busy,
    /// The other side of something shared has gone without a word.
    PeerDied,
    /// What is shared does not look as it must.
    Corrupt,
    /// A bug of the engine that was contained (a caught panic).
    Internal,
}

impl Code {
    /// The string form: `ERR_ZEROSEND_*`, or the errno's name.
    pub fn as_str(self) -> Cow<'static, str> {
        match self {
            Code::System(errno) => Cow::Owned(format!("{errno:?}")),
            Code::InvalidArgument => "ERR_ZEROSEND_INVALID_ARGUMENT".into(),
            Code::OutOfRange => "ERR_ZEROSEND_OUT_OF_RANGE".into(),
            Code::NotRegularFile => "ERR_ZEROSEND_NOT_REGULAR_FILE".into(),
            Code::Truncated => "ERR_ZEROSEND_TRUNCATED".into(),
            Code::Timeout => "ERR_ZEROSEND_TIMEOUT".into(),
            Code::Aborted => "ABORT_ERR".into(),
            Code::Closed => "ERR_ZEROSEND_CLOSED".into(),
            Code::Unsupported => "ERR_ZEROSEND_UNSUPPORTED".into(),
            Code::Limit => "ERR_ZEROSEND_LIMIT".into(),
            Code::Busy => "ERR_ZEROSEND_BUSY".into(),
            Code::PeerDied => "ERR_ZEROSEND_PEER_DIED".into(),
            Code::Corrupt => "ERR_ZEROSEND_CORRUPT".into(),
            Code::Internal => "ERR_ZEROSEND_INTERNAL".into(),
        }
    }
}

/// What failed, where and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    code: Code,
    syscall: Option<&'static str>,
    path: Option<PathBuf>,
    bytes: Option<u64>,
    message: Cow<'static, str>,
}

impl Error {
    /// An error of the engine itself; `message` says what to do next.
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, syscall: None, path: None, bytes: None, message: message.into() }
    }

    /// The answer to a task that panicked, or that was dropped before it had a result.
    pub fn dropped() -> Self {
        Self::new(Code::Internal, "internal error, please report it: a task was dropped without a result")
    }

    /// A failed syscall.
    pub fn system(syscall: &'static str, errno: Errno) -> Self {
        Self {
            code: Code::System(errno),
            syscall: Some(syscall),
            path: None,
            bytes: None,
            message: errno.desc().into(),
        }
    }

    /// The same error with a reason that says more than the name of the errno, and what to do next.
    #[must_use]
    pub fn explained(mut self, message: impl Into<Cow<'static, str>>) -> Self {
        self.message = message.into();
        self
    }

    /// The same error, naming the path it is about.
    #[must_use]
    pub fn with_path(mut self, path: impl AsRef<Path>) -> Self {
        self.path = Some(path.as_ref().to_path_buf());
        self
    }

    /// The same error, with how much had been handed to the kernel when it came.
    #[must_use]
    pub fn with_bytes(mut self, bytes: u64) -> Self {
        self.bytes = Some(bytes);
        self
    }

    /// Bytes that had been handed to the kernel, when a transfer failed.
    pub fn bytes(&self) -> Option<u64> {
        self.bytes
    }

    /// The stable name.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The errno, when a syscall failed.
    pub fn errno(&self) -> Option<Errno> {
        match self.code {
            Code::System(errno) => Some(errno),
            _ => None,
        }
    }

    /// The syscall that failed.
    pub fn syscall(&self) -> Option<&'static str> {
        self.syscall
    }

    /// The path it is about.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The reason, without code, syscall and path.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// True for an error after which a receiver may have a part of what was announced, and must not take it for the whole:
    /// the source failed, or the engine. Not for what the caller decided.
    pub fn leaves_body_incomplete(&self) -> bool {
        matches!(self.code, Code::System(_) | Code::Truncated | Code::Internal)
    }

    /// True when the other end of the socket is gone: no error of the server.
    pub fn is_peer_gone(&self) -> bool {
        matches!(
            self.errno(),
            Some(Errno::EPIPE | Errno::ECONNRESET | Errno::ENOTCONN | Errno::ECONNABORTED | Errno::ETIMEDOUT)
        )
    }
}

impl fmt::Display for Error {
    /// Node's own shape: `ENOENT: No such file or directory, open '/x'`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Code::System(errno) = self.code {
            write!(f, "{errno:?}: ")?;
        }
        f.write_str(&self.message)?;
        if let Some(syscall) = self.syscall {
            write!(f, ", {syscall}")?;
        }
        if let Some(path) = &self.path {
            write!(f, " '{}'", path.display())?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}
