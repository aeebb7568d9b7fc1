//! Mutated files of PyTorch's under a counting allocator: refused or read, never a panic; memory within a multiple of the
//! bytes, time bounded. One test in a binary of its own, as the allocator counts for the whole process.
//!
//! `TOMOGRAD_FUZZ` is the number of files (5000 unless set); `fuzz/pytorch.txt` is the log of a million.

#[path = "common/counting.rs"]
mod counting;

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

use counting::measured;
use tomograd_core::{ErrorKind, Random, Result, Seed};
use tomograd_io::pytorch;

/// Memory: a node of 32 bytes for each byte of a pickle in a vector that doubles, and what the pickle may unfold to.
const MULTIPLE: usize = 256;
const FIXED: usize = 1 << 20;
/// Of the slowest file, on a busy machine.
const SLOWEST: Duration = Duration::from_secs(5);

fn below(random: &mut Random, limit: usize) -> usize {
    random.below(limit.max(1) as u64) as usize
}

/// The entries of an archive as PyTorch writes it.
fn entries(archive: &[u8]) -> Vec<(String, Vec<u8>)> {
    let number =
        |at: usize, count: usize| archive[at..at + count].iter().rev().fold(0, |n, &b| n << 8 | usize::from(b));
    let end = archive.windows(4).rposition(|part| part == b"PK\x05\x06").unwrap();
    let (mut at, mut found) = (number(end + 16, 4), Vec::new());
    for _ in 0..number(end + 10, 2) {
        let (name, extra, comment) = (number(at + 28, 2), number(at + 30, 2), number(at + 32, 2));
        let (size, local) = (number(at + 20, 4), number(at + 42, 4));
        let start = local + 30 + number(local + 26, 2) + number(local + 28, 2);
        found.push((
            String::from_utf8(archive[at + 46..at + 46 + name].to_vec()).unwrap(),
            archive[start..start + size].to_vec(),
        ));
        at += 46 + name + extra + comment;
    }
    found
}

