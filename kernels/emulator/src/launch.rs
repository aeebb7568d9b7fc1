//! Launches, what they cost, and what was wrong with them.

use std::{
    ffi::{CStr, CString, c_char, c_uint, c_ulong, c_void},
    fmt,
    process::Command,
};

use crate::Library;

/// `TomogradSite` of cpp/interface.h.
#[repr(C)]
struct RawSite {
    instruction: c_ulong,
    size: c_uint,
    shared: c_uint,
    write: c_uint,
    requests: c_ulong,
    accesses: c_ulong,
    moved: c_ulong,
    ideal: c_ulong,
}

/// `TomogradEmulatorReport` of cpp/interface.h.
#[repr(C)]
pub(crate) struct RawReport {
    size: c_ulong,
    count_costs: c_ulong,
    fault: c_ulong,
    barriers: c_ulong,
    warp_operations: c_ulong,
    tensor_operations: c_ulong,
    load_sectors: c_ulong,
    load_ideal: c_ulong,
    store_sectors: c_ulong,
    store_ideal: c_ulong,
    shared_cycles: c_ulong,
    shared_ideal: c_ulong,
    site_count: c_ulong,
    sites: *const RawSite,
    message: [c_char; 2048],
}

/// What a launch cost. Sectors are pieces of 32 bytes of global memory; a bank delivers 4 bytes of shared memory in a cycle.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// Block barriers, over all blocks.
    pub barriers: u64,
    /// Shuffles, votes, matrix loads and barriers of warps.
    pub warp_operations: u64,
    /// Tensor-core instructions, one a warp.
    pub tensor_operations: u64,
    /// Sectors that loads touched, and how many their bytes fill.
    pub load_sectors: [u64; 2],
    /// The same of stores and atomic operations.
    pub store_sectors: [u64; 2],
    /// Cycles that accesses to shared memory took, and how many they would take without conflicts of banks.
    pub shared_cycles: [u64; 2],
    /// Each instruction that accesses memory.
    pub sites: Vec<Site>,
}

impl Report {
    /// Sectors that loads touched for each that their bytes fill.
    pub fn sectors_a_useful_one(&self) -> f64 {
        self.load_sectors[0] as f64 / self.load_sectors[1].max(1) as f64
    }

    /// Cycles lost to conflicts of banks.
    pub fn bank_conflicts(&self) -> u64 {
        self.shared_cycles[0] - self.shared_cycles[1]
    }
}

/// The accesses of one instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    instruction: u64,
    /// Bytes of an access.
    pub size: u32,
    /// Whether it is to shared memory.
    pub shared: bool,
    /// Whether it writes.
    pub write: bool,
    /// Groups of one access of each lane.
    pub requests: u64,
    /// Accesses of single threads.
    pub accesses: u64,
    /// Sectors, or cycles of banks.
    pub moved: u64,
    /// The least number of these for the same bytes.
    pub ideal: u64,
}

/// What kind of thing is wrong with a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// Sizes or arguments that no device takes.
    Launch,
    /// An access outside every allocation, or across the end of one.
    OutOfBounds,
    /// A read of bytes that nobody wrote.
    Unwritten,
    /// Two accesses of one byte, at least one of them a write, with no barrier between them.
    Race,
    /// A barrier or warp operation that some of its threads don't reach.
    Diverged,
    /// An address that isn't a multiple of the access's size.
    Misaligned,
    /// An access to bytes whose asynchronous copy wasn't waited for.
    Pending,
    /// A shuffle that reads a lane which takes no part.
    Shuffle,
}

/// What ended a launch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Its kind.
    pub kind: FaultKind,
    /// Kernel, block, thread, what happened, and where.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

impl Library {
    /// The names of the kernels, in the order of the source.
    pub fn kernels(&self) -> impl Iterator<Item = &str> {
        self.kernels.iter().map(|kernel| &*kernel.name)
    }

    /// The sizes of a kernel's parameters in bytes; `None` when there is no such kernel.
    pub fn parameters(&self, kernel: &str) -> Option<&[usize]> {
        self.kernels.iter().find(|known| known.name == kernel).map(|known| &*known.parameters)
    }

    /// Runs a kernel with what `cuLaunchKernel` takes: an address of each argument.
    ///
    /// # Safety
    /// Each address is that of a value of the parameter's type. Memory that was said to be allocated exists and isn't used by others
    /// meanwhile.
    ///
    /// # Errors
    /// The first [`Fault`]; the launch ends there, with memory half written.
    pub unsafe fn launch(
        &self,
        kernel: &str,
        grid: [u32; 3],
        block: [u32; 3],
        shared_bytes: usize,
        arguments: &mut [*mut c_void],
    ) -> Result<Report, Fault> {
        // SAFETY: the caller's promise.
        unsafe { self.start(kernel, [grid, block], shared_bytes, arguments, false) }
    }

