//! Which file answers a request, in trees that are tables instead of directories.

mod support;

use proptest::prelude::*;
use zerosend_http::Conformance::{self, FastifyStatic, Rfc9110};
use zerosend_http::conditional::Conditions;
use zerosend_http::negotiation::Encoding::{self, Br, Gzip};
use zerosend_http::path::RequestPath;
use zerosend_http::site::resolver::{Found, Lookup, Resolution, Resolver};
use zerosend_http::site::{Directory, Dotfiles, Overrides, PathInput, Refusal, Request, SiteOptions};

/// A path of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Node {
    File,
    Directory,
    TooLong,
    SymlinkRefused,
    UnreadableFile,
    UnreadableDirectory,
}

use Node::{File, SymlinkRefused, TooLong, UnreadableDirectory, UnreadableFile};

type Tree = &'static [(&'static str, Node)];

const DIRECTORY: Node = Node::Directory;

/// The tree of most tests.
const TREE: Tree = &[
    ("", DIRECTORY),
    ("a.txt", File),
    ("page.html", File),
    ("page.txt", DIRECTORY),
    ("app.js", File),
    ("app.js.br", File),
    ("app.js.gz", UnreadableFile),
    ("only.css.gz", File),
    ("dir", DIRECTORY),
    ("dir/index.html", File),
    ("dir/index.html.gz", File),
    ("bare", DIRECTORY),
    ("bare/home.htm", File),
    ("odd", DIRECTORY),
    ("odd/index.html", DIRECTORY),
    ("link", SymlinkRefused),
    ("long", TooLong),
    ("locked.txt", UnreadableFile),
    ("closed/x", UnreadableDirectory),
    (".env", File),
];

fn options() -> SiteOptions {
    SiteOptions::default()
}

fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn request(path: &str) -> Request<'_> {
    Request {
        head_only: false,
        path: PathInput::Encoded(path),
        conditions: Conditions::default(),
        overrides: Overrides::default(),
        root_index: 0,
    }
}

fn accepting<'a>(path: &'a str, accept_encoding: &'a str) -> Request<'a> {
    let conditions = Conditions { accept_encoding: Some(accept_encoding), ..Conditions::default() };
    Request { conditions, ..request(path) }
}

/// Resolves a request, and records the lookups as `root:path`.
fn trace(options: &SiteOptions, request: &Request<'_>, roots: &[Tree]) -> (String, Vec<String>) {
    options.check().expect("valid options");
    let mut resolver = match Resolver::new(options, request, roots.len()) {
        Ok(resolver) => resolver,
        Err(refusal) => return (text(Resolution::Refused(refusal), None), Vec::new()),
    };
    let mut lookups = Vec::new();
    loop {
        let Lookup { root_index, path, encoding: _ } = resolver.lookup();
        assert!(lookups.len() < 100, "the resolution ends: {lookups:?}");
        lookups.push(format!("{root_index}:{path}"));
        let node = roots[root_index].iter().find(|(name, _)| *name == path).map(|(_, node)| *node);
        let found = match node {
            None => Found::Missing,
            Some(File) => Found::File(()),
            Some(Node::Directory) => Found::Directory,
            Some(TooLong) => Found::TooLong,
            Some(SymlinkRefused) => Found::SymlinkRefused,
            Some(UnreadableFile) => Found::Denied { file_exists: true },
            Some(UnreadableDirectory) => Found::Denied { file_exists: false },
        };
        if let Some(resolution) = resolver.feed(found) {
            return (text(resolution, Some(resolver.lookup())), lookups);
        }
    }
}

fn text(resolution: Resolution<()>, selected: Option<Lookup<'_>>) -> String {
    match (resolution, selected) {
        (Resolution::File(()), Some(Lookup { root_index, path, encoding })) => {
            let coding = encoding.map_or("", Encoding::as_str);
            format!("{root_index}:{path} {coding}").trim_end().to_owned()
        }
        (Resolution::Directory(Directory { path, root_index, status }), _) => {
            format!("directory {root_index}:{path} {status}")
        }
        (Resolution::Redirect, _) => "redirect".to_owned(),
        (Resolution::Unreadable, _) => "unreadable".to_owned(),
        (Resolution::Refused(Refusal::NotFound), _) => "404".to_owned(),
        (Resolution::Refused(Refusal::BadPath), _) => "400".to_owned(),
        (Resolution::Refused(Refusal::Forbidden(reason)), _) => format!("403 {reason}"),
        (Resolution::File(()), None) => unreachable!("a file needs a lookup"),
    }
}

