//! Response codes with their names and what to do about them (part 2, section 6.6).

use std::fmt;

/// A response code as the TPM, or the kernel's resource manager in its place, gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResponseCode(pub u32);

/// What a code belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Format 1: error number and the handle, session or parameter (numbered from 1; 0 is unknown).
    About(u32, &'static str, u32),
    /// Format 0, error.
    Error(u32),
    /// Format 0, warning: the same command may succeed later.
    Warning(u32),
    /// TPM 1.2 or a vendor's own.
    Foreign,
}

/// `TPM_RC_RETRY`.
const RETRY: u32 = 0x922;
/// `TPM_RC_YIELDED`.
const YIELDED: u32 = 0x908;
/// `TPM_RC_TESTING`.
const TESTING: u32 = 0x90a;
/// `TPM_RC_INITIALIZE` as answer to `TPM2_Startup`: the TPM was started before.
pub const INITIALIZE: ResponseCode = ResponseCode(0x100);

impl ResponseCode {
    /// The code without the layer that sent it (bits 16 to 23, TCG TSS 2.0 overview section 5).
    const fn code(self) -> u32 {
        self.0 & 0xffff
    }

    const fn kind(self) -> Kind {
        let code = self.code();
        if code & 0x80 != 0 {
            let number = code & 0x3f;
            if code & 0x40 != 0 {
                Kind::About(number, "parameter", (code >> 8) & 0xf)
            } else if code & 0x800 != 0 {
                Kind::About(number, "session", (code >> 8) & 0x7)
            } else {
                Kind::About(number, "handle", (code >> 8) & 0x7)
            }
        } else if code & 0x100 == 0 || code & 0x400 != 0 {
            Kind::Foreign
        } else if code & 0x800 != 0 {
            Kind::Warning(code & 0x7f)
        } else {
            Kind::Error(code & 0x7f)
        }
    }

    /// Whether the very same command is to be sent again.
    pub const fn is_retry(self) -> bool {
        matches!(self.code(), RETRY | YIELDED | TESTING)
    }

    /// The name in the specification, where it has one.
    pub const fn name(self) -> Option<&'static str> {
        match self.kind() {
            Kind::About(number, ..) => format_one(number),
            Kind::Error(number) => error(number),
            Kind::Warning(number) => warning(number),
            Kind::Foreign => None,
        }
    }

    /// What somebody who sees the code should do.
    pub fn next_step(self) -> &'static str {
        match self.name() {
            Some("TPM_RC_INITIALIZE") => "the firmware did not start the TPM: power the machine off and on",
            Some("TPM_RC_FAILURE") => "the TPM is in failure mode: power the machine off and on",
            Some("TPM_RC_LOCKOUT") => {
                "the TPM is locked after wrong authorisations: wait or reset the lockout"
            }
            Some("TPM_RC_LOCALITY") => "the PCR is reserved for the firmware: another PCR must be used",
            Some("TPM_RC_AUTH_FAIL" | "TPM_RC_BAD_AUTH") => "the authorisation value is wrong",
            Some("TPM_RC_POLICY_FAIL" | "TPM_RC_PCR_CHANGED" | "TPM_RC_PCR") => {
                "the machine is not in the state that the policy asks for: compare the PCRs with the release"
            }
            Some("TPM_RC_COMMAND_CODE") => {
                "this TPM does not have the command: see if its firmware has an update"
            }
            Some("TPM_RC_UPGRADE") => "the TPM is in firmware upgrade mode: finish the upgrade",
            Some("TPM_RC_REBOOT") => "the TPM asks for a reboot",
            Some("TPM_RC_NV_RATE" | "TPM_RC_NV_UNAVAILABLE") => {
                "the TPM protects its memory: try again later"
            }
            Some("TPM_RC_OBJECT_MEMORY" | "TPM_RC_SESSION_MEMORY" | "TPM_RC_MEMORY") => {
                "the TPM is full: use /dev/tpmrm0, which swaps objects out, or flush what was left behind"
            }
            _ if self.is_retry() => "the TPM is busy: try again",
            _ => "see part 2, section 6.6 of the TPM 2.0 specification",
        }
    }
}

impl fmt::Display for ResponseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{name} (0x{:03x}", self.0)?,
            None => write!(f, "an unknown code (0x{:03x}", self.0)?,
        }
        match self.kind() {
            Kind::About(_, what, number) if number != 0 => write!(f, ", {what} {number})"),
            _ => f.write_str(")"),
        }
    }
}

