//! Remembers the heads of whole files, so that a hot file costs no formatting.
//!
//! A head is good for one version of a file, see [`FileMeta`]. It does not look whether the file has changed: the caller has
//! just opened it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::plan::{Head, Response};
use crate::fs::meta::FileMeta;
use zerosend_http::negotiation::Encoding;

/// Heads kept at most; beyond it all are forgotten at once, which costs each of the hot ones one formatting.
const MOST: usize = 4096;

/// Heads by path.
#[derive(Debug, Default)]
pub(super) struct Memo(Mutex<HashMap<String, (FileMeta, Arc<Head>)>>);

impl Memo {
    /// The head of this version of the file, sent as it is or as the `encoding` of another name.
    pub fn get(&self, path: &str, root_index: usize, encoding: Option<Encoding>, meta: &FileMeta) -> Option<Arc<Head>> {
        let heads = self.lock();
        let (known, head) = heads.get(path)?;
        (known == meta && head.root_index == root_index && head.encoding == encoding).then(|| head.clone())
    }

    /// Gives the head of `response` an id of its own and keeps it.
    pub fn keep(&self, mut response: Response) -> Response {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        if let Some(head) = Arc::get_mut(&mut response.head) {
            head.id = NEXT.fetch_add(1, Ordering::Relaxed);
        }
        let mut heads = self.lock();
        if heads.len() >= MOST {
            heads.clear();
        }
        heads.insert(response.head.path.clone(), (response.meta, response.head.clone()));
        response
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, (FileMeta, Arc<Head>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
