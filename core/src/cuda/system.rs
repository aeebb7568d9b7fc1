//! The system's CUDA driver, through `cudarc`, which loads its library when it is used first.

use std::{
    ffi::{CString, c_int, c_void},
    fmt,
    ptr::{self, NonNull},
};

use cudarc::driver::{
    result::{self, DriverError},
    sys,
};

use super::{
    ahead, compile,
    driver::{Capability, Driver, Geometry, Handle, Source},
};
use crate::{Device, Error, ErrorKind, Result};

/// The least capability that the kernels are written for: `cp.async` and tensor cores for bf16 came with 8.0 (Ampere).
const LEAST_CAPABILITY: Capability = Capability { major: 8, minor: 0 };
/// The least version of CUDA that the driver must support, as `cuDriverGetVersion` says it.
const LEAST_DRIVER: c_int = 12000;
/// A kernel may have so much dynamic shared memory without asking for more.
const ALWAYS_SHARED: u32 = 48 << 10;

/// Why a device can't be used.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// The driver's library isn't there.
    Driver,
    /// The driver's library is there and fails.
    Failed(String),
    /// The driver supports this version of CUDA, which is too old.
    OldDriver(c_int),
    /// NVRTC's library isn't there.
    Nvrtc,
    /// NVRTC is of a newer major version (major, minor) than the CUDA that the driver supports.
    NewNvrtc { nvrtc: (c_int, c_int), driver: c_int },
    /// There are only so many devices.
    Index(usize),
    /// The device's name and capability, which is too low.
    Capability(String, Capability),
}

/// `12040` as `12.4`.
fn version_text(version: c_int) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}

impl Missing {
    /// The error, which says how to go on.
    #[cold]
    pub(super) fn error(&self, operation: &str, device: Device) -> Error {
        let (what, instead) = match self {
            Missing::Driver => (
                "this machine has no NVIDIA driver (its library, libcuda.so.1 or nvcuda.dll, wasn't found)".to_owned(),
                "an NVIDIA GPU with its driver".to_owned(),
            ),
            Missing::Failed(why) => {
                (format!("the NVIDIA driver says: {why}"), "an NVIDIA GPU with a driver that works".to_owned())
            }
            Missing::OldDriver(version) => (
                format!("the NVIDIA driver is too old: it supports CUDA {}", version_text(*version)),
                format!("a driver for CUDA {} or newer", version_text(LEAST_DRIVER)),
            ),
            Missing::Nvrtc => (
                "the library NVRTC, which compiles the kernels, wasn't found".to_owned(),
                "libnvrtc.so of CUDA 12 or 13 in the library path (of the CUDA toolkit, or of PyPI's nvidia-cuda-nvrtc)"
                    .to_owned(),
            ),
            Missing::NewNvrtc { nvrtc: (major, minor), driver } => (
                format!(
                    "NVRTC {major}.{minor} is newer than the NVIDIA driver, which supports CUDA {}",
                    version_text(*driver)
                ),
                format!("a newer driver, or NVRTC {}", driver / 1000),
            ),
            Missing::Index(0) => ("the NVIDIA driver sees no GPU".to_owned(), "a machine with one".to_owned()),
            Missing::Index(1) => ("there is only one GPU".to_owned(), "cuda:0".to_owned()),
            Missing::Index(count) => (format!("there are only {count} GPUs"), format!("cuda:0 to cuda:{}", count - 1)),
            Missing::Capability(name, capability) => (
                format!("{name} has compute capability {capability}"),
                format!("{LEAST_CAPABILITY} or higher (Ampere, 2020, and later)"),
            ),
        };
        Error::new(ErrorKind::Device, operation, format!("{device} can't be used: {what}"))
            .expected(format!("{instead}; without one, use --device cpu (Device::Cpu)"))
    }
}

fn text_of(error: DriverError) -> String {
    let text = error.error_string().map(|text| text.to_string_lossy().into_owned());
    format!("{} ({:?})", text.unwrap_or_else(|_| "an unknown error".to_owned()), error.0)
}

/// The error of a call of the driver that failed.
#[cold]
fn failed(call: &str, error: DriverError) -> Error {
    Error::new(ErrorKind::Device, call, text_of(error)).expected(
        "a call that succeeds; the failure may be that of a kernel launched before. --device cpu always works",
    )
}

/// A device of the system's driver.
pub(super) struct System {
    name: String,
    capability: Capability,
    context: sys::CUcontext,
    stream: sys::CUstream,
}

// SAFETY: contexts and streams of the driver may be used from any thread, after `current` has made the context that thread's.
unsafe impl Send for System {}
// SAFETY: as above; the driver's calls are thread-safe.
unsafe impl Sync for System {}

impl fmt::Debug for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (compute capability {})", self.name, self.capability)
    }
}