/// `TPM_RC_*` of format 1.
const fn format_one(number: u32) -> Option<&'static str> {
    Some(match number {
        0x01 => "TPM_RC_ASYMMETRIC",
        0x02 => "TPM_RC_ATTRIBUTES",
        0x03 => "TPM_RC_HASH",
        0x04 => "TPM_RC_VALUE",
        0x05 => "TPM_RC_HIERARCHY",
        0x07 => "TPM_RC_KEY_SIZE",
        0x08 => "TPM_RC_MGF",
        0x09 => "TPM_RC_MODE",
        0x0a => "TPM_RC_TYPE",
        0x0b => "TPM_RC_HANDLE",
        0x0c => "TPM_RC_KDF",
        0x0d => "TPM_RC_RANGE",
        0x0e => "TPM_RC_AUTH_FAIL",
        0x0f => "TPM_RC_NONCE",
        0x10 => "TPM_RC_PP",
        0x12 => "TPM_RC_SCHEME",
        0x15 => "TPM_RC_SIZE",
        0x16 => "TPM_RC_SYMMETRIC",
        0x17 => "TPM_RC_TAG",
        0x18 => "TPM_RC_SELECTOR",
        0x1a => "TPM_RC_INSUFFICIENT",
        0x1b => "TPM_RC_SIGNATURE",
        0x1c => "TPM_RC_KEY",
        0x1d => "TPM_RC_POLICY_FAIL",
        0x1f => "TPM_RC_INTEGRITY",
        0x20 => "TPM_RC_TICKET",
        0x21 => "TPM_RC_RESERVED_BITS",
        0x22 => "TPM_RC_BAD_AUTH",
        0x23 => "TPM_RC_EXPIRED",
        0x24 => "TPM_RC_POLICY_CC",
        0x25 => "TPM_RC_BINDING",
        0x26 => "TPM_RC_CURVE",
        0x27 => "TPM_RC_ECC_POINT",
        _ => return None,
    })
}

/// `TPM_RC_*` of format 0, errors.
const fn error(number: u32) -> Option<&'static str> {
    Some(match number {
        0x00 => "TPM_RC_INITIALIZE",
        0x01 => "TPM_RC_FAILURE",
        0x03 => "TPM_RC_SEQUENCE",
        0x0b => "TPM_RC_PRIVATE",
        0x19 => "TPM_RC_HMAC",
        0x20 => "TPM_RC_DISABLED",
        0x21 => "TPM_RC_EXCLUSIVE",
        0x24 => "TPM_RC_AUTH_TYPE",
        0x25 => "TPM_RC_AUTH_MISSING",
        0x26 => "TPM_RC_POLICY",
        0x27 => "TPM_RC_PCR",
        0x28 => "TPM_RC_PCR_CHANGED",
        0x2d => "TPM_RC_UPGRADE",
        0x2e => "TPM_RC_TOO_MANY_CONTEXTS",
        0x2f => "TPM_RC_AUTH_UNAVAILABLE",
        0x30 => "TPM_RC_REBOOT",
        0x31 => "TPM_RC_UNBALANCED",
        0x42 => "TPM_RC_COMMAND_SIZE",
        0x43 => "TPM_RC_COMMAND_CODE",
        0x44 => "TPM_RC_AUTHSIZE",
        0x45 => "TPM_RC_AUTH_CONTEXT",
        0x46 => "TPM_RC_NV_RANGE",
        0x47 => "TPM_RC_NV_SIZE",
        0x48 => "TPM_RC_NV_LOCKED",
        0x49 => "TPM_RC_NV_AUTHORIZATION",
        0x4a => "TPM_RC_NV_UNINITIALIZED",
        0x4b => "TPM_RC_NV_SPACE",
        0x4c => "TPM_RC_NV_DEFINED",
        0x50 => "TPM_RC_BAD_CONTEXT",
        0x51 => "TPM_RC_CPHASH",
        0x52 => "TPM_RC_PARENT",
        0x53 => "TPM_RC_NEEDS_TEST",
        0x54 => "TPM_RC_NO_RESULT",
        0x55 => "TPM_RC_SENSITIVE",
        _ => return None,
    })
}

/// `TPM_RC_*` of format 0, warnings.
const fn warning(number: u32) -> Option<&'static str> {
    Some(match number {
        0x01 => "TPM_RC_CONTEXT_GAP",
        0x02 => "TPM_RC_OBJECT_MEMORY",
        0x03 => "TPM_RC_SESSION_MEMORY",
        0x04 => "TPM_RC_MEMORY",
        0x05 => "TPM_RC_SESSION_HANDLES",
        0x06 => "TPM_RC_OBJECT_HANDLES",
        0x07 => "TPM_RC_LOCALITY",
        0x08 => "TPM_RC_YIELDED",
        0x09 => "TPM_RC_CANCELED",
        0x0a => "TPM_RC_TESTING",
        0x10..=0x16 => "TPM_RC_REFERENCE_H",
        0x18..=0x1e => "TPM_RC_REFERENCE_S",
        0x20 => "TPM_RC_NV_RATE",
        0x21 => "TPM_RC_LOCKOUT",
        0x22 => "TPM_RC_RETRY",
        0x23 => "TPM_RC_NV_UNAVAILABLE",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_the_names_that_tpm2_rc_decode_gives() {
        for (code, text) in [
            (0x100, "TPM_RC_INITIALIZE (0x100)"),
            (0x921, "TPM_RC_LOCKOUT (0x921)"),
            (0x907, "TPM_RC_LOCALITY (0x907)"),
            (0x1c4, "TPM_RC_VALUE (0x1c4, parameter 1)"),
            (0x98e, "TPM_RC_AUTH_FAIL (0x98e, session 1)"),
            (0x18b, "TPM_RC_HANDLE (0x18b, handle 1)"),
            (0x99d, "TPM_RC_POLICY_FAIL (0x99d, session 1)"),
            (0x000b_0143, "TPM_RC_COMMAND_CODE (0xb0143)"),
            (0x26, "an unknown code (0x026)"),
        ] {
            assert_eq!(ResponseCode(code).to_string(), text);
        }
        assert!(ResponseCode(0x922).is_retry());
        assert!(!ResponseCode(0x921).is_retry());
    }
}
