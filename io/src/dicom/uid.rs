//! UIDs that are made here.

/// A UID of the root 2.25 from a hash of 128 bits.
pub(super) fn of_hash(hash: u128) -> String {
    // The version and variant of a UUID that follows from a name.
    let uuid = (hash & !(0xF << 76) & !(0b11 << 62)) | 8 << 76 | 0b10 << 62;
    format!("2.25.{uuid}")
}

/// A UID that follows from these parts alone.
pub(super) fn of_parts<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    // FNV-1a of 128 bits.
    let mut hash = 0x6C62_272E_07BB_0142_62B8_2175_6295_C58Du128;
    for part in parts {
        for &byte in part.iter().chain(&[0xFF]) {
            hash = (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013B);
        }
    }
    of_hash(hash)
}
