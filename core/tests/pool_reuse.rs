//! What the pool keeps and gives out again, in a process of its own since other tensors would take part in it.

use tomograd_core::{DType, Device, Tensor, memory};

fn zeros(count: usize) -> Tensor {
    Tensor::zeros(&[count], DType::F32, Device::Cpu).unwrap()
}

fn address(tensor: &Tensor) -> usize {
    tensor.as_slice::<f32>().unwrap().as_ptr() as usize
}

#[test]
fn freed_memory_is_merged_and_used_again() {
    let [first, second, third] = [3_000_017, 2_000_000, 100].map(zeros);
    let [place, after] = [&first, &second].map(address);
    assert_eq!(place % 64, 0);
    drop((first, second));
    let before = memory::statistics(Device::Cpu).unwrap();
    assert!(before.cached >= 20_000_068 && before.peak >= 20_000_468);
    // Both together make room for a larger one, and either for one of its own size.
    let larger = zeros(5_000_000);
    assert_eq!(address(&larger), place);
    drop(larger);
    let again = [3_000_017, 2_000_000].map(zeros);
    assert_eq!(again.each_ref().map(address), [place, after]);
    let now = memory::statistics(Device::Cpu).unwrap();
    assert_eq!((now.system_allocations, now.live), (before.system_allocations, before.live + 20_000_128));
    drop(again);
    // The tensor behind them stays where it is, with its elements, when the free memory is returned.
    memory::trim(Device::Cpu).unwrap();
    assert_eq!(memory::statistics(Device::Cpu).unwrap().cached, 0);
    assert!(third.to_vec::<f32>().unwrap().iter().all(|&x| x == 0.0));
    let fresh = Tensor::full(&[3_000_017], 2.0, DType::F32, Device::Cpu).unwrap();
    assert_eq!(address(&fresh), place);
    assert!(memory::statistics(Device::Cpu).unwrap().system_allocations > now.system_allocations);
}
