//! After the first training step, the system is asked for no block of 64 KiB or more, and the pool for no new memory.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering},
};

use tomograd_core::{DType, Device, Seed, Tensor, memory};
use tomograd_models::{UNet3d, UNet3dConfig};
use tomograd_nn::{AdamW, DiceCe, Module, Optimizer, Params, Pass};

/// Counts large blocks.
struct Counting;

static LARGE: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is handed to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() >= 64 << 10 {
            LARGE.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_training_step_finds_its_memory() {
    let mut params = Params::new(Device::Cpu, Seed::new(1));
    let config = UNet3dConfig { in_channels: 1, classes: 3, widths: vec![16, 32, 64] };
    let net = UNet3d::new(params.root(), &config).unwrap();
    let mut optimizer = AdamW::new(&params, 1e-3).unwrap();
    let image = Tensor::normal(&[2, 1, 40, 56, 40], 0.0, 1.0, Seed::new(2), DType::F32, Device::Cpu).unwrap();
    let label = Tensor::zeros(&[2, 40, 56, 40], DType::I64, Device::Cpu).unwrap();
    let mut counts = Vec::new();
    for step in 0..4 {
        let asked =
            || LARGE.load(Ordering::Relaxed) + memory::statistics(Device::Cpu).unwrap().system_allocations as usize;
        let before = asked();
        let pass = Pass::train(&params, Seed::new(3).at(step)).unwrap();
        let logits = net.forward(&pass.input(&image), &pass).unwrap();
        let loss = DiceCe::default().forward(&logits, &label).unwrap();
        drop(logits);
        let update = pass.backward(loss).unwrap().clip_norm(12.0).unwrap();
        optimizer.step(&mut params, update).unwrap();
        counts.push(asked() - before);
    }
    assert!(counts[0] > 0, "the counter counts");
    assert_eq!(counts[1..], [0, 0, 0], "{counts:?}");
}
