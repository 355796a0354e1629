//! Which mount serves a request, and which requests the server leaves to the application behind it.

use super::mount::Mount;
use crate::error::Result;
use crate::static_site::Outcome;
use zerosend_http::request::{BodyLength, Method, RequestHead, Target};
use zerosend_http::route::{RoutePattern, is_route};

/// The mount with the longest prefix of `path`.
pub(super) fn find_mount<'a>(mounts: &'a [Mount], path: &str) -> Option<&'a Mount> {
    mounts.iter().filter(|mount| path.starts_with(&mount.prefix)).max_by_key(|mount| mount.prefix.len())
}

/// Whether the server looks for a file for this request: GET or HEAD without a body, below `mount`, and not excluded.
pub(super) fn accepts(head: &RequestHead<'_>, mount: Option<&Mount>, exclude_routes: &[RoutePattern]) -> bool {
    let Target::Path { path, .. } = head.target else { return false };
    let is_plain = matches!(head.method, Method::Get | Method::Head)
        && head.body == BodyLength::Known(0)
        && !(head.upgrade || head.expects_continue || head.expects_other);
    is_plain
        && mount.is_some_and(|mount| !(mount.exclude_credentials && head.has_credentials))
        && !is_route(exclude_routes, path)
}

/// Whether the server answers with `outcome`. The application answers errors.
pub(super) fn serves_outcome(outcome: &Result<Outcome>, mount: Option<&Mount>) -> bool {
    match outcome {
        Ok(Outcome::Response(response)) => matches!(response.status, 200 | 206 | 304),
        Ok(Outcome::NotFound | Outcome::Directory(_)) => mount.is_some_and(|mount| mount.respond_not_found),
        _ => false,
    }
}

/// Whether `input`, the first bytes of a request, can become a request that the server accepts. If not, the connection is
/// handed off before its head is complete.
pub(super) fn may_match(input: &[u8], mounts: &[Mount]) -> bool {
    let start = input.iter().position(|byte| !b"\r\n".contains(byte)).unwrap_or(input.len());
    let input = &input[start..];
    let Some(target) = ["GET ", "HEAD "].iter().find_map(|method| after_prefix(input, method.as_bytes())) else {
        return false;
    };
    // A target in absolute form starts with a scheme.
    !target.starts_with(b"/") || mounts.iter().any(|mount| after_prefix(target, mount.prefix.as_bytes()).is_some())
}

/// The bytes of `input` after `prefix`: empty when `input` ends within `prefix`, `None` when it differs.
fn after_prefix<'a>(input: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    let common = input.len().min(prefix.len());
    (input[..common] == prefix[..common]).then(|| &input[common..])
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::static_site::{Site, SiteOptions};

    #[test]
    fn a_partial_head_outside_all_mounts_does_not_match() {
        let mount = |prefix: &str| {
            let site = Site::new(vec!["/".into()], SiteOptions::default()).expect("a site");
            Mount::new(prefix, Arc::new(site))
        };
        let mounts = [mount("/static/"), mount("/other/")];
        for input in
            ["", "\r\n", "G", "GET", "GET ", "GET /", "GET /sta", "GET /static/x", "HEAD /oth", "GET http://a/"]
        {
            assert!(may_match(input.as_bytes(), &mounts), "{input:?}");
        }
        for input in ["P", "\r\nPOST", "GET /api", "GET /staff", "HEADS", "get /", "\x16\x03\x01", "GET\t/"] {
            assert!(!may_match(input.as_bytes(), &mounts), "{input:?}");
        }
    }
}
