//! Launching kernels on tensors.

use std::{ffi::c_void, marker::PhantomData, ptr::NonNull, sync::Arc};

use bytemuck::NoUninit;

use super::{
    driver::{Geometry, Source},
    gpu::Gpu,
};
use crate::{
    DType, Device, Error, ErrorKind, Layout, Result, Tensor, element_count,
    memory::{Block, Purpose},
    storage::Storage,
};

/// The memory of a new tensor on a CUDA device, to be written by kernels.
pub struct Unwritten {
    tensor: Tensor,
}

impl Unwritten {
    /// Memory for a tensor of `shape`, on behalf of `operation`.
    ///
    /// # Errors
    /// When the size overflows, memory runs out, or the device can't be used.
    pub fn new(operation: &str, shape: &[usize], dtype: DType, device: Device) -> Result<Self> {
        let bytes = element_count(operation, shape)?.saturating_mul(dtype.size());
        let gpu = gpu_of(operation, device)?;
        let storage = Storage::of_cuda(Block::take(gpu, operation, bytes, Purpose::Tensor)?, bytes, gpu);
        Ok(Self { tensor: Tensor { storage: Arc::new(storage), layout: Layout::contiguous(shape), dtype } })
    }

    /// The number of elements.
    pub fn count(&self) -> usize {
        self.tensor.count()
    }

    /// The finished tensor.
    ///
    /// # Safety
    /// Kernels that write every element must have been launched.
    pub unsafe fn assume_init(self) -> Tensor {
        self.tensor
    }
}

/// The state of a CUDA device; an error for others.
fn gpu_of(operation: &str, device: Device) -> Result<&'static Gpu> {
    match device {
        Device::Cuda(index) => Gpu::open(index, operation),
        other => Err(Error::new(ErrorKind::Device, operation, format!("a tensor on {other} for a CUDA kernel"))
            .expected("tensors on one CUDA device")),
    }
}

/// A launch of a kernel: its arguments, in the order of the kernel's parameters, and then [`run`](Self::run).
///
/// The launch is queued; memory that it uses may be given back before the device has come to it.
#[must_use]
pub struct Launch<'a> {
    operation: &'a str,
    source: &'static Source,
    kernel: &'static str,
    gpu: &'static Gpu,
    /// The arguments, each from a multiple of eight bytes on.
    words: Vec<u64>,
    starts: Vec<usize>,
    shapes: Vec<Vec<usize>>,
    tensors: PhantomData<&'a Tensor>,
}

impl<'a> Launch<'a> {
    /// The launch of a kernel of `source` on a device, on behalf of `operation`.
    ///
    /// # Errors
    /// When the device isn't a CUDA device or can't be used.
    pub fn new(operation: &'a str, source: &'static Source, kernel: &'static str, device: Device) -> Result<Self> {
        let gpu = gpu_of(operation, device)?;
        let (words, starts, shapes) = Default::default();
        Ok(Self { operation, source, kernel, gpu, words, starts, shapes, tensors: PhantomData })
    }

    /// A number, or an array of numbers that the kernel takes as a struct.
    pub fn value<T: NoUninit>(mut self, value: T) -> Self {
        const { assert!(align_of::<T>() <= align_of::<u64>()) };
        let start = self.words.len();
        self.starts.push(start);
        self.words.resize(start + size_of::<T>().div_ceil(8).max(1), 0);
        bytemuck::cast_slice_mut(&mut self.words[start..])[..size_of::<T>()]
            .copy_from_slice(bytemuck::bytes_of(&value));
        self
    }

    /// A count or size, as `long long`.
    pub fn size(self, size: usize) -> Self {
        self.value(size as i64)
    }

    fn address(mut self, tensor: &Tensor) -> Result<Self> {
        let first = if tensor.count() == 0 { 0 } else { tensor.layout.offset() * tensor.dtype().size() };
        let block = tensor.storage.cuda().filter(|(gpu, _)| std::ptr::eq(*gpu, self.gpu));
        let Some((_, address)) = block else {
            let what = format!("a tensor on {} for a kernel on {}", tensor.device(), self.gpu.device());
            return Err(Error::new(ErrorKind::Device, self.operation, what).expected("tensors on one device"));
        };
        self.shapes.push(tensor.shape().to_vec());
        Ok(self.value(address.as_ptr().addr() as u64 + first as u64))
    }

    /// The address of a tensor's first element, to read. Its other elements are where the layout's strides say.
    ///
    /// # Errors
    /// When the tensor is on another device.
    pub fn read(self, tensor: &'a Tensor) -> Result<Self> {
        self.address(tensor)
    }

    /// [`read`](Self::read), or the null pointer for no tensor.
    ///
    /// # Errors
    /// When the tensor is on another device.
    pub fn read_if(self, tensor: Option<&'a Tensor>) -> Result<Self> {
        match tensor {
            Some(tensor) => self.read(tensor),
            None => Ok(self.value(0u64)),
        }
    }

