//! Names of event types (TCG PC Client Platform Firmware Profile 1.06, section 10.4.1).

use std::fmt;

/// The type of an event.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventType(pub u32);

impl EventType {
    /// `EV_NO_ACTION`: information for the reader, never extended.
    pub const NO_ACTION: Self = Self(3);
    /// `EV_SEPARATOR`: the end of what the firmware measures before it starts a boot option.
    pub const SEPARATOR: Self = Self(4);
    /// `EV_EVENT_TAG`: a tagged event of the operating system's loader.
    pub const EVENT_TAG: Self = Self(6);
    /// `EV_S_CRTM_VERSION`.
    pub const CRTM_VERSION: Self = Self(8);
    /// `EV_IPL`: something of a boot loader.
    pub const IPL: Self = Self(0x0d);
    /// `EV_EFI_VARIABLE_DRIVER_CONFIG`: a variable, as a Secure Boot one.
    pub const VARIABLE_DRIVER_CONFIG: Self = Self(0x8000_0001);
    /// `EV_EFI_VARIABLE_BOOT`: a boot variable of which only the content is measured.
    pub const VARIABLE_BOOT: Self = Self(0x8000_0002);
    /// `EV_EFI_BOOT_SERVICES_APPLICATION`: an EFI program.
    pub const BOOT_SERVICES_APPLICATION: Self = Self(0x8000_0003);
    /// `EV_EFI_BOOT_SERVICES_DRIVER`.
    pub const BOOT_SERVICES_DRIVER: Self = Self(0x8000_0004);
    /// `EV_EFI_RUNTIME_SERVICES_DRIVER`.
    pub const RUNTIME_SERVICES_DRIVER: Self = Self(0x8000_0005);
    /// `EV_EFI_GPT_EVENT`: the partition table.
    pub const GPT_EVENT: Self = Self(0x8000_0006);
    /// `EV_EFI_ACTION`: a sentence of the firmware.
    pub const ACTION: Self = Self(0x8000_0007);
    /// `EV_EFI_PLATFORM_FIRMWARE_BLOB`.
    pub const PLATFORM_FIRMWARE_BLOB: Self = Self(0x8000_0008);
    /// `EV_EFI_PLATFORM_FIRMWARE_BLOB2`.
    pub const PLATFORM_FIRMWARE_BLOB2: Self = Self(0x8000_000a);
    /// `EV_EFI_VARIABLE_BOOT2`: a boot variable with its name.
    pub const VARIABLE_BOOT2: Self = Self(0x8000_000c);
    /// `EV_EFI_HCRTM_EVENT`: measured by a hardware core root of trust.
    pub const HCRTM_EVENT: Self = Self(0x8000_0010);
    /// `EV_EFI_VARIABLE_AUTHORITY`: the entry of a database that an image was verified with.
    pub const VARIABLE_AUTHORITY: Self = Self(0x8000_00e0);

    /// The name in the specification, where it has one.
    pub const fn name(self) -> Option<&'static str> {
        Some(match self.0 {
            0x00 => "EV_PREBOOT_CERT",
            0x01 => "EV_POST_CODE",
            0x02 => "EV_UNUSED",
            0x03 => "EV_NO_ACTION",
            0x04 => "EV_SEPARATOR",
            0x05 => "EV_ACTION",
            0x06 => "EV_EVENT_TAG",
            0x07 => "EV_S_CRTM_CONTENTS",
            0x08 => "EV_S_CRTM_VERSION",
            0x09 => "EV_CPU_MICROCODE",
            0x0a => "EV_PLATFORM_CONFIG_FLAGS",
            0x0b => "EV_TABLE_OF_DEVICES",
            0x0c => "EV_COMPACT_HASH",
            0x0d => "EV_IPL",
            0x0e => "EV_IPL_PARTITION_DATA",
            0x0f => "EV_NONHOST_CODE",
            0x10 => "EV_NONHOST_CONFIG",
            0x11 => "EV_NONHOST_INFO",
            0x12 => "EV_OMIT_BOOT_DEVICE_EVENTS",
            0x13 => "EV_POST_CODE2",
            0x8000_0001 => "EV_EFI_VARIABLE_DRIVER_CONFIG",
            0x8000_0002 => "EV_EFI_VARIABLE_BOOT",
            0x8000_0003 => "EV_EFI_BOOT_SERVICES_APPLICATION",
            0x8000_0004 => "EV_EFI_BOOT_SERVICES_DRIVER",
            0x8000_0005 => "EV_EFI_RUNTIME_SERVICES_DRIVER",
            0x8000_0006 => "EV_EFI_GPT_EVENT",
            0x8000_0007 => "EV_EFI_ACTION",
            0x8000_0008 => "EV_EFI_PLATFORM_FIRMWARE_BLOB",
            0x8000_0009 => "EV_EFI_HANDOFF_TABLES",
            0x8000_000a => "EV_EFI_PLATFORM_FIRMWARE_BLOB2",
            0x8000_000b => "EV_EFI_HANDOFF_TABLES2",
            0x8000_000c => "EV_EFI_VARIABLE_BOOT2",
            0x8000_000d => "EV_EFI_GPT_EVENT2",
            0x8000_0010 => "EV_EFI_HCRTM_EVENT",
            0x8000_00e0 => "EV_EFI_VARIABLE_AUTHORITY",
            0x8000_00e1 => "EV_EFI_SPDM_FIRMWARE_BLOB",
            0x8000_00e2 => "EV_EFI_SPDM_FIRMWARE_CONFIG",
            0x8000_00e3 => "EV_EFI_SPDM_DEVICE_POLICY",
            0x8000_00e4 => "EV_EFI_SPDM_DEVICE_AUTHORITY",
            _ => return None,
        })
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "event type 0x{:08x}", self.0),
        }
    }
}

impl fmt::Debug for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
