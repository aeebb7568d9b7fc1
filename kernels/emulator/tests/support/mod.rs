//! What the tests share: buffers in global memory, launches of slices.
#![allow(dead_code)] // each test file uses a part

use std::ffi::c_void;

use tomograd_emulator::{Emulator, Fault, Library, Report};

/// The emulator, or `None` where there is no C++ compiler: then a test says so, except where `TOMOGRAD_DEMAND_EMULATOR` is set.
pub fn emulator() -> Option<&'static Emulator> {
    match Emulator::open() {
        Ok(emulator) => Some(emulator),
        Err(why) => {
            assert!(std::env::var_os("TOMOGRAD_DEMAND_EMULATOR").is_none(), "{why}");
            eprintln!("left out: {why}");
            None
        }
    }
}

/// Global memory of elements.
pub struct Buffer<T> {
    emulator: &'static Emulator,
    memory: *mut T,
    count: usize,
}

impl<T: Copy> Buffer<T> {
    /// Elements that nobody has written.
    pub fn new(emulator: &'static Emulator, count: usize) -> Self {
        Self { emulator, memory: emulator.allocate(count * size_of::<T>()).cast(), count }
    }

    /// The elements of a slice.
    pub fn of(emulator: &'static Emulator, values: &[T]) -> Self {
        let buffer = Self::new(emulator, values.len());
        // SAFETY: allocated for as many elements.
        unsafe { std::ptr::copy_nonoverlapping(values.as_ptr(), buffer.memory, values.len()) };
        emulator.written(buffer.memory.cast(), size_of_val(values));
        buffer
    }

    /// What is there; all must have been written.
    pub fn read(&self) -> Vec<T> {
        let unwritten = self.emulator.uninitialised(self.memory.cast(), self.count * size_of::<T>());
        assert_eq!(unwritten, 0, "bytes of a result that nobody wrote");
        // SAFETY: allocated for as many elements, and written.
        unsafe { std::slice::from_raw_parts(self.memory, self.count) }.to_vec()
    }

    /// The address.
    pub fn address(&self) -> *mut T {
        self.memory
    }

    /// The address as an argument.
    pub fn argument(&self) -> *mut c_void {
        (&raw const self.memory).cast_mut().cast()
    }
}

impl<T> Drop for Buffer<T> {
    fn drop(&mut self) {
        // SAFETY: allocated so in `new`.
        unsafe { self.emulator.free(self.memory.cast(), self.count * size_of::<T>()) };
    }
}

/// The address of a number as an argument.
pub fn number<T>(value: &T) -> *mut c_void {
    (&raw const *value).cast_mut().cast()
}

/// Launches with costs counted.
pub fn measure(
    library: &Library,
    kernel: &str,
    grid: [usize; 3],
    block: [usize; 3],
    shared: usize,
    arguments: &[*mut c_void],
) -> Result<Report, Fault> {
    let sizes = |sizes: [usize; 3]| sizes.map(|size| u32::try_from(size).expect("a size of a grid"));
    // SAFETY: the arguments are of the kernel's types; a test that gives others is wrong.
    unsafe { library.measure(kernel, sizes(grid), sizes(block), shared, &mut arguments.to_vec()) }
}

/// A type of elements of kernels.
pub trait Element: Copy {
    /// In names of kernels.
    const NAME: &'static str;
    /// The relative error of a rounding to it, at most.
    const ROUNDING: f64;
    /// The largest error of a rounding to a subnormal number.
    const UNDERFLOW: f64;
    /// The nearest element.
    fn of(value: f64) -> Self;
    /// Its value.
    fn value(self) -> f64;
}

impl Element for f32 {
    const NAME: &'static str = "f32";
    const ROUNDING: f64 = 1.0 / (1 << 24) as f64;
    const UNDERFLOW: f64 = 0.0;

    fn of(value: f64) -> Self {
        value as f32
    }

