//! Cases of `tomograd-core`.

use std::{ffi::c_void, ptr::NonNull, sync::Once};

use tomograd::core::{
    DType, Device, Element, Error, ErrorKind, Layout, Result, Scratch, Seed, Tensor, TensorBuilder, broadcast_shapes,
    contiguous_strides,
    cuda::{self, Capability, CodeKey, Driver, Geometry, Handle, Launch, Source, Unwritten},
    element_count, memory, pieces, room_for, shape_text,
};

use crate::walk::cases;

const CPU: Device = Device::Cpu;

/// A tensor 0, 1, 2, ... of this shape.
fn iota(shape: &[usize]) -> Result<Tensor> {
    Tensor::arange(shape.iter().product(), DType::F64, CPU)?.reshape(shape)
}

/// Whether every element is `value`, NaN included.
fn all(tensor: &Tensor, value: f64) -> Result<bool> {
    Ok(tensor.to_vec_f64()?.iter().all(|&x| x == value || x.is_nan() && value.is_nan()))
}

/// Whether a tensor supports all uses that don't depend on its values.
fn usable(tensor: &Tensor) -> bool {
    // Printing abbreviates long axes; reading and copying may run out of memory, but must report it.
    let printed = !tensor.to_string().is_empty() && !format!("{tensor:?}").is_empty();
    let full = |error: &Error| error.kind() == ErrorKind::OutOfMemory;
    let read = tensor.to_vec_f64().map_or_else(|error| full(&error), |values| values.len() == tensor.count());
    let copied = tensor.copy().map_or_else(|error| full(&error), |copy| copy.shape() == tensor.shape());
    printed && read && copied
}

/// Whether the offsets of a layout are inside a storage of `count` elements.
fn inside(layout: &Layout, count: usize) -> bool {
    layout.count() == 0 || layout.end() <= count
}

/// The product of the nonzero sizes, or `None` if it overflows.
fn product(shape: &[usize]) -> Option<usize> {
    let most = isize::MAX as usize / 8;
    shape
        .iter()
        .filter(|&&size| size > 0)
        .try_fold(1usize, |all, &size| all.checked_mul(size))
        .filter(|&all| all <= most)
}

fn refused_beyond_memory(shape: &[usize], tensor: Result<Tensor>, value: f64) -> Result<bool> {
    let tensor = tensor?;
    Ok(product(shape).is_some() && tensor.shape() == shape && all(&tensor, value)? && usable(&tensor))
}

/// A CUDA device in the host's memory whose kernels do nothing.
#[derive(Debug)]
struct Idle;

impl Driver for Idle {
    fn name(&self) -> &str {
        "idle"
    }

    fn capability(&self) -> Capability {
        Capability { major: 8, minor: 0 }
    }

    fn allocate(&self, bytes: usize) -> Result<Option<NonNull<u8>>> {
        // A system may promise more than it has.
        if bytes > 1 << 30 {
            return Ok(None);
        }
        let mut memory = Vec::<u64>::new();
        if memory.try_reserve_exact(bytes.div_ceil(8)).is_err() {
            return Ok(None);
        }
        Ok(NonNull::new(memory.leak().as_mut_ptr().cast()))
    }

    unsafe fn free(&self, _: NonNull<u8>) {}

    fn pin(&self, bytes: usize) -> Result<NonNull<u8>> {
        self.allocate(bytes)?.ok_or_else(|| Error::new(ErrorKind::OutOfMemory, "pin", "no memory"))
    }

    unsafe fn upload(&self, to: NonNull<u8>, from: NonNull<u8>, bytes: usize) -> Result<()> {
        // SAFETY: the caller's.
        unsafe { to.copy_from_nonoverlapping(from, bytes) };
        Ok(())
    }

    unsafe fn download(&self, to: NonNull<u8>, from: NonNull<u8>, bytes: usize) -> Result<()> {
        // SAFETY: the caller's.
        unsafe { to.copy_from_nonoverlapping(from, bytes) };
        Ok(())
    }

