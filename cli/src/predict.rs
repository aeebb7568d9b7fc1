//! `tomograd predict CHECKPOINT INPUT... --out DIR`.

use std::path::{Path, PathBuf};

use tomograd::{
    pipeline::{
        Sample,
        transforms::{Compose, ZScore},
    },
    prelude::*,
};

/// Windows of this size cover a volume.
const PATCH: [usize; 3] = [64; 3];

pub(crate) fn run(checkpoint: &Path, inputs: &[PathBuf], out: &Path) -> Result<()> {
    let model = Model::load(checkpoint, Device::Cpu)?;
    std::fs::create_dir_all(out).map_err(|error| Error::io("create", out.display(), error))?;
    let prepare = Compose::new().then(ZScore::default());
    for input in inputs {
        let within = |error: Error| error.within(input.display().to_string());
        let name =
            input.file_name().ok_or_else(|| Error::argument("predict", format!("{} isn't a file", input.display())))?;
        let scan = Volume::read(input)?;
        let sample = Sample::new(name.to_string_lossy(), &scan.to_f32()?.unsqueeze(0)?, None).map_err(within)?;
        let sample = prepare.apply(sample, Seed::new(0))?;
        let labels = SlidingWindow::new(PATCH).overlap(0.5).labels(&sample.image, |patches| model.predict(patches));
        scan.with_voxels(labels.map_err(within)?)?.write(out.join(name))?;
        println!("{}", out.join(name).display());
    }
    Ok(())
}
