//! The program that README.md shows: trains a small network, saves it, loads it again, and segments a scan.
//!
//!     cargo run --release --example quickstart

use std::sync::Arc;
use tomograd::pipeline::transforms::{Compose, CropOrPad};
use tomograd::prelude::*;

fn main() -> Result<()> {
    let seed = Seed::new(0);
    let classes = ["background", "anterior", "posterior"];
    let preparation = Preparation::new([40, 56, 40], classes)?.orientation("RAS")?.spacing([1.0; 3])?;
    let cases = Dataset::prepared("examples/data/hippocampus", &preparation)?;
    let patches = Compose::new().then(CropOrPad::random(preparation.patch.clone()))?;
    let loader = Loader::new(Arc::new(cases), 2, seed.named("loader"))?.transforms(patches);

    let config = UNet3dConfig { widths: vec![8, 16, 32], ..UNet3dConfig::new(3) };
    let mut params = Params::new(Device::Cpu, seed.named("weights"));
    let net = UNet3d::new(params.root(), &config)?;
    let mut optimizer = AdamW::new(&params, |p| Group::rate(3e-3).decay(if p.is_matrix() { 1e-2 } else { 0.0 }))?;
    for epoch in 0..2 {
        for (step, batch) in loader.epoch(epoch).enumerate() {
            let batch = batch?;
            let mut pass = Pass::train(&params, seed.at(epoch as u64).at(step as u64))?;
            let logits = net.forward(&pass.input(&batch.image), &mut pass)?;
            let loss = DiceCe::default().forward(&logits, &batch.label)?;
            let update = pass.backward(&loss)?.clip_norm(12.0)?;
            optimizer.step(&mut params, update)?;
        }
    }
    let checkpoint = Checkpoint::new(&params).config(&config)?.preparation(&preparation)?;
    checkpoint.optimizer(&optimizer).save("hippocampus.safetensors")?;

    // The network's configuration and the preparation of its images travel in the file.
    let model = Model::load("hippocampus.safetensors", Device::Cpu)?;
    let scan = Volume::read("examples/data/hippocampus/images/hippocampus_004.nii.gz")?;
    model.segment(&scan)?.write("mask.nii.gz") // in the scan's own grid
}
