//! Mutated NRRD, MetaImage, TIFF, PNG and JPEG files under a counting allocator: nothing panics, memory stays within the stated
//! multiple of the bytes that arrived, no file takes long, and damage of checksummed data is told.
//!
//! `TOMOGRAD_FUZZ` is the number of files (20000 unless set).

#[path = "common/counting.rs"]
mod counting;
#[path = "common/mutations.rs"]
mod mutations;

use std::{
    collections::BTreeMap,
    io::Read,
    path::Path,
    time::{Duration, Instant},
};

use counting::measured;
use mutations::{below, change};
use tomograd_core::{Random, Seed};
use tomograd_io::Volume;

/// A file to start from.
struct Start {
    name: String,
    bytes: Vec<u8>,
}

impl Start {
    fn ending(&self) -> &str {
        self.name.rsplit('.').next().unwrap()
    }
}

/// The single files of tests/golden/formats that this build reads; none in a packaged crate, which doesn't hold them.
fn starts() -> Vec<Start> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/formats");
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let starts = paths.iter().map(|path| Start {
        name: path.file_name().unwrap().to_str().unwrap().to_owned(),
        bytes: std::fs::read(path).unwrap(),
    });
    starts.filter(|start| Volume::from_bytes(&start.bytes).is_ok()).collect()
}

/// The most memory for a file: a multiple of the bytes that arrive, after decompression where a header says its sizes, and a
/// fixed part. A piece of another file may have made it one of another format than it was.
fn bound(bytes: &[u8]) -> usize {
    const MIB: usize = 1 << 20;
    match bytes {
        [0x89, ..] => 26_000 * bytes.len() + MIB,
        [b'I', b'I', ..] | [b'M', b'M', ..] => 13_000 * bytes.len() + MIB,
        [0xFF, ..] => 6_000 * bytes.len() + 16 * MIB,
        _ => 9 * (bytes.len() + unfolded(bytes)) + MIB,
    }
}

/// The decompressed bytes after a text header.
fn unfolded(bytes: &[u8]) -> usize {
    let behind = |marker: &[u8]| {
        let at = bytes.windows(marker.len()).position(|part| part == marker)?;
        bytes.get(at + marker.len()..)
    };
    let Some(data) = behind(b"LOCAL\n").or_else(|| behind(b"\n\n")) else { return 0 };
    let count = |mut reader: Box<dyn Read + '_>| {
        let (mut buffer, mut count) = ([0; 4096], 0);
        while let Ok(got @ 1..) = reader.read(&mut buffer) {
            count += got;
        }
        count
    };
    // A mutation may have changed which of them it is, and where it starts.
    count(Box::new(flate2::read::MultiGzDecoder::new(data))).max(count(Box::new(flate2::read::ZlibDecoder::new(data))))
}

/// Replaces a number or a word of a text header by another, or by an extreme.
fn change_text(bytes: &mut Vec<u8>, random: &mut Random) {
    let end = bytes.len().min(700);
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    let starts: Vec<usize> = (1..end).filter(|&at| is_part(&bytes[at]) && !is_part(&bytes[at - 1])).collect();
    if starts.is_empty() {
        return;
    }
    let at = starts[below(random, starts.len())];
    let length = bytes[at..].iter().take_while(|byte| is_part(byte)).count();
    #[rustfmt::skip]
    let words = [
        "0", "1", "-1", "2", "3", "7", "17", "255", "65536", "2147483648", "4294967296", "9223372036854775807", "-9223372036854775808",
        "18446744073709551616", "1e308", "-1e-320", "nan", "inf", "none", "", "raw", "gzip", "ascii", "hex", "True", "False", "double",
        "MET_DOUBLE", "MET_CHAR", "LIST", "LOCAL", "%d", "list", "domain", "RAST", "signed char",
    ];
    let word = words[below(random, words.len())];
    bytes.splice(at..at + length, word.bytes());
}