fn resolve(options: &SiteOptions, request: &Request<'_>) -> String {
    trace(options, request, &[TREE]).0
}

#[test]
fn names_directories_and_indexes() {
    let plain = options();
    let redirect = SiteOptions { redirect: true, ..options() };
    let listing = SiteOptions { listing: true, redirect: true, ..options() };
    let no_index = SiteOptions { index: vec![], ..options() };
    let two = SiteOptions { index: strings(&["home.htm", "index.html"]), ..options() };
    for (options, path, expected) in [
        (&plain, "/a.txt", "0:a.txt"),
        (&plain, "/a.txt/", "404"),
        (&plain, "/none", "404"),
        (&plain, "/none/", "404"),
        (&plain, "/dir", "0:dir/index.html"),
        (&plain, "/dir/", "0:dir/index.html"),
        (&plain, "/", "directory 0: 404"),
        (&plain, "", "directory 0: 404"),
        (&plain, "/bare", "directory 0:bare 404"),
        (&plain, "/odd/", "directory 0:odd 404"),
        (&redirect, "/dir", "redirect"),
        (&redirect, "/bare", "redirect"),
        (&redirect, "/dir/", "0:dir/index.html"),
        (&listing, "/dir", "directory 0:dir 404"),
        (&listing, "/dir/", "0:dir/index.html"),
        (&no_index, "/dir", "directory 0:dir 404"),
        (&no_index, "/dir/", "directory 0:dir 403"),
        (&no_index, "/a.txt/", "404"),
        (&two, "/bare/", "0:bare/home.htm"),
        (&two, "/dir/", "0:dir/index.html"),
    ] {
        assert_eq!(resolve(options, &request(path)), expected, "{path}");
    }
}

#[test]
fn extensions_are_tried_for_missing_names_without_one() {
    let options = SiteOptions { extensions: strings(&["txt", "html"]), ..options() };
    for (path, expected, lookups) in [
        ("/page", "0:page.html", &["0:page", "0:page.txt", "0:page.html"][..]),
        ("/page.", "404", &["0:page."]),
        ("/none", "404", &["0:none", "0:none.txt", "0:none.html"]),
        ("/locked", "unreadable", &["0:locked", "0:locked.txt"]),
        ("/page/", "404", &["0:page/index.html", "0:page"]),
        ("/dir", "0:dir/index.html", &["0:dir", "0:dir/index.html"]),
    ] {
        assert_eq!(trace(&options, &request(path), &[TREE]), (expected.to_owned(), strings(lookups)), "{path}");
    }
}

#[test]
fn variants_come_before_the_name() {
    let options = SiteOptions { pre_compressed: vec![Br, Gzip], ..options() };
    for (path, accept, expected, lookups) in [
        ("/app.js", "br, gzip", "0:app.js.br br", &["0:app.js.br"][..]),
        ("/app.js", "gzip", "0:app.js", &["0:app.js.gz", "0:app.js"]),
        ("/app.js", "gzip, br;q=0.5", "0:app.js.br br", &["0:app.js.gz", "0:app.js.br"]),
        ("/app.js", "identity", "0:app.js", &["0:app.js"]),
        ("/only.css", "br, gzip", "0:only.css.gz gzip", &["0:only.css.br", "0:only.css.gz"]),
        ("/only.css", "br", "404", &["0:only.css.br", "0:only.css"]),
        ("/dir/", "gzip", "0:dir/index.html.gz gzip", &["0:dir/index.html.gz"]),
        ("/dir", "gzip", "0:dir/index.html.gz gzip", &["0:dir.gz", "0:dir", "0:dir/index.html.gz"]),
        ("", "gzip", "directory 0: 404", &["0:", "0:index.html.gz", "0:index.html"]),
    ] {
        let found = trace(&options, &accepting(path, accept), &[TREE]);
        assert_eq!(found, (expected.to_owned(), strings(lookups)), "{path} {accept}");
    }
    let off = SiteOptions::default();
    assert_eq!(trace(&off, &accepting("/app.js", "br"), &[TREE]).1, ["0:app.js"]);
    let variant = Lookup { root_index: 0, path: "app.js.br", encoding: Some(Br) };
    assert_eq!((variant.plain_path(), Lookup { encoding: None, ..variant }.plain_path()), ("app.js", "app.js.br"));
}

