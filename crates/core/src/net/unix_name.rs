//! Names of Unix sockets.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::sys::socket::UnixAddr;

use crate::error::{Code, Error, Result};

/// `sun_path` of unix(7) has 108 bytes, one of them for the NUL at the end or, of an abstract name, at the beginning.
const MAX_BYTES: usize = 107;

/// The name of a Unix socket. A path that begins with a NUL byte is an abstract name, see unix(7), as it is in Node.
///
/// Refuses what the kernel would refuse each time the name is used.
pub(crate) fn unix_name(path: &Path) -> Result<UnixAddr> {
    let bytes = path.as_os_str().as_bytes();
    let invalid = |what: String| Err(Error::new(Code::InvalidArgument, format!("the Unix socket {path:?} {what}")));
    let (kind, name) = match bytes {
        [0, name @ ..] => ("an abstract name", name),
        _ => ("a path", bytes),
    };
    if name.is_empty() {
        return invalid("has an empty name".to_owned());
    }
    if name.len() > MAX_BYTES {
        return invalid(format!(
            "has {kind} of {} bytes, but at most {MAX_BYTES} are possible; use a shorter one",
            name.len()
        ));
    }
    if kind == "a path" && name.contains(&0) {
        return invalid("has a NUL byte in its path".to_owned());
    }
    if kind == "a path" { UnixAddr::new(path) } else { UnixAddr::new_abstract(name) }
        .map_err(|errno| Error::system("bind", errno).with_path(path))
}

/// Whether it is an abstract name, which has no file.
pub(crate) fn is_abstract(path: &Path) -> bool {
    path.as_os_str().as_bytes().first() == Some(&0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_the_kernel_refuses_are_refused_with_the_reason() {
        let refused = |path: &str| unix_name(Path::new(path)).expect_err(path).to_string();
        assert!(unix_name(Path::new(&"x".repeat(107))).is_ok());
        assert!(refused(&"x".repeat(108)).contains("108 bytes, but at most 107"));
        assert!(refused("a\0b").contains("NUL byte"));
        assert!(refused("").contains("empty"));
        assert!(refused("\0").contains("empty"));
        let name = unix_name(Path::new("\0a\0b")).expect("an abstract name");
        assert_eq!(name.as_abstract(), Some(&b"a\0b"[..]));
        assert!(unix_name(Path::new(&format!("\0{}", "x".repeat(107)))).is_ok());
        assert!(refused(&format!("\0{}", "x".repeat(108))).contains("abstract name of 108"));
    }
}
