//! What is derived from the volume's key and may be told.

use crate::uuid::Uuid;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// HMAC-SHA256 of `message` under the volume's key.
fn keyed(volume_key: &[u8], message: &[u8]) -> [u8; 32] {
    // A key of any length is taken (RFC 2104, section 2); the crate's error cannot happen.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(volume_key) else { return [0; 32] };
    mac.update(message);
    mac.finalize().into_bytes().into()
}

/// What is extended into the PCR of the volume: it names this very volume, and only who has its key can make it.
///
/// HMAC-SHA256 over `cryptsetup:NAME:UUID` under the volume's key, as systemd-cryptsetup measures a volume with
/// `tpm2-measure-pcr=yes`. `name` is that of the mapped device.
pub fn volume_measurement(volume_key: &[u8], name: &str, uuid: Uuid) -> [u8; 32] {
    keyed(volume_key, format!("cryptsetup:{name}:{uuid}").as_bytes())
}

/// The machine's id, as machine-id(5) writes it: 32 hexadecimal digits. It lives and ends with the state volume and
/// does not reveal the key.
pub fn machine_id(volume_key: &[u8]) -> String {
    use std::fmt::Write as _;
    keyed(volume_key, b"ashlar machine id v1").iter().take(16).fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_openssl_computes_it() {
        // RFC 4231, test case 2.
        let expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(hex::encode(keyed(b"Jefe", b"what do ya want for nothing?")), expected);
    }

    #[test]
    fn volumes_and_machines_differ() {
        let uuid = Uuid([7; 16]);
        let one = volume_measurement(&[1; 64], "ashlar-state", uuid);
        assert_ne!(one, volume_measurement(&[2; 64], "ashlar-state", uuid));
        assert_ne!(one, volume_measurement(&[1; 64], "ashlar-other", uuid));
        assert_ne!(one, volume_measurement(&[1; 64], "ashlar-state", Uuid([8; 16])));
        // printf 'cryptsetup:ashlar-state:07070707-0707-0707-0707-070707070707' |
        //   openssl dgst -sha256 -mac HMAC -macopt hexkey:0101…01 (64 bytes)
        assert_eq!(hex::encode(one), "99100d319621c4b8ab7c07387d7360d4e4ff971a2ae8b60c5471e70342c78b46");
        assert_eq!(machine_id(&[1; 64]), "def186a5c3c0c7577ba29a012aa933c3");
        assert_ne!(machine_id(&[1; 64]), machine_id(&[2; 64]));
    }
}
