//! Heads of responses with a whole file, so that a frequently requested file needs no formatting.
//!
//! A head is valid for one version of a file. For a file in the [cache](crate::cache) it is stored in the entry of the file,
//! which is one version; for all others here, by path and [`FileMeta`].

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::response::Source;
use crate::fs::meta::FileMeta;
use zerosend_http::site::Head;
use zerosend_http::site::resolver::Lookup;

/// Heads that are kept. When full, all are discarded, which costs each file in use one formatting.
const MAX_HEADS: usize = 4096;

/// The heads of a site.
#[derive(Debug, Default)]
pub(super) struct HeadCache(Mutex<HashMap<String, (FileMeta, Arc<Head>)>>);

impl HeadCache {
    /// The head of this version of the file that `selected` names.
    pub fn get(&self, file: &Source, selected: Lookup<'_>) -> Option<Arc<Head>> {
        if let Source::Cached(file) = file
            && let Some(slot) = file.head(selected.encoding)
        {
            return slot.get().cloned();
        }
        let heads = self.lock();
        let (meta, head) = heads.get(selected.path)?;
        let is_same =
            meta == file.meta() && head.root_index == selected.root_index && head.encoding == selected.encoding;
        is_same.then(|| head.clone())
    }

    /// Gives `head` an id and keeps it for `file`.
    pub fn insert(&self, file: &Source, mut head: Head) -> Arc<Head> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        head.id = NEXT.fetch_add(1, Ordering::Relaxed);
        if let Source::Cached(file) = file
            && let Some(slot) = file.head(head.encoding)
        {
            return slot.get_or_init(|| Arc::new(head)).clone();
        }
        let head = Arc::new(head);
        let mut heads = self.lock();
        if heads.len() >= MAX_HEADS {
            heads.clear();
        }
        heads.insert(head.path.clone(), (*file.meta(), head.clone()));
        head
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, (FileMeta, Arc<Head>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
