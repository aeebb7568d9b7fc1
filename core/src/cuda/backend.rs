//! What core asks of a device, on CUDA devices: memory, fill, strided copy and conversion; and the way to and from the host.

use std::sync::Arc;

use super::{
    AXES, THREADS, blocks, divisor,
    driver::Source,
    gpu::Gpu,
    launch::{Launch, Unwritten, bytes_of},
};
use crate::{
    DType, Device, Element, Error, ErrorKind, Layout, Result, Tensor,
    backend::Backend,
    dtype::with_element,
    memory::{Block, Purpose},
    storage::Storage,
};

/// The kernels of this file.
static SOURCE: Source = Source { name: "memory.cu", text: include_str!("memory.cu"), headers: &[] };

/// A view as kernels take it, `Views<1>`: the number of axes, their sizes as divisors, and their strides in elements.
pub(crate) type View = [i64; 1 + 4 * AXES];

/// A CUDA device as core sees it.
pub(crate) struct Cuda(pub(crate) usize);

/// The view of a layout with as few axes as possible: axes that follow one another in memory are one.
///
/// # Errors
/// When more than [`AXES`] axes are left.
pub(crate) fn view(operation: &str, layout: &Layout) -> Result<View> {
    let mut axes: Vec<(usize, usize)> = Vec::new();
    for (&size, &stride) in layout.shape().iter().zip(layout.strides()).filter(|&(&size, _)| size != 1) {
        match axes.last_mut() {
            Some((last_size, last_stride)) if *last_stride == stride * size => {
                (*last_size, *last_stride) = (*last_size * size, stride)
            }
            _ => axes.push((size, stride)),
        }
    }
    let mut view = [0; 1 + 4 * AXES];
    if axes.len() > AXES {
        let what = format!("a view of {} axes that don't follow one another in memory", axes.len());
        return Err(Error::new(ErrorKind::Shape, operation, what)
            .expected(format!("at most {AXES} on a CUDA device"))
            .shapes([layout.shape()]));
    }
    view[0] = axes.len() as i64;
    for (axis, &(size, stride)) in axes.iter().enumerate() {
        view[1 + 3 * axis..][..3].copy_from_slice(&divisor(size));
        view[1 + 3 * AXES + axis] = stride as i64;
    }
    Ok(view)
}

/// The code of a dtype in `memory.cu`.
fn code(dtype: DType) -> i32 {
    match dtype {
        DType::F32 => 0,
        DType::F64 => 1,
        DType::F16 => 2,
        DType::BF16 => 3,
        DType::I64 => 4,
        DType::I32 => 5,
        DType::U8 => 6,
        DType::Bool => 7,
    }
}

