//! A site, and the responses that it gives.

use std::sync::Arc;

use napi_derive::napi;
use zerosend_core::static_site::{Body, Outcome, Site};
use zerosend_core::transfer::{Disk, Method, Target, Transfer};
use zerosend_core::{Code, Error};

/// A site, and the method that sends the bodies of its responses.
#[derive(Clone)]
pub struct StaticSite {
    pub site: Arc<Site>,
    pub method: Method,
}

/// The response to a request, without its body.
#[napi(object, object_from_js = false)]
pub struct SiteAnswer {
    #[napi(ts_type = "'response' | 'redirect' | 'not-found' | 'forbidden' | 'bad-path' | 'directory'")]
    pub kind: &'static str,
    /// 200, 206, 304, 412 or 416 for a response; the status without a listing for a directory; otherwise 0.
    pub status: u32,
    /// Name, value, name, value, ...
    pub headers: Vec<String>,
    /// Bytes of the body.
    pub length: f64,
    /// The file or directory, relative to its root.
    pub path: String,
    pub root_index: u32,
    /// The coding of a precompressed file.
    pub encoding: Option<String>,
    /// The reason for `'forbidden'`: `dot file`, `symbolic link refused`, ...
    pub reason: Option<&'static str>,
}

/// A response whose transfer JavaScript has not started or kept yet.
pub struct PendingResponse {
    /// Chosen by JavaScript, below 0. A later call for another number is refused.
    pub number: f64,
    outcome: Outcome,
    method: Method,
}

impl PendingResponse {
    pub fn new(number: f64, site: &StaticSite, mut outcome: Outcome) -> Self {
        // The response may stay here until the next request: it must not keep a file open when there is nothing to send.
        if let Outcome::Response(response) = &mut outcome
            && response.body.length() == 0
        {
            response.body = Body::Empty;
        }
        Self { number, outcome, method: site.method }
    }

    /// The same for the same version of a file; 0 for a response that differs from all others.
    pub fn id(&self) -> u64 {
        match &self.outcome {
            Outcome::Response(response) => response.head.id,
            _ => 0,
        }
    }

    pub fn describe(&self) -> SiteAnswer {
        let empty = |kind| SiteAnswer {
            kind,
            status: 0,
            headers: Vec::new(),
            length: 0.0,
            path: String::new(),
            root_index: 0,
            encoding: None,
            reason: None,
        };
        match &self.outcome {
            Outcome::Redirect => empty("redirect"),
            Outcome::NotFound | Outcome::WouldBlock => empty("not-found"),
            Outcome::Forbidden(reason) => SiteAnswer { reason: Some(reason), ..empty("forbidden") },
            Outcome::BadPath => empty("bad-path"),
            Outcome::Directory(directory) => SiteAnswer {
                status: directory.status.into(),
                path: directory.path.clone(),
                root_index: directory.root_index as u32,
                ..empty("directory")
            },
            Outcome::Response(response) => SiteAnswer {
                status: response.status.into(),
                headers: response
                    .head
                    .headers
                    .iter()
                    .flat_map(|(name, value)| [(*name).to_string(), value.to_string()])
                    .collect(),
                length: response.body.length() as f64,
                path: response.head.path.clone(),
                root_index: response.head.root_index as u32,
                encoding: response.head.encoding.map(|encoding| encoding.as_str().to_string()),
                ..empty("response")
            },
        }
    }

    /// The transfer of the body; `None`: nothing to send.
    pub fn into_transfer(self) -> Option<Transfer> {
        let Outcome::Response(response) = self.outcome else { return None };
        let transfer = Transfer::new(response.into_parts(), self.method, Target::Socket, Disk::ResidentOnly);
        (transfer.remaining() > 0).then_some(transfer)
    }
}

/// The error for a number that another response has replaced.
pub fn not_pending() -> Error {
    let message = "internal error, please report it: the response was replaced by that to a later request";
    Error::new(Code::Internal, message)
}