impl System {
    /// Opens device `index`.
    pub(super) fn open(index: usize) -> Result<Self, Missing> {
        let fail = |error: DriverError| Missing::Failed(text_of(error));
        // cudarc panics when it calls into a library that isn't there.
        // SAFETY: loading the driver's library runs only its own initialisation.
        if !unsafe { sys::is_culib_present() } {
            return Err(Missing::Driver);
        }
        let mut version = 0;
        // SAFETY: the driver writes one number.
        unsafe { sys::cuDriverGetVersion(&mut version) }.result().map_err(fail)?;
        if version < LEAST_DRIVER {
            return Err(Missing::OldDriver(version));
        }
        match result::init() {
            Err(DriverError(sys::CUresult::CUDA_ERROR_NO_DEVICE)) => return Err(Missing::Index(0)),
            other => other.map_err(fail)?,
        }
        let count = usize::try_from(result::device::get_count().map_err(fail)?).unwrap_or(0);
        if index >= count {
            return Err(Missing::Index(count));
        }
        let device = result::device::get(index as c_int).map_err(fail)?;
        let name = result::device::get_name(device).map_err(fail)?;
        let attribute = |attribute| {
            // SAFETY: the device is one of the driver's.
            let number = unsafe { result::device::get_attribute(device, attribute) };
            number.map(|number| u32::try_from(number).unwrap_or(0)).map_err(fail)
        };
        use sys::CUdevice_attribute::{
            CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR as MAJOR,
            CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR as MINOR,
        };
        let capability = Capability { major: attribute(MAJOR)?, minor: attribute(MINOR)? };
        if capability < LEAST_CAPABILITY {
            return Err(Missing::Capability(name, capability));
        }
        match compile::version() {
            Some(nvrtc) if nvrtc.0 <= version / 1000 => {}
            // Kernels that nobody provides are an error when they are needed.
            _ if ahead::is_provided_for(capability) => {}
            Some(nvrtc) => return Err(Missing::NewNvrtc { nvrtc, driver: version }),
            None => return Err(Missing::Nvrtc),
        }
        // SAFETY: the device is one of the driver's, and its primary context stays for the rest of the process.
        let context = unsafe { result::primary_ctx::retain(device) }.map_err(fail)?;
        // SAFETY: the context was just retained.
        unsafe { result::ctx::set_current(context) }.map_err(fail)?;
        let stream = result::stream::create(result::stream::StreamKind::NonBlocking).map_err(fail)?;
        Ok(Self { name, capability, context, stream })
    }

    /// Makes the device's context that of this thread.
    fn current(&self) -> Result<()> {
        // SAFETY: the context is never released.
        unsafe { result::ctx::set_current(self.context) }.map_err(|error| failed("cuCtxSetCurrent", error))
    }
}

fn device_address(address: NonNull<u8>) -> sys::CUdeviceptr {
    address.as_ptr().addr() as sys::CUdeviceptr
}

impl Driver for System {
    fn name(&self) -> &str {
        &self.name
    }

    fn capability(&self) -> Capability {
        self.capability
    }

