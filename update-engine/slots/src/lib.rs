//! The swap of slots: the one writer to disks and EFI variables.
