//! Bills of materials, licences and provenance of a release.
#![forbid(unsafe_code)]
