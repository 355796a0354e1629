//! The error type: what failed, for which path or system call, and what to do.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

/// A result with [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// The stable name of an error; `error.code` in JavaScript.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// A system call failed; the code is the name of the errno (`ENOENT`, `EPIPE`, ...).
    System(Errno),
    /// An argument is invalid.
    InvalidArgument,
    /// An offset or length lies outside the file.
    OutOfRange,
    /// The source is a directory, FIFO, socket or device; only regular files are allowed.
    NotRegularFile,
    /// The file is shorter than expected: it was truncated during the operation.
    Truncated,
    /// No progress within the timeout.
    Timeout,
    /// Cancelled by the caller.
    Aborted,
    /// The target, handle or library is closed.
    Closed,
    /// The platform or kernel lacks a required feature.
    Unsupported,
    /// A limit of the library or the process was reached.
    Limit,
    /// An exclusive resource is in use.
    Busy,
    /// The other process of a shared ring exited without closing it.
    PeerDied,
    /// Shared memory has invalid contents.
    Corrupt,
    /// A bug in this library: a contained panic or a lost task.
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

/// An error with its context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    code: Code,
    syscall: Option<&'static str>,
    path: Option<PathBuf>,
    bytes: Option<u64>,
    message: Cow<'static, str>,
}

impl Error {
    /// An error without a system call. `message` names the input and the remedy.
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, syscall: None, path: None, bytes: None, message: message.into() }
    }

    /// The error of a task that panicked or was dropped without a result.
    pub fn dropped() -> Self {
        Self::new(Code::Internal, "internal error, please report it: a task was dropped without a result")
    }

    /// A failed system call.
    pub fn system(syscall: &'static str, errno: Errno) -> Self {
        Self {
            code: Code::System(errno),
            syscall: Some(syscall),
            path: None,
            bytes: None,
            message: errno.desc().into(),
        }
    }

    /// Replaces the message, which is the description of the errno for [`Error::system`].
    #[must_use]
    pub fn explained(mut self, message: impl Into<Cow<'static, str>>) -> Self {
        self.message = message.into();
        self
    }

    /// Sets the path.
    #[must_use]
    pub fn with_path(mut self, path: impl AsRef<Path>) -> Self {
        self.path = Some(path.as_ref().to_path_buf());
        self
    }

    /// Sets the number of bytes transferred before the failure.
    #[must_use]
    pub fn with_bytes(mut self, bytes: u64) -> Self {
        self.bytes = Some(bytes);
        self
    }

    /// The number of bytes that a failed transfer had passed to the kernel.
    pub fn bytes(&self) -> Option<u64> {
        self.bytes
    }

    /// The stable name.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The errno of a failed system call.
    pub fn errno(&self) -> Option<Errno> {
        match self.code {
            Code::System(errno) => Some(errno),
            _ => None,
        }
    }

    /// The name of the failed system call.
    pub fn syscall(&self) -> Option<&'static str> {
        self.syscall
    }

    /// The path of the file or socket.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The message without code, system call and path.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Whether the receiver may have got an incomplete body and must be able to detect that: the source or this library failed.
    /// False for cancellation and timeouts, which the caller decides.
    pub fn leaves_body_incomplete(&self) -> bool {
        matches!(self.code, Code::System(_) | Code::Truncated | Code::Internal)
    }

    /// Whether the peer closed or reset the connection.
    pub fn is_peer_gone(&self) -> bool {
        matches!(
            self.errno(),
            Some(Errno::EPIPE | Errno::ECONNRESET | Errno::ENOTCONN | Errno::ECONNABORTED | Errno::ETIMEDOUT)
        )
    }
}

impl fmt::Display for Error {
    /// Node's own shape: `EACCES: Permission denied, open '/x'`.
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
