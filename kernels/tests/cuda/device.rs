//! The device itself: copies to and from the host, fill, strided copy and conversion, memory, and errors.

use tomograd_core::{
    DType, Device, ErrorKind, Result, Seed, Tensor,
    cuda::{Launch, Source, Unwritten},
    memory,
};

use tomograd_emulator::{MEMORY, device};

use super::bits;

const DTYPES: [DType; 8] =
    [DType::F32, DType::F64, DType::F16, DType::BF16, DType::I64, DType::I32, DType::U8, DType::Bool];

/// Numbers at which conversions differ: ties, limits, zeros of both signs, numbers that aren't finite, and random ones.
fn numbers() -> Vec<f64> {
    let mut random = Seed::new(7).random();
    let mut numbers =
        vec![0.0, -0.0, 0.5, -0.5, 1.0, -1.0, 1.5, 2.5, 255.0, 255.5, 256.0, 300.0, -3.7, 65504.0, 65519.0];
    numbers.extend([65520.0, 1e5, 1e-5, 6e-8, 2.9e-8, 3e-8, 1e-45, 3.4e38, 3.5e38, 1e300, -1e300, 2147483647.0]);
    numbers.extend([2147483648.0, -2147483649.0, 9.3e18, -9.3e18, 9223372036854774784.0, 1e16, f64::NAN]);
    numbers.extend([f64::INFINITY, f64::NEG_INFINITY, 1.0 + 2f64.powi(-11), 1.0 + 3.0 * 2f64.powi(-11)]);
    // Just below and above a tie of f16, by less than f32 can hold: rounding by way of it would lose that.
    numbers.extend([1.0 + 2f64.powi(-11) - 2f64.powi(-40), 1.0 + 2f64.powi(-11) + 2f64.powi(-20)]);
    numbers.extend((0..200).map(|_| random.normal() * 10f64.powi(random.below(12) as i32 - 6)));
    numbers
}

#[test]
fn what_goes_there_comes_back() -> Result<()> {
    let Some(device) = device() else { return Ok(()) };
    for dtype in DTYPES {
        let x = Tensor::from_slice(&numbers(), &[numbers().len()], Device::Cpu)?.converted(dtype)?;
        let there = x.to(device)?;
        assert_eq!((there.device(), there.dtype(), there.shape()), (device, dtype, x.shape()));
        assert_eq!(bits(&there)?, bits(&x)?, "{dtype}");
        // Views go as what they show.
        let part = x.slice(0, 3, 50, 2)?;
        assert_eq!(bits(&part.to(device)?.to(Device::Cpu)?)?, bits(&part)?, "{dtype}");
        assert_eq!(bits(&there.slice(0, 3, 50, 2)?.to(Device::Cpu)?)?, bits(&part)?, "{dtype}");
    }
    // More than both pinned buffers, and no multiple of them.
    let long: Vec<f32> = (0..(9 << 20) / 4 + 3).map(|i| i as f32).collect();
    assert!(Tensor::from_slice(&long, &[long.len()], device)?.to_vec::<f32>()? == long);
    let empty = Tensor::zeros(&[3, 0], DType::F32, device)?;
    assert_eq!((empty.to_vec::<f32>()?, empty.to(Device::Cpu)?.shape()), (vec![], &[3, 0][..]));
    assert_eq!(Tensor::arange(5, DType::I64, device)?.to_vec::<i64>()?, [0, 1, 2, 3, 4]);
    assert_eq!(Tensor::scalar(2.5f32, device)?.to_scalar()?, 2.5);
    Ok(())
}

#[test]
fn fills_are_those_of_the_cpu() -> Result<()> {
    let Some(device) = device() else { return Ok(()) };
    for dtype in DTYPES {
        for value in [0.0, 1.0, -2.6, 300.0, f64::NAN] {
            for shape in [&[][..], &[0], &[1, 3], &[7, 129]] {
                let there = Tensor::full(shape, value, dtype, device)?;
                assert_eq!(
                    bits(&there)?,
                    bits(&Tensor::full(shape, value, dtype, Device::Cpu)?)?,
                    "{value} in {dtype}"
                );
            }
        }
    }
    Ok(())
}

#[test]
fn copies_of_views_are_those_of_the_cpu() -> Result<()> {
    let Some(device) = device() else { return Ok(()) };
    for dtype in DTYPES {
        let x = Tensor::arange(2 * 3 * 4 * 5, DType::F64, Device::Cpu)?.reshape(&[2, 3, 4, 5])?.converted(dtype)?;
        let view = |x: &Tensor| -> Result<Vec<Tensor>> {
            Ok(vec![
                x.permute(&[3, 1, 0, 2])?,
                x.slice(3, 1, 2, 3)?.transpose(0, 2)?,
                x.narrow(1, 1, 2)?,
                x.narrow(2, 1, 1)?.expand(&[2, 3, 6, 5])?,
                x.select(0, 1)?.unsqueeze(2)?,
                x.narrow(1, 0, 0)?,
                x.narrow(3, 4, 1)?.narrow(0, 1, 1)?,
            ])
        };
        for (k, (there, here)) in view(&x.to(device)?)?.iter().zip(view(&x)?).enumerate() {
            let copy = there.copy()?;
            assert_eq!((copy.shape(), copy.is_contiguous()), (here.shape(), true));
            assert_eq!(bits(&copy)?, bits(&here)?, "view {k} in {dtype}");
        }
    }
    // More axes than a kernel walks, of which some are one in memory.
    let x = Tensor::arange(1 << 10, DType::F32, Device::Cpu)?.reshape(&[2; 10])?;
    let order = [5, 6, 7, 8, 9, 0, 1, 2, 3, 4];
    assert_eq!(bits(&x.to(device)?.permute(&order)?.copy()?)?, bits(&x.permute(&order)?)?);
    let error = x.to(device)?.permute(&[9, 7, 5, 3, 1, 8, 6, 4, 2, 0])?.copy().unwrap_err();
    assert!(error.to_string().contains("a view of 10 axes that don't follow one another"), "{error}");
    Ok(())
}

