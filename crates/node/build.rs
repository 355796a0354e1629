//! Tells the crate its version, which stands in package.json and nowhere else.

use std::{env, fs, path::Path};

fn main() {
    // Links with `-z nodelete`: when a worker thread that alone has loaded the library exits, Node closes it, but native
    // threads may still run its code.
    napi_build::setup();

    let manifest = Path::new(&env::var("CARGO_MANIFEST_DIR").unwrap()).join("../../package.json");
    println!("cargo::rerun-if-changed={}", manifest.display());
    let text = fs::read_to_string(&manifest).expect("package.json is two directories above the crate");
    println!("cargo::rustc-env=ZEROSEND_VERSION={}", version(&text).expect("package.json has a version"));
}

/// The first `"version": "…"`: npm writes that of the package itself at the top.
fn version(manifest: &str) -> Option<&str> {
    manifest.split_once("\"version\":")?.1.split('"').nth(1)
}
