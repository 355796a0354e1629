//! Requests answered from real directories.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use nix::sys::stat::Mode;
use tempfile::TempDir;
use zerosend_core::Code;
use zerosend_core::cache::{CacheOptions, FileCache};
use zerosend_core::fs::{Access, Root, Symlinks};
use zerosend_core::static_site::{
    Body, Dotfiles, Outcome, Overrides, PathInput, Request, Response, Site, SiteOptions, Source,
};
use zerosend_http::Conformance::Rfc9110;
use zerosend_http::conditional::Conditions;
use zerosend_http::negotiation::Encoding::{Br, Deflate, Gzip};

fn write(root: &Path, name: &str, bytes: &str) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, bytes).unwrap();
    let time = UNIX_EPOCH + Duration::from_millis(1_700_000_000_250);
    File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

fn open(source: &Source) -> std::os::fd::BorrowedFd<'_> {
    match source {
        Source::Open(file) => file.as_fd(),
        Source::Cached(file) => file.descriptor().expect("a file without a cache"),
    }
}

fn tree() -> TempDir {
    let tree = TempDir::new().unwrap();
    let root = tree.path();
    write(root, "a.txt", "0123456789");
    write(root, "empty.css", "");
    write(root, "page.html", "<page>");
    write(root, "both", "plain");
    write(root, "both.html", "with extension");
    write(root, "dir/index.html", "<index>");
    write(root, "bare/file", "x");
    write(root, "nested/index.html/file", "x");
    write(root, ".env", "SECRET=1");
    write(root, ".git/config", "x");
    write(root, "a b#é?.txt", "odd");
    write(root, "app.js", "plain js");
    write(root, "app.js.gz", "gzip js");
    write(root, "app.js.br", "br js");
    write(root, "dir/index.html.gz", "gzip index");
    write(root, "only.css.gz", "only gzip");
    tree
}

fn site(tree: &TempDir, options: SiteOptions) -> Site {
    Site::new(vec![tree.path().to_owned()], options).unwrap()
}

fn site_with_symlinks(root: &Path, symlinks: Symlinks) -> Site {
    Site::with_roots(vec![Root::new(root, symlinks).unwrap()], SiteOptions::default()).unwrap()
}

fn get<'a>(path: &'a str) -> Request<'a> {
    Request {
        head_only: false,
        path: PathInput::Encoded(path),
        conditions: Conditions::default(),
        overrides: Overrides::default(),
        root_index: 0,
    }
}

fn read(file: impl AsFd, offset: u64, length: u64) -> String {
    let mut bytes = vec![0; usize::try_from(length).unwrap()];
    let read = nix::sys::uio::pread(file, &mut bytes, i64::try_from(offset).unwrap()).unwrap();
    assert_eq!(read, bytes.len());
    String::from_utf8(bytes).unwrap()
}

fn body(response: &Response) -> String {
    match &response.body {
        Body::Empty => String::new(),
        Body::File { file, offset, length } => read(open(file), *offset, *length),
        Body::Multipart { file, parts, tail } => {
            let part = |part: &zerosend_core::static_site::BodyPart| {
                format!("{}{}", part.head, read(open(file), part.range.start, part.range.length()))
            };
            parts.iter().map(part).collect::<String>() + tail
        }
    }
}

fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    response.head.headers.iter().find(|(key, _)| *key == name).map(|(_, value)| &**value)
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(TempDir::new().unwrap().path()).unwrap().uid() == 0
}

/// An outcome as text: the status with the body, or the reason.
fn outcome(site: &Site, request: &Request<'_>) -> String {
    match site.respond(request, Access::MayBlock).unwrap() {
        Outcome::Response(response) => format!("{} {}", response.status, body(&response)),
        Outcome::Directory(directory) => format!("directory {} {}", directory.path, directory.status),
        other => format!("{other:?}"),
    }
}

fn response(site: &Site, request: &Request<'_>) -> Response {
    match site.respond(request, Access::MayBlock).unwrap() {
        Outcome::Response(response) => response,
        other => panic!("{:?}: {other:?}", request.path),
    }
}

