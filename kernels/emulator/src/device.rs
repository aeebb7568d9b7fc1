//! The emulator as a CUDA device of `tomograd-core`, so that tensors live on it and operations run there.

use std::{
    alloc::{Layout, alloc},
    cell::RefCell,
    collections::HashMap,
    ffi::c_void,
    ptr::NonNull,
    sync::{Mutex, OnceLock, PoisonError},
};

use crate::{Emulator, Library, Report};
use tomograd_core::{
    Device, Error, ErrorKind, Result,
    cuda::{Capability, Driver, Geometry, Handle, Source, attach},
};

/// The memory of the emulated device, in bytes.
pub const MEMORY: usize = 1 << 28;

/// The emulator as `Device::Cuda(0)` of this process, attached when it is asked for first; `None`, with a message that tests were
/// left out, without a C++ compiler.
///
/// # Panics
/// Without a C++ compiler, when `TOMOGRAD_DEMAND_EMULATOR` is set; when `Device::Cuda(0)` is in use already.
pub fn device() -> Option<Device> {
    static DEVICE: OnceLock<Option<Device>> = OnceLock::new();
    *DEVICE.get_or_init(|| match Emulator::open() {
        Ok(emulator) => {
            let driver = Emulated { emulator, state: Mutex::default() };
            attach(0, Box::new(driver)).unwrap_or_else(|error| panic!("{error}"));
            Some(Device::Cuda(0))
        }
        Err(why) => {
            assert!(std::env::var_os("TOMOGRAD_DEMAND_EMULATOR").is_none(), "the emulator can't be used: {why}");
            eprintln!("left out: CUDA kernels on the emulator: {why}");
            None
        }
    })
}

/// A launch of an operation, with what it cost.
#[derive(Debug, Clone)]
pub struct Measured {
    /// The kernel.
    pub kernel: String,
    /// The number of blocks.
    pub blocks: u64,
    /// What it cost.
    pub report: Report,
}

static LOADED: Mutex<Vec<Source>> = Mutex::new(Vec::new());

/// The sources that were loaded on the [`device`] so far.
pub fn loaded() -> Vec<Source> {
    LOADED.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

thread_local! {
    static MEASURED: RefCell<Option<Vec<Measured>>> = const { RefCell::new(None) };
}

/// Runs `body`, and returns its result with the costs of all launches of this thread.
pub fn measured<R>(body: impl FnOnce() -> R) -> (R, Vec<Measured>) {
    MEASURED.set(Some(Vec::new()));
    let result = body();
    (result, MEASURED.take().unwrap_or_default())
}

#[derive(Debug)]
struct Emulated {
    emulator: &'static Emulator,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    libraries: Vec<&'static Library>,
    /// The library and the name of each kernel.
    kernels: Vec<(usize, String)>,
    /// Bytes of each allocation.
    sizes: HashMap<usize, usize>,
}

impl Emulated {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn error(what: impl ToString) -> Error {
    Error::new(ErrorKind::Device, "emulator", what.to_string())
}

impl Driver for Emulated {
    fn name(&self) -> &str {
        "emulated device"
    }

    fn capability(&self) -> Capability {
        Capability { major: 8, minor: 0 }
    }

    fn exact(&self) -> bool {
        true
    }

    fn allocate(&self, bytes: usize) -> Result<Option<NonNull<u8>>> {
        let mut state = self.state();
        if state.sizes.values().sum::<usize>().saturating_add(bytes) > MEMORY {
            return Ok(None);
        }
        let address = NonNull::new(self.emulator.allocate(bytes));
        if let Some(address) = address {
            state.sizes.insert(address.as_ptr().addr(), bytes);
        }
        Ok(address)
    }

    unsafe fn free(&self, address: NonNull<u8>) {
        if let Some(bytes) = self.state().sizes.remove(&address.as_ptr().addr()) {
            // SAFETY: the emulator allocated it with this size; the rest is the caller's.
            unsafe { self.emulator.free(address.as_ptr(), bytes) };
        }
    }

    fn pin(&self, bytes: usize) -> Result<NonNull<u8>> {
        let layout = Layout::from_size_align(bytes, 64).map_err(error)?;
        // SAFETY: the device layer asks for some bytes.
        NonNull::new(unsafe { alloc(layout) }).ok_or_else(|| error("no memory"))
    }

    unsafe fn upload(&self, to: NonNull<u8>, from: NonNull<u8>, bytes: usize) -> Result<()> {
        // SAFETY: the caller's.
        unsafe { to.copy_from_nonoverlapping(from, bytes) };
        self.emulator.written(to.as_ptr(), bytes);
        Ok(())
    }

    unsafe fn download(&self, to: NonNull<u8>, from: NonNull<u8>, bytes: usize) -> Result<()> {
        let missing = self.emulator.uninitialised(from.as_ptr(), bytes);
        if missing > 0 {
            return Err(error(format!("{missing} of {bytes} bytes that are brought to the host were never written")));
        }
        // SAFETY: the caller's.
        unsafe { to.copy_from_nonoverlapping(from, bytes) };
        Ok(())
    }

    fn event(&self) -> Result<Handle> {
        Ok(Handle(0))
    }

    // Everything is done when it is asked for.
    fn record(&self, _: Handle) -> Result<()> {
        Ok(())
    }

    fn wait(&self, _: Handle) -> Result<()> {
        Ok(())
    }

    fn load(&self, source: &Source) -> Result<Handle> {
        let library = self.emulator.compile(source.name, &source.expanded(), &[]).map_err(error)?;
        LOADED.lock().unwrap_or_else(PoisonError::into_inner).push(*source);
        let mut state = self.state();
        state.libraries.push(Box::leak(Box::new(library)));
        Ok(Handle(state.libraries.len() - 1))
    }

    fn kernel(&self, Handle(module): Handle, name: &str) -> Result<Handle> {
        let mut state = self.state();
        if !state.libraries[module].kernels().any(|kernel| kernel == name) {
            return Err(error(format!("no kernel is called {name}")));
        }
        state.kernels.push((module, name.to_owned()));
        Ok(Handle(state.kernels.len() - 1))
    }

    unsafe fn launch(&self, Handle(kernel): Handle, geometry: Geometry, arguments: &mut [*mut c_void]) -> Result<()> {
        let Geometry { grid, block, shared } = geometry;
        let (library, name) = {
            let state = self.state();
            let (module, name) = &state.kernels[kernel];
            (state.libraries[*module], name.clone())
        };
        if MEASURED.with_borrow(Option::is_none) {
            // SAFETY: the caller's.
            return unsafe { library.launch(&name, grid, block, shared as usize, arguments) }.map(drop).map_err(error);
        }
        // SAFETY: the caller's.
        let report = unsafe { library.measure(&name, grid, block, shared as usize, arguments) }.map_err(error)?;
        let blocks = grid.map(u64::from).iter().product();
        MEASURED.with_borrow_mut(|all| {
            all.iter_mut().for_each(|all| all.push(Measured { kernel: name.clone(), blocks, report: report.clone() }))
        });
        Ok(())
    }
}