#[test]
fn conversions_are_those_of_the_cpu() -> Result<()> {
    let Some(device) = device() else { return Ok(()) };
    let numbers = Tensor::from_slice(&numbers(), &[numbers().len()], Device::Cpu)?;
    for from in DTYPES {
        let x = numbers.converted(from)?;
        let there = x.to(device)?;
        for to in DTYPES {
            let (got, expected) = (there.converted(to)?.to_vec_f64()?, x.converted(to)?.to_vec_f64()?);
            for (i, (got, expected)) in got.iter().zip(&expected).enumerate() {
                // A NaN may have any bits.
                let same = got.to_bits() == expected.to_bits() || got.is_nan() && expected.is_nan();
                let number = x.to_vec_f64()?[i];
                assert!(same, "{number:e} from {from} to {to} is {got:e}, expected {expected:e}");
            }
        }
    }
    let view = numbers.to(device)?.slice(0, 1, 20, 5)?;
    assert_eq!(bits(&view.converted(DType::F32)?)?, bits(&numbers.slice(0, 1, 20, 5)?.converted(DType::F32)?)?);
    Ok(())
}

/// Statistics, a limit and the end of memory, one after the other since they are those of the whole device. Other tests hold some
/// memory meanwhile.
#[test]
fn memory_is_counted_and_ends_in_an_error() -> Result<()> {
    let Some(device) = device() else { return Ok(()) };
    let held = Unwritten::new("test", &[4 << 20], DType::F32, device)?;
    let statistics = memory::statistics(device)?;
    assert!(statistics.live >= 16 << 20 && statistics.peak >= statistics.live, "{statistics:?}");
    let error = Unwritten::new("test", &[MEMORY / 4], DType::F32, device).err().unwrap();
    let text = error.to_string();
    assert_eq!(error.kind(), ErrorKind::OutOfMemory);
    assert!(text.contains("cuda:0 has no 268435456 bytes left") && text.contains("--device cpu"), "{text}");
    drop(held);
    let error = Tensor::zeros(&[usize::MAX / 16], DType::F32, device).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfMemory, "{error}");
    Ok(())
}

#[test]
fn tensors_of_two_devices_and_shared_ones_are_refused() -> Result<()> {
    let Some(device) = device() else { return Ok(()) };
    let mut x = Tensor::zeros(&[3], DType::F32, device)?;
    let error = x.as_slice::<f32>().unwrap_err();
    assert!(error.to_string().contains("the host can't address memory of cuda:0"), "{error}");
    let clone = x.clone();
    let error = Launch::new("test", &FAULTY, "beyond", device)?.update(&mut x).err().unwrap();
    assert!(error.to_string().contains("is shared or not contiguous"), "{error}");
    drop(clone);
    let here = Tensor::zeros(&[3], DType::F32, Device::Cpu)?;
    let error = Launch::new("test", &FAULTY, "beyond", device)?.read(&here).err().unwrap();
    assert!(error.to_string().contains("a tensor on cpu for a kernel on cuda:0"), "{error}");
    Ok(())
}

static FAULTY: Source = Source {
    name: "faulty.cu",
    text: "#include \"tomograd.cuh\"\nextern \"C\" __global__ void beyond(float *x, long long count) { x[count + threadIdx.x] = 1.0f; }\n",
    headers: &[],
};

/// An error of a launch names operation, kernel, file, grid and shapes.
#[test]
fn a_launch_that_fails_says_where() -> Result<()> {
    let Some(device) = device() else { return Ok(()) };
    let mut x = Tensor::zeros(&[3, 2], DType::F32, device)?;
    // SAFETY: the emulator stops the kernel before it writes behind the tensor.
    let error =
        unsafe { Launch::new("test", &FAULTY, "beyond", device)?.update(&mut x)?.size(6).run(2, 32) }.unwrap_err();
    let text = error.to_string();
    let place = "test: kernel beyond of faulty.cu with grid 2×1×1, 32 threads a block and 0 bytes of shared memory: ";
    assert!(text.starts_with(place) && text.ends_with("got shapes (3, 2)"), "{text}");
    // SAFETY: there is no such kernel.
    let error = unsafe { Launch::new("test", &FAULTY, "missing", device)?.run(1, 32) }.unwrap_err();
    assert!(error.to_string().contains("no kernel is called missing"), "{error}");
    // SAFETY: as above.
    let error =
        unsafe { Launch::new("test", &FAULTY, "beyond", device)?.run_shaped([1, 70000, 1], 32, 0) }.unwrap_err();
    assert!(error.to_string().contains("more blocks than a grid can have"), "{error}");
    Ok(())
}
