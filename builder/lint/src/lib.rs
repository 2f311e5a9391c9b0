//! What should not be in an image, said before it is signed.
#![forbid(unsafe_code)]
