//! What a machine without a CUDA device says: errors that name what is missing and how to go on, never a panic.

use tomograd_core::{DType, Device, ErrorKind, Tensor, memory};

#[test]
fn every_use_of_a_missing_device_is_an_error_that_says_how_to_go_on() {
    // No machine has so many.
    let device = Device::Cuda(1 << 20);
    let cpu = Tensor::zeros(&[2], DType::F32, Device::Cpu).unwrap();
    let meta = cpu.to(Device::Meta).unwrap();
    let errors = [
        ("check", device.check("check").unwrap_err()),
        ("full", Tensor::zeros(&[2], DType::F32, device).unwrap_err()),
        ("from_slice", Tensor::from_slice(&[1.0f32], &[1], device).unwrap_err()),
        ("uniform", Tensor::uniform(&[2], 0.0, 1.0, tomograd_core::Seed::new(0), DType::F32, device).unwrap_err()),
        ("to", cpu.to(device).unwrap_err()),
        ("to", meta.to(device).unwrap_err()),
        ("pool", memory::statistics(device).unwrap_err()),
        ("pool", memory::set_limit(device, None).unwrap_err()),
        ("pool", memory::reset_peak(device).unwrap_err()),
        ("pool", memory::trim(device).unwrap_err()),
    ];
    for (operation, error) in errors {
        let text = error.to_string();
        assert_eq!((error.kind(), error.operation()), (ErrorKind::Device, operation), "{text}");
        assert!(text.contains("cuda:1048576 can't be used: "), "{text}");
        assert!(text.ends_with("without one, use --device cpu (Device::Cpu)"), "{text}");
    }
}
