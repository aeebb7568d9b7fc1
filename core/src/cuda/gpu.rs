//! The state of a CUDA device: its driver, memory pool, loaded kernels and the way to and from the host.

use std::{
    collections::HashMap,
    ptr::NonNull,
    sync::{Mutex, PoisonError},
};

use super::{
    driver::{Driver, Handle, Source},
    system,
};
use crate::{
    Device, Error, ErrorKind, Result,
    memory::{Address, Allocator, Pool, Segment},
};

/// Bytes of a pinned buffer. Two of them take turns, so that the host fills one while the device reads the other.
const STAGE: usize = 4 << 20;
/// The size of a segment of the pool is a multiple of this.
const SEGMENT: usize = 2 << 20;

/// A CUDA device that was opened. It lives as long as the process.
#[derive(Debug)]
pub(crate) struct Gpu {
    index: usize,
    driver: Box<dyn Driver>,
    pool: Pool,
    modules: Mutex<HashMap<Source, Handle>>,
    kernels: Mutex<HashMap<(Source, &'static str), Handle>>,
    stages: Mutex<Option<[Stage; 2]>>,
}

/// A pinned buffer, and the event that marks the end of its last copy.
#[derive(Debug)]
struct Stage {
    buffer: Address,
    copied: Handle,
}

static OPEN: Mutex<Vec<&'static Gpu>> = Mutex::new(Vec::new());

fn find(open: &[&'static Gpu], index: usize) -> Option<&'static Gpu> {
    open.iter().copied().find(|gpu| gpu.index == index)
}

/// Makes `driver` the device `Device::Cuda(index)` of this process, in place of the system's: an emulated device for tests.
///
/// # Errors
/// When that device is in use already.
pub fn attach(index: usize, driver: Box<dyn Driver>) -> Result<()> {
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    if find(&open, index).is_some() {
        let what = format!("{} is in use already", Device::Cuda(index));
        return Err(Error::new(ErrorKind::Device, "attach", what).expected("an index that nobody has used"));
    }
    open.push(Gpu::leaked(index, driver));
    Ok(())
}

impl Gpu {
    fn leaked(index: usize, driver: Box<dyn Driver>) -> &'static Self {
        Box::leak(Box::new(Self {
            index,
            driver,
            pool: Pool::new(),
            modules: Mutex::default(),
            kernels: Mutex::default(),
            stages: Mutex::default(),
        }))
    }

    /// The device with this index, opened when it is asked for first, on behalf of `operation`.
    ///
    /// # Errors
    /// When the device can't be used; the error says why, and how to go on.
    pub(crate) fn open(index: usize, operation: &str) -> Result<&'static Self> {
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(gpu) = find(&open, index) {
            return Ok(gpu);
        }
        let driver = system::System::open(index).map_err(|missing| missing.error(operation, Device::Cuda(index)))?;
        let gpu = Self::leaked(index, Box::new(driver));
        open.push(gpu);
        Ok(gpu)
    }

    pub(crate) fn device(&self) -> Device {
        Device::Cuda(self.index)
    }

    pub(crate) fn driver(&self) -> &dyn Driver {
        &*self.driver
    }

    /// A kernel of `source`, which is compiled when it is needed first.
    ///
    /// # Errors
    /// When it can't be compiled or loaded, or has no such kernel.
    pub(crate) fn kernel(&self, source: &Source, name: &'static str) -> Result<Handle> {
        let mut kernels = self.kernels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(&kernel) = kernels.get(&(*source, name)) {
            return Ok(kernel);
        }
        let mut modules = self.modules.lock().unwrap_or_else(PoisonError::into_inner);
        let module = match modules.get(source) {
            Some(&module) => module,
            None => *modules.entry(*source).or_insert(self.driver.load(source)?),
        };
        let kernel = self.driver.kernel(module, name)?;
        kernels.insert((*source, name), kernel);
        Ok(kernel)
    }

    /// Calls `body` with the two pinned buffers.
    fn with_stages<R>(&self, body: impl FnOnce(&[Stage; 2]) -> Result<R>) -> Result<R> {
        let mut stages = self.stages.lock().unwrap_or_else(PoisonError::into_inner);
        if stages.is_none() {
            let stage = || Ok(Stage { buffer: Address(self.driver.pin(STAGE)?), copied: self.driver.event()? });
            *stages = Some([stage()?, stage()?]);
        }
        match &*stages {
            Some(stages) => body(stages),
            None => Err(Error::new(ErrorKind::Device, "copy", "no pinned memory")),
        }
    }

    /// Copies bytes of the host to device memory. The host may change them as soon as this returns; the device may still be
    /// copying.
    ///
    /// # Safety
    /// `to` must be the address of as many bytes of this device's memory.
    ///
    /// # Errors
    /// When the device can't be used any more, or there is no pinned memory.
    pub(crate) unsafe fn upload(&self, to: NonNull<u8>, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.with_stages(|stages| {
            for (i, part) in bytes.chunks(STAGE).enumerate() {
                let Stage { buffer: Address(buffer), copied } = &stages[i % 2];
                self.driver.wait(*copied)?;
                // SAFETY: the buffer has STAGE bytes, and its last copy is done; the part of the target is within its bytes.
                unsafe {
                    buffer.copy_from_nonoverlapping(NonNull::from(part).cast(), part.len());
                    self.driver.upload(to.add(i * STAGE), *buffer, part.len())?;
                }
                self.driver.record(*copied)?;
            }
            Ok(())
        })
    }

    /// Copies device memory to the host, after all that is queued.
    ///
    /// # Safety
    /// `from` and `to` must be the addresses of `bytes` bytes, of this device's memory that was written, and of the host's.
    ///
    /// # Errors
    /// When something that was queued has failed, or there is no pinned memory.
    pub(crate) unsafe fn download(&self, to: NonNull<u8>, from: NonNull<u8>, bytes: usize) -> Result<()> {
        let part = |i: usize| (bytes.saturating_sub(i * STAGE)).min(STAGE);
        self.with_stages(|stages| {
            // The copy of part i runs while part i − 1 is taken out of the other buffer.
            for i in 0..=bytes.div_ceil(STAGE) {
                if part(i) > 0 {
                    let Stage { buffer: Address(buffer), copied } = &stages[i % 2];
                    // SAFETY: the part lies within the source's bytes; the buffer has STAGE bytes, and its last copy was
                    // waited for: by the iteration before the last or by the wait here.
                    unsafe {
                        self.driver.wait(*copied)?;
                        self.driver.download(*buffer, from.add(i * STAGE), part(i))?;
                    }
                    self.driver.record(*copied)?;
                }
                if let Some(before) = i.checked_sub(1)
                    && part(before) > 0
                {
                    let Stage { buffer: Address(buffer), copied } = &stages[before % 2];
                    self.driver.wait(*copied)?;
                    // SAFETY: the part lies within the target's bytes, and its copy into the buffer is done.
                    unsafe { to.add(before * STAGE).copy_from_nonoverlapping(*buffer, part(before)) };
                }
            }
            Ok(())
        })
    }
}

impl Allocator for Gpu {
    fn segment(&self, size: usize) -> Result<Option<Segment>> {
        // Small tensors share a segment.
        let size = if self.exact() { size } else { size.checked_next_multiple_of(SEGMENT).unwrap_or(size) };
        Ok(self.driver.allocate(size)?.map(|start| Segment { start: Address(start), size, lazy: false }))
    }

    fn release(&self, segment: Segment) {
        // SAFETY: the address comes from `segment`, and the pool gives it to nobody any more.
        unsafe { self.driver.free(segment.start.0) };
    }

    fn pool(&self) -> &Pool {
        &self.pool
    }

    fn exact(&self) -> bool {
        self.driver.exact()
    }

    fn exhausted(&self, operation: &str, capacity: usize, live: usize) -> Error {
        let what = format!("{} has no {capacity} bytes left ({live} are in use)", self.device());
        Error::new(ErrorKind::OutOfMemory, operation, what)
            .expected("a smaller batch or patch, a device with more memory, or --device cpu")
    }
}
