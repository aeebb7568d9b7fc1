//! The program that README.md shows: trains a small network, saves it, and loads it again.
//!
//!     cargo run --release --example quickstart

use std::sync::Arc;
use tomograd::pipeline::transforms::{Compose, CropOrPad, ZScore};
use tomograd::prelude::*;

fn main() -> Result<()> {
    let seed = Seed::new(0);
    let cases = Dataset::open("examples/data/hippocampus", 3)?.prepare(Compose::new().then(ZScore::default())?);
    let patches = Compose::new().then(CropOrPad::random([40, 56, 40]))?;
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
    Checkpoint::new(&params).config(&config)?.optimizer(&optimizer).save("hippocampus.safetensors")?;

    // The configuration travels in the file.
    let model = Model::load("hippocampus.safetensors", Device::Cpu)?;
    let logits = model.predict(&Tensor::zeros(&[1, 1, 40, 56, 40], DType::F32, Device::Cpu)?)?;
    assert_eq!(logits.shape(), [1, 3, 40, 56, 40]);
    Ok(())
}
