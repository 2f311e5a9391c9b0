//! What is in a release and where it came from: SPDX 2.3 and CycloneDX 1.6 bills of materials, the licences that the
//! packages declare, and an in-toto statement of provenance.
//!
//! Values in, bytes out: no I/O, no clock, no randomness, so that the same release gives the same documents.
//! A [`Bill`] is what both bills of materials are written from; [`provenance`] takes its materials from it too.
#![forbid(unsafe_code)]

pub mod bill;
pub mod copyright;
pub mod cyclonedx;
pub mod dsse;
pub mod license;
pub mod provenance;
pub mod spdx_json;

mod control;
mod ids;
mod time;

pub use bill::{Bill, Container, DebianPackage, Origin, OtherSource, SourceKind};
pub use copyright::Declared;

/// Why a document could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SbomError {
    /// A name cannot be part of a package URL (purl-spec).
    #[error("`{name}` cannot be named in a package URL: {why}")]
    Purl {
        /// The package or container.
        name: String,
        /// Why.
        why: String,
    },
    /// A package's control file does not say what it must.
    #[error("the control file of `{package}` has no field `{field}`; fetch the package again")]
    Control {
        /// The package, as far as it is known.
        package: String,
        /// The field.
        field: &'static str,
    },
    /// A package's copyright file cannot be read.
    #[error("cannot read the copyright file of `{package}`: {source}")]
    Copyright {
        /// The package.
        package: String,
        /// Why.
        source: std::io::Error,
    },
    /// The document cannot be written as JSON.
    #[error("cannot write the document: {0}")]
    Json(#[from] serde_json::Error),
    /// The signer refused.
    #[error("cannot sign the statement: {0}")]
    Sign(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The envelope is not one that can be believed.
    #[error("the envelope is refused: {0}")]
    Envelope(String),
}
