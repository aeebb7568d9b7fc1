//! Mutated safetensors files: refused or read, never a panic, and never more elements than the file has bytes for.
//!
//! `TOMOGRAD_FUZZ` is the number of files (20000 unless set).

use std::collections::BTreeMap;

use tomograd_core::{DType, Device, Seed, Tensor};
use tomograd_io::safetensors;

#[test]
fn mutated_files_never_panic() {
    let tensors: Vec<(String, Tensor)> = DType::ALL
        .iter()
        .enumerate()
        .map(|(i, &dtype)| (format!("t{i}"), Tensor::ones(&[i % 3, 2], dtype, Device::Cpu).unwrap()))
        .collect();
    let mut good = Vec::new();
    safetensors::write(&mut good, &tensors, &BTreeMap::from([("a".to_owned(), "b".to_owned())])).unwrap();
    let header = u64::from_le_bytes(good[..8].try_into().unwrap()) as usize;

    let count = std::env::var("TOMOGRAD_FUZZ").ok().and_then(|count| count.parse().ok()).unwrap_or(20_000u64);
    let mut random = Seed::new(7).random();
    let mut refused = 0;
    // Bytes that keep the header JSON more often than others do.
    let likely = b"0123456789{}[],:\"-.eFIUB ";
    for _ in 0..count {
        let mut bytes = good.clone();
        for _ in 0..1 + random.below(3) {
            let at =
                if random.bernoulli(0.8) { 8 + random.below(header as u64) } else { random.below(good.len() as u64) };
            bytes[at as usize] = if random.bernoulli(0.8) {
                likely[random.below(likely.len() as u64) as usize]
            } else {
                random.next_u32() as u8
            };
        }
        match safetensors::read(&mut &bytes[..], bytes.len() as u64) {
            Err(_) => refused += 1,
            Ok(contents) => {
                let held: usize = contents.tensors.iter().map(|(_, t)| t.count() * t.dtype().size()).sum();
                let body = bytes.len() - 8 - u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
                // An I8 becomes four bytes; of types that can't be read, nothing is held.
                assert!(held <= 4 * body && (held >= body || !contents.skipped.is_empty()), "{held} of {body}");
            }
        }
    }
    println!("{count} mutated safetensors files, {refused} refused, none panicked");
    assert!(refused > 0 && (refused < count));
}
