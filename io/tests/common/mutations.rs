//! Changes of files as damage and malice make them.

use tomograd_core::Random;

pub fn below(random: &mut Random, limit: usize) -> usize {
    random.below(limit as u64) as usize
}

/// Changes `bytes` once, without knowing what they are: a bit, a byte, a cut, a piece of another file, a piece less, a piece
/// more.
pub fn change(bytes: &mut Vec<u8>, files: &[Vec<u8>], random: &mut Random) {
    if bytes.is_empty() {
        return;
    }
    let at = below(random, bytes.len());
    match below(random, 6) {
        0 => bytes[at] ^= 1 << below(random, 8),
        1 => bytes[at] = random.next_u32() as u8,
        2 => bytes.truncate(at),
        3 => {
            let other = &files[below(random, files.len())];
            let from = below(random, other.len());
            let length = below(random, 64).min(other.len() - from).min(bytes.len() - at);
            bytes[at..at + length].copy_from_slice(&other[from..from + length]);
        }
        4 => {
            let length = below(random, 64).min(bytes.len() - at);
            bytes.drain(at..at + length);
        }
        _ => {
            let fill = vec![random.next_u32() as u8; below(random, 64)];
            bytes.splice(at..at, fill);
        }
    }
}
