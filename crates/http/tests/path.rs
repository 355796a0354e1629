//! Request paths: the relative paths they name, and refusals before any lookup.

mod support;

use proptest::prelude::*;
use zerosend_http::path::{MAX_PATH, MAX_SEGMENT, PathError, PathRules, RequestPath, decode};

fn named(raw: &str, rules: PathRules) -> Result<(String, bool), PathError> {
    decode(raw, rules).map(|path| (path.relative().to_owned(), path.wants_directory()))
}

#[test]
fn escapes_are_decoded_as_the_router_does() {
    use PathRules::{DecodeUri, Full};
    let rows = [
        ("/", DecodeUri, "", true),
        ("", DecodeUri, "", false),
        ("/a.txt", DecodeUri, "a.txt", false),
        ("/a/b/", DecodeUri, "a/b", true),
        ("/a%20b", DecodeUri, "a b", false),
        ("/%C3%A9", DecodeUri, "é", false),
        ("/é", DecodeUri, "é", false),
        ("/%25", DecodeUri, "%", false),
        ("/%2541", DecodeUri, "%41", false),
        ("/%23%3f", DecodeUri, "#?", false),
        ("/a%2fb", DecodeUri, "a%2fb", false),
        ("/%3b%3A%40%26%3D%2B%24%2c", DecodeUri, "%3b%3A%40%26%3D%2B%24%2c", false),
        ("/a%2Fb", Full, "a%2Fb", false),
        ("/%3b%3A%40%26%3D%2B%24%2c", Full, ";:@&=+$,", false),
        ("/...", DecodeUri, "...", false),
        ("/.env", DecodeUri, ".env", false),
    ];
    for (raw, rules, relative, directory) in rows {
        assert_eq!(named(raw, rules), Ok((relative.to_owned(), directory)), "{raw}");
    }
}

#[test]
fn every_second_spelling_is_refused() {
    let rows = [
        ("/..", PathError::DotSegment),
        ("/../x", PathError::DotSegment),
        ("/a/..", PathError::DotSegment),
        ("/a/../b", PathError::DotSegment),
        ("/%2e%2E/x", PathError::DotSegment),
        ("/.", PathError::DotSegment),
        ("/a/./b", PathError::DotSegment),
        ("/a/%2e", PathError::DotSegment),
        ("//", PathError::EmptySegment),
        ("//x", PathError::EmptySegment),
        ("/a//b", PathError::EmptySegment),
        ("/a//", PathError::EmptySegment),
        ("/a\\b", PathError::Backslash),
        ("/..%5cx", PathError::Backslash),
        ("/a%00", PathError::Nul),
        ("/%", PathError::Malformed),
        ("/%4", PathError::Malformed),
        ("/%zz", PathError::Malformed),
        ("/%C3", PathError::Malformed),
        ("/%C3é", PathError::Malformed),
        ("/%c0%ae%c0%ae/x", PathError::Malformed),
        ("/%ED%A0%80", PathError::Malformed),
    ];
    for rules in [PathRules::DecodeUri, PathRules::Full] {
        for (raw, error) in rows {
            assert_eq!(named(raw, rules), Err(error), "{raw} {rules:?}");
        }
    }
}

#[test]
fn a_decoded_name_is_not_decoded_again() {
    let path = RequestPath::from_decoded("a%2e%2e/100%").unwrap();
    assert_eq!(path.relative(), "a%2e%2e/100%");
    assert_eq!(RequestPath::from_decoded("../x"), Err(PathError::DotSegment));
    assert_eq!(RequestPath::from_decoded("x\0"), Err(PathError::Nul));
    assert_eq!(RequestPath::from_decoded("/x/").unwrap().relative(), "x");
}

#[test]
fn segments_and_paths_have_maximum_lengths() {
    let segment = "a".repeat(MAX_SEGMENT);
    assert!(decode(&format!("/{segment}"), PathRules::DecodeUri).is_ok());
    assert_eq!(decode(&format!("/{segment}a/b"), PathRules::DecodeUri), Err(PathError::TooLong));
    let long = "/ab".repeat(MAX_PATH / 3 + 2);
    assert_eq!(decode(&long, PathRules::DecodeUri), Err(PathError::TooLong));
    // The limit applies to the decoded name. Another reason for a refusal takes precedence.
    assert!(decode(&format!("/{}", "%61".repeat(MAX_SEGMENT)), PathRules::DecodeUri).is_ok());
    assert_eq!(decode(&format!("{long}/.."), PathRules::DecodeUri), Err(PathError::DotSegment));
}

#[test]
fn extensions_and_dotfiles_are_those_of_node() {
    let rows = [
        ("a", false, false),
        ("a.b", true, false),
        (".a", false, true),
        (".a.b", true, true),
        ("a.", true, false),
        ("d.x/a", false, false),
        (".d/a.b", true, true),
        ("", false, false),
    ];
    for (name, extension, dotfile) in rows {
        let path = RequestPath::from_decoded(name).unwrap();
        assert_eq!((path.has_extension(), path.has_dotfile()), (extension, dotfile), "{name}");
    }
}

/// A naive check: an accepted path equals its normal form.
fn naive(decoded: &str) -> Option<(String, bool)> {
    let trimmed = decoded.strip_prefix('/').unwrap_or(decoded);
    if trimmed.contains(['\0', '\\']) {
        return None;
    }
    let mut segments: Vec<&str> = trimmed.split('/').collect();
    let directory = decoded.ends_with('/');
    if segments.last() == Some(&"") {
        segments.pop();
    }
    let fine = |segment: &&str| !["", ".", ".."].contains(segment);
    (segments.iter().all(fine) && trimmed != "/").then(|| (segments.join("/"), directory))
}

proptest! {
    #![proptest_config(support::config())]

    #[test]
    fn the_check_equals_the_naive_one(name in "[a./\\\\\0é%]{0,12}") {
        let ours = RequestPath::from_decoded(&name).ok().map(|path| (path.relative().to_owned(), path.wants_directory()));
        prop_assert_eq!(ours, naive(&name));
    }

    #[test]
    fn a_fully_escaped_name_decodes_to_itself(name in "[a-c. é😀%#?]{1,12}") {
        let escaped: String = name.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let (plain, escaped) = (RequestPath::from_decoded(&name).ok(), decode(&escaped, PathRules::DecodeUri).ok());
        prop_assert_eq!(plain.map(|path| path.relative().to_owned()), escaped.map(|path| path.relative().to_owned()));
    }

    #[test]
    fn a_decoded_path_never_leaves_the_root(raw in "(/|\\.|%2e|%2E|%2f|%5c|a|%00|%25|\\\\){0,14}") {
        for rules in [PathRules::DecodeUri, PathRules::Full] {
            if let Ok(path) = decode(&raw, rules) {
                prop_assert!(path.relative().split('/').all(|segment| segment != ".." && segment != "."));
                prop_assert!(!path.relative().starts_with('/') && !path.relative().contains(['\0', '\\']));
            }
        }
    }

    #[test]
    fn any_string_is_decoded_or_refused(raw in ".*") {
        let _ = decode(&raw, PathRules::DecodeUri);
        let _ = decode(&raw, PathRules::Full);
    }
}
