//! Networks on a CUDA device (the emulator), beside the same networks on the CPU: the model's code is the same.

use tomograd_core::{DType, Device, Result, Seed, Tensor};
use tomograd_models::{UNet3d, UNet3dConfig};
use tomograd_nn::{DiceCe, Module, Optimizer, Params, Pass, Sgd};

/// Parameters after some training steps, and the losses.
fn train(device: Device, shape: &[usize], steps: u64) -> Result<(Params, Vec<f64>)> {
    let seed = Seed::new(7);
    let image = Tensor::normal(shape, 0.0, 1.0, seed.named("image"), DType::F32, Device::Cpu)?.to(device)?;
    let mut random = seed.named("label").random();
    let labels_shape = [&shape[..1], &shape[2..]].concat();
    let labels: Vec<i64> = (0..labels_shape.iter().product::<usize>()).map(|_| random.below(3) as i64).collect();
    let label = Tensor::from_slice(&labels, &labels_shape, device)?;
    let mut params = Params::new(device, seed);
    let config = UNet3dConfig { in_channels: 1, classes: 3, widths: vec![3, 5] };
    let net = UNet3d::new(params.root(), &config)?;
    // Not Adam, which would divide the rounding errors of gradients that are zero, of the biases before a norm, by themselves.
    let mut optimizer = Sgd::new(&params, 1e-2)?.momentum(0.9)?.decay(1e-2)?;
    let mut losses = Vec::new();
    for step in 0..steps {
        let pass = Pass::train(&params, seed.at(step))?;
        let logits = net.forward(&pass.input(&image), &pass)?;
        assert_eq!(logits.value().device(), device);
        let loss = DiceCe::default().forward(&logits, &label)?;
        losses.push(loss.value().to_scalar()?);
        let update = pass.backward(loss)?.clip_norm(1.0)?;
        optimizer.step(&mut params, update)?;
    }
    Ok((params, losses))
}

/// Three training steps of a small 3D U-Net give the CPU's weights, but for rounding, and the same bits each time.
#[test]
fn training_on_a_cuda_device_gives_the_weights_of_the_cpu() -> Result<()> {
    let Some(device) = tomograd_emulator::device() else { return Ok(()) };
    let shape = [1, 1, 6, 4, 8];
    let (here, losses) = train(Device::Cpu, &shape, 3)?;
    let (there, losses_there) = train(device, &shape, 3)?;
    let (again, losses_again) = train(device, &shape, 3)?;
    assert_eq!(losses_there, losses_again, "losses of a second run");
    for (here, there) in losses.iter().zip(&losses_there) {
        assert!((here - there).abs() <= 1e-5 * here.abs(), "the losses {losses:?} became {losses_there:?}");
    }
    let mut largest = 0.0f64;
    for ((name, here), ((_, there), (_, again))) in here.state().zip(there.state().zip(again.state())) {
        assert_eq!(there.device(), device, "{name}");
        let (here, there) = (here.to_vec_f64()?, there.to_vec_f64()?);
        assert_eq!(there, again.to_vec_f64()?, "{name} of a second run");
        largest = here.iter().zip(&there).fold(largest, |largest, (a, b)| largest.max((a - b).abs()));
    }
    assert!(largest <= 1e-4, "the weights differ by {largest:e}");
    println!("the weights differ by at most {largest:e}, the losses are {losses_there:?}");
    Ok(())
}
