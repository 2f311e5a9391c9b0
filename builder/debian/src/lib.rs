//! Debian suites: verify, resolve, fetch and unpack without root.