/// An archive of stored entries, with right lengths and checksums.
fn archive(entries: &[(String, Vec<u8>)]) -> Vec<u8> {
    let (mut bytes, mut directory) = (Vec::new(), Vec::new());
    for (name, content) in entries {
        let mut crc = flate2::Crc::new();
        crc.update(content);
        let mut common = vec![20, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        common.extend(crc.sum().to_le_bytes());
        common.extend((content.len() as u32).to_le_bytes().repeat(2));
        common.extend((name.len() as u32).to_le_bytes());
        directory.extend(
            [&b"PK\x01\x02\x14\0"[..], &common, &[0; 10], &(bytes.len() as u32).to_le_bytes(), name.as_bytes()]
                .concat(),
        );
        bytes.extend([b"PK\x03\x04", &common[..], name.as_bytes(), content].concat());
    }
    let at = bytes.len() as u32;
    bytes.extend(&directory);
    let count = (entries.len() as u16).to_le_bytes().repeat(2);
    bytes.extend(
        [b"PK\x05\x06\0\0\0\0", &count[..], &(directory.len() as u32).to_le_bytes(), &at.to_le_bytes(), &[0; 2]]
            .concat(),
    );
    bytes
}

/// Numbers that lengths and counts shouldn't be.
const EXTREMES: [u64; 8] = [0, 1, 0x7F, 0xFFFF, 0x7FFF_FFFF, 0xFFFF_FFFF, 1 << 40, u64::MAX];

/// Instructions of a pickle, more often than other bytes.
const LIKELY: &[u8] = b"(.012NJKMGIUTCBX])}ltdaesuqrhjcRbQo\x80\x81\x85\x86\x87\x88\x89\x8a\x8b\x8c\x8d\x8e\x8f\x90\x91\x92\x93\x94\x95\x96\x00\x01\xff";

fn mutate(bytes: &mut Vec<u8>, others: &[Vec<u8>], random: &mut Random) {
    for _ in 0..1 + below(random, 4) {
        let at = below(random, bytes.len());
        match below(random, 12) {
            _ if bytes.is_empty() => return,
            0..4 => bytes[at] ^= 1 << below(random, 8),
            4..6 => bytes[at] = LIKELY[below(random, LIKELY.len())],
            6 => bytes[at] = random.next_u32() as u8,
            7 => bytes.truncate(at),
            8 => {
                let extreme = EXTREMES[below(random, EXTREMES.len())].to_le_bytes();
                let length = [1, 2, 4, 8][below(random, 4)];
                bytes.iter_mut().skip(at).zip(&extreme[..length]).for_each(|(to, &from)| *to = from);
            }
            9 => {
                let other = &others[below(random, others.len())];
                let from = below(random, other.len());
                let part: Vec<u8> = other[from..].iter().copied().take(1 + below(random, 60)).collect();
                bytes.splice(at..at, part);
            }
            10 => drop(bytes.drain(at..(at + 1 + below(random, 30)).min(bytes.len()))),
            // The same again and again: nesting, repeated names.
            _ => {
                let part: Vec<u8> = bytes[at..].iter().copied().take(1 + below(random, 12)).collect();
                bytes.splice(at..at, part.repeat(1 + below(random, 400)));
            }
        }
    }
}

/// Everything that can be asked of a file.
fn use_all(bytes: Vec<u8>) -> Result<usize> {
    let contents = pytorch::from_bytes(bytes)?;
    let _ = (contents.root().to_string(), contents.globals().count());
    let mut read = 0;
    for tensor in contents.tensors()? {
        // Its memory is given back before the next one's is taken.
        read += usize::from(tensor.read().is_ok());
    }
    Ok(read)
}

#[test]
fn mutated_files_never_panic() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pytorch");
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| {
        path.extension().is_some_and(|ending| ["pth", "pt", "ckpt"].iter().any(|known| ending == *known))
    });
    paths.sort();
    let seeds: Vec<Vec<u8>> = paths.iter().map(|path| std::fs::read(path).unwrap()).collect();
    let count = std::env::var("TOMOGRAD_FUZZ").ok().and_then(|count| count.parse().ok()).unwrap_or(5_000u64);

    let mut outcomes: BTreeMap<String, u64> = BTreeMap::new();
    let (mut most, mut slowest, mut tensors) = ((0, 0), Duration::ZERO, 0);
    for i in 0..count {
        let mut random = Seed::new(20_261_127).at(i).random();
        let seed = below(&mut random, seeds.len());
        let mut bytes = seeds[seed].clone();
        let packed = bytes.starts_with(b"PK");
        // Half of the archives get a mutated pickle with right checksums around it.
        if packed && !paths[seed].ends_with("deflated.pth") && random.bernoulli(0.5) {
            let mut parts = entries(&bytes);
            let at = if random.bernoulli(0.9) { 0 } else { below(&mut random, parts.len()) };
            let pickle = parts.iter().position(|(name, _)| name.ends_with("data.pkl")).unwrap();
            parts.swap(0, pickle);
            mutate(&mut parts[at].1, &seeds, &mut random);
            bytes = archive(&parts);
        } else {
            mutate(&mut bytes, &seeds, &mut random);
        }
        let length = bytes.len();
        let start = Instant::now();
        let (memory, result) = measured(|| use_all(bytes));
        slowest = slowest.max(start.elapsed());
        assert!(start.elapsed() < SLOWEST, "file {i} of {length} bytes took {:?}", start.elapsed());
        assert!(memory <= FIXED + MULTIPLE * length, "file {i} of {length} bytes took {memory}");
        most = most.max((memory, length));
        let outcome = match result {
            Ok(read) => {
                tensors += read as u64;
                "read".to_owned()
            }
            Err(error) => {
                assert!(
                    matches!(error.kind(), ErrorKind::Format | ErrorKind::Io | ErrorKind::Shape),
                    "file {i}: {error:?}"
                );
                format!("{:?}", error.kind())
            }
        };
        let container = if packed { "zip" } else { "legacy" };
        *outcomes.entry(format!("{container:<7}{outcome}")).or_default() += 1;
    }
    println!("{count} mutated files, none panicked; {tensors} tensors read; slowest {slowest:?}");
    println!("most memory: {} bytes for a file of {}; bound: {MULTIPLE} x the file's + {FIXED}", most.0, most.1);
    outcomes.iter().for_each(|(outcome, count)| println!("{outcome:<20}{count}"));
    let all = |what: &str| outcomes.iter().filter(|(key, _)| key.contains(what)).map(|(_, count)| count).sum::<u64>();
    assert!(all("read") > count / 20 && all("Format") > count / 20);
}
