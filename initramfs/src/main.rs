//! PID 1 before and after the switch of root; all of it is in the library.

fn main() {
    ashlar_init::run();
}
