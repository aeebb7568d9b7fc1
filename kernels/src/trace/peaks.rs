//! What the machine can do at most, measured.

use std::{sync::OnceLock, time::Instant};

use tomograd_core::{Result, Scratch};

use crate::{
    parallel::{self, Partition, parallel_for},
    simd::{self, Kernel, Real, Simd, Vector},
};

/// The most that all threads together reach.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Peaks {
    /// Floating-point operations a second by fused multiply-adds of `f32`, in 10⁹, a multiply-add being two.
    pub gflops: f64,
    /// Bytes a second, read and written, in 10⁹.
    pub gbytes: f64,
}

impl Peaks {
    /// Measures both with the current thread's [settings](crate::parallel::Settings): some milliseconds of multiply-adds, and
    /// copies of 64 MiB.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn measure() -> Result<Self> {
        Ok(Self { gflops: multiply_adds()?, gbytes: copies()? })
    }

    /// Measured once for the process.
    pub fn of_this_machine() -> Option<Self> {
        static MEASURED: OnceLock<Option<Peaks>> = OnceLock::new();
        *MEASURED.get_or_init(|| Self::measure().ok())
    }

    /// The least seconds that so many operations and bytes take: the roofline. Infinite where a peak isn't above 0.
    pub fn seconds(&self, cost: crate::Cost) -> f64 {
        let least = |work: f64, peak: f64| if peak > 0.0 { work / peak * 1e-9 } else { f64::INFINITY };
        least(cost.flops, self.gflops).max(least(cost.bytes, self.gbytes))
    }
}

/// Independent chains of fused multiply-adds.
struct Chains(usize);

const CHAINS: usize = 12;

impl Kernel for Chains {
    type Output = f64;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> f64 {
        let factor = <f32 as Real>::Vec::<S>::splat(0.999);
        // Different starts, and all of them used: else the compiler would keep a single chain.
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