    /// The same, and counts what accesses cost, which takes about three times as long.
    ///
    /// # Safety
    /// As of [`Library::launch`].
    ///
    /// # Errors
    /// As of [`Library::launch`].
    pub unsafe fn measure(
        &self,
        kernel: &str,
        grid: [u32; 3],
        block: [u32; 3],
        shared_bytes: usize,
        arguments: &mut [*mut c_void],
    ) -> Result<Report, Fault> {
        // SAFETY: the caller's promise.
        unsafe { self.start(kernel, [grid, block], shared_bytes, arguments, true) }
    }

    /// The body of `launch` and `measure`.
    ///
    /// # Safety
    /// As of [`Library::launch`].
    unsafe fn start(
        &self,
        kernel: &str,
        [grid, block]: [[u32; 3]; 2],
        shared_bytes: usize,
        arguments: &mut [*mut c_void],
        count_costs: bool,
    ) -> Result<Report, Fault> {
        let refuse = |message: String| Err(Fault { kind: FaultKind::Launch, message });
        let Some(parameters) = self.parameters(kernel) else {
            let known: Vec<&str> = self.kernels().collect();
            return refuse(format!("no kernel {kernel}; there are {}", known.join(", ")));
        };
        if parameters.len() != arguments.len() {
            return refuse(format!("{kernel}: {} arguments; expected {}", arguments.len(), parameters.len()));
        }
        let Ok(name) = CString::new(kernel) else { return refuse(format!("{kernel:?}: a zero byte in a name")) };
        // SAFETY: numbers, a pointer and an array of numbers, all of which may be zero.
        let mut report: Box<RawReport> = unsafe { Box::new(std::mem::zeroed()) };
        report.size = size_of::<RawReport>() as c_ulong;
        report.count_costs = c_ulong::from(count_costs);
        // One launch at a time, until its list of sites has been read.
        let _turn = crate::memory::turn();
        // SAFETY: the number of arguments is right, and the caller answers for their types and for memory.
        let code = unsafe {
            (self.launch)(
                name.as_ptr(),
                grid.as_ptr(),
                block.as_ptr(),
                shared_bytes as c_ulong,
                arguments.as_mut_ptr(),
                &raw mut *report,
            )
        };
        if code == 0 {
            // SAFETY: the list is valid until the next launch.
            return Ok(unsafe { Report::read(&report) });
        }
        // SAFETY: the runtime ends its message with a zero byte.
        let message = unsafe { CStr::from_ptr(report.message.as_ptr()) }.to_string_lossy().into_owned();
        Err(Fault { kind: FaultKind::of(code), message })
    }

    /// File and line of an instruction, by binutils' `addr2line`; `None` without it.
    pub fn place(&self, site: &Site) -> Option<String> {
        let output = Command::new("addr2line")
            .args(["-i", "-s", "-e"])
            .arg(&self.path)
            .arg(format!("{:#x}", site.instruction.wrapping_sub(1)))
            .output()
            .ok()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let places =
            text.lines().filter(|line| !line.contains('?') && !line.contains(".hpp:") && !line.contains(".cuh:"));
        let places: Vec<&str> = places.map(|line| line.split(' ').next().unwrap_or(line)).collect();
        (!places.is_empty()).then(|| places.join(" < "))
    }
}

impl Report {
    /// # Safety
    /// The list of sites is still valid.
    unsafe fn read(raw: &RawReport) -> Self {
        let sites = if raw.site_count == 0 {
            &[]
        } else {
            // SAFETY: the caller's promise.
            unsafe { std::slice::from_raw_parts(raw.sites, raw.site_count as usize) }
        };
        let site = |site: &RawSite| Site {
            instruction: site.instruction,
            size: site.size,
            shared: site.shared != 0,
            write: site.write != 0,
            requests: site.requests,
            accesses: site.accesses,
            moved: site.moved,
            ideal: site.ideal,
        };
        Self {
            barriers: raw.barriers,
            warp_operations: raw.warp_operations,
            tensor_operations: raw.tensor_operations,
            load_sectors: [raw.load_sectors, raw.load_ideal],
            store_sectors: [raw.store_sectors, raw.store_ideal],
            shared_cycles: [raw.shared_cycles, raw.shared_ideal],
            sites: sites.iter().map(site).collect(),
        }
    }
}

impl FaultKind {
    fn of(code: i32) -> Self {
        match code {
            2 => Self::OutOfBounds,
            3 => Self::Unwritten,
            4 => Self::Race,
            5 => Self::Diverged,
            6 => Self::Misaligned,
            7 => Self::Pending,
            8 => Self::Shuffle,
            _ => Self::Launch,
        }
    }
}
