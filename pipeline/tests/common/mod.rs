//! Folders of small files for the tests of datasets and caches, each of which uses some of this.
#![allow(dead_code)]

use std::{
    fs,
    path::{Path, PathBuf},
};

use tomograd_core::{Device, Tensor};
use tomograd_io::{Volume, geometry};

/// A folder that is removed when dropped.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("tomograd-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    /// Writes a file, and the folders that it lies in.
    pub fn write(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Writes a volume of 2×3×4 voxels that count from `first`, `spacing` millimetres apart along x.
    pub fn volume(&self, path: &str, first: usize, spacing: f64) {
        let voxels: Vec<u8> = (0..24).map(|i| (first + i) as u8).collect();
        self.voxels(path, &voxels, [2, 3, 4], spacing);
    }

    pub fn voxels(&self, path: &str, voxels: &[u8], shape: [usize; 3], spacing: f64) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let voxels = Tensor::from_slice(voxels, &shape, Device::Cpu).unwrap();
        Volume::new(voxels, geometry::from_spacing([spacing, 1.0, 1.0]).unwrap()).unwrap().write(path).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.0);
    }
}

impl AsRef<Path> for Folder {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}