#[test]
fn memory_follows_what_arrives_and_nothing_panics() {
    let starts = starts();
    if starts.is_empty() {
        return;
    }
    let files: Vec<Vec<u8>> = starts.iter().map(|start| start.bytes.clone()).collect();
    let count: u64 = std::env::var("TOMOGRAD_FUZZ").ok().and_then(|count| count.parse().ok()).unwrap_or(20_000);
    // By ending: how many were read, refused, and the most memory.
    let mut seen: BTreeMap<String, [usize; 3]> = BTreeMap::new();
    let mut slowest = (Duration::ZERO, String::new());
    for i in 0..count {
        let mut random = Seed::new(20_261_127).at(i).random();
        let start = &starts[below(&mut random, starts.len())];
        let mut bytes = start.bytes.clone();
        let is_text = matches!(start.ending(), "nrrd" | "mha");
        for _ in 0..1 + below(&mut random, 4) {
            if is_text && below(&mut random, 2) == 0 {
                change_text(&mut bytes, &mut random);
            } else {
                change(&mut bytes, &files, &mut random);
            }
        }
        let begun = Instant::now();
        let (peak, volume) = measured(|| Volume::from_bytes(&bytes).map(|volume| volume.voxels().count()));
        let took = begun.elapsed();
        if took > slowest.0 {
            slowest = (took, start.name.clone());
        }
        let entry = seen.entry(start.ending().to_owned()).or_default();
        entry[usize::from(volume.is_err())] += 1;
        entry[2] = entry[2].max(peak);
        if peak > 1 << 20 {
            let most = bound(&bytes);
            assert!(peak <= most, "file {i} of {}: {peak} bytes of memory for {} ({most})", start.name, bytes.len());
        }
    }
    println!("{count} mutated files, no panic; the slowest: {:?}, of {}", slowest.0, slowest.1);
    for (ending, [read, refused, peak]) in &seen {
        println!("{ending:<5} {read:>9} read {refused:>9} refused; the most memory: {peak} bytes");
        assert!(*read > 0 && *refused > 0, "{ending}");
    }
    assert!(slowest.0 < Duration::from_secs(5), "{slowest:?}");
}

/// Claims of 2⁶³ voxels and more, and small files that unfold to gigabytes.
#[test]
fn bombs_are_refused_before_memory_is_taken() {
    let nrrd = |sizes: &str, encoding: &str| {
        let head = "NRRD0004\ntype: uchar\ndimension: 3\nspace: LPS\nspace directions: (1,0,0) (0,1,0) (0,0,1)\nendian: little\n";
        format!("{head}sizes: {sizes}\nencoding: {encoding}\n\n").into_bytes()
    };
    let meta = |sizes: &str, compressed: &str| {
        format!("NDims = 3\nDimSize = {sizes}\nCompressedData = {compressed}\nElementType = MET_DOUBLE\nElementDataFile = LOCAL\n")
            .into_bytes()
    };
    let zeros = vec![0u8; 16 << 20];
    let mut gzip = Vec::new();
    flate2::read::GzEncoder::new(&zeros[..], flate2::Compression::best()).read_to_end(&mut gzip).unwrap();
    let mut zlib = Vec::new();
    flate2::read::ZlibEncoder::new(&zeros[..], flate2::Compression::best()).read_to_end(&mut zlib).unwrap();
    let mut files = Vec::new();
    for sizes in [
        "9223372036854775807 1 1",
        "2097152 2097152 2097152",
        "4294967296 4294967296 1",
        "60000 60000 60000",
        "4096 4096 65",
    ] {
        for encoding in ["raw", "gzip", "ascii", "hex"] {
            files.push([nrrd(sizes, encoding), gzip.clone()].concat());
        }
        for compressed in ["True", "False"] {
            files.push([meta(sizes, compressed), zlib.clone()].concat());
        }
    }
    for bytes in &files {
        let (peak, read) = measured(|| Volume::from_bytes(bytes).is_ok());
        assert!(!read && peak <= 17 << 20, "{peak} bytes for {}", String::from_utf8_lossy(&bytes[..150]));
    }
    // The same sizes as there are bytes are read.
    assert!(Volume::from_bytes(&[nrrd("4096 4096 1", "gzip"), gzip].concat()).is_ok());
}

/// Every bit of compressed data with a checksum: damage is an error, or changes nothing.
#[test]
fn flipped_bits_of_checksummed_data_are_told() {
    let mut kinds = 0;
    for start in starts() {
        let compressed =
            ["itk_gzip.nrrd", "itk_vector.nrrd", "itk_int16_zlib.mha", "itk_float64_zlib.mha", "itk_rgb.png"];
        if !compressed.contains(&&start.name[..]) {
            continue;
        }
        kinds += 1;
        let good = &start.bytes;
        let marker: &[u8] = match start.ending() {
            "nrrd" => b"\n\n",
            "mha" => b"LOCAL\n",
            _ => b"IDAT",
        };
        let from = good.windows(marker.len()).position(|part| part == marker).unwrap() + marker.len();
        let values = |bytes: &[u8]| Volume::from_bytes(bytes).map(|volume| volume.voxels().to_vec_f64().unwrap());
        let expected = values(good).unwrap();
        let (mut told, mut same) = (0, 0);
        for bit in 8 * from..8 * good.len() {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            match values(&bytes) {
                Err(_) => told += 1,
                Ok(values) => {
                    assert_eq!(values, expected, "{} bit {bit}", start.name);
                    same += 1;
                }
            }
        }
        // Time, system and level of gzip's header, the end of the last byte.
        assert!(told > 8 * same, "{}: {told} told, {same} the same", start.name);
    }
    assert!(kinds == 5 || starts().is_empty(), "{kinds}");
}
