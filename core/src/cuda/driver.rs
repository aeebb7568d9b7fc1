//! What the device layer needs of a CUDA driver.

use std::{ffi::c_void, fmt, ptr::NonNull};

use crate::Result;

/// A file that kernels include.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Header {
    /// The name by which it is included.
    pub name: &'static str,
    /// The text in CUDA C++.
    pub text: &'static str,
}

/// A file of CUDA kernels. It includes only those of [`HEADERS`](super::HEADERS) and its own headers, so that NVRTC
/// compiles it without a CUDA toolkit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Source {
    /// The name of the file, for messages.
    pub name: &'static str,
    /// The text in CUDA C++.
    pub text: &'static str,
    /// The headers that it includes besides.
    pub headers: &'static [Header],
}

impl Source {
    /// The text with its own headers in place of the lines that include them.
    pub fn expanded(&self) -> String {
        let mut text = self.text.to_owned();
        for header in self.headers {
            text = text.replace(&format!("#include \"{}\"", header.name), header.text);
        }
        text
    }
}

/// The compute capability of a device: 8.6 is `sm_86`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Capability {
    /// The number before the point.
    pub major: u32,
    /// The number behind the point.
    pub minor: u32,
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The blocks and threads of a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Blocks along x, y and z.
    pub grid: [u32; 3],
    /// Threads of a block along x, y and z.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory of a block.
    pub shared: u32,
}

/// A compiled [`Source`] on a device, a kernel of it, or an event; only the driver that gave it knows what the number means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Handle(pub usize);

/// A device, as the device layer sees it: memory, copies, kernels and events. All work is put into one queue (a stream) and
/// done in its order; only [`wait`](Self::wait) and [`allocate`](Self::allocate) may keep the host waiting. Memory is given
/// back to a pool while work that uses it is still queued, since whoever gets it next uses it in the same queue.
///
/// There are two: that of the system, and in tests the emulator of `tomograd-emulator`, whose device is the host
/// ([`attach`](super::attach)). Errors are of [`ErrorKind::Device`](crate::ErrorKind::Device) and say what the driver said.
pub trait Driver: Send + Sync + fmt::Debug {
    /// The device's name.
    fn name(&self) -> &str;

    /// The device's compute capability.
    fn capability(&self) -> Capability;

    /// Whether each tensor gets memory of exactly its size, which is freed with it: then an emulator finds accesses beyond it,
    /// and reads of what nobody wrote.
    fn exact(&self) -> bool {
        false
    }

    /// Device memory of `bytes` bytes, which aren't 0, aligned to 256; `None` if there isn't as much.
    ///
    /// # Errors
    /// When the device can't be used any more.
    fn allocate(&self, bytes: usize) -> Result<Option<NonNull<u8>>>;

    /// Frees device memory after all queued work.
    ///
    /// # Safety
    /// The address must come from [`allocate`](Self::allocate), and nothing queued later may use it.
    unsafe fn free(&self, address: NonNull<u8>);

    /// Host memory that the device reads and writes directly (pinned); it is never freed.
    ///
    /// # Errors
    /// When there isn't as much.
    fn pin(&self, bytes: usize) -> Result<NonNull<u8>>;

    /// Queues a copy from pinned memory to the device.
    ///
    /// # Safety
    /// Both must have `bytes` bytes, and the host must not write the source before the copy is done.
    ///
    /// # Errors
    /// When the device can't be used any more.
    unsafe fn upload(&self, to: NonNull<u8>, from: NonNull<u8>, bytes: usize) -> Result<()>;

    /// Queues a copy from the device to pinned memory.
    ///
    /// # Safety
    /// Both must have `bytes` bytes, and the host must not touch the target before the copy is done.
    ///
    /// # Errors
    /// When the device can't be used any more.
    unsafe fn download(&self, to: NonNull<u8>, from: NonNull<u8>, bytes: usize) -> Result<()>;

    /// A new event.
    ///
    /// # Errors
    /// When the device can't be used any more.
    fn event(&self) -> Result<Handle>;

    /// Marks the end of what is queued now by an event of this driver.
    ///
    /// # Errors
    /// When the device can't be used any more.
    fn record(&self, event: Handle) -> Result<()>;

    /// Waits until the device has come to the last mark of an event of this driver.
    ///
    /// # Errors
    /// When what was queued before has failed.
    fn wait(&self, event: Handle) -> Result<()>;

    /// The stream (`CUstream`) that is the queue, after the device's context was made that of the calling thread, for code that calls
    /// the driver by itself; `None` for a device that isn't one of the system's driver.
    ///
    /// # Errors
    /// When the device can't be used any more.
    fn stream(&self) -> Result<Option<NonNull<c_void>>> {
        Ok(None)
    }

    /// Compiles a source for the device and loads it.
    ///
    /// # Errors
    /// When it can't be compiled or loaded.
    fn load(&self, source: &Source) -> Result<Handle>;

    /// A kernel of a loaded source.
    ///
    /// # Errors
    /// When it has none of that name.
    fn kernel(&self, module: Handle, name: &str) -> Result<Handle>;

    /// Queues a kernel. Each argument is the address of its value, as `cuLaunchKernel` takes them.
    ///
    /// # Safety
    /// The arguments must be those of the kernel in number, order and size, and what they point to must be memory of this
    /// device that the kernel may use.
    ///
    /// # Errors
    /// When the geometry is beyond what the device has, or something queued before has failed.
    unsafe fn launch(&self, kernel: Handle, geometry: Geometry, arguments: &mut [*mut c_void]) -> Result<()>;
}
