//! Content type by file extension: the table of npm `mime@3`, which `@fastify/send` uses, charset included.
//!
//! The content of a file is never looked at. The table is generated; see `scripts/generate-mime.ts`.

use super::mime_table::{LONGEST_EXTENSION, TABLE};

/// The type of a file nothing is known about.
pub const DEFAULT_TYPE: &str = "application/octet-stream";

/// The content type of a path, by the extension of its last segment. `.html` is a name and has no extension.
pub fn content_type(path: &str) -> &'static str {
    let name = path.rsplit(['/', '\\']).next().unwrap_or_default();
    match name.rsplit_once('.') {
        Some((stem, extension)) if !stem.is_empty() => by_extension(extension).unwrap_or(DEFAULT_TYPE),
        _ => DEFAULT_TYPE,
    }
}

/// The content type of an extension without its dot, in any case.
pub fn by_extension(extension: &str) -> Option<&'static str> {
    let mut buffer = [0_u8; LONGEST_EXTENSION];
    let lower = buffer.get_mut(..extension.len())?;
    lower.copy_from_slice(extension.as_bytes());
    lower.make_ascii_lowercase();
    let lower: &[u8] = lower;
    let index = TABLE.binary_search_by(|(known, _)| known.as_bytes().cmp(lower)).ok()?;
    TABLE.get(index).map(|(_, content_type)| *content_type)
}
