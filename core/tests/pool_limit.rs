//! The pool's limit, in a process of its own since the limit holds for the whole process.

use tomograd_core::{DType, Device, ErrorKind, Tensor, memory};

#[test]
fn a_limit_gives_an_error_and_not_an_abort() {
    memory::set_limit(Device::Cpu, Some(1 << 20)).unwrap();
    let half = Tensor::zeros(&[128 << 10], DType::F32, Device::Cpu).unwrap();
    let error = Tensor::zeros(&[200 << 10], DType::F32, Device::Cpu).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfMemory);
    assert!(error.to_string().contains("the pool's limit 1048576"), "{error}");
    drop(half);
    // The freed block is too small to reuse; it is given back to make room.
    Tensor::zeros(&[200 << 10], DType::F32, Device::Cpu).unwrap();
    memory::set_limit(Device::Cpu, None).unwrap();
    memory::trim(Device::Cpu).unwrap();
    assert_eq!(memory::statistics(Device::Cpu).unwrap().cached, 0);
    // More than the machine can have, but not an overflow: the allocator's refusal is an error too.
    let error = Tensor::full(&[1 << 46], 1.0, DType::F32, Device::Cpu).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfMemory);
}
