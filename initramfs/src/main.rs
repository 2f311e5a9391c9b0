//! PID 1 before and after the switch of root.
fn main() {}
