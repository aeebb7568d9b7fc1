//! Arrays that NumPy wrote, and what damage does to them.

use std::{fs, path::PathBuf};

use tomograd_core::{DType, Random, Seed};
use tomograd_io::numpy::{Npz, read_npy};

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/numpy").join(name)
}

/// A file of these bytes, gone when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str, bytes: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("tomograd-numpy-{}-{name}", std::process::id()));
        fs::write(&path, bytes).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_file(&self.0).unwrap();
    }
}

#[test]
fn every_type_is_read_from_both_kinds_of_archive() {
    use DType::{Bool, F16, F32, F64, I32, I64, U8};
    let types = [
        ("f2", F16, -5),
        ("f4", F32, -5),
        ("f4_big", F32, -5),
        ("f8", F64, -5),
        ("f8_big", F64, -5),
        ("b1", Bool, 0),
        ("u1", U8, 0),
        ("i1", I32, -5),
        ("i2", I32, -5),
        ("u2_big", I32, 0),
        ("i4", I32, -5),
        ("u4", I64, 0),
        ("i8", I64, -5),
        ("i8_big", I64, -5),
        ("u8", I64, 0),
        ("fortran", F32, 0),
    ];
    for archive in ["stored.npz", "deflated.npz"] {
        let archive = Npz::open(golden(archive)).unwrap();
        assert_eq!(archive.names().len(), types.len() + 2);
        for (name, dtype, first) in types {
            let array = archive.array(name).unwrap();
            assert_eq!((array.dtype(), array.shape()), (dtype, &[2, 3, 4][..]), "{name}");
            let expected: Vec<f64> = (0..24).map(|i| if dtype == Bool { i % 2 } else { i + first }.into()).collect();
            assert_eq!(array.to_vec_f64().unwrap(), expected, "{name}");
        }
        assert_eq!(archive.array("scalar").unwrap().to_scalar().unwrap(), 2.5);
        assert_eq!(archive.array("empty").unwrap().shape(), [0, 3]);
        let error = archive.array("f3").unwrap_err().to_string();
        assert!(error.contains("no array is called \"f3\"; expected one of f2, f4,"), "{error}");
    }
    let array = read_npy(golden("fortran.npy")).unwrap();
    assert_eq!(array.to_vec::<f32>().unwrap(), (0..24).map(|i| i as f32).collect::<Vec<_>>());
}

/// An `.npy` file with this header and body.
fn npy(header: &str, body: &[u8]) -> Vec<u8> {
    [b"\x93NUMPY\x01\0", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), body].concat()
}

#[test]
fn what_is_no_array_is_said() {
    let error = |name: &str, bytes: &[u8]| {
        let file = Scratch::new(name, bytes);
        let error = read_npy(&file.0).unwrap_err().to_string();
        assert!(error.contains(name), "{error}");
        error
    };
    let header = |descr: &str, shape: &str| format!("{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}");
    assert!(error("magic", b"PK\x03\x04 and more").contains("no NumPy array"));
    assert!(error("object", &npy(&header("'|O'", "(1,)"), &[0; 8])).contains("elements of type \"|O\""));
    assert!(error("text", &npy(&header("'<U1'", "(1,)"), &[0; 4])).contains("elements of type \"<U1\""));
    assert!(error("record", &npy(&header("[('a', '<f4')]", "(1,)"), &[0; 4])).contains("the header"));
    assert!(error("short", &npy(&header("'<f4'", "(2,)"), &[0; 4])).contains("for 2 elements of <f4; expected"));
    assert!(error("long", &npy(&header("'<f4'", "(1,)"), &[0; 5])).contains("for 1 elements"));
    assert!(error("huge", &npy(&header("'<f4'", "(4294967296, 4294967296)"), &[])).contains("numpy"));
    assert!(error("large", &npy(&header("'<f4'", "(1099511627776,)"), &[])).contains("4398046511"));
    assert!(error("negative", &npy(&header("'<f4'", "(-1,)"), &[])).contains("the header"));
    assert!(error("truth", &npy(&header("'|b1'", "(1,)"), &[2])).contains("an element that no tensor holds"));
    assert!(error("unsigned", &npy(&header("'<u8'", "(1,)"), &[255; 8])).contains("below 2^63"));
    assert!(error("key", &npy("{'descr': '<f4', 'shape': (), 'shape': ()}", &[0; 4])).contains("the header"));
    assert!(error("version", b"\x93NUMPY\x09\0\0\0").contains("version 9"));
    assert!(Npz::open(golden("fortran.npy")).err().unwrap().to_string().contains("no zip archive"));
    assert!(read_npy("/nowhere").is_err());
    // Without a space, with a tuple of one, and with Python 2's long numbers.
    let good = Scratch::new("good", &npy("{\"shape\":(2L,),'fortran_order':False,'descr':'|u1'}\n", &[7, 8]));
    assert_eq!(read_npy(&good.0).unwrap().to_vec::<u8>().unwrap(), [7, 8]);
}

#[test]
fn damage_is_an_error_or_nothing() {
    let cases: usize = std::env::var("TOMOGRAD_CASES").map_or(2000, |cases| cases.parse().unwrap());
    tomograd_core::memory::set_limit(tomograd_core::Device::Cpu, Some(64 << 20)).unwrap();
    let mut random: Random = Seed::new(1).random();
    let mut refused = 0;
    for name in ["stored.npz", "deflated.npz", "fortran.npy"] {
        let good = fs::read(golden(name)).unwrap();
        for case in 0..cases / 3 {
            let mut bytes = good.clone();
            match case % 3 {
                0 => bytes.truncate(random.below(good.len() as u64) as usize),
                1 => {
                    for _ in 0..=random.below(4) {
                        bytes[random.below(good.len() as u64) as usize] ^= 1 << random.below(8);
                    }
                }
                _ => {
                    let at = random.below(good.len() as u64 - 8) as usize;
                    bytes[at..at + 8].copy_from_slice(&[u64::MAX, 0, 1 << 40][random.below(3) as usize].to_le_bytes());
                }
            }
            let file = Scratch::new("fuzz", &bytes);
            let whole = if name.ends_with("npy") {
                read_npy(&file.0).map(|_| ())
            } else {
                Npz::open(&file.0).and_then(|archive| {
                    let names: Vec<String> = archive.names().into_iter().map(str::to_owned).collect();
                    names.iter().try_for_each(|name| archive.array(name).map(|_| ()))
                })
            };
            refused += usize::from(whole.is_err());
        }
    }
    assert!(refused > cases / 3, "{refused}");
}
