//! How much memory a training step needs.

use tomograd_core::{DType, Device, Seed, Tensor, memory};
use tomograd_kernels::settings::{Settings, with_settings};
use tomograd_models::{UNet3d, UNet3dConfig};
use tomograd_nn::{DiceCe, Module, Params, Pass};

/// A U-Net of two levels, in units of an activation at full resolution. Kept for the backward run are the outputs of four
/// convolutions and of the transposed one, and at half the resolution of two, a quarter each: 5½ in all, 6 with logits, image
/// and label. Two more are needed for a moment: forward an input and an output; backward a gradient and an input that is made
/// again, or, once that was read, the gradient of the input in its stead. The rest is scratch, which may borrow the block of an
/// activation that was just freed.
#[test]
fn a_training_step_holds_little_more_than_it_keeps() {
    with_settings(Settings::default().threads(2), || {
        let mut params = Params::new(Device::Cpu, Seed::new(1));
        let config = UNet3dConfig { in_channels: 1, classes: 3, widths: vec![16, 32] };
        let net = UNet3d::new(params.root(), &config).unwrap();
        let image = Tensor::normal(&[2, 1, 64, 64, 64], 0.0, 1.0, Seed::new(2), DType::F32, Device::Cpu).unwrap();
        let label = Tensor::zeros(&[2, 64, 64, 64], DType::I64, Device::Cpu).unwrap();
        let activation = (image.count() * 16 * DType::F32.size()) as f64;
        let restart = || {
            // Without cached blocks, scratch seldom borrows a larger one.
            memory::trim(Device::Cpu).unwrap();
            memory::reset_peak(Device::Cpu).unwrap();
        };
        let peak = || memory::statistics(Device::Cpu).unwrap().peak as f64 / activation;

        restart();
        let pass = Pass::train(&params, Seed::new(3)).unwrap();
        let logits = net.forward(&pass.input(&image), &pass).unwrap();
        let loss = DiceCe::default().forward(&logits, &label).unwrap();
        drop(logits);
        assert!(peak() <= 8.0, "forward: {} activations", peak());

        restart();
        let update = pass.backward(loss).unwrap();
        assert!(peak() <= 9.0, "backward: {} activations", peak());
        drop(update);
    });
}