    fn allocate(&self, bytes: usize) -> Result<Option<NonNull<u8>>> {
        self.current()?;
        // SAFETY: the memory's content is left to who asked for it.
        match unsafe { result::malloc_sync(bytes) } {
            Ok(address) => Ok(NonNull::new(ptr::without_provenance_mut(address as usize))),
            Err(DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY)) => Ok(None),
            Err(error) => Err(failed("cuMemAlloc", error)),
        }
    }

    unsafe fn free(&self, address: NonNull<u8>) {
        if self.current().is_ok() {
            // SAFETY: the caller's. cuMemFree waits for the work that is queued. Its failure is that of earlier work, which the
            // next call reports too.
            let _ = unsafe { result::free_sync(device_address(address)) };
        }
    }

    fn pin(&self, bytes: usize) -> Result<NonNull<u8>> {
        self.current()?;
        // SAFETY: the memory's content is left to who asked for it.
        let pointer = unsafe { result::malloc_host(bytes, sys::CU_MEMHOSTALLOC_PORTABLE) };
        let pointer = pointer.map_err(|error| failed("cuMemHostAlloc", error))?;
        NonNull::new(pointer.cast()).ok_or_else(|| {
            Error::new(ErrorKind::OutOfMemory, "cuMemHostAlloc", format!("no {bytes} bytes of pinned memory"))
        })
    }

    unsafe fn upload(&self, to: NonNull<u8>, from: NonNull<u8>, bytes: usize) -> Result<()> {
        self.current()?;
        // SAFETY: the caller's.
        let copied = unsafe {
            sys::cuMemcpyHtoDAsync_v2(device_address(to), from.as_ptr().cast::<c_void>(), bytes, self.stream).result()
        };
        copied.map_err(|error| failed("cuMemcpyHtoDAsync", error))
    }

    unsafe fn download(&self, to: NonNull<u8>, from: NonNull<u8>, bytes: usize) -> Result<()> {
        self.current()?;
        // SAFETY: the caller's.
        let copied = unsafe {
            sys::cuMemcpyDtoHAsync_v2(to.as_ptr().cast::<c_void>(), device_address(from), bytes, self.stream).result()
        };
        copied.map_err(|error| failed("cuMemcpyDtoHAsync", error))
    }

    fn event(&self) -> Result<Handle> {
        self.current()?;
        let event = result::event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING);
        event.map(|event| Handle(event.expose_provenance())).map_err(|error| failed("cuEventCreate", error))
    }

    fn record(&self, Handle(event): Handle) -> Result<()> {
        self.current()?;
        // SAFETY: the event is one that `event` gave.
        let recorded = unsafe { result::event::record(ptr::with_exposed_provenance_mut(event), self.stream) };
        recorded.map_err(|error| failed("cuEventRecord", error))
    }

    fn wait(&self, Handle(event): Handle) -> Result<()> {
        self.current()?;
        // SAFETY: the event is one that `event` gave.
        let reached = unsafe { result::event::synchronize(ptr::with_exposed_provenance_mut(event)) };
        reached.map_err(|error| failed("cuEventSynchronize", error))
    }

    fn stream(&self) -> Result<Option<NonNull<c_void>>> {
        self.current()?;
        Ok(NonNull::new(self.stream.cast()))
    }

    fn load(&self, source: &Source) -> Result<Handle> {
        let cubin = compile::cubin(source, self.capability)?;
        self.current()?;
        // SAFETY: NVRTC made the binary, for this device's architecture.
        let module = unsafe { result::module::load_data(cubin.as_ptr().cast()) };
        module
            .map(|module| Handle(module.expose_provenance()))
            .map_err(|error| failed("cuModuleLoadData", error).within(format!("{} on {self:?}", source.name)))
    }

    fn kernel(&self, Handle(module): Handle, name: &str) -> Result<Handle> {
        self.current()?;
        let text = CString::new(name)
            .map_err(|error| Error::argument("kernel", format!("the name {name:?} holds a zero")).source(error))?;
        // SAFETY: the module is one that `load` gave.
        let function = unsafe { result::module::get_function(ptr::with_exposed_provenance_mut(module), text) };
        let function = function.map_err(|error| failed("cuModuleGetFunction", error).within(name))?;
        Ok(Handle(function.expose_provenance()))
    }

    unsafe fn launch(&self, Handle(kernel): Handle, geometry: Geometry, arguments: &mut [*mut c_void]) -> Result<()> {
        self.current()?;
        let function = ptr::with_exposed_provenance_mut(kernel);
        let Geometry { grid: [x, y, z], block, shared } = geometry;
        if shared > ALWAYS_SHARED {
            use sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES as MOST_SHARED;
            // SAFETY: the function is one that `kernel` gave.
            let set = unsafe { result::function::set_function_attribute(function, MOST_SHARED, shared as c_int) };
            set.map_err(|error| failed("cuFuncSetAttribute", error))?;
        }
        // SAFETY: the caller's.
        let launched = unsafe {
            result::launch_kernel(function, (x, y, z), (block[0], block[1], block[2]), shared, self.stream, arguments)
        };
        launched.map_err(|error| failed("cuLaunchKernel", error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each reason names what is missing and the way out.
    #[test]
    fn reasons_say_how_to_go_on() {
        let old = Capability { major: 7, minor: 5 };
        let reasons = [
            (Missing::Driver, "no NVIDIA driver"),
            (Missing::Failed("CUDA_ERROR_STUB_LIBRARY".to_owned()), "CUDA_ERROR_STUB_LIBRARY"),
            (Missing::OldDriver(11040), "it supports CUDA 11.4; expected a driver for CUDA 12.0 or newer"),
            (Missing::Nvrtc, "NVRTC"),
            (
                Missing::NewNvrtc { nvrtc: (13, 0), driver: 12080 },
                "which supports CUDA 12.8; expected a newer driver, or NVRTC 12",
            ),
            (Missing::Index(0), "sees no GPU"),
            (Missing::Index(1), "only one GPU; expected cuda:0"),
            (Missing::Index(4), "only 4 GPUs; expected cuda:0 to cuda:3"),
            (
                Missing::Capability("Tesla T4".to_owned(), old),
                "Tesla T4 has compute capability 7.5; expected 8.0 or higher",
            ),
        ];
        for (reason, part) in reasons {
            let error = reason.error("zeros", Device::Cuda(7));
            let text = error.to_string();
            assert_eq!(error.kind(), ErrorKind::Device);
            assert!(text.starts_with("zeros: cuda:7 can't be used: ") && text.contains(part), "{text}");
            assert!(text.ends_with("without one, use --device cpu (Device::Cpu)"), "{text}");
        }
    }
}
