//! Opening files: see `open(2)`, `openat2(2)`, `statx(2)`.
