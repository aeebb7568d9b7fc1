//! What the default precision costs in accuracy, on a whole 3D U-Net.

use tomograd_core::{DType, Device, Result, Seed, Tensor};
use tomograd_kernels::Precision;
use tomograd_models::{UNet3d, UNet3dConfig};
use tomograd_nn::{DiceCe, Module, Params, Pass};

/// Logits, and the gradient of each parameter, of one training pass on the same weights and image, as f64.
fn results(dtype: DType, precision: Precision) -> Result<Vec<Vec<f64>>> {
    let mut params = Params::new(Device::Cpu, Seed::new(3)).with_dtype(dtype);
    let config = UNet3dConfig { in_channels: 1, classes: 3, widths: vec![16, 32, 64] };
    let net = UNet3d::new(params.root(), &config)?;
    let image =
        Tensor::normal(&[1, 1, 20, 24, 20], 0.0, 1.0, Seed::new(4), DType::F32, Device::Cpu)?.converted(dtype)?;
    let mut random = Seed::new(5).random();
    let labels: Vec<i64> = (0..image.count()).map(|_| random.below(3) as i64).collect();
    let labels = Tensor::from_slice(&labels, &[1, 20, 24, 20], Device::Cpu)?;
    // The weights are drawn in f32 precision, so that all runs start from the same numbers.
    let names: Vec<String> = params.state().map(|(name, _)| name.to_owned()).collect();
    for name in &names {
        let value = params.get(name).expect("the name is from the list").converted(DType::F32)?.converted(dtype)?;
        params.set(name, value)?;
    }
    let pass = Pass::train(&params, Seed::new(0))?.precision(precision)?;
    let logits = net.forward(&pass.input(&image), &pass)?;
    let loss = DiceCe::default().forward(&logits, &labels)?;
    let mut results = vec![logits.value().to_vec_f64()?];
    let update = pass.backward(loss)?;
    for name in names {
        if let Some(gradient) = update.gradient(&name) {
            results.push(gradient.to_vec_f64()?);
        }
    }
    Ok(results)
}

/// ‖a − b‖ / ‖b‖
fn distance(a: &[f64], b: &[f64]) -> f64 {
    let square = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    square(&mut a.iter().zip(b).map(|(a, b)| a - b)) / square(&mut b.iter().copied())
}

#[test]
fn the_default_is_as_good_as_f32_on_a_whole_network() {
    let exact = results(DType::F64, Precision::Strict).unwrap();
    let [fast, strict] = [Precision::Fast, Precision::Strict].map(|precision| {
        let results = results(DType::F32, precision).unwrap();
        let logits = distance(&results[0], &exact[0]);
        // Gradients that cancel to zero (a bias before a norm) have nothing but rounding errors: all gradients together.
        let [gradients, exact] = [&results, &exact].map(|results| results[1..].concat());
        (logits, distance(&gradients, &exact))
    });
    println!("relative errors of logits and gradients: fast {fast:?}, strict {strict:?}");
    // ε of f32 is 1.2e-7, and a voxel's value goes through some ten convolutions of up to 1728 products.
    assert!(strict.0 < 1e-5 && fast.0 < 1e-5, "logits: {fast:?} {strict:?}");
    assert!(fast.0 > strict.0, "Winograd was not used: {fast:?} {strict:?}");
    // Values near 0 that come out on the other side of the leaky ReLU's kink make most of it, in either precision.
    assert!(strict.1 < 1e-2 && fast.1 < 4.0 * strict.1, "gradients: {fast:?} {strict:?}");
}
