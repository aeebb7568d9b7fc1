//! A write that fails, at any byte and for any reason, leaves the previous file whole and nothing beside it.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    path::PathBuf,
};

use tomograd_core::{DType, Device, Result, Tensor};
use tomograd_io::{Target, Volume, safetensors, write_atomically_through};

/// A file on a disk with room for `left` bytes.
struct Full {
    file: File,
    left: usize,
}

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(self.left);
        if count == 0 && !bytes.is_empty() {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        self.left -= count;
        self.file.write(&bytes[..count])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Target for Full {
    fn sync(&mut self) -> io::Result<()> {
        Ok(()) // bytes on the disk are not what is tested, and a thousand fsyncs take long
    }
}

fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("tomograd-writers-{}-{name}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn volume() -> Volume {
    let voxels = Tensor::arange(60, DType::F32, Device::Cpu).unwrap().reshape(&[5, 4, 3]).unwrap();
    Volume::new(voxels, tomograd_io::geometry::from_spacing([1.0, 2.0, 3.0]).unwrap()).unwrap()
}

fn tensors(count: usize) -> Vec<(String, Tensor)> {
    vec![
        ("a".into(), Tensor::arange(count, DType::F32, Device::Cpu).unwrap()),
        ("b".into(), Tensor::arange(5, DType::U8, Device::Cpu).unwrap()),
    ]
}

fn fails_at_each_byte(name: &str, body: impl Fn(&mut dyn Write) -> Result<()>) {
    let folder = folder(name);
    let path = folder.join("file");
    let mut whole = Vec::new();
    body(&mut whole).unwrap();
    fs::write(&path, b"previous").unwrap();
    for left in 0..whole.len() {
        let written = write_atomically_through(&path, |file| Full { file, left }, &body);
        assert!(written.is_err(), "{name} with room for {left} of {}", whole.len());
        assert_eq!(fs::read(&path).unwrap(), b"previous");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
    }
    write_atomically_through(&path, |file| Full { file, left: whole.len() }, &body).unwrap();
    assert!(fs::read(&path).unwrap() == whole);
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn nifti_fails_at_each_byte() {
    fails_at_each_byte("nii", |writer| volume().write_to(writer, false));
    fails_at_each_byte("nii.gz", |writer| volume().write_to(writer, true));
}

#[test]
fn safetensors_fails_at_each_byte() {
    fails_at_each_byte("safetensors", |writer| safetensors::write(writer, &tensors(20), &BTreeMap::new()));
}

/// Run by the next test in a process that may write 8 blocks only; alone it does nothing.
#[test]
fn under_a_limit() {
    let Some(folder) = std::env::var_os("TOMOGRAD_LIMITED").map(PathBuf::from) else { return };
    let big = Tensor::normal(&[32, 32, 32], 0.0, 1.0, tomograd_core::Seed::new(1), DType::F32, Device::Cpu).unwrap();
    let big = Volume::new(big, tomograd_io::geometry::from_spacing([1.0; 3]).unwrap()).unwrap();
    assert!(big.write(folder.join("a.nii")).is_err());
    assert!(big.write(folder.join("a.nii.gz")).is_err());
    assert!(safetensors::save(&folder.join("a.safetensors"), &tensors(50_000), &BTreeMap::new()).is_err());
}

#[cfg(unix)]
#[test]
fn the_systems_file_size_limit_leaves_the_previous_files() {
    let folder = folder("limit");
    let names = ["a.nii", "a.nii.gz", "a.safetensors"];
    for name in names {
        fs::write(folder.join(name), b"previous").unwrap();
    }
    // Without the trap the signal SIGXFSZ would end the process; ignored, the write fails.
    let command = "trap '' XFSZ; ulimit -f 8; exec \"$0\" --exact under_a_limit --nocapture";
    let status = std::process::Command::new("sh")
        .args(["-c", command])
        .arg(std::env::current_exe().unwrap())
        .env("TOMOGRAD_LIMITED", &folder)
        // Its own output may go to a file that is past the limit already.
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    for name in names {
        assert_eq!(fs::read(folder.join(name)).unwrap(), b"previous", "{name}");
    }
    assert_eq!(fs::read_dir(&folder).unwrap().count(), names.len());
    fs::remove_dir_all(folder).unwrap();
}