    fn event(&self) -> Result<Handle> {
        Ok(Handle(0))
    }

    fn record(&self, _: Handle) -> Result<()> {
        Ok(())
    }

    fn wait(&self, _: Handle) -> Result<()> {
        Ok(())
    }

    fn load(&self, _: &Source) -> Result<Handle> {
        Ok(Handle(0))
    }

    fn kernel(&self, _: Handle, _: &str) -> Result<Handle> {
        Ok(Handle(0))
    }

    unsafe fn launch(&self, _: Handle, _: Geometry, _: &mut [*mut c_void]) -> Result<()> {
        Ok(())
    }
}

static NOTHING: Source = Source { name: "nothing.cu", text: "", headers: &[] };

/// The idle device.
fn idle() -> Device {
    static ATTACHED: Once = Once::new();
    ATTACHED.call_once(|| cuda::attach(3, Box::new(Idle)).unwrap());
    Device::Cuda(3)
}

cases! {
    "core::cuda::attach": (index: usize = 5) => {
        // Other cases use the first and the last device.
        cuda::attach(index / 2 + 7, Box::new(Idle))
    };
    "core::cuda::bits": (number: f64 = 1.5) => cuda::bits(DType::F64, number) == number.to_bits();
    "core::cuda::blocks": (count: usize = 1000) => {
        let blocks = cuda::blocks(count);
        (blocks == 0) == (count == 0) && blocks <= count
    };
    "core::cuda::CodeKey::new": (major: u32 = 9, minor: u32 = 0) => {
        let key = || CodeKey::new(&NOTHING, Capability { major, minor });
        key() == key()
    };
    "core::cuda::compile_ahead": (major: u32 = 9, minor: u32 = 0) => {
        // Without NVRTC an error, as with a source that has nothing in it or a device that there isn't.
        let made = cuda::compile_ahead(&NOTHING, Capability { major, minor });
        made.is_err() || major >= 8
    };
    "core::cuda::provide": (code: Vec<usize> = vec![1, 2], minor: u32 = 0) => {
        // For devices that nobody has.
        let key = CodeKey::new(&NOTHING, Capability { major: 1, minor });
        cuda::provide(key, code.into_iter().map(|byte| byte as u8).collect());
        true
    };
    "core::cuda::divisor": (size: usize = 7) => {
        let [divisor, multiplier, shift] = cuda::divisor(size);
        // What kernels compute with them, of numbers below 2⁶².
        let quotient = |n: u64| ((u128::from(n << 2) * u128::from(multiplier as u64)) >> 64) as u64 >> shift;
        let size = (divisor as u64).clamp(1, 1 << 62);
        [0, 1, size - 1, size, (1 << 62) - 1].iter().all(|&n| n >= 1 << 62 || quotient(n) == n / size)
    };
    "core::cuda::Driver::allocate": (bytes: usize = 100) => Idle.allocate(bytes).map(drop);
    "core::cuda::Driver::pin": (bytes: usize = 100) => Idle.pin(bytes).map(drop);
    "core::cuda::Driver::record": (event: usize = 0) => Idle.record(Handle(event));
    "core::cuda::Driver::wait": (event: usize = 0) => Idle.wait(Handle(event));
    "core::cuda::Driver::kernel": (module: usize = 0) => Idle.kernel(Handle(module), "kernel").map(drop);
    "core::cuda::Launch::new": (device: Device = idle()) => Launch::new("test", &NOTHING, "kernel", device).map(drop);
    "core::cuda::Launch::size": (size: usize = 3) => {
        Ok::<_, Error>(size_of_val(&Launch::new("test", &NOTHING, "kernel", idle())?.size(size)) > 0)
    };
    "core::cuda::small_divisor": (size: usize = 7) => {
        let [divisor, multiplier, shift] = cuda::small_divisor(size);
        // What kernels compute with them, of numbers below 2³¹.
        let quotient = |n: u32| ((u64::from(n << 1) * u64::from(multiplier as u32)) >> 32) as u32 >> shift;
        let size = (divisor as u32).max(1);
        [0, 1, size - 1, size, (1 << 31) - 1].iter().all(|&n| quotient(n) == n / size)
    };
    "core::cuda::Unwritten::new": (shape: Vec<usize> = vec![2, 3], device: Device = idle()) => {
        let output = Unwritten::new("test", &shape, DType::F32, device)?;
        Ok::<_, Error>(product(&shape).is_some() && output.count() == shape.iter().product::<usize>())
    };
    "core::Device {}": (device: Device = CPU) => Tensor::zeros(&[2], DType::F32, device);
    "core::Element::from_f64": (value: f64 = 2.6) => {
        let whole = |low: f64, high: f64| if value.is_nan() { 0.0 } else { value.clamp(low, high).trunc() };
        let same = |a: f64, b: f64| a == b || a.is_nan() && b.is_nan();
        f64::from(u8::from_f64(value)) == whole(0.0, 255.0)
            && f64::from(i32::from_f64(value)) == whole(f64::from(i32::MIN), f64::from(i32::MAX))
            && i64::from_f64(value) as f64 == whole(i64::MIN as f64, i64::MAX as f64)
            && bool::from_f64(value) == (value != 0.0)
            && same(f64::from_f64(value), value)
            && same(f64::from(f32::from_f64(value)), f64::from(value as f32))
            && half::f16::from_f64(value).is_nan() == value.is_nan()
            && half::bf16::from_f64(value).is_nan() == value.is_nan()
    };
    "core::Error::shapes": (shape: Vec<usize> = vec![2, 3]) => {
        Error::shape("test", "wrong").shapes([&shape[..]]).to_string()
            == format!("test: wrong; got shapes {}", shape_text(&shape))
    };
    "core::shape_text": (size: usize = 3) => shape_text(&[size, 2]) == format!("({size}, 2)");

    "core::Layout::contiguous": (shape: Vec<usize> = vec![2, 3, 4]) => {
        let layout = Layout::contiguous(&shape);
        let exact = product(&shape).is_none()
            || layout.count() == if shape.contains(&0) { 0 } else { product(&shape).unwrap() };
        // An overflow must saturate, and never give a small number that looks right.
        layout.shape() == shape
            && exact
            && (product(&shape).is_some() || shape.contains(&0) || layout.count() > isize::MAX as usize / 8)
            && (layout.is_contiguous() || product(&shape).is_none())
    };
    "core::contiguous_strides": (shape: Vec<usize> = vec![2, 3, 4]) => {
        let expected = |axis: usize| {
            let after = shape[axis + 1..].iter().map(|&size| size.max(1) as u128);
            after.fold(1u128, u128::saturating_mul).min(usize::MAX as u128) as usize
        };
        contiguous_strides(&shape) == (0..shape.len()).map(expected).collect::<Vec<_>>()
    };
    "core::element_count": (shape: Vec<usize> = vec![2, 3, 4]) => {
        let count = element_count("test", &shape)?;
        Ok::<_, Error>(product(&shape) == Some(count) || shape.contains(&0) && count == 0 && product(&shape).is_some())
    };
    "core::broadcast_shapes": (first: Vec<usize> = vec![2, 1], second: Vec<usize> = vec![1, 3]) => {
        let shape = broadcast_shapes("test", &[&first, &second])?;
        let size = |shape: &[usize], back: usize| shape.len().checked_sub(back + 1).map_or(1, |axis| shape[axis]);
        Ok::<_, Error>(
            shape.len() == first.len().max(second.len())
                && (0..shape.len()).all(|back| {
                    let (a, b) = (size(&first, back), size(&second, back));
                    size(&shape, back) == if a == 1 { b } else { a } && (a == b || a == 1 || b == 1)
                }),
        )
    };
    "core::Layout::permute": (axes: Vec<usize> = vec![2, 0, 1]) => {
        let layout = Layout::contiguous(&[2, 3, 4]).permute(&axes)?;
        let sorted: std::collections::BTreeSet<usize> = axes.iter().copied().collect();
        Ok::<_, Error>(
            sorted.into_iter().eq(0..3)
                && axes.iter().zip(layout.shape()).all(|(&axis, &size)| [2, 3, 4][axis] == size),
        )
    };
    "core::Layout::slice": (axis: usize = 1, start: usize = 1, length: usize = 2, step: usize = 3) => {
        let layout = Layout::contiguous(&[2, 6]).slice(axis, start, length, step)?;
        let last = (length as u128).saturating_sub(1) * step as u128 + start as u128;
        Ok::<_, Error>(
            axis < 2 && step > 0 && layout.shape()[axis] == length && inside(&layout, 12) && (length == 0 || last < 6),
        )
    };
    "core::Layout::expand": (shape: Vec<usize> = vec![4, 2, 3]) => {
        let layout = Layout::contiguous(&[1, 3]).expand(&shape)?;
        Ok::<_, Error>(
            layout.shape() == shape && product(&shape).is_some() && inside(&layout, 3) && shape.last() == Some(&3),
        )
    };
    "core::Layout::reshape": (shape: Vec<usize> = vec![4, 3]) => {
        let transposed = Layout::contiguous(&[2, 3, 2]).permute(&[1, 0, 2])?;
        let plain = Layout::contiguous(&[2, 6]).reshape(&shape)?.is_some_and(|layout| layout.shape() == shape);
        let other = transposed.reshape(&shape)?.is_none_or(|layout| layout.shape() == shape && inside(&layout, 12));
        Ok::<_, Error>(plain && other && shape.iter().product::<usize>() == 12)
    };
    "core::Layout::squeeze": (axis: usize = 1) => {
        Ok::<_, Error>(Layout::contiguous(&[2, 1, 3]).squeeze(axis)?.shape() == [2, 3] && axis == 1)
    };
    "core::Layout::unsqueeze": (axis: usize = 1) => {
        let layout = Layout::contiguous(&[2, 3]).unsqueeze(axis)?;
        Ok::<_, Error>(axis <= 2 && layout.shape()[axis] == 1 && layout.rank() == 3)
    };

    "core::Random::below": (bound: u64 = 7) => {
        let mut random = Seed::new(1).random();
        (0..20).map(|_| random.below(bound)).all(|value| value < bound || bound == 0 && value == 0)
    };
    "core::Random::bernoulli": (probability: f64 = 0.5) => {
        let mut random = Seed::new(1).random();
        let hits = (0..100).filter(|_| random.bernoulli(probability)).count();
        // Probabilities are clamped to [0, 1]; NaN counts as 0.
        if probability >= 1.0 {
            hits == 100
        } else if probability > 0.1 {
            hits > 0 && hits < 100
        } else {
            hits == 0
        }
    };
    "core::Random::permutation": (count: usize = 9) => {
        let mut order = Seed::new(1).random().permutation(count)?;
        order.sort_unstable();
        Ok::<_, Error>(order.into_iter().eq(0..count))
    };
    "core::Random::truncated_normal": (low: f64 = -1.0, high: f64 = 0.5) => {
        let value = Seed::new(1).random().truncated_normal(low, high);
        // An invalid interval gives NaN.
        if low <= high { (low..=high).contains(&value) } else { value.is_nan() }
    };
    "core::Random::uniform_in": (low: f64 = -1.0, high: f64 = 2.0) => {
        let value = Seed::new(1).random().uniform_in(low, high);
        // With non-finite bounds, the result may be non-finite.
        if low.is_finite() && high.is_finite() {
            low.min(high) <= value && value <= low.max(high)
        } else {
            !value.is_finite() || (low..high).contains(&value)
        }
    };
    "core::Seed::new": (seed: u64 = 3) => {
        Seed::new(seed).to_words() == [seed, 0] && Seed::new(seed).random().uniform() < 1.0
    };
    "core::Seed::at": (index: u64 = 3) => {
        let seed = Seed::new(1);
        seed.at(index) != seed.at(index.wrapping_add(1)) && seed.at(index) != seed
    };
    "core::Seed::from_words": (words: [u64; 2] = [1, 2]) => Seed::from_words(words).to_words() == words;

    "core::room_for": (count: usize = 9) => {
        let room: Vec<u64> = room_for("test", count)?;
        Ok::<_, Error>(room.is_empty() && room.capacity() >= count)
    };
    "core::Scratch::new": (count: usize = 100) => {
        let mut scratch = Scratch::<f32>::new("test", count)?;
        Ok::<_, Error>(scratch.zeroed().len() == count && scratch.zeroed().iter().all(|&x| x == 0.0))
    };
    "core::TensorBuilder::new": (shape: Vec<usize> = vec![2, 3], device: Device = CPU) => {
        let tensor = TensorBuilder::<f32>::new("test", &shape, device)?.fill_with(|_| 1.0);
        refused_beyond_memory(&shape, tensor, 1.0)
    };
    "core::TensorBuilder::temporary": (shape: Vec<usize> = vec![2, 3], device: Device = CPU) => {
        let tensor = TensorBuilder::<f32>::temporary("test", &shape, device)?.fill_with(|_| 1.0);
        refused_beyond_memory(&shape, tensor, 1.0)
    };
    "core::TensorBuilder::copy_from_slice": (values: Vec<f64> = vec![1.0, 2.0]) => {
        let tensor = TensorBuilder::<f64>::new("test", &[2], CPU)?.copy_from_slice(&values)?;
        Ok::<_, Error>(tensor.to_vec::<f64>()?.iter().map(|x| x.to_bits()).eq(values.iter().map(|x| x.to_bits())))
    };
    "core::TensorBuilder::fill_with": (value: f64 = 1.0) => {
        all(&TensorBuilder::<f64>::new("test", &[2, 2], CPU)?.fill_with(|_| value)?, value)
    };
    "core::TensorBuilder::fill_pieces": (size: usize = 2) => {
        let ones = |_: usize, piece: &mut [f64]| {
            piece.fill(1.0);
            Ok(())
        };
        all(&TensorBuilder::<f64>::new("test", &[2, 3], CPU)?.fill_pieces(size, ones)?, 1.0)
    };
    "core::TensorBuilder::fill_in_order": (size: usize = 2) => {
        let mut next = 0.0;
        let count = |_: usize, piece: &mut [f64]| {
            piece.iter_mut().for_each(|value| {
                *value = next;
                next += 1.0;
            });
            Ok(())
        };
        let tensor = TensorBuilder::<f64>::new("test", &[2, 3], CPU)?.fill_in_order(size, count)?;
        Ok::<_, Error>(tensor.to_vec::<f64>()? == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0])
    };
    "core::pieces::with_threads": (threads: usize = 2) => {
        (1..=1024).contains(&pieces::with_threads(threads, pieces::threads))
    };
    "core::pieces::each": (size: usize = 2) => {
        let mut values = [0; 5];
        pieces::each(&mut values, size, |_, piece| {
            piece.iter_mut().for_each(|value| *value += 1);
            Ok(())
        })?;
        Ok::<_, Error>(values == [1; 5])
    };
    "core::Tensor::arange": (count: usize = 5, device: Device = CPU) => {
        let tensor = Tensor::arange(count, DType::I64, device)?;
        Ok::<_, Error>(tensor.to_vec::<i64>()?.into_iter().eq(0..count as i64))
    };
    "core::Tensor::from_ndarray": (values: Vec<f64> = vec![1.0, 2.0], device: Device = CPU) => {
        let array = ndarray::Array1::from(values.clone()).into_dyn();
        let tensor = Tensor::from_ndarray(array.view(), device)?;
        Ok::<_, Error>(tensor.to_ndarray::<f64>()?.iter().map(|x| x.to_bits()).eq(values.iter().map(|x| x.to_bits())))
    };
    "core::Tensor::from_slice": (
        values: Vec<f64> = vec![1.0, 2.0, 3.0, 4.0],
        shape: Vec<usize> = vec![2, 2],
        device: Device = CPU,
    ) => {
        let tensor = Tensor::from_slice(&values, &shape, device)?;
        let same = tensor.to_vec::<f64>()?.iter().map(|x| x.to_bits()).eq(values.iter().map(|x| x.to_bits()));
        Ok::<_, Error>(same && tensor.shape() == shape && usable(&tensor))
    };
    "core::Tensor::full": (
        shape: Vec<usize> = vec![2, 3],
        value: f64 = 1.5,
        device: Device = CPU,
    ) => { refused_beyond_memory(&shape, Tensor::full(&shape, value, DType::F64, device), value) };
    "core::Tensor::full": (value: f64 = 3.0) => {
        let whole = Tensor::full(&[2], value, DType::I64, CPU)?;
        all(&whole, i64::from_f64(value) as f64)
    };
    "core::Tensor::meta": (shape: Vec<usize> = vec![2, 3]) => {
        let tensor = Tensor::meta("test", &shape, DType::F32)?;
        Ok::<_, Error>(tensor.shape() == shape && tensor.to_vec::<f32>().is_err())
    };
    "core::Tensor::to": (device: Device = Device::Meta) => {
        Ok::<_, Error>(Tensor::ones(&[2, 3], DType::F32, CPU)?.to(device)?.device() == device)
    };
    "core::Tensor::zeros": (shape: Vec<usize> = vec![2, 3], device: Device = CPU) => {
        refused_beyond_memory(&shape, Tensor::zeros(&shape, DType::U8, device), 0.0)
    };
    "core::Tensor::ones": (shape: Vec<usize> = vec![2, 3], device: Device = CPU) => {
        refused_beyond_memory(&shape, Tensor::ones(&shape, DType::BF16, device), 1.0)
    };
    "core::Tensor::scalar": (value: f64 = 1.5, device: Device = CPU) => {
        let scalar = Tensor::scalar(value, device)?;
        Ok::<_, Error>(scalar.rank() == 0 && all(&scalar, value)?)
    };
    "core::Tensor::uniform": (
        shape: Vec<usize> = vec![2, 3],
        low: f64 = -1.0,
        high: f64 = 2.0,
        device: Device = CPU,
    ) => {
        let tensor = Tensor::uniform(&shape, low, high, Seed::new(1), DType::F64, device)?;
        Ok::<_, Error>(tensor.shape() == shape && tensor.to_vec_f64()?.iter().all(|x| (low..=high).contains(x)))
    };
    "core::Tensor::normal": (
        shape: Vec<usize> = vec![2, 3],
        mean: f64 = 1.0,
        deviation: f64 = 2.0,
        device: Device = CPU,
    ) => {
        let tensor = Tensor::normal(&shape, mean, deviation, Seed::new(1), DType::F64, device)?;
        Ok::<_, Error>(tensor.shape() == shape && tensor.to_vec_f64()?.iter().all(|x| x.is_finite()))
    };
    "core::Tensor::permute": (axes: Vec<usize> = vec![2, 0, 1]) => {
        let tensor = iota(&[2, 3, 4])?.permute(&axes)?;
        Ok::<_, Error>(tensor.count() == 24 && usable(&tensor) && axes.len() == 3)
    };
    "core::Tensor::transpose": (first: usize = 0, second: usize = 1) => {
        let tensor = iota(&[2, 3])?.transpose(first, second)?;
        let expected =
            if first == second { vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0] } else { vec![0.0, 3.0, 1.0, 4.0, 2.0, 5.0] };
        Ok::<_, Error>(first < 2 && second < 2 && tensor.to_vec_f64()? == expected)
    };
    "core::Tensor::narrow": (axis: usize = 1, start: usize = 1, length: usize = 2) => {
        let tensor = iota(&[3, 4])?.narrow(axis, start, length)?;
        Ok::<_, Error>(tensor.shape()[axis] == length && start + length <= [3, 4][axis] && usable(&tensor))
    };
    "core::Tensor::slice": (axis: usize = 1, start: usize = 1, length: usize = 2, step: usize = 2) => {
        let tensor = iota(&[3, 4])?.slice(axis, start, length, step)?;
        Ok::<_, Error>(tensor.shape()[axis] == length && step > 0 && usable(&tensor))
    };
    "core::Tensor::select": (axis: usize = 0, index: usize = 1) => {
        let tensor = iota(&[3, 2])?.select(axis, index)?;
        Ok::<_, Error>(
            index < [3, 2][axis] && tensor.rank() == 1 && tensor.to_vec_f64()?[0] == (index * [2, 1][axis]) as f64,
        )
    };
    "core::Tensor::expand": (shape: Vec<usize> = vec![4, 2, 3]) => {
        let tensor = iota(&[1, 3])?.expand(&shape)?;
        Ok::<_, Error>(tensor.shape() == shape && product(&shape).is_some() && usable(&tensor))
    };
    "core::Tensor::reshape": (shape: Vec<usize> = vec![4, 3]) => {
        let plain = iota(&[2, 6])?.reshape(&shape)?;
        let moved = iota(&[6, 2])?.transpose(0, 1)?.reshape(&shape)?;
        Ok::<_, Error>(plain.shape() == shape && moved.shape() == shape && usable(&plain) && usable(&moved))
    };
    "core::Tensor::reshape": (shape: Vec<usize> = vec![0, 5]) => {
        let tensor = iota(&[3, 0])?.reshape(&shape)?;
        Ok::<_, Error>(tensor.shape() == shape && shape.contains(&0) && usable(&tensor))
    };
    "core::Tensor::squeeze": (axis: usize = 1) => {
        Ok::<_, Error>(iota(&[2, 1, 3])?.squeeze(axis)?.shape() == [2, 3] && axis == 1)
    };
    "core::Tensor::unsqueeze": (axis: usize = 1) => {
        Ok::<_, Error>(iota(&[2, 3])?.unsqueeze(axis)?.shape().get(axis) == Some(&1))
    };

    "core::memory::set_limit": (device: Device = CPU, limit: Option<usize> = Some(1 << 30)) => {
        let before = memory::statistics(CPU)?.limit;
        memory::set_limit(device, limit)?;
        let (now, one) = (memory::statistics(CPU)?, Tensor::zeros(&[1 << 20], DType::U8, CPU));
        memory::set_limit(CPU, before)?;
        Ok::<_, Error>(now.limit == limit && one.is_ok() == limit.is_none_or(|limit| limit > 0))
    };
    "core::memory::statistics": (device: Device = CPU) => {
        let statistics = memory::statistics(device)?;
        Ok::<_, Error>(statistics.live <= statistics.peak)
    };
    "core::memory::reset_peak": (device: Device = CPU) => {
        memory::reset_peak(device)?;
        let statistics = memory::statistics(CPU)?;
        Ok::<_, Error>(statistics.peak == statistics.live)
    };
    "core::memory::trim": (device: Device = CPU) => {
        memory::trim(device)?;
        Ok::<_, Error>(memory::statistics(CPU)?.cached == 0)
    };
}
