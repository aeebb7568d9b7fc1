//! Files of weights made to be misread, or to take far more memory than their size.

#[path = "common/counting.rs"]
mod counting;

use std::{collections::BTreeMap, fs, path::PathBuf};

use counting::measured;
use tomograd_core::{DType, Device, Result, Tensor};
use tomograd_io::{Weights, pytorch, safetensors};

/// A file that is removed when dropped.
struct File(PathBuf);

impl File {
    fn new(name: &str, bytes: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("tomograd-hostile-{}-{name}", std::process::id()));
        fs::write(&path, bytes).unwrap();
        Self(path)
    }

    /// The peak of memory while the file is opened, and the result.
    fn opened(&self) -> (usize, Result<Weights>) {
        measured(|| Weights::open(&self.0))
    }
}

impl Drop for File {
    fn drop(&mut self) {
        _ = fs::remove_file(&self.0);
    }
}

/// A file of the container before PyTorch 1.6.
fn container(object: &[u8], keys: &[u8], storages: &[u8]) -> Vec<u8> {
    let magic = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
    [&magic[..], b"\x80\x02M\xe9\x03.", b"\x80\x02}.", object, keys, storages].concat()
}

fn text(length: usize) -> Vec<u8> {
    [&b"X"[..], &(length as u32).to_le_bytes(), &b"a".repeat(length)].concat()
}

#[test]
fn any_length_of_a_header_is_safetensors() {
    // Lengths of 640, 896, 1152 and 1408 begin like a pickle, one of 31520 like JSON.
    for padding in (500..1500).chain([31_400, 31_450, 31_500]).map(|length| length / 8 * 8) {
        let metadata = BTreeMap::from([("x".to_owned(), "y".repeat(padding))]);
        let mut bytes = Vec::new();
        let tensors = [("w".to_owned(), Tensor::ones(&[2], DType::F32, Device::Cpu).unwrap())];
        safetensors::write(&mut bytes, &tensors, &metadata).unwrap();
        let file = File::new("header.safetensors", &bytes);
        let weights = file.opened().1.unwrap_or_else(|error| panic!("padding {padding}: {error}"));
        assert_eq!(weights.get("w").unwrap().read().unwrap().to_vec::<f32>().unwrap(), [1.0; 2]);
    }
}

#[test]
fn what_is_read_again_and_again_is_charged() {
    // A long text as the argument of many calls.
    let calls = b"h\x02h\x01R0".repeat(500);
    let head = [&b"\x80\x02"[..], &text(1 << 18), b"q\x00K\x01\x86q\x01ctorch\ndevice\nq\x02"].concat();
    let device = container(&[&head[..], &calls, b"."].concat(), b"\x80\x02].", b"");
    // A long key of a storage that isn't there, in many tensors.
    let storage =
        [&b"(X\x07\0\0\0storagectorch\nFloatStorage\n"[..], &text(1 << 18), b"X\x03\0\0\0cpuK\x04NtQ"].concat();
    let tensor =
        [&b"ctorch._utils\n_rebuild_tensor_v2\n("[..], &storage, b"K\x00K\x01\x85K\x01\x85\x89NtRq\x00"].concat();
    let object = [&b"\x80\x02"[..], &tensor, b"0]q\x01(", &b"h\x00".repeat(500), b"e."].concat();
    for (name, bytes) in [("device.pth", device), ("key.pth", container(&object, b"\x80\x02].", b""))] {
        let (peak, _) = File::new(name, &bytes).opened();
        // Both took more than a hundred megabytes.
        assert!(peak < 40 * bytes.len(), "{name}: {peak} bytes for a file of {}", bytes.len());
    }
}

#[test]
fn a_name_that_a_dict_gives_twice_is_skipped() {
    let tensor = |offset: u8| {
        let storage = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x04NtQK";
        [&b"ctorch._utils\n_rebuild_tensor_v2\n("[..], storage, &[offset], b"(K\x01t(K\x01t\x89NtR"].concat()
    };
    let object = [&b"\x80\x02}X\x01\0\0\0w"[..], &tensor(0), b"sX\x01\0\0\0w", &tensor(3), b"s."].concat();
    let floats = [4u64.to_le_bytes().to_vec(), (0..4).flat_map(|i| (i as f32).to_le_bytes()).collect()].concat();
    let contents = pytorch::from_bytes(container(&object, b"\x80\x02]X\x01\0\0\x000a.", &floats)).unwrap();
    // Python has the last one; a list of names can't say which one is meant.
    let last = contents.root().get("w").unwrap().tensor("w").unwrap();
    assert_eq!(last.read().unwrap().to_vec::<f32>().unwrap(), [3.0]);
    assert!(contents.tensors().unwrap().is_empty());
}
