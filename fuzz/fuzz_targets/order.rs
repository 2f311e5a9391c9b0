//! Names of libraries and versions of packages have an order: three lines, compared with each other. A sort by an order that
//! contradicts itself may panic.
#![no_main]

use std::cmp::Ordering;

fn check(order: fn(&str, &str) -> Ordering, [a, b, c]: [&str; 3]) {
    for (left, right) in [(a, a), (a, b), (b, c), (a, c)] {
        assert_eq!(order(left, right), order(right, left).reverse(), "`{left}` and `{right}`");
    }
    for [a, b, c] in [[a, b, c], [b, c, a], [c, a, b], [c, b, a], [b, a, c], [a, c, b]] {
        if order(a, b).is_le() && order(b, c).is_le() {
            assert!(order(a, c).is_le(), "`{a}`, `{b}` and `{c}`");
        }
    }
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // No name of a library has a NUL.
    let mut lines = text.split('\n').filter(|line| !line.contains('\0'));
    let (Some(a), Some(b), Some(c)) = (lines.next(), lines.next(), lines.next()) else { return };
    check(ashlar_configure::parsers::compare_names, [a, b, c]);
    check(ashlar_debian::compare_versions, [a, b, c]);
});
