//! Mutated NIfTI files under a counting allocator: nothing panics, and memory stays within the stated multiple of the bytes
//! that really arrived. One test in a binary of its own, as the allocator counts for the whole process.
//!
//! `TOMOGRAD_FUZZ` is the number of files (20000 unless set).

#[path = "common/counting.rs"]
mod counting;
#[path = "common/mutations.rs"]
mod mutations;

use std::{
    io::{Read, Write},
    path::Path,
};

use counting::measured;
use mutations::{below, change};
use tomograd_core::{DType, Device, Random, Seed, Tensor};
use tomograd_io::Volume;

/// Bytes of fixed size beyond the multiple: the decompressor, the pieces, the blocks.
const FIXED: usize = 1 << 20;
const MULTIPLE: usize = 9;

/// How many bytes a reader can find in `bytes`, decompressed.
fn arriving(bytes: &[u8]) -> usize {
    if !bytes.starts_with(&[0x1F, 0x8B]) {
        return bytes.len();
    }
    let mut decoder = flate2::bufread::MultiGzDecoder::new(bytes);
    let (mut buffer, mut count) = ([0; 4096], 0);
    while let Ok(got @ 1..) = decoder.read(&mut buffer) {
        count += got;
    }
    count
}

/// Reads, and returns the most memory that it took and whether it succeeded.
fn read(bytes: &[u8]) -> (usize, bool) {
    measured(|| Volume::from_bytes(bytes).is_ok())
}

/// The two files of the pair that says what this file says.
fn pair(bytes: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let one = bytes.starts_with(&348i32.to_le_bytes()) || bytes.starts_with(&348i32.to_be_bytes());
    let (length, magic, offset, size) = if one { (348, 344, 108, 4) } else { (540, 4, 168, 8) };
    let (mut header, image) = (bytes[..length].to_vec(), bytes[length + 4..].to_vec());
    header[magic + 1] = b'i';
    header[offset..offset + size].fill(0);
    (header, image)
}

/// Flips bits of compressed files, one at a time: the checksums must tell, or the volume is the same.
fn flipped_bits_are_told(files: &[Vec<u8>], count: u64) {
    let (mut told, mut same) = (0, 0);
    for i in 0..count {
        let mut random = Seed::new(20_261_126).at(i).random();
        let plain = &files[below(&mut random, files.len())];
        let mut bytes = compress(plain);
        // A second member, or the padding of `tar`, now and then.
        match i % 4 {
            0 => bytes = [compress(&plain[..plain.len() / 2]), compress(&plain[plain.len() / 2..])].concat(),
            1 => bytes.extend([0; 512]),
            _ => {}
        }
        let flips = 1 + below(&mut random, 3);
        for _ in 0..flips {
            let at = below(&mut random, bytes.len());
            bytes[at] ^= 1 << below(&mut random, 8);
        }
        match Volume::from_bytes(&bytes) {
            Err(_) => told += 1,
            Ok(volume) => {
                let mut expected = Vec::new();
                Volume::from_bytes(plain).unwrap().write_to(&mut expected, false).unwrap();
                let mut found = Vec::new();
                volume.write_to(&mut found, false).unwrap();
                assert!(found == expected, "file {i} is believed");
                same += 1;
            }
        }
    }
    println!("{count} compressed files with flipped bits: {told} told, {same} the same");
    assert!(told > same && same > 0);
}

fn compress(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Files of all sorts to start from: small, as very many are read.
fn seeds() -> Vec<Vec<u8>> {
    let affine = [[-1.5, 0.0, 0.0, 10.0], [0.0, 0.0, 2.0, -20.0], [0.0, 0.5, 0.0, 3.0], [0.0, 0.0, 0.0, 1.0]];
    let mut files = Vec::new();
    for dtype in [DType::U8, DType::I32, DType::I64, DType::F32, DType::F64] {
        let voxels = Tensor::arange(60, dtype, Device::Cpu).unwrap().reshape(&[5, 4, 3]).unwrap();
        let mut bytes = Vec::new();
        Volume::new(voxels, affine).unwrap().write_to(&mut bytes, false).unwrap();
        files.push(bytes);
    }
    // In a packaged crate the folder isn't there.
    if let Ok(entries) = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/nifti")) {
        let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        for path in paths.iter().filter(|path| path.extension().is_some_and(|ending| ending == "nii")) {
            files.push(std::fs::read(path).unwrap());
        }
    }
    files
}

/// Fields worth an extreme: (place, bytes) in version one, then in version two.
#[rustfmt::skip]
const FIELDS: [&[(usize, usize)]; 2] = [
    &[(0, 4), (40, 2), (42, 2), (44, 2), (46, 2), (48, 2), (70, 2), (72, 2), (108, 4), (112, 4), (116, 4), (252, 2), (254, 2)],
    &[(0, 4), (16, 8), (24, 8), (32, 8), (40, 8), (48, 8), (12, 2), (14, 2), (168, 8), (176, 8), (184, 8), (344, 4), (348, 4)],
];

