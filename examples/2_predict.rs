//! Second task: segments a scan with the network that `1_train` saved. README.md shows this file.
//!
//!     cargo run --release --example 2_predict

use tomograd::prelude::*;

fn main() -> Result<()> {
    // The network's configuration and the preparation of its images travel in the file.
    let model = Model::load("hippocampus.safetensors", Device::Cpu)?;
    let scan = Volume::read("examples/data/hippocampus/images/hippocampus_004.nii.gz")?;
    model.segment(&scan)?.write("mask.nii.gz") // in the scan's own grid
}
