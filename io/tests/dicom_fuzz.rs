//! Mutated DICOM files under a counting allocator: read as images, segmentations and structure sets, and de-identified, or refused, never a panic; memory within a multiple of the bytes, time
//! bounded. One test in a binary of its own, as the allocator counts for the whole process.
//!
//! `TOMOGRAD_FUZZ` is the number of files (4000 unless set); `fuzz/dicom.txt` is the log of a longer run.
#![cfg(feature = "dicom")]

#[path = "common/counting.rs"]
mod counting;
#[path = "common/dicom.rs"]
mod files;

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

use counting::measured;
use tomograd_core::{DType, Device, Random, Result, Seed, Tensor};
use tomograd_io::dicom::{
    self, Anonymizer, Holes, Keep, Listing, Segment, Segmentation, SegmentationType, Stack, StructureSet,
};

/// Memory: of elements, which may be eight bytes long, and of frames of one pixel.
const MULTIPLE: usize = 64;
const FIXED: usize = 16 << 20;
/// Compressed pixels: so many samples a byte may be claimed, or so many in all, of so many bytes each.
const SAMPLES_PER_BYTE: usize = 4096;
const SAMPLES_ANYWAY: usize = 1 << 20;
const BYTES_PER_SAMPLE: usize = 32;
/// Of the slowest file, on a busy machine.
const SLOWEST: Duration = Duration::from_secs(10);

fn below(random: &mut Random, limit: usize) -> usize {
    random.below(limit.max(1) as u64) as usize
}

/// Whether a file says that it is compressed or deflated.
fn compressed(bytes: &[u8]) -> bool {
    let syntaxes: [&[u8]; 3] = [b"1.2.840.10008.1.2.4", b"1.2.840.10008.1.2.5", b"1.2.840.10008.1.2.1.99"];
    syntaxes.iter().any(|syntax| bytes.windows(syntax.len()).any(|part| part == *syntax))
}

fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![files::Slice::default().bytes()];
    // In a packaged crate the folder isn't there.
    if let Ok(entries) = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/dicom")) {
        let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        for path in paths.iter().filter(|path| path.extension().is_some_and(|ending| ending == "dcm")) {
            seeds.push(std::fs::read(path).unwrap());
        }
    }
    seeds
}