#[test]
fn paths_name_files_or_are_refused() {
    let tree = tree();
    symlink("/etc/hostname-that-is-not", tree.path().join("dangling")).unwrap();
    nix::unistd::mkfifo(&tree.path().join("fifo"), Mode::S_IRWXU).unwrap();
    let site = site(&tree, SiteOptions::default());
    let long = format!("/{}", "x".repeat(256));
    let rows = [
        ("/a.txt", "200 0123456789"),
        ("/a%20b%23%C3%A9%3F.txt", "200 odd"),
        ("/.env", "200 SECRET=1"),
        ("/dir/", "200 <index>"),
        ("/dir", "200 <index>"),
        ("/", "directory  404"),
        ("/bare", "directory bare 404"),
        ("/bare/", "directory bare 404"),
        ("/nested/", "directory nested 404"),
        ("/missing", "NotFound"),
        ("/missing/", "NotFound"),
        ("/a.txt/", "NotFound"),
        ("/a.txt/x", "NotFound"),
        ("/bare%2ffile", "NotFound"),
        ("/page", "NotFound"),
        ("/dangling", "NotFound"),
        ("/fifo", "NotFound"),
        ("/../a.txt", "Forbidden(\"dot segment in path\")"),
        ("/dir/%2e%2e/a.txt", "Forbidden(\"dot segment in path\")"),
        ("/./a.txt", "Forbidden(\"dot segment in path\")"),
        ("//a.txt", "Forbidden(\"empty segment in path\")"),
        ("/dir\\index.html", "Forbidden(\"backslash in path\")"),
        ("/a.txt%00", "Forbidden(\"NUL in path\")"),
        ("/%zz", "BadPath"),
        (&long, "Forbidden(\"path too long\")"),
    ];
    for (path, expected) in rows {
        assert_eq!(outcome(&site, &get(path)), expected, "{path}");
    }
    let decoded = |name| Request { path: PathInput::Decoded(name), ..get("") };
    assert_eq!(outcome(&site, &decoded("a b#é?.txt")), "200 odd");
    assert_eq!(outcome(&site, &decoded("../a.txt")), "Forbidden(\"dot segment in path\")");
    assert_eq!(outcome(&site, &decoded("a.txt\0")), "BadPath");
    assert_eq!(outcome(&site, &decoded(&long)), "NotFound");
    let rfc = self::site(&tree, SiteOptions { conformance: Rfc9110, ..SiteOptions::default() });
    assert_eq!(outcome(&rfc, &get(&long)), "NotFound");
}

#[test]
fn directories_redirect_list_or_serve_an_index() {
    let tree = tree();
    let redirect = site(&tree, SiteOptions { redirect: true, ..SiteOptions::default() });
    assert_eq!(outcome(&redirect, &get("/dir")), "Redirect");
    assert_eq!(outcome(&redirect, &get("/bare")), "Redirect");
    assert_eq!(outcome(&redirect, &get("/dir/")), "200 <index>");
    let none = site(&tree, SiteOptions { index: vec![], ..SiteOptions::default() });
    assert_eq!(outcome(&none, &get("/dir")), "directory dir 404");
    assert_eq!(outcome(&none, &get("/dir/")), "directory dir 403");
    assert_eq!(outcome(&none, &get("/a.txt/")), "NotFound");
    let index = vec!["missing.html".to_owned(), "file".to_owned(), "index.html".to_owned()];
    let several = site(&tree, SiteOptions { index, ..SiteOptions::default() });
    assert_eq!(outcome(&several, &get("/bare/")), "200 x");
    assert_eq!(response(&several, &get("/dir")).head.path, "dir/index.html");
}

