//! The 3D U-Net: its parameters, its training, and that it gives the same bits whoever computes it.

use tomograd_core::{DType, Device, Result, Seed, Tensor, copies_on_write};
use tomograd_kernels::parallel::{Order, Settings, reset_workers_seen, with_settings, workers_seen};
use tomograd_models::{UNet3d, UNet3dConfig};
use tomograd_nn::{AdamW, DiceCe, Module, Optimizer, Params, Pass};

fn small() -> UNet3dConfig {
    UNet3dConfig { in_channels: 1, classes: 3, widths: vec![8, 16, 32] }
}

fn batch(shape: &[usize]) -> (Tensor, Tensor) {
    let seed = Seed::new(3);
    let image = Tensor::normal(shape, 0.0, 1.0, seed.named("image"), DType::F32, Device::Cpu).unwrap();
    let mut random = seed.named("label").random();
    let labels_shape = [&shape[..1], &shape[2..]].concat();
    let labels: Vec<i64> = (0..labels_shape.iter().product::<usize>()).map(|_| random.below(3) as i64).collect();
    (image, Tensor::from_slice(&labels, &labels_shape, Device::Cpu).unwrap())
}

fn train(config: &UNet3dConfig, shape: &[usize], steps: u64) -> Result<(Params, Vec<f64>)> {
    let seed = Seed::new(7);
    let mut params = Params::new(Device::Cpu, seed);
    let net = UNet3d::new(params.root(), config)?;
    let mut optimizer = AdamW::new(&params, 3e-3)?.decay(1e-2)?;
    let (image, label) = batch(shape);
    let mut losses = Vec::new();
    for step in 0..steps {
        let pass = Pass::train(&params, seed.at(step))?;
        let logits = net.forward(&pass.input(&image), &pass)?;
        let loss = DiceCe::default().forward(&logits, &label)?;
        losses.push(loss.value().to_scalar()?);
        let update = pass.backward(loss)?.clip_norm(12.0)?;
        optimizer.step(&mut params, update)?;
    }
    Ok((params, losses))
}

fn bits(params: &Params) -> Vec<(String, Vec<u32>)> {
    let value = |(name, value): (&str, &Tensor)| {
        (name.to_owned(), value.to_vec::<f32>().unwrap().into_iter().map(f32::to_bits).collect())
    };
    params.state().map(value).collect()
}

#[test]
fn has_the_parameters_of_the_network_it_follows() {
    let mut params = Params::new(Device::Cpu, Seed::new(0));
    UNet3d::new(params.root(), &UNet3dConfig::new(3)).unwrap();
    let weights = |a: usize, b: usize| 27 * a * b + 3 * b;
    let block = |a: usize, b: usize| weights(a, b) + weights(b, b);
    let expected = block(1, 32)
        + block(32, 64)
        + block(64, 128)
        + block(128, 256)
        + block(256, 128)
        + block(128, 64)
        + block(64, 32)
        + 8 * (256 * 128 + 128 * 64 + 64 * 32)
        + 128
        + 64
        + 32
        + 3 * 32
        + 3;
    assert_eq!(params.count(), expected);
    assert_eq!(params.get("enc.1.0.weight").unwrap().shape(), [64, 32, 3, 3, 3]);
    assert_eq!(params.get("up.0.weight").unwrap().shape(), [256, 128, 2, 2, 2]);
    assert_eq!(params.get("dec.2.4.bias").unwrap().shape(), [32]);
}

#[test]
fn learns_and_copies_nothing_on_write() {
    let before = copies_on_write();
    let (_, losses) = train(&small(), &[1, 1, 8, 12, 8], 12).unwrap();
    assert_eq!(copies_on_write(), before);
    assert!(losses[11] < 0.8 * losses[0], "{losses:?}");
}

#[test]
fn three_steps_give_the_same_weights_for_any_threads_and_chunk_order() {
    let config = UNet3dConfig::new(3);
    let run = |settings: Settings| with_settings(settings, || train(&config, &[2, 1, 40, 56, 40], 3)).unwrap().0;
    let expected = bits(&run(Settings::default().threads(1)));
    reset_workers_seen();
    for settings in [
        Settings::default().threads(2),
        Settings::default().threads(5),
        Settings::default().threads(3).order(Order::Shuffled(11)),
    ] {
        assert!(bits(&run(settings)) == expected, "{settings:?}");
    }
    assert!(workers_seen() > 1);
}

#[test]
fn inference_gives_what_training_computes() {
    let mut params = Params::new(Device::Cpu, Seed::new(5));
    let net = UNet3d::new(params.root(), &small()).unwrap();
    let (image, _) = batch(&[1, 1, 8, 8, 8]);
    let forward = |pass: Pass| net.forward(&pass.input(&image), &pass).unwrap().value().to_vec::<f32>().unwrap();
    assert_eq!(forward(Pass::train(&params, Seed::new(0)).unwrap()), forward(Pass::eval(&params).unwrap()));
}

#[test]
fn a_size_that_doesnt_fit_is_an_error() {
    let mut params = Params::new(Device::Cpu, Seed::new(5));
    let net = UNet3d::new(params.root(), &small()).unwrap();
    let pass = Pass::eval(&params).unwrap();
    let image = Tensor::zeros(&[1, 1, 6, 8, 8], DType::F32, Device::Cpu).unwrap();
    let error = net.forward(&pass.input(&image), &pass).unwrap_err();
    assert!(error.to_string().contains("multiples of 4"), "{error}");
}
