//! The builder: recipe to release.