#[test]
fn extensions_are_tried_and_dotfiles_follow_the_option() {
    let tree = tree();
    let extensions = vec!["txt".to_owned(), "html".to_owned()];
    let site_with = site(&tree, SiteOptions { extensions, ..SiteOptions::default() });
    assert_eq!(outcome(&site_with, &get("/page")), "200 <page>");
    assert_eq!(response(&site_with, &get("/page")).head.path, "page.html");
    assert_eq!(header(&response(&site_with, &get("/page")), "content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(outcome(&site_with, &get("/both")), "200 plain");
    assert_eq!(outcome(&site_with, &get("/page.")), "NotFound");
    assert_eq!(outcome(&site_with, &get("/page/")), "NotFound");

    let rows = [(Dotfiles::Deny, "Forbidden(\"dot file\")"), (Dotfiles::Ignore, "NotFound")];
    for (dotfiles, expected) in rows {
        let site = site(&tree, SiteOptions { dotfiles, ..SiteOptions::default() });
        for path in ["/.env", "/.git/config", "/%2eenv", "/.missing"] {
            assert_eq!(outcome(&site, &get(path)), expected, "{path}");
        }
        assert_eq!(outcome(&site, &get("/a.txt")), "200 0123456789");
    }
}

#[test]
fn symbolic_links_follow_the_policy_of_the_root() {
    let (tree, outside) = (tree(), TempDir::new().unwrap());
    write(outside.path(), "secret", "secret");
    symlink(outside.path().join("secret"), tree.path().join("out")).unwrap();
    symlink("a.txt", tree.path().join("in")).unwrap();
    let refused = "Forbidden(\"symbolic link refused\")";
    let rows = [
        (Symlinks::Follow, "200 secret", "200 0123456789"),
        (Symlinks::Beneath, refused, "200 0123456789"),
        (Symlinks::Deny, refused, refused),
    ];
    for (symlinks, out, inside) in rows {
        let site = site_with_symlinks(tree.path(), symlinks);
        assert_eq!((outcome(&site, &get("/out")), outcome(&site, &get("/in"))), (out.to_owned(), inside.to_owned()));
    }
}

#[test]
fn the_first_root_with_a_file_answers() {
    let (first, second) = (TempDir::new().unwrap(), tree());
    write(first.path(), "a.txt", "first");
    write(first.path(), "dir/other", "x");
    let missing = first.path().join("not-there");
    let roots = vec![missing, first.path().to_owned(), second.path().to_owned()];
    let site = Site::new(roots, SiteOptions::default()).unwrap();
    assert_eq!(outcome(&site, &get("/a.txt")), "200 first");
    assert_eq!(outcome(&site, &Request { root_index: 2, ..get("/a.txt") }), "200 0123456789");
    assert_eq!(outcome(&site, &get("/app.js")), "200 plain js");
    assert_eq!(response(&site, &get("/dir/")).head.root_index, 2);
    assert_eq!(outcome(&site, &get("/none")), "NotFound");
    assert_eq!(outcome(&site, &Request { root_index: 9, ..get("/a.txt") }), "NotFound");
}

#[test]
fn a_replaced_root_is_detected() {
    let tree = TempDir::new().unwrap();
    let dist = tree.path().join("dist");
    for symlinks in [Symlinks::Follow, Symlinks::Beneath, Symlinks::Deny] {
        let site = site_with_symlinks(&dist, symlinks);
        assert_eq!(outcome(&site, &get("/x")), "NotFound");
        write(&dist, "x", "one");
        assert_eq!(outcome(&site, &get("/x")), "200 one");
        fs::remove_dir_all(&dist).unwrap();
        assert_eq!(outcome(&site, &get("/x")), "NotFound");
        write(&dist, "x", "two");
        assert_eq!(outcome(&site, &get("/x")), "200 two", "{symlinks:?}");
        fs::remove_dir_all(&dist).unwrap();
        write(&dist, "x", "three");
        assert_eq!(outcome(&site, &get("/x")), "200 three", "{symlinks:?}");
        fs::remove_dir_all(&dist).unwrap();
    }
}

#[test]
fn compressed_variants_are_served_to_clients_that_accept_them() {
    let tree = tree();
    let site = site(&tree, SiteOptions { pre_compressed: vec![Br, Gzip], ..SiteOptions::default() });
    let accept = |path, value| {
        let conditions = Conditions { accept_encoding: Some(value), ..Conditions::default() };
        Request { conditions, ..get(path) }
    };
    let rows = [
        ("/app.js", "gzip, br", "br js", Some("br"), "app.js.br"),
        ("/app.js", "gzip;q=1, br;q=0.5", "gzip js", Some("gzip"), "app.js.gz"),
        ("/app.js", "*", "gzip js", Some("gzip"), "app.js.gz"),
        ("/app.js", "identity", "plain js", None, "app.js"),
        ("/app.js", "br;q=0", "plain js", None, "app.js"),
        ("/only.css", "br, gzip", "only gzip", Some("gzip"), "only.css.gz"),
        ("/a.txt", "br, gzip", "0123456789", None, "a.txt"),
        ("/dir/", "br, gzip", "gzip index", Some("gzip"), "dir/index.html.gz"),
        ("/dir", "br, gzip", "gzip index", Some("gzip"), "dir/index.html.gz"),
    ];
    for (path, value, bytes, encoding, file) in rows {
        let response = response(&site, &accept(path, value));
        assert_eq!(body(&response), bytes, "{path} {value}");
        assert_eq!(header(&response, "content-encoding"), encoding, "{path} {value}");
        assert_eq!(header(&response, "vary"), Some("accept-encoding"), "{path} {value}");
        assert_eq!(response.head.path, file);
        assert_eq!(header(&response, "content-length"), Some(&*bytes.len().to_string()));
    }
    let variant = response(&site, &accept("/app.js", "gzip"));
    assert_eq!(header(&variant, "content-type"), Some("application/javascript; charset=utf-8"));
    assert_eq!(header(&variant, "etag"), Some("W/\"7-18bcfe568fa\""));
    assert_eq!(outcome(&site, &get("/only.css")), "NotFound");

    let mut ranged = accept("/app.js", "gzip");
    ranged.conditions.range = Some("bytes=0-3");
    assert_eq!(outcome(&site, &ranged), "206 gzip");
    let mut fresh = accept("/app.js", "gzip");
    fresh.conditions.if_none_match = Some("*");
    let not_modified = response(&site, &fresh);
    assert_eq!((not_modified.status, header(&not_modified, "vary")), (304, Some("accept-encoding")));
    assert_eq!((header(&not_modified, "content-encoding"), header(&not_modified, "content-type")), (None, None));
    let off = self::site(&tree, SiteOptions::default());
    assert_eq!(header(&response(&off, &accept("/app.js", "gzip")), "vary"), None);
}

#[test]
fn plain_requests_for_a_version_share_one_head() {
    let tree = tree();
    std::thread::sleep(Duration::from_millis(70));
    let options = || SiteOptions { pre_compressed: vec![Gzip], ..SiteOptions::default() };
    let cache = Arc::new(FileCache::new(CacheOptions { max_file_size: 12, ..CacheOptions::default() }).unwrap());
    write(tree.path(), "large.txt", "larger than the cache allows");
    for site in [site(&tree, options()), site(&tree, options()).with_cache(cache)] {
        let id = |request: &Request<'_>| response(&site, request).head.id;
        let gzip = |path| {
            let conditions = Conditions { accept_encoding: Some("gzip"), ..Conditions::default() };
            Request { conditions, ..get(path) }
        };
        let conditional = Conditions { if_none_match: Some("\"x\""), ..Conditions::default() };
        for path in ["/a.txt", "/large.txt", "/dir/"] {
            let first = id(&get(path));
            assert_ne!(first, 0, "{path}");
            assert_eq!(id(&get(path)), first, "{path}");
            assert_eq!(id(&Request { head_only: true, ..get(path) }), 0, "{path}");
            assert_eq!(id(&Request { conditions: conditional, ..get(path) }), 0, "{path}");
        }
        // The same file as a variant and by its name.
        let (variant, named) = (response(&site, &gzip("/app.js")), response(&site, &get("/app.js.gz")));
        assert_eq!((header(&variant, "content-encoding"), header(&named, "content-encoding")), (Some("gzip"), None));
        assert_ne!(variant.head.id, named.head.id);
        // Another version.
        let before = id(&get("/a.txt"));
        write(tree.path(), "a.txt", "changed");
        assert_ne!(id(&get("/a.txt")), before);
    }
}

/// Replays every recorded response of `@fastify/static`: paths, options, codings.
#[test]
fn responses_equal_those_of_fastify_static() {
    let tree = tree();
    let text = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let mut failures = Vec::new();
    for line in include_str!("../../http/tests/vectors/static.tsv").lines() {
        let fields: Vec<_> = line.split('\t').collect();
        let [name, url, accept, status, bytes, content_type, encoding, vary] = fields[..] else { panic!("{line}") };
        let default = SiteOptions::default();
        let options = match name {
            "default" => default,
            "redirect" => SiteOptions { redirect: true, ..default },
            "noindex" => SiteOptions { index: vec![], ..default },
            "extensions" => SiteOptions { extensions: text(&["txt", "html"]), ..default },
            "deny" => SiteOptions { dotfiles: Dotfiles::Deny, ..default },
            "ignore" => SiteOptions { dotfiles: Dotfiles::Ignore, ..default },
            "compressed" => SiteOptions { pre_compressed: vec![Br, Gzip, Deflate], ..default },
            other => panic!("{other}"),
        };
        let conditions =
            Conditions { accept_encoding: Some(accept).filter(|value| *value != "-"), ..Conditions::default() };
        let result = site(&tree, options).respond(&Request { conditions, ..get(url) }, Access::MayBlock).unwrap();
        let ours = match result {
            Outcome::Response(response) => {
                let value = |name| header(&response, name).unwrap_or("-").to_owned();
                let fields = [body(&response), value("content-type"), value("content-encoding"), value("vary")];
                format!("{} {}", response.status, fields.join("|"))
            }
            Outcome::Redirect => "301".to_owned(),
            Outcome::NotFound => "404".to_owned(),
            Outcome::Forbidden(_) => "403".to_owned(),
            Outcome::BadPath => "400".to_owned(),
            Outcome::Directory(directory) => directory.status.to_string(),
            Outcome::WouldBlock => "would block".to_owned(),
        };
        let theirs = match status {
            "200" => format!("200 {}", [bytes, content_type, encoding, vary].join("|")),
            status => status.to_owned(),
        };
        // There a NUL or an overlong name is 403, but 400 or 404 below a path that is not a directory. Here it is refused
        // before any lookup.
        let refused_early = (url.contains("%00") || url.contains(&*"x".repeat(256))) && ours == "403";
        if ours != theirs && !refused_early {
            failures.push(format!("{name} {url} {accept}: {theirs} recorded, {ours} here"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn several_ranges_are_read_from_the_file() {
    let tree = tree();
    let options = SiteOptions { conformance: Rfc9110, multipart: true, ..SiteOptions::default() };
    let site = site(&tree, options);
    let range = |value| {
        let conditions = Conditions { range: Some(value), ..Conditions::default() };
        body(&response(&site, &Request { conditions, ..get("/a.txt") }))
    };
    assert_eq!(range("bytes=3-5"), "345");
    let parts = range("bytes=0-1,5-6");
    assert!(parts.contains("content-range: bytes 0-1/10\r\n\r\n01\r\n--"), "{parts}");
    assert!(parts.contains("content-range: bytes 5-6/10\r\n\r\n56\r\n--"), "{parts}");
}

#[test]
fn a_request_that_may_not_block_would_block_for_an_unknown_name() {
    let tree = tree();
    let site = site(&tree, SiteOptions::default());
    assert!(matches!(site.respond(&get("/never-seen"), Access::CachedOnly).unwrap(), Outcome::WouldBlock));
    site.respond(&get("/a.txt"), Access::MayBlock).unwrap();
    if zerosend_core::fs::OpenSupport::probe() == zerosend_core::fs::OpenSupport::Full {
        assert!(matches!(site.respond(&get("/a.txt"), Access::CachedOnly).unwrap(), Outcome::Response(_)));
    }
}

#[test]
fn invalid_options_and_roots_are_refused() {
    let root = || vec![PathBuf::from("/tmp")];
    let default = SiteOptions::default;
    let rows = [
        (vec![], default(), "roots is empty"),
        (vec![PathBuf::from("relative")], default(), "relative"),
        (root(), SiteOptions { index: vec!["../x".to_owned()], ..default() }, "invalid index '../x'"),
        (root(), SiteOptions { pre_compressed: vec![Br, Br], ..default() }, "duplicate preCompressed 'br'"),
    ];
    for (roots, options, message) in rows {
        let error = Site::new(roots, options).unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        assert!(error.to_string().contains(message), "{error}");
    }
}

#[test]
fn unreadable_files_and_directories_follow_the_conformance() {
    use std::os::unix::fs::PermissionsExt;
    if is_root() {
        eprintln!("SKIPPED: root can read everything");
        return;
    }
    let tree = tree();
    let chmod =
        |name: &str, mode| fs::set_permissions(tree.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
    chmod("a.txt", 0o000);
    chmod("bare", 0o000);
    let compat = site(&tree, SiteOptions::default());
    let error = compat.respond(&get("/a.txt"), Access::MayBlock).unwrap_err();
    assert_eq!(error.errno(), Some(nix::errno::Errno::EACCES));
    assert_eq!(error.path(), Some(tree.path().join("a.txt").as_path()));
    assert_eq!(outcome(&compat, &get("/bare/file")), "Forbidden(\"permission denied\")");
    let rfc = site(&tree, SiteOptions { conformance: Rfc9110, ..SiteOptions::default() });
    assert_eq!(outcome(&rfc, &get("/a.txt")), "Forbidden(\"permission denied\")");
    chmod("bare", 0o755);
}

/// Runs in a child process, because the limit applies to all threads.
#[test]
fn running_out_of_descriptors_is_an_error_with_the_path() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if std::env::var_os("ZEROSEND_TEST_DESCRIPTOR_LIMIT").is_none() {
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "running_out_of_descriptors_is_an_error_with_the_path"])
            .env("ZEROSEND_TEST_DESCRIPTOR_LIMIT", "1")
            // The parent reports this test.
            .stdout(std::process::Stdio::null())
            .status()
            .unwrap();
        assert!(status.success());
        return;
    }
    let tree = tree();
    let site = site(&tree, SiteOptions::default());
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let open_files: Vec<_> = (0..8).map(|_| File::open("/dev/null").unwrap()).collect();
    setrlimit(Resource::RLIMIT_NOFILE, 3, hard).unwrap();
    let error = site.respond(&get("/a.txt"), Access::MayBlock).unwrap_err();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    assert_eq!((error.errno(), error.syscall()), (Some(nix::errno::Errno::EMFILE), Some("open")));
    assert_eq!(error.path(), Some(tree.path().join("a.txt").as_path()));
    drop(open_files);
    assert_eq!(outcome(&site, &get("/a.txt")), "200 0123456789");
}
