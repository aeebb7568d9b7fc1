//! SHA-256 (FIPS 180-4), and codes keyed by it (HMAC, RFC 2104).
//!
//! ```
//! use tomograd_io::digest::{Sha256, hexadecimal};
//! let mut sha = Sha256::new();
//! sha.update(b"abc");
//! assert!(hexadecimal(&sha.finish()).starts_with("ba7816bf8f01cfea"));
//! ```
#![allow(clippy::indexing_slicing)] // of arrays whose lengths are constants

/// The state of an incremental digest.
#[derive(Debug, Clone)]
pub struct Sha256 {
    state: [u32; 8],
    block: [u8; 64],
    length: u64,
}

/// The first 32 bits of the fractional parts of the cube roots of the first 64 primes, or of the square roots of the first 8.
fn roots<const N: usize>(root: fn(f64) -> f64, power: u32) -> [u32; N] {
    let mut primes = (2u128..).filter(|n| (2..*n).take_while(|d| d * d <= *n).all(|d| n % d != 0));
    std::array::from_fn(|_| {
        let prime = primes.next().unwrap_or(2);
        // The floating-point root is approximate; the integer root of the prime, scaled to 32 fractional bits, is exact.
        let scaled = prime << (32 * power);
        let mut guess = (root(prime as f64) * 4_294_967_296.0) as u128 + 2;
        while guess.pow(power) > scaled {
            guess -= 1;
        }
        guess as u32
    })
}

impl Default for Sha256 {
    fn default() -> Self {
        Self::new()
    }
}

impl Sha256 {
    /// The digest of nothing so far.
    pub fn new() -> Self {
        static START: std::sync::OnceLock<[u32; 8]> = std::sync::OnceLock::new();
        Self { state: *START.get_or_init(|| roots(f64::sqrt, 2)), block: [0; 64], length: 0 }
    }

    /// Takes these bytes in, behind those before.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let filled = (self.length % 64) as usize;
            let take = bytes.len().min(64 - filled);
            self.block[filled..filled + take].copy_from_slice(&bytes[..take]);
            self.length += take as u64;
            bytes = &bytes[take..];
            if self.length.is_multiple_of(64) {
                self.compress();
            }
        }
    }

    /// The digest of all bytes.
    pub fn finish(mut self) -> [u8; 32] {
        let bits = self.length * 8;
        self.update(&[0x80]);
        while self.length % 64 != 56 {
            self.update(&[0]);
        }
        self.update(&bits.to_be_bytes());
        let mut digest = [0; 32];
        digest.chunks_exact_mut(4).zip(self.state).for_each(|(bytes, word)| bytes.copy_from_slice(&word.to_be_bytes()));
        digest
    }

    fn compress(&mut self) {
        static ROUNDS: std::sync::OnceLock<[u32; 64]> = std::sync::OnceLock::new();
        let rounds = ROUNDS.get_or_init(|| roots(f64::cbrt, 3));
        let mut words = [0u32; 64];
        for (word, bytes) in words.iter_mut().zip(self.block.chunks_exact(4)) {
            *word = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        for i in 16..64 {
            let (a, b) = (words[i - 15], words[i - 2]);
            let s0 = a.rotate_right(7) ^ a.rotate_right(18) ^ a >> 3;
            let s1 = b.rotate_right(17) ^ b.rotate_right(19) ^ b >> 10;
            words[i] = words[i - 16].wrapping_add(s0).wrapping_add(words[i - 7]).wrapping_add(s1);
        }
        let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = self.state;
        for (round, word) in rounds.iter().zip(words) {
            let s1 = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
            let first = h.wrapping_add(s1).wrapping_add(e & f ^ !e & g).wrapping_add(*round).wrapping_add(word);
            let s0 = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
            let second = s0.wrapping_add(a & b ^ a & c ^ b & c);
            (h, g, f, e, d, c, b, a) = (g, f, e, d.wrapping_add(first), c, b, a, first.wrapping_add(second));
        }
        for (state, value) in self.state.iter_mut().zip([a, b, c, d, e, f, g, h]) {
            *state = state.wrapping_add(value);
        }
    }
}

/// HMAC-SHA-256: a code of these parts, one behind the other, that nobody can compute without the key.
pub fn keyed(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut block = [0; 64];
    if key.len() > block.len() {
        let mut sha = Sha256::new();
        sha.update(key);
        block[..32].copy_from_slice(&sha.finish());
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let mut inner = Sha256::new();
    inner.update(&block.map(|byte| byte ^ 0x36));
    parts.iter().for_each(|part| inner.update(part));
    let mut outer = Sha256::new();
    outer.update(&block.map(|byte| byte ^ 0x5C));
    outer.update(&inner.finish());
    outer.finish()
}

/// The digest in hexadecimal.
pub fn hexadecimal(digest: &[u8; 32]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_standard_answers() {
        let digest = |parts: &[&[u8]]| {
            let mut sha = Sha256::new();
            parts.iter().for_each(|part| sha.update(part));
            hexadecimal(&sha.finish())
        };
        assert_eq!(digest(&[]), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(digest(&[b"a", b"bc"]), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        let long = b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
        assert_eq!(digest(&[long]), "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
        assert_eq!(
            digest(&[&[b'a'; 1000][..]; 1000]),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"
        );
    }

    #[test]
    fn the_answers_of_rfc_4231() {
        let code = |key: &[u8], text: &str| hexadecimal(&keyed(key, &[text.as_bytes()]));
        assert_eq!(
            code(b"Jefe", "what do ya want for nothing?"),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        assert_eq!(
            code(&[0xAA; 131], "Test Using Larger Than Block-Size Key - Hash Key First"),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
        );
    }
}