    /// The addresses of up to `N` tensors to read, as a struct of `N` pointers; null pointers behind the last one.
    ///
    /// # Errors
    /// When there are more, or one is on another device.
    pub fn read_table<const N: usize>(self, tensors: &[&'a Tensor]) -> Result<Self> {
        tensors
            .iter()
            .try_fold(self.table(tensors.len(), N)?, |launch, tensor| launch.address(tensor))?
            .end_table(tensors.len(), N)
    }

    /// The addresses of tensors to read, as a struct of as many pointers; null pointers for those that are missing.
    ///
    /// # Errors
    /// When one is on another device.
    pub fn read_each(self, tensors: impl IntoIterator<Item = Option<&'a Tensor>>) -> Result<Self> {
        let (mut launch, mut count) = (self, 0);
        for tensor in tensors {
            launch = launch.read_if(tensor)?;
            count += 1;
        }
        launch.end_table(count, count)
    }

    /// The addresses of up to `N` outputs to write, as a struct of `N` pointers; null pointers for those that are missing.
    ///
    /// # Errors
    /// When there are more, or one is on another device.
    pub fn write_table<const N: usize>(
        self,
        outputs: impl ExactSizeIterator<Item = Option<&'a mut Unwritten>>,
    ) -> Result<Self> {
        let count = outputs.len();
        let mut launch = self.table(count, N)?;
        for output in outputs {
            launch = launch.write_if(output)?;
        }
        launch.end_table(count, N)
    }

    fn table(self, count: usize, most: usize) -> Result<Self> {
        if count <= most {
            return Ok(self);
        }
        Err(Error::argument(self.operation, format!("{count} tensors"))
            .expected(format!("at most {most} for a kernel")))
    }

    /// Makes the last `count` arguments, which are addresses, one argument with room for `size` of them.
    fn end_table(mut self, count: usize, size: usize) -> Result<Self> {
        let first = self.starts.len() - count;
        let start = self.starts.get(first).copied().unwrap_or(self.words.len());
        self.starts.truncate(first);
        self.starts.push(start);
        self.words.resize(start + size, 0);
        Ok(self)
    }

    /// The address of new memory, to write.
    ///
    /// # Errors
    /// When it is on another device.
    pub fn write(self, output: &'a mut Unwritten) -> Result<Self> {
        self.address(&output.tensor)
    }

    /// [`write`](Self::write), or the null pointer for no output.
    ///
    /// # Errors
    /// When it is on another device.
    pub fn write_if(self, output: Option<&'a mut Unwritten>) -> Result<Self> {
        match output {
            Some(output) => self.write(output),
            None => Ok(self.value(0u64)),
        }
    }

    /// The address of a tensor's first element, to read and write.
    ///
    /// # Errors
    /// When the tensor is on another device, or isn't [unique](Tensor::is_unique).
    pub fn update(self, tensor: &'a mut Tensor) -> Result<Self> {
        if !tensor.is_unique() {
            let what = format!("{tensor:?} is shared or not contiguous");
            return Err(Error::new(ErrorKind::Argument, self.operation, what).expected("a tensor that is unique"));
        }
        self.address(tensor)
    }

    /// Queues the kernel with `blocks` blocks of `threads` threads, along x; nothing for no blocks.
    ///
    /// # Safety
    /// See [`run_shaped`](Self::run_shaped).
    ///
    /// # Errors
    /// As [`run_shaped`](Self::run_shaped).
    pub unsafe fn run(self, blocks: usize, threads: u32) -> Result<()> {
        // SAFETY: the caller's.
        unsafe { self.run_shaped([blocks, 1, 1], threads, 0) }
    }

    /// Queues the kernel with a grid of blocks along x, y and z, each of `threads` threads and with `shared` bytes of dynamic
    /// shared memory; nothing for a grid of no blocks.
    ///
    /// # Safety
    /// The arguments must be the kernel's parameters in number, order and type, and with them and this geometry it may only
    /// read elements that were written, and only write elements of `write` and `update` arguments.
    ///
    /// # Errors
    /// When the kernel can't be compiled, the geometry is beyond what the device has, or something queued before has failed.
    pub unsafe fn run_shaped(mut self, grid: [usize; 3], threads: u32, shared: u32) -> Result<()> {
        if grid.contains(&0) {
            return Ok(());
        }
        let most = [i32::MAX as usize, 65535, 65535];
        let result = (0..3)
            .all(|axis| grid[axis] <= most[axis])
            .then(|| Geometry { grid: grid.map(|size| size as u32), block: [threads, 1, 1], shared })
            .ok_or_else(|| Error::new(ErrorKind::Shape, self.operation, "more blocks than a grid can have"))
            .and_then(|geometry| {
                let kernel = self.gpu.kernel(self.source, self.kernel)?;
                let mut arguments: Vec<*mut c_void> =
                    self.starts.iter().map(|&start| (&raw mut self.words[start]).cast()).collect();
                // SAFETY: the caller promises that the arguments fit the kernel; the addresses are of this device's memory.
                unsafe { self.gpu.driver().launch(kernel, geometry, &mut arguments) }
            });
        result.map_err(|error| {
            let shapes: Vec<&[usize]> = self.shapes.iter().map(|shape| &shape[..]).collect();
            let place = format!(
                "{}: kernel {} of {} with grid {}×{}×{}, {threads} threads a block and {shared} bytes of shared memory",
                self.operation, self.kernel, self.source.name, grid[0], grid[1], grid[2]
            );
            error.shapes(shapes).within(place)
        })
    }
}

/// The elements of a tensor on a CUDA device as bytes in row-major order, brought to the host.
pub(super) fn bytes_of(tensor: &Tensor, operation: &str) -> Result<Vec<u64>> {
    let tensor = tensor.contiguous()?;
    let bytes = tensor.count() * tensor.dtype().size();
    let mut words = crate::room_for::<u64>(operation, bytes.div_ceil(8))?;
    words.resize(bytes.div_ceil(8), 0);
    if let Some((gpu, address)) = tensor.storage.cuda()
        && bytes > 0
    {
        let first = tensor.layout.offset() * tensor.dtype().size();
        // SAFETY: the tensor's elements are `bytes` bytes from `first` on, which kernels or copies have written, and `words` is
        // at least as long.
        unsafe { gpu.download(NonNull::from(&mut words[..]).cast(), address.add(first), bytes)? };
    }
    Ok(words)
}