#[test]
fn the_first_root_with_a_file_answers() {
    const FIRST: Tree = &[("a.txt", DIRECTORY), ("dir", DIRECTORY), ("shared", DIRECTORY), ("b", File)];
    const SECOND: Tree = &[("a.txt", File), ("dir", DIRECTORY), ("dir/index.html", File), ("shared", DIRECTORY)];
    let options = options();
    for (path, root_index, expected) in [
        ("/a.txt", 0, "1:a.txt"),
        ("/dir", 0, "1:dir/index.html"),
        ("/dir/", 0, "1:dir/index.html"),
        ("/b", 0, "0:b"),
        ("/b", 1, "404"),
        ("/b", 2, "404"),
        ("/shared", 0, "directory 0:shared 404"),
        ("/shared/", 1, "directory 1:shared 404"),
    ] {
        let request = Request { root_index, ..request(path) };
        assert_eq!(trace(&options, &request, &[FIRST, SECOND]).0, expected, "{path} from {root_index}");
    }
    let (_, lookups) = trace(&options, &request("/none"), &[FIRST, SECOND]);
    assert_eq!(lookups, ["0:none", "1:none"]);
}

#[test]
fn the_fallback_answers_for_missing_paths_without_an_extension() {
    let fallback = SiteOptions { fallback: Some("dir/index.html".to_owned()), ..options() };
    let listing = SiteOptions { listing: true, ..fallback.clone() };
    let missing = SiteOptions { fallback: Some("gone.html".to_owned()), ..options() };
    let directory = SiteOptions { fallback: Some("bare".to_owned()), ..options() };
    let compressed = SiteOptions { pre_compressed: vec![Gzip], ..fallback.clone() };
    for (options, path, expected) in [
        (&fallback, "/users/7", "0:dir/index.html"),
        (&fallback, "/users/7/", "0:dir/index.html"),
        (&fallback, "/", "0:dir/index.html"),
        (&fallback, "/bare", "0:dir/index.html"),
        (&fallback, "/logo.png", "404"),
        (&fallback, "/link", "403 symbolic link refused"),
        (&fallback, "/long", "403 path too long"),
        (&listing, "/bare", "directory 0:bare 404"),
        (&listing, "/users", "0:dir/index.html"),
        (&missing, "/users", "404"),
        (&missing, "/bare", "directory 0:bare 404"),
        (&directory, "/users", "404"),
    ] {
        assert_eq!(resolve(options, &request(path)), expected, "{path}");
    }
    assert_eq!(resolve(&compressed, &accepting("/users", "gzip")), "0:dir/index.html.gz gzip");
    let decoded = Request { path: PathInput::Decoded("long"), ..request("") };
    assert_eq!(resolve(&fallback, &decoded), "0:dir/index.html", "a name that is too long is missing");
}

#[test]
fn paths_are_checked_before_any_lookup() {
    let long = "x".repeat(256);
    let rows = [
        ("/../a.txt", "403 dot segment in path", "403 dot segment in path"),
        ("//a.txt", "403 empty segment in path", "403 empty segment in path"),
        ("/a\\b", "403 backslash in path", "403 backslash in path"),
        ("/%zz", "400", "404"),
        ("/a\0", "403 NUL in path", "400"),
        (&long, "403 path too long", "404"),
    ];
    for (path, encoded, decoded) in rows {
        assert_eq!(trace(&options(), &request(path), &[TREE]), (encoded.to_owned(), vec![]), "{path}");
        let decoded_path = Request { path: PathInput::Decoded(path), ..request("") };
        assert_eq!(resolve(&options(), &decoded_path), decoded, "{path}");
    }
    let rfc = SiteOptions { conformance: Rfc9110, ..options() };
    assert_eq!(resolve(&rfc, &request(&long)), "404");
    for (dotfiles, expected, lookups) in
        [(Dotfiles::Allow, "0:.env", 1), (Dotfiles::Deny, "403 dot file", 0), (Dotfiles::Ignore, "404", 0)]
    {
        let options = SiteOptions { dotfiles, fallback: Some("a.txt".to_owned()), ..options() };
        for path in ["/.env", "/%2eenv"] {
            let (found, traced) = trace(&options, &request(path), &[TREE]);
            assert_eq!((found.as_str(), traced.len()), (expected, lookups), "{path}");
        }
    }
}

