//! Versions of files, roots, validators.