/// A series, and objects that are made of it.
fn objects() -> (Stack, Vec<Vec<u8>>) {
    let folder = std::env::temp_dir().join(format!("tomograd-dicom-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    for k in 0..3 {
        let slice = files::Slice {
            instance: format!("1.2.3.{k}"),
            position: Some([0.0, 0.0, f64::from(k)]),
            more: vec![files::text((0x20, 0x52), b"UI", "1.2.9"), files::text((0x10, 0x10), b"PN", "Doe^Jane")],
            ..files::Slice::default()
        };
        std::fs::write(folder.join(k.to_string()), slice.bytes()).unwrap();
    }
    let stack = Listing::open(&folder).unwrap().only().unwrap().stack().unwrap().clone();
    let mask: Vec<u8> = (0..36).map(|i| u8::from(i % 5 != 0)).collect();
    let mask = Tensor::from_slice(&mask, &[3, 3, 4], Device::Cpu).unwrap();
    assert_eq!(mask.dtype(), DType::U8);
    let path = folder.join("object");
    let mut objects = Vec::new();
    for kind in [SegmentationType::Binary, SegmentationType::Occupancy, SegmentationType::LabelMap] {
        stack.write_segments(&path, &[(Segment::new("a", "x"), &mask)], kind).unwrap();
        objects.push(std::fs::read(&path).unwrap());
    }
    for holes in [Holes::Keyhole, Holes::Xor] {
        stack.write_structures(&path, &[("a", &mask), ("b", &mask)], holes).unwrap();
        objects.push(std::fs::read(&path).unwrap());
    }
    // Its slices are still needed, to read masks; a test process leaves them in the folder for temporary files.
    (stack, objects)
}

/// Reads a file as everything that it could be.
fn read(bytes: &[u8], stack: &Stack, anonymizer: &Anonymizer) -> Result<()> {
    let image = dicom::read_bytes(bytes).map(|_| ());
    let done = anonymizer.anonymize(bytes.to_vec()).map(|done| assert!(!done.bytes.is_empty()));
    let segmentation = Segmentation::from_bytes(bytes).and_then(|object| {
        let mut numbers = object.segments().iter().take(4);
        numbers.try_for_each(|(number, _)| object.mask(*number, stack).map(|_| ()))?;
        object.labels(stack).map(|_| ())
    });
    let structures = StructureSet::from_bytes(bytes).and_then(|set| {
        set.structures().iter().take(4).try_for_each(|structure| set.mask(structure, stack).map(|_| ()))
    });
    image.or(segmentation).or(structures).and(done)
}

/// Numbers that lengths and counts shouldn't be.
const EXTREMES: [u64; 9] = [0, 1, 0x7F, 0xFF, 0xFFFF, 0x7FFF_FFFF, 0xFFFF_FFFF, 0xFFFE, 8];
/// Elements that sizes follow from: rows, columns, samples, bits, frames, planes, the transfer syntax.
const TAGS: [[u8; 4]; 12] = [
    [0x28, 0, 0x10, 0],
    [0x28, 0, 0x11, 0],
    [0x28, 0, 2, 0],
    [0x28, 0, 0, 1],
    [0x28, 0, 1, 1],
    [0x28, 0, 2, 1],
    [0x28, 0, 3, 1],
    [0x28, 0, 6, 0],
    [0x28, 0, 8, 0],
    [0x28, 0, 4, 0],
    [2, 0, 0x10, 0],
    [0xE0, 0x7F, 0x10, 0],
];

fn mutate(bytes: &mut Vec<u8>, seeds: &[Vec<u8>], random: &mut Random) {
    let pixels = bytes.windows(4).rposition(|part| part == [0xE0, 0x7F, 0x10, 0]).unwrap_or(0);
    for _ in 0..1 + below(random, 4) {
        if bytes.len() < 2 {
            return;
        }
        // Half of the changes behind the beginning of the pixels, where the streams are.
        let start = if random.next_u32().is_multiple_of(2) { pixels.min(bytes.len() - 1) } else { 0 };
        let at = start + below(random, bytes.len() - start);
        match below(random, 13) {
            0..4 => bytes[at] ^= 1 << below(random, 8),
            4..6 => bytes[at] = random.next_u32() as u8,
            6 => bytes.truncate(at),
            7 => {
                let extreme = EXTREMES[below(random, EXTREMES.len())].to_le_bytes();
                let length = [1, 2, 4][below(random, 3)];
                bytes.iter_mut().skip(at).zip(&extreme[..length]).for_each(|(to, &from)| *to = from);
            }
            8 => {
                let other = &seeds[below(random, seeds.len())];
                let from = below(random, other.len());
                let part: Vec<u8> = other[from..].iter().copied().take(1 + below(random, 200)).collect();
                bytes.splice(at..at, part);
            }
            9 => drop(bytes.drain(at..(at + 1 + below(random, 30)).min(bytes.len()))),
            10 => {
                let part: Vec<u8> = bytes[at..].iter().copied().take(1 + below(random, 40)).collect();
                bytes.splice(at..at, part.repeat(1 + below(random, 200)));
            }
            // The value of an element that matters.
            _ => {
                let tag = TAGS[below(random, TAGS.len())];
                if let Some(place) = bytes.windows(4).position(|part| part == tag) {
                    let value = place + 8;
                    let number = (EXTREMES[below(random, EXTREMES.len())] as u16).to_le_bytes();
                    bytes.iter_mut().skip(value + below(random, 2)).zip(number).for_each(|(to, from)| *to = from);
                }
            }
        }
    }
}

#[test]
fn memory_follows_what_arrives_and_nothing_panics() {
    let (stack, objects) = objects();
    // As many of the objects as of all images.
    let seeds: Vec<Vec<u8>> = seeds().into_iter().chain(std::iter::repeat_n(objects, 8).flatten()).collect();
    let anonymizer = Anonymizer::new(&[7; 16]).unwrap().keep(Keep::ShiftedDates).keep(Keep::Descriptions);
    let count: u64 = std::env::var("TOMOGRAD_FUZZ").ok().and_then(|count| count.parse().ok()).unwrap_or(4000);
    // Parts whose memory stays: the dictionary of elements.
    let _ = read(&seeds[0], &stack, &anonymizer);
    let (mut accepted, mut most, mut slowest) = (0u64, 0usize, Duration::ZERO);
    let mut reasons: BTreeMap<String, u64> = BTreeMap::new();
    for i in 0..count {
        let mut random = Seed::new(20_261_127).at(i).random();
        let mut bytes = seeds[below(&mut random, seeds.len())].clone();
        mutate(&mut bytes, &seeds, &mut random);
        let start = Instant::now();
        let (peak, read) = measured(|| read(&bytes, &stack, &anonymizer));
        let time = start.elapsed();
        match read {
            Ok(_) => accepted += 1,
            Err(error) => {
                // Without numbers, so that reasons are few.
                let text = error.to_string();
                let reason: String = text.chars().filter(|letter| !letter.is_ascii_digit()).take(40).collect();
                *reasons.entry(reason).or_default() += 1;
            }
        }
        let samples = if compressed(&bytes) { (SAMPLES_PER_BYTE * bytes.len()).max(SAMPLES_ANYWAY) } else { 0 };
        let bound = MULTIPLE * bytes.len() + FIXED + BYTES_PER_SAMPLE * samples;
        assert!(peak <= bound, "file {i}: {peak} bytes of memory for {}", bytes.len());
        assert!(time < SLOWEST, "file {i}: {time:?}");
        most = most.max(peak);
        slowest = slowest.max(time);
    }
    assert!(accepted > 0 && accepted < count);
    println!(
        "{count} mutated files: {accepted} read, {} refused for {} reasons, no panic; the most memory that one took: {most} bytes; \
         the slowest: {slowest:?}",
        count - accepted,
        reasons.len()
    );
    let mut reasons: Vec<_> = reasons.into_iter().collect();
    reasons.sort_by_key(|(_, times)| std::cmp::Reverse(*times));
    for (reason, times) in reasons.iter().take(40) {
        println!("{times:>8}  {reason}");
    }
}
