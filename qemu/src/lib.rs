//! Virtual machines: QEMU, OVMF and swtpm.
