//! `tomograd info FILE`.

use std::path::Path;

use tomograd::{Result, io::Volume};

pub(crate) fn run(file: &Path) -> Result<()> {
    let volume = Volume::read(file)?;
    let voxels = volume.voxels();
    let mut sizes: Vec<String> = voxels.shape().iter().rev().map(usize::to_string).collect();
    if sizes.is_empty() {
        sizes.push("1".to_owned());
    }
    let values = voxels.to_vec_f64()?;
    let (least, most) = values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), &v| (a.min(v), b.max(v)));
    let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
    println!("file         {}", file.display());
    println!("shape        {} (i, j, k, ...)", sizes.join(" x "));
    println!("dtype        {}", voxels.dtype());
    println!("spacing      {} mm", volume.spacing().map(|size| format!("{size:.4}")).join(" x "));
    println!("orientation  {}", volume.orientation());
    println!("codes        qform {}, sform {}", volume.geometry().qform_code, volume.geometry().sform_code);
    for (name, row) in ["affine     ", "", ""].iter().zip(volume.affine()) {
        println!("{name:<11}  {}", row.map(|value| format!("{value:>12.5}")).join(" "));
    }
    println!("intensities  {least} to {most}, mean {mean:.4}");
    Ok(())
}
