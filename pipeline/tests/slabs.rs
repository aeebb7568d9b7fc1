//! Prediction by slabs against prediction in memory.

mod common;

use common::Folder;
use tomograd_core::{DType, Device, Result, Seed, Tensor};
use tomograd_io::{Slabs, Volume, geometry};
use tomograd_models::{Model, UNet3dConfig};
use tomograd_pipeline::{
    Ensemble, Preparation,
    preparation::{Activation, Channel, Clip, Intensity, Normalisation, Postprocess},
};

#[test]
fn slabs_give_the_bits_of_the_whole() -> Result<()> {
    let folder = Folder::new("slabs");
    let path = folder.0.join("scan.nii");
    let z_score = |nonzero| Some(Normalisation::ZScore { nonzero });
    let window = Some(Clip::Window { low: -0.5, high: 1.5 });
    let stored = Some(Normalisation::Stored { mean: 0.2, deviation: 0.9 });
    let config = UNet3dConfig { in_channels: 1, classes: 2, widths: vec![2, 4] };
    let model = Model::new(&config, Device::Cpu, Seed::new(3))?;
    let cases = [
        // Orientation of the file and of the network, the depth, the intensities.
        ("RAS", None, 30, Intensity { clip: None, normalisation: z_score(false) }),
        ("RAS", Some("LPI"), 30, Intensity { clip: window, normalisation: z_score(true) }),
        ("RAS", Some("ARS"), 9, Intensity { clip: window, normalisation: stored }),
        ("LPI", Some("PLS"), 5, Intensity { clip: None, normalisation: None }),
        ("LPS", Some("RAS"), 8, Intensity { clip: None, normalisation: z_score(false) }),
    ];
    for (number, (own, codes, depth, intensity)) in cases.into_iter().enumerate() {
        let voxels = Tensor::normal(&[depth, 11, 13], 0.1, 1.0, Seed::new(number as u64), DType::F32, Device::Cpu)?;
        Volume::new(voxels, geometry::from_orientation(own)?)?.write(&path)?;
        let mut preparation = Preparation::new([8, 8, 8], ["background", "organ"])?
            .channels([Channel::new("t1", "MR").intensity(intensity)])?
            .label_values(&[0, 700])?
            .overlap(if number == 1 { 0.7 } else { 0.5 })?
            .mirroring(number == 2)
            .postprocessing([Postprocess::LargestComponent { class: 1 }])?;
        if let Some(codes) = codes {
            preparation = preparation.orientation(codes)?;
        }
        let predict = |patches: &Tensor| model.predict(patches);
        let whole = preparation.segment(&Volume::read(&path)?, predict)?;
        let slabs = preparation.segment_slabs(&mut Slabs::open(&path)?, predict)?;
        let (slabs_values, whole_values) = (slabs.voxels().to_vec_f64()?, whole.voxels().to_vec_f64()?);
        assert_eq!((slabs.affine(), slabs.voxels().dtype()), (whole.affine(), whole.voxels().dtype()));
        assert!(slabs_values == whole_values, "case {number}");
        let inside = whole_values.iter().filter(|value| **value == 700.0).count();
        assert!((1..whole_values.len()).contains(&inside), "case {number}: {inside}");
    }
    Ok(())
}

#[test]
fn what_needs_the_whole_image_says_so() -> Result<()> {
    let folder = Folder::new("slabs-refused");
    let path = folder.0.join("scan.nii");
    let voxels = Tensor::normal(&[9, 8, 8], 0.0, 1.0, Seed::new(1), DType::F32, Device::Cpu)?;
    Volume::new(voxels, geometry::from_orientation("RAS")?)?.write(&path)?;
    let base = Preparation::new([8, 8, 8], ["background", "organ"])?;
    let percentiles = Clip::Percentiles { low: 1.0, high: 99.0, nonzero: false };
    let clipped = Channel::new("t1", "MR").intensity(Intensity { clip: Some(percentiles), normalisation: None });
    for (preparation, part) in [
        (base.clone().spacing([2.0; 3])?, "resampling"),
        (base.clone().orientation("SAR")?, "the orientation SAR"),
        (base.clone().channels([clipped])?, "percentiles"),
        (base.clone().channels([Channel::new("a", ""), Channel::new("b", "")])?, "2 channels"),
    ] {
        let error = preparation.segment_slabs(&mut Slabs::open(&path)?, |patches| Ok(patches.clone())).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    }
    // NaN is named with its planes.
    let mut voxels = Tensor::zeros(&[9, 8, 8], DType::F32, Device::Cpu)?;
    voxels.as_mut_slice::<f32>()?[8 * 64] = f32::NAN;
    Volume::new(voxels, geometry::from_orientation("RAS")?)?.write(&path)?;
    let error = base.segment_slabs(&mut Slabs::open(&path)?, |patches| Ok(patches.clone())).unwrap_err();
    assert!(error.to_string().contains("planes 8 to 9"), "{error}");
    Ok(())
}

#[test]
fn an_ensemble_averages_probabilities() -> Result<()> {
    let config = |classes| UNet3dConfig { in_channels: 1, classes, widths: vec![2, 4] };
    let patches = Tensor::normal(&[2, 1, 8, 8, 8], 0.0, 1.0, Seed::new(1), DType::F32, Device::Cpu)?;
    for (activation, maps) in [(Activation::Softmax, 3), (Activation::Sigmoid, 2)] {
        let preparation = Preparation::new([8, 8, 8], ["background", "a", "b"])?.activation(activation);
        let model = |seed| Model::new(&config(maps), Device::Cpu, Seed::new(seed))?.with_preparation(&preparation);
        let [first, second] = [1, 2].map(|seed| model(seed)?.predict(&patches)?.to_vec_f64());
        let (first, second) = (first?, second?);
        let mean = Ensemble::new(vec![model(1)?, model(2)?])?.predict(&patches)?.to_vec_f64()?;
        let voxels = 512;
        for (at, logit) in mean.iter().enumerate() {
            let (patch, inside) = (at / (maps * voxels), at % voxels);
            let probability = |logits: &[f64]| match activation {
                Activation::Sigmoid => 1.0 / (1.0 + (-logits[at]).exp()),
                Activation::Softmax => {
                    let all = (0..maps).map(|map| logits[(patch * maps + map) * voxels + inside].exp());
                    logits[at].exp() / all.sum::<f64>()
                }
            };
            let mean = (probability(&first) + probability(&second)) / 2.0;
            let expected = match activation {
                Activation::Sigmoid => (mean / (1.0 - mean)).ln(),
                Activation::Softmax => mean.ln(),
            };
            assert!((logit - expected).abs() < 1e-5, "{logit} {expected}");
        }
        // One network is left as it is.
        let alone = Ensemble::new(vec![model(1)?])?.predict(&patches)?.to_vec_f64()?;
        assert_eq!(alone, first);
        let other = model(2)?.with_preparation(&preparation.clone().overlap(0.1)?)?;
        let error = Ensemble::new(vec![model(1)?, other]).err().unwrap().to_string();
        assert!(error.contains("network 2 has another preparation"), "{error}");
    }
    assert!(Ensemble::new(Vec::new()).is_err());
    Ok(())
}