fn extreme(random: &mut Random, length: usize) -> [u8; 8] {
    let wide = |value: f32| {
        let [a, b, c, d] = value.to_le_bytes();
        [a, b, c, d, 0, 0, 0, 0]
    };
    match below(random, 9) {
        0 => [0; 8],
        1 => [0xFF; 8],
        2 => i64::MAX.to_le_bytes(),
        3 => i64::MIN.to_le_bytes(),
        4 => 0x7FFF_7FFF_7FFF_7FFFu64.to_le_bytes(),
        5 if length == 4 => wide(f32::NAN),
        5 => f64::NAN.to_le_bytes(),
        6 if length == 4 => wide(1e30),
        6 => f64::INFINITY.to_le_bytes(),
        _ => (u64::from(random.next_u32()) % 2048).to_le_bytes(),
    }
}

fn mutate(bytes: &mut Vec<u8>, files: &[Vec<u8>], random: &mut Random) {
    for _ in 0..1 + below(random, 4) {
        match below(random, 8) {
            0..6 => change(bytes, files, random),
            _ => {
                let fields = FIELDS[below(random, 2)];
                let (at, length) = fields[below(random, fields.len())];
                let mut value = extreme(random, length);
                if below(random, 2) == 0 {
                    value[..length].reverse();
                }
                if let Some(place) = bytes.get_mut(at..at + length) {
                    place.copy_from_slice(&value[..length]);
                }
            }
        }
    }
}

#[test]
fn memory_follows_what_arrives_and_nothing_panics() {
    let files = seeds();
    // Headers that claim 1 MB, 1 GB and 4 GB, in front of 16 MB of zeros, and the same as a bomb of 73 KB.
    for claim in [[100usize, 100, 100], [1000, 1000, 1000], [32767, 32767, 4]] {
        let mut bytes = files[0][..352].to_vec();
        for (axis, size) in claim.into_iter().enumerate() {
            bytes[42 + 2 * axis..44 + 2 * axis].copy_from_slice(&(size as i16).to_le_bytes());
        }
        bytes.resize(352 + (16 << 20), 0);
        let bomb = compress(&bytes);
        for bytes in [&bytes, &bomb] {
            let (peak, ok) = read(bytes);
            assert_eq!(ok, claim[0] == 100);
            let bound = MULTIPLE * claim.iter().product::<usize>().min(16 << 20) + FIXED;
            assert!(peak <= bound, "{claim:?}: {peak} bytes");
        }
    }

    let count: u64 = std::env::var("TOMOGRAD_FUZZ").ok().and_then(|count| count.parse().ok()).unwrap_or(20_000);
    let (mut accepted, mut compressed, mut pairs, mut largest) = (0u64, 0u64, 0u64, 0usize);
    for i in 0..count {
        let mut random = Seed::new(20_261_124).at(i).random();
        let mut bytes = files[below(&mut random, files.len())].clone();
        // Half plain, a quarter compressed after the mutation, and a quarter before it.
        match i % 4 {
            0 => {
                mutate(&mut bytes, &files, &mut random);
                bytes = compress(&bytes);
            }
            1 => {
                bytes = compress(&bytes);
                mutate(&mut bytes, &files, &mut random);
            }
            _ => mutate(&mut bytes, &files, &mut random),
        }
        compressed += u64::from(bytes.starts_with(&[0x1F, 0x8B]));
        let mut other = Vec::new();
        let (peak, ok) = if i % 8 == 7 {
            let (header, image) = pair(&files[below(&mut random, files.len())]);
            (bytes, other) = (header, image);
            mutate(&mut bytes, &files, &mut random);
            if below(&mut random, 2) == 0 {
                mutate(&mut other, &files, &mut random);
            }
            measured(|| Volume::from_pair(&bytes, &other).is_ok())
        } else {
            read(&bytes)
        };
        accepted += u64::from(ok);
        pairs += u64::from(ok && !other.is_empty());
        if peak > FIXED {
            let arrived = arriving(&bytes) + arriving(&other);
            assert!(peak <= MULTIPLE * arrived + FIXED, "file {i}: {peak} bytes of memory for {arrived} that arrived");
        }
        largest = largest.max(peak);
    }
    assert!(pairs > 0 && accepted < count);
    flipped_bits_are_told(&files, count / 4);
    println!(
        "{count} mutated files ({compressed} compressed): {accepted} read ({pairs} of them pairs), {} refused, no panic; the most memory that one \
         took: {largest} bytes; bound: {MULTIPLE} x the bytes that arrived + {FIXED}",
        count - accepted
    );
}