#[test]
fn a_file_that_cannot_be_opened_is_an_error_or_a_refusal() {
    let encoded = PathInput::Encoded;
    let decoded = PathInput::Decoded;
    let rows: [(Conformance, PathInput<'_>, &str); 9] = [
        (FastifyStatic, encoded("/link"), "403 symbolic link refused"),
        (FastifyStatic, encoded("/long"), "403 path too long"),
        (FastifyStatic, decoded("long"), "404"),
        (Rfc9110, encoded("/long"), "404"),
        (FastifyStatic, encoded("/locked.txt"), "unreadable"),
        (FastifyStatic, encoded("/closed/x"), "403 permission denied"),
        (FastifyStatic, decoded("closed/x"), "unreadable"),
        (Rfc9110, encoded("/locked.txt"), "403 permission denied"),
        (Rfc9110, decoded("closed/x"), "403 permission denied"),
    ];
    for (conformance, path, expected) in rows {
        let options = SiteOptions { conformance, ..options() };
        assert_eq!(resolve(&options, &Request { path, ..request("") }), expected, "{conformance:?} {path:?}");
    }
}

#[test]
fn invalid_options_are_named() {
    let default = options;
    for (options, message) in [
        (SiteOptions { index: strings(&["../x"]), ..default() }, "invalid index '../x': use a file name"),
        (SiteOptions { index: strings(&[""]), ..default() }, "invalid index '': use"),
        (SiteOptions { fallback: Some("a/".to_owned()), ..default() }, "invalid fallback 'a/': use a file"),
        (SiteOptions { extensions: strings(&["a/b"]), ..default() }, "invalid extensions 'a/b': use extensions"),
        (SiteOptions { extensions: strings(&[""]), ..default() }, "invalid extensions '': use"),
        (SiteOptions { pre_compressed: vec![Br, Gzip, Br], ..default() }, "duplicate preCompressed 'br': list"),
    ] {
        let error = options.check().expect_err("an invalid option");
        assert!(error.starts_with(message), "{error}");
    }
    default().check().expect("the defaults are valid");
}

proptest! {
    #![proptest_config(support::config())]

    /// Whatever the lookups return, the resolution ends, and names canonical paths only.
    #[test]
    fn every_resolution_ends_and_stays_below_the_root(
        path in "(/|a|b|\\.html|dir|%2e|%20|\\.gz|\\\\|é){0,8}",
        results in prop::collection::vec(0..7_u8, 64),
        (redirect, listing, compressed, fallback, rfc, decoded) in any::<(bool, bool, bool, bool, bool, bool)>(),
        (indexes, extensions, roots) in (0..3_usize, 0..3_usize, 1..4_usize),
    ) {
        let options = SiteOptions {
            index: strings(&["index.html", "sub/home.htm"][..indexes]),
            extensions: strings(&["html", "txt"][..extensions]),
            pre_compressed: if compressed { vec![Br, Gzip] } else { vec![] },
            fallback: fallback.then(|| "app/index.html".to_owned()),
            conformance: if rfc { Rfc9110 } else { FastifyStatic },
            redirect,
            listing,
            ..options()
        };
        let path = if decoded { PathInput::Decoded(&path) } else { PathInput::Encoded(&path) };
        let request = Request { path, ..accepting("", "gzip, br") };
        let Ok(mut resolver) = Resolver::new(&options, &request, roots) else { return Ok(()) };
        // Two variants and the plain file for the name and each index, extensions, and the directory; then the fallback.
        let max = 2 * roots * (3 * (1 + indexes) + extensions + 1);
        let mut results = results.into_iter().cycle();
        for lookups in 1.. {
            prop_assert!(lookups <= max, "{lookups} of {max}");
            let lookup = resolver.lookup();
            prop_assert!(lookup.root_index < roots);
            let canonical = RequestPath::from_decoded(lookup.path).map(|path| path.relative().to_owned());
            prop_assert_eq!(canonical.as_deref(), Ok(lookup.path));
            let found = match results.next() {
                Some(0) => Found::File(()),
                Some(1) => Found::Directory,
                Some(2) => Found::TooLong,
                Some(3) => Found::SymlinkRefused,
                Some(4) => Found::Denied { file_exists: redirect },
                _ => Found::Missing,
            };
            if resolver.feed(found).is_some() {
                break;
            }
        }
    }
}
