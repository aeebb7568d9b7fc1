//! A trace shows what core does without an operation beside the operations.

use tomograd_core::{DType, Device, Tensor};
use tomograd_kernels::{
    methods::*,
    trace::{self, Direction},
};

#[test]
fn fills_copies_and_conversions_are_traced() {
    for device in [Device::Cpu, Device::Meta] {
        let (x, events) = trace::collect(|| {
            let x = Tensor::zeros(&[4, 3], DType::F32, device).unwrap();
            let x = x.transpose(0, 1).unwrap().contiguous().unwrap();
            x.converted(DType::F64).unwrap().relu().unwrap()
        });
        assert_eq!(x.shape(), [3, 4]);
        let seen: Vec<_> =
            events.iter().map(|event| (event.operation, event.direction, &event.shapes[0][..])).collect();
        let memory = Direction::Memory;
        let expected = [
            ("fill", memory, &[4, 3][..]),
            ("copy", memory, &[3, 4]),
            ("convert", memory, &[3, 4]),
            ("relu", Direction::Forward, &[3, 4]),
        ];
        assert_eq!(seen, expected);
        // Written; read and written; read as f32 and written as f64.
        assert_eq!(events[..3].iter().map(|event| event.cost.bytes).collect::<Vec<_>>(), [48.0, 96.0, 144.0]);
    }
    // Nothing is kept when nobody listens.
    let ((), events) = trace::collect(|| ());
    assert!(events.is_empty());
}
