//! What the kernel and the network send to init.
#![no_main]

use ashlar_init::{dhcp, netlink, uevent};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = (netlink::parse(data), uevent::parse(data), dhcp::message::parse(data));
    if let Some(payload) = dhcp::frame::parse(data) {
        let _ = dhcp::message::parse(payload);
    }
});
