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
