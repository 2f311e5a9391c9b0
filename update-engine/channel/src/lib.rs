//! What a channel offers to which machine, and why. No I/O, no clock, no randomness.
//!
//! A channel is a document, a target of the repository at `channels/NAME.json`: [`Document`]. [`select`] looks at it with a
//! machine's eyes.

mod document;
mod rollout;
mod select;
mod version;

pub use document::{Document, DocumentError, FORMAT, MAX_DOCUMENT, Offer};
pub use rollout::{WHOLE, Wave, opens_at, position, seed};
pub use select::{Decision, Held, Machine, Options, Why, select};
pub use version::compare;

/// Name of a channel's document in the repository.
pub fn document_target(channel: &str) -> String {
    format!("channels/{channel}.json")
}

/// Names of a release's targets begin with this, then `/`.
pub fn release_target(image_id: &str, version: &str) -> String {
    format!("releases/{image_id}/{version}")
}