/// The kernel of a family for elements of `dtype`'s size.
fn by_size(kernels: [&'static str; 4], dtype: DType) -> &'static str {
    kernels[dtype.size().ilog2() as usize]
}

/// `storage` viewed by `layout` as a tensor.
fn tensor_of(storage: Arc<Storage>, layout: &Layout, dtype: DType) -> Tensor {
    Tensor { storage, layout: layout.clone(), dtype }
}

/// The bytes of elements.
fn bytes<T: Element>(elements: &[T]) -> &[u8] {
    // SAFETY: elements are plain numbers without padding, so all of their bytes are initialised.
    unsafe { std::slice::from_raw_parts(elements.as_ptr().cast::<u8>(), size_of_val(elements)) }
}

/// The bits of an element as the low bits of a number.
fn bits_of<T: Element>(value: T) -> u64 {
    let mut all = [0; 8];
    all[..size_of::<T>()].copy_from_slice(bytes(&[value]));
    u64::from_le_bytes(all)
}

/// The bits of a number in a dtype (see [`Element::from_f64`]), as the low bits of the result: what a kernel that moves elements
/// takes as a constant.
///
/// ```
/// use tomograd_core::{DType, cuda::bits};
/// assert_eq!((bits(DType::F32, 1.0), bits(DType::BF16, 1.0), bits(DType::I32, -2.7)), (0x3f80_0000, 0x3f80, 0xffff_fffe));
/// ```
pub fn bits(dtype: DType, number: f64) -> u64 {
    with_element!(dtype, T => bits_of(T::from_f64(number)))
}

impl Backend for Cuda {
    fn allocate(&self, operation: &str, bytes: usize, purpose: Purpose) -> Result<Storage> {
        let gpu = Gpu::open(self.0, operation)?;
        Ok(Storage::of_cuda(Block::take(gpu, operation, bytes, purpose)?, bytes, gpu))
    }

    fn fill(&self, count: usize, value: f64, dtype: DType) -> Result<Arc<Storage>> {
        let device = Device::Cuda(self.0);
        let mut output = Unwritten::new("full", &[count], dtype, device)?;
        let kernel = by_size(["fill_1", "fill_2", "fill_4", "fill_8"], dtype);
        let launch =
            Launch::new("full", &SOURCE, kernel, device)?.write(&mut output)?.size(count).value(bits(dtype, value));
        // SAFETY: the kernel writes `count` elements of the output's size, which is all of them.
        unsafe {
            launch.run(blocks(count), THREADS)?;
            Ok(output.assume_init().storage)
        }
    }

    fn copy(&self, from: &Arc<Storage>, layout: &Layout, dtype: DType) -> Result<Arc<Storage>> {
        let (x, view) = (tensor_of(from.clone(), layout, dtype), view("copy", layout)?);
        let mut output = Unwritten::new("copy", layout.shape(), dtype, x.device())?;
        let (count, kernel) = (output.count(), by_size(["copy_1", "copy_2", "copy_4", "copy_8"], dtype));
        let launch = Launch::new("copy", &SOURCE, kernel, x.device())?.read(&x)?.write(&mut output)?;
        // SAFETY: the kernel reads the elements of the view and writes as many, which is all of the output.
        unsafe {
            launch.size(count).value(view).run(blocks(count), THREADS)?;
            Ok(output.assume_init().storage)
        }
    }

    fn convert(&self, from: &Arc<Storage>, layout: &Layout, [dtype, to]: [DType; 2]) -> Result<Arc<Storage>> {
        let (x, view) = (tensor_of(from.clone(), layout, dtype), view("converted", layout)?);
        let mut output = Unwritten::new("converted", layout.shape(), to, x.device())?;
        let count = output.count();
        let launch = Launch::new("converted", &SOURCE, "convert", x.device())?
            .read(&x)?
            .value(code(dtype))
            .write(&mut output)?
            .value(code(to));
        // SAFETY: the codes are those of the dtypes; the kernel reads the elements of the view and writes as many, which is all
        // of the output.
        unsafe {
            launch.size(count).value(view).run(blocks(count), THREADS)?;
            Ok(output.assume_init().storage)
        }
    }
}

/// A row-major copy of a tensor on a CUDA device in the host's memory.
pub(crate) fn to_host(tensor: &Tensor, operation: &str) -> Result<Tensor> {
    let words = bytes_of(tensor, operation)?;
    with_element!(tensor.dtype(), T => {
        let elements: &[T] = elements_of(&words, tensor.count());
        Tensor::from_slice(elements, tensor.shape(), Device::Cpu)
    })
}

/// The first `count` elements of `T` in these bytes, which a tensor of that dtype had.
fn elements_of<T: Element>(words: &[u64], count: usize) -> &[T] {
    let bytes: &[u8] = bytemuck::cast_slice(words);
    assert!(count * size_of::<T>() <= bytes.len());
    // SAFETY: the bytes are long enough and aligned to 8, and are those of elements of `T`, as a tensor of this dtype has: for
    // `bool`, 0 or 1, which is all that kernels and copies write to such a tensor.
    unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), count) }
}

impl Storage {
    /// Copies elements of the host into the device's memory, from its start on.
    ///
    /// # Errors
    /// When the device can't be used any more.
    pub(crate) fn upload<T: Element>(&mut self, elements: &[T]) -> Result<()> {
        let Some((gpu, address)) = self.cuda() else {
            return Err(Error::new(ErrorKind::Device, "upload", format!("memory of {}", self.device())));
        };
        let bytes = bytes(elements);
        assert!(bytes.len() <= self.bytes());
        // SAFETY: the memory is as long, and nobody else uses it during an exclusive borrow.
        unsafe { gpu.upload(address, bytes) }
    }
}
