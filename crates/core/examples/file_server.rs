//! A minimal file server with a cache: `cargo run --release --example file_server -- DIRECTORY [PORT] [WORKERS]`.

use std::sync::Arc;

use zerosend_core::cache::{CacheOptions, FileCache};
use zerosend_core::net::Address;
use zerosend_core::server::{Mount, Server, ServerOptions};
use zerosend_core::static_site::{Site, SiteOptions};
use zerosend_http::Conformance;
use zerosend_http::path::PathRules;

fn main() -> zerosend_core::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let root = std::fs::canonicalize(arguments.next().unwrap_or_else(|| ".".into())).expect("a directory");
    let port = arguments.next().and_then(|port| port.parse().ok()).unwrap_or(8080);
    let options = SiteOptions {
        conformance: Conformance::Rfc9110,
        path_rules: PathRules::Full,
        redirect: true,
        multipart: true,
        ..SiteOptions::default()
    };
    let cache = Arc::new(FileCache::new(CacheOptions::default())?);
    let site = Arc::new(Site::new(vec![root], options)?.with_cache(cache));
    let mount = Mount::new("/", site);
    let mut options = ServerOptions::new(Address::Tcp(([127, 0, 0, 1], port).into()), vec![mount]);
    if let Some(workers) = arguments.next().and_then(|workers| workers.parse().ok()) {
        options.workers = workers;
    }
    let server = Server::start(options)?;
    println!("{:?}", server.address());
    loop {
        std::thread::park();
    }
}
