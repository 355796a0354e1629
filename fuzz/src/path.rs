//! Request paths: an accepted path is below the root, is canonical, and decodes to the same path when it is encoded again.

use std::path::{Component, Path};

use zerosend_http::path::{MAX_PATH, MAX_SEGMENT, PathRules, RequestPath, decode};

use super::take;

pub fn path(data: &[u8]) {
    let ([rules], bytes) = take::<1>(data);
    let Ok(raw) = std::str::from_utf8(bytes) else { return };
    let rules = if rules & 1 == 0 { PathRules::DecodeUri } else { PathRules::Full };
    let Ok(path) = decode(raw, rules) else { return };
    let relative = path.relative();
    assert!(relative.len() <= MAX_PATH, "{raw:?}");
    assert!(!relative.starts_with('/') && !relative.ends_with('/'), "{raw:?} names {relative:?}");
    assert!(!relative.contains(['\0', '\\']), "{raw:?} names {relative:?}");
    let mut segments = relative.split('/');
    assert!(
        relative.is_empty() || segments.all(|one| !matches!(one, "" | "." | "..") && one.len() <= MAX_SEGMENT),
        "{raw:?} names {relative:?}"
    );
    assert!(
        Path::new(relative).components().all(|one| matches!(one, Component::Normal(_))),
        "{raw:?} names {relative:?}"
    );
    assert_eq!(path.wants_directory(), raw.ends_with('/'), "{raw:?}");

    let decoded =
        RequestPath::from_decoded(relative).unwrap_or_else(|error| panic!("{raw:?} names {relative:?}: {error:?}"));
    assert_eq!(decoded.relative(), relative);
    let encoded = encode(relative);
    let again = decode(&encoded, rules).unwrap_or_else(|error| panic!("{raw:?} is encoded as {encoded:?}: {error:?}"));
    assert_eq!(again.relative(), relative, "{raw:?} is encoded as {encoded:?}");
    assert_eq!((again.has_dotfile(), again.has_extension()), (path.has_dotfile(), path.has_extension()));
}

/// Percent-encodes a name, except for the characters that `decodeURI` does not decode.
fn encode(name: &str) -> String {
    let mut text = String::from("/");
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~;:@&=+$,".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}
