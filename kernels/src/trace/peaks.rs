//! The measured peak performance of the machine.

use std::{sync::OnceLock, time::Instant};

use tomograd_core::{Result, Scratch};

use crate::{
    parallel::{self, Partition, parallel_for},
    simd::{self, Kernel, Real, Simd, Vector},
};

/// The peak performance of all threads together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Peaks {
    /// Peak rate of `f32` FMAs in 10⁹ floating-point operations per second; an FMA counts as two.
    pub gflops: f64,
    /// Peak memory bandwidth, reading and writing, in 10⁹ bytes per second.
    pub gbytes: f64,
}

impl Peaks {
    /// Measures both with the current thread's [settings](crate::parallel::Settings): by some milliseconds of FMAs, and by
    /// copies of 64 MiB.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn measure() -> Result<Self> {
        Ok(Self { gflops: multiply_adds()?, gbytes: copies()? })
    }

    /// The peaks, measured once for the process.
    pub fn of_this_machine() -> Option<Self> {
        static MEASURED: OnceLock<Option<Peaks>> = OnceLock::new();
        *MEASURED.get_or_init(|| Self::measure().ok())
    }

    /// The minimum time in seconds for this cost by the roofline model. Infinite if a peak isn't positive.
    pub fn seconds(&self, cost: crate::Cost) -> f64 {
        let least = |work: f64, peak: f64| if peak > 0.0 { work / peak * 1e-9 } else { f64::INFINITY };
        least(cost.flops, self.gflops).max(least(cost.bytes, self.gbytes))
    }
}

/// Independent chains of FMAs.
struct Chains(usize);

const CHAINS: usize = 12;

impl Kernel for Chains {
    type Output = f64;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> f64 {
        let factor = <f32 as Real>::Vec::<S>::splat(0.999);
        // The chains have different starting values, and all results are used: otherwise the compiler would keep only one
        // chain.
        let mut sums = simd::vectors::<_, CHAINS>(|i| <f32 as Real>::Vec::<S>::splat(1.0 + i as f32));
        for _ in 0..self.0 {
            for sum in &mut sums {
                *sum = sum.mul_add(factor, factor);
            }
        }
        let mut total = <f32 as Real>::Vec::<S>::zero();
        for sum in sums {
            total = total.add(sum);
        }
        let mut out = [0.0f32; 16];
        total.store(&mut out);
        std::hint::black_box(out);
        (self.0 * CHAINS * <f32 as Real>::Vec::<S>::LANES * 2) as f64
    }
}

fn multiply_adds() -> Result<f64> {
    let mut best = 0.0f64;
    for _ in 0..5 {
        let flops = std::sync::Mutex::new(0.0);
        let start = Instant::now();
        parallel_for(parallel::threads(), 1, |_| {
            let done = simd::dispatch(Chains(2_000_000));
            *flops.lock().unwrap_or_else(std::sync::PoisonError::into_inner) += done;
        })?;
        let flops = flops.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        best = best.max(flops / start.elapsed().as_secs_f64() * 1e-9);
    }
    Ok(best)
}

fn copies() -> Result<f64> {
    const COUNT: usize = 1 << 24;
    let (mut from, mut to) = (Scratch::<f32>::new("peaks", COUNT)?, Scratch::<f32>::new("peaks", COUNT)?);
    let (from, to) = (&*from.zeroed(), to.zeroed());
    let mut best = 0.0f64;
    for _ in 0..5 {
        let start = Instant::now();
        let parts = Partition::new(to, COUNT / 16);
        parallel_for(COUNT, COUNT / 16, |range| parts.take(range.clone()).copy_from_slice(&from[range]))?;
        best = best.max((COUNT * 8) as f64 / start.elapsed().as_secs_f64() * 1e-9);
    }
    Ok(best)
}