    fn value(self) -> f64 {
        f64::from(self)
    }
}

impl Element for half::f16 {
    const NAME: &'static str = "f16";
    const ROUNDING: f64 = 1.0 / (1 << 11) as f64;
    const UNDERFLOW: f64 = 1.0 / (1 << 25) as f64;

    fn of(value: f64) -> Self {
        Self::from_f64(value)
    }

    fn value(self) -> f64 {
        self.to_f64()
    }
}

impl Element for half::bf16 {
    const NAME: &'static str = "bf16";
    const ROUNDING: f64 = 1.0 / (1 << 8) as f64;
    const UNDERFLOW: f64 = 0.0;

    fn of(value: f64) -> Self {
        Self::from_f64(value)
    }

    fn value(self) -> f64 {
        self.to_f64()
    }
}

/// The name of a type in tensor-core kernels, which multiply f32 as TF32.
pub fn of_tensor_cores<T: Element>() -> &'static str {
    if size_of::<T>() == 4 { "tf32" } else { T::NAME }
}

/// The elements, rounded to TF32 (11 significant bits) where they are f32.
pub fn to_tensor_cores<T: Element>(elements: Vec<T>) -> Vec<T> {
    if size_of::<T>() != 4 {
        return elements;
    }
    let rounded = |x: f32| f32::from_bits((x.to_bits() + 0x1000) & !0x1fff);
    elements.into_iter().map(|x| T::of(f64::from(rounded(x.value() as f32)))).collect()
}

/// Random numbers that follow from a seed (splitmix64).
pub struct Random(pub u64);

impl Random {
    /// The next number of 64 bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number from `low` to `high`, both included.
    pub fn within(&mut self, low: usize, high: usize) -> usize {
        low + (self.next() % (high - low + 1) as u64) as usize
    }

    /// One of a list.
    pub fn one_of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.within(0, list.len() - 1)]
    }

    /// Elements between −1 and 1.
    pub fn elements<T: Element>(&mut self, count: usize) -> Vec<T> {
        (0..count).map(|_| T::of((self.next() >> 11) as f64 / (1u64 << 52) as f64 - 1.0)).collect()
    }
}

/// What running a kernel's cases has shown.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    /// Cases that ran.
    pub cases: usize,
    /// The largest error, as a part of its bound.
    pub error: f64,
    /// Sectors of loads a useful one, on the aligned case.
    pub sectors: f64,
    /// Cycles of shared memory's banks for each without conflicts, on the aligned case.
    pub banks: f64,
    /// Block barriers a block, on the aligned case.
    pub barriers: f64,
}

impl Figures {
    /// Compares with what is right within a bound for each element.
    pub fn compare<T: Element>(&mut self, case: &str, found: &[T], expected: &[(f64, f64)]) -> Result<(), String> {
        assert_eq!(found.len(), expected.len());
        for (place, (found, &(right, bound))) in found.iter().zip(expected).enumerate() {
            let error = (found.value() - right).abs();
            let bound = if bound > 0.0 { bound + T::UNDERFLOW } else { bound };
            // Also where it is NaN.
            if error.is_nan() || error > bound {
                return Err(format!("{case}: element {place} is {}, expected {right} within {bound:e}", found.value()));
            }
            if bound > 0.0 {
                self.error = self.error.max(error / bound);
            }
        }
        self.cases += 1;
        Ok(())
    }

    /// Keeps the costs of the aligned case.
    pub fn costs(&mut self, report: &Report, blocks: usize) {
        self.sectors = report.sectors_a_useful_one();
        self.banks = report.shared_cycles[0] as f64 / report.shared_cycles[1].max(1) as f64;
        self.barriers = report.barriers as f64 / blocks as f64;
    }
}

/// How many random cases a kernel gets.
pub fn case_count() -> usize {
    std::env::var("TOMOGRAD_CASES").ok().and_then(|count| count.parse().ok()).unwrap_or(8)
}
