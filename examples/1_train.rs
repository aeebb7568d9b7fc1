//! First task: trains a small network on the images in this repository, and saves it. README.md shows this file.
//!
//!     cargo run --release --example 1_train

use std::sync::Arc;
use tomograd::prelude::*;

fn main() -> Result<()> {
    let seed = Seed::new(0);
    let classes = ["background", "anterior", "posterior"];
    let preparation = Preparation::new([40, 56, 40], classes)?.orientation("RAS")?.spacing([1.0; 3])?;
    let cases = Dataset::prepared("examples/data/hippocampus", &preparation)?;
    let patches = transforms::Compose::new().then(transforms::CropOrPad::random(preparation.patch.clone()))?;
    let loader = Loader::new(Arc::new(cases), 2, seed.named("loader"))?.transforms(patches);

    let config = UNet3dConfig { widths: vec![8, 16, 32], ..UNet3dConfig::new(3) };
    let mut params = Params::new(Device::Cpu, seed.named("weights"));
    let net = UNet3d::new(params.root(), &config)?;
    let mut optimizer = AdamW::new(&params, 3e-3)?.decay(1e-2)?;
    for epoch in 0..2 {
        for (step, batch) in (0..).zip(loader.epoch(epoch)) {
            let batch = batch?;
            let pass = Pass::train(&params, seed.at(epoch).at(step))?;
            let logits = net.forward(&pass.input(batch.image()?), &pass)?;
            let loss = DiceCe::default().forward(&logits, batch.label()?)?;
            let update = pass.backward(loss)?.clip_norm(12.0)?;
            optimizer.step(&mut params, update)?;
        }
    }
    let checkpoint = Checkpoint::new(&params).config(&config)?.preparation(&preparation)?;
    checkpoint.optimizer(&optimizer).save("hippocampus.safetensors")
}
