//! Names of Unix sockets.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::sys::socket::UnixAddr;

use crate::error::{Code, Error, Result};

/// `sun_path` has 108 bytes, including a NUL at the end of a path or at the beginning of an abstract name; see unix(7).
const MAX_BYTES: usize = 107;

/// Converts a path to a socket name, or an error if the kernel does not allow it. A path with a leading NUL byte is an abstract
/// name, as in Node.
pub(crate) fn unix_name(path: &Path) -> Result<UnixAddr> {
    let bytes = path.as_os_str().as_bytes();
    let invalid =
        |reason: String| Err(Error::new(Code::InvalidArgument, format!("invalid Unix socket path {path:?}: {reason}")));
    let (kind, name) = match bytes {
        [0, name @ ..] => ("an abstract name", name),
        _ => ("a path", bytes),
    };
    if name.is_empty() {
        return invalid("it is empty".to_owned());
    }
    if name.len() > MAX_BYTES {
        return invalid(format!("{kind} of {} bytes is too long; use at most {MAX_BYTES} bytes", name.len()));
    }
    if kind == "a path" && name.contains(&0) {
        return invalid("it contains a NUL byte".to_owned());
    }
    if kind == "a path" { UnixAddr::new(path) } else { UnixAddr::new_abstract(name) }
        .map_err(|errno| Error::system("bind", errno).with_path(path))
}

/// Whether the name is abstract. An abstract socket has no file.
pub(crate) fn is_abstract(path: &Path) -> bool {
    path.as_os_str().as_bytes().first() == Some(&0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_names_are_refused_with_the_reason() {
        let refused = |path: &str| unix_name(Path::new(path)).expect_err(path).to_string();
        assert!(unix_name(Path::new(&"x".repeat(107))).is_ok());
        assert!(refused(&"x".repeat(108)).contains("a path of 108 bytes is too long; use at most 107 bytes"));
        assert!(refused("a\0b").contains("NUL byte"));
        assert!(refused("").contains("empty"));
        assert!(refused("\0").contains("empty"));
        let name = unix_name(Path::new("\0a\0b")).expect("an abstract name");
        assert_eq!(name.as_abstract(), Some(&b"a\0b"[..]));
        assert!(unix_name(Path::new(&format!("\0{}", "x".repeat(107)))).is_ok());
        assert!(refused(&format!("\0{}", "x".repeat(108))).contains("abstract name of 108"));
    }
}
