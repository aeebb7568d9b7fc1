//! Sixteen virtual lanes: the width of every reduction, whatever the width of the registers.

use super::{Real, Vector};

/// Sixteen accumulators: one AVX-512 register of `f32`, two AVX2 registers, or two or four registers of `f64`. Element `i` of
/// a row belongs to lane `i % 16`, and the lanes are combined in one fixed tree, so the result doesn't depend on the
/// instruction set.
#[derive(Clone, Copy, Debug)]
pub struct Lanes16<V: Vector>(V::Sixteen);

#[allow(clippy::should_implement_trait)] // the names of `Vector`
impl<V: Vector> Lanes16<V> {
    /// The number of virtual lanes.
    pub const LANES: usize = 16;
    /// The number of registers.
    const REGISTERS: usize = 16 / V::LANES;

    /// Register `part`.
    #[inline(always)]
    fn part(&self, part: usize) -> V {
        self.0.as_ref()[part]
    }

    /// Replaces register `part`.
    #[inline(always)]
    fn set(&mut self, part: usize, value: V) {
        self.0.as_mut()[part] = value;
    }

    /// All sixteen equal to `x`.
    #[inline(always)]
    pub fn splat(x: V::Elem) -> Self {
        Lanes16(V::splat(x).sixteen())
    }

    /// All sixteen zero.
    #[inline(always)]
    pub fn zero() -> Self {
        Self::splat(<V::Elem as Real>::ZERO)
    }

    /// Reads sixteen numbers.
    ///
    /// # Safety
    /// `from` is valid for reading sixteen numbers.
    #[inline(always)]
    pub unsafe fn load_ptr(from: *const V::Elem) -> Self {
        let mut lanes = Self::zero();
        for part in 0..Self::REGISTERS {
            // SAFETY: the parts together cover exactly sixteen numbers.
            lanes.set(part, unsafe { V::load_ptr(from.add(part * V::LANES)) });
        }
        lanes
    }

    /// Reads the first sixteen numbers of a slice; panics if it is shorter.
    #[inline(always)]
    pub fn load(from: &[V::Elem]) -> Self {
        assert!(from.len() >= 16, "sixteen lanes are loaded from a shorter slice");
        // SAFETY: the slice is long enough, by the check above.
        unsafe { Self::load_ptr(from.as_ptr()) }
    }

    /// Reads a slice of at most sixteen numbers (the first sixteen of a longer one); the remaining lanes are `fill`.
    #[inline(always)]
    pub fn load_partial(from: &[V::Elem], fill: V::Elem) -> Self {
        if from.len() >= 16 {
            return Self::load(from);
        }
        let mut padded = [fill; 16];
        padded[..from.len()].copy_from_slice(from);
        Self::load(&padded)
    }

    /// Writes as many lanes as the slice is long, at most sixteen.
    #[inline(always)]
    pub fn store_partial(self, to: &mut [V::Elem]) {
        if to.len() >= 16 {
            for (part, to) in to.chunks_exact_mut(V::LANES).enumerate().take(Self::REGISTERS) {
                self.part(part).store(to);
            }
        } else {
            to.copy_from_slice(&self.to_array()[..to.len()]);
        }
    }

    /// The sixteen numbers.
    #[inline(always)]
    pub fn to_array(self) -> [V::Elem; 16] {
        let mut numbers = [<V::Elem as Real>::ZERO; 16];
        for (part, to) in numbers.chunks_exact_mut(V::LANES).enumerate() {
            self.part(part).store(to);
        }
        numbers
    }

    /// Applies `f` to each register.
    #[inline(always)]
    pub fn map(self, f: impl Fn(V) -> V) -> Self {
        let mut lanes = self;
        for part in 0..Self::REGISTERS {
            lanes.set(part, f(self.part(part)));
        }
        lanes
    }

    /// Applies `f` to each pair of registers.
    #[inline(always)]
    pub fn zip(self, other: Self, f: impl Fn(V, V) -> V) -> Self {
        let mut lanes = self;
        for part in 0..Self::REGISTERS {
            lanes.set(part, f(self.part(part), other.part(part)));
        }
        lanes
    }

    /// `self + other`
    #[inline(always)]
    pub fn add(self, other: Self) -> Self {
        self.zip(other, V::add)
    }

    /// `self - other`
    #[inline(always)]
    pub fn sub(self, other: Self) -> Self {
        self.zip(other, V::sub)
    }

    /// `self * other`
    #[inline(always)]
    pub fn mul(self, other: Self) -> Self {
        self.zip(other, V::mul)
    }

    /// `self * factor + term`, rounded once
    #[inline(always)]
    pub fn mul_add(self, factor: Self, term: Self) -> Self {
        let mut lanes = self;
        for part in 0..Self::REGISTERS {
            lanes.set(part, self.part(part).mul_add(factor.part(part), term.part(part)));
        }
        lanes
    }

    /// [`Vector::max`], lane by lane
    #[inline(always)]
    pub fn max(self, other: Self) -> Self {
        self.zip(other, V::max)
    }

    /// [`Vector::min`], lane by lane
    #[inline(always)]
    pub fn min(self, other: Self) -> Self {
        self.zip(other, V::min)
    }

    /// Combines the lanes in the fixed tree: `i` with `i + 8`, then `+ 4`, `+ 2`, `+ 1`.
    #[inline(always)]
    pub fn fold(self, f: impl Fn(V::Elem, V::Elem) -> V::Elem) -> V::Elem {
        let mut numbers = self.to_array();
        let mut half = 8;
        while half > 0 {
            for lane in 0..half {
                numbers[lane] = f(numbers[lane], numbers[lane + half]);
            }
            half /= 2;
        }
        numbers[0]
    }

    /// The sum of the lanes, in the fixed tree.
    #[inline(always)]
    pub fn horizontal_sum(self) -> V::Elem {
        let mut sums = self.halved();
        let mut half = V::LANES / 2;
        while half > 0 {
            // The lower and the upper half, each of their lanes twice.
            let (low, high) = sums.interleave(sums);
            sums = low.add(high);
            half /= 2;
        }
        let mut lanes = [<V::Elem as Real>::ZERO; 16];
        sums.store(&mut lanes[..V::LANES]);
        lanes[0]
    }

    /// The sums of the lanes that are one or more registers apart, in the fixed tree.
    #[inline(always)]
    fn halved(self) -> V {
        let mut sums = self;
        let mut half = Self::REGISTERS / 2;
        while half > 0 {
            for part in 0..half {
                sums.set(part, sums.part(part).add(sums.part(part + half)));
            }
            half /= 2;
        }
        sums.part(0)
    }

    /// The sums of sixteen rows of lanes, that of row `i` in lane `i`. The results are bitwise equal to
    /// [`horizontal_sum`](Self::horizontal_sum), at about three instructions a row.
    #[inline(always)]
    pub fn horizontal_sums(rows: &[[V::Elem; 16]; 16]) -> Self {
        let mut sums = Self::zero();
        for (part, rows) in rows.chunks_exact(V::LANES).enumerate() {
            // Each step halves the number of values of each row: first the registers of a row are added; then two rows at a
            // time are interleaved, which brings their lower and upper halves together, and added.
            let mut folded = [V::zero(); 16];
            for (folded, row) in folded.iter_mut().zip(rows) {
                *folded = Self::load(row).halved();
            }
            let mut half = V::LANES / 2;
            while half > 0 {
                for i in 0..half {
                    let (low, high) = folded[i].interleave(folded[i + half]);
                    folded[i] = low.add(high);
                }
                half /= 2;
            }
            sums.set(part, folded[0]);
        }
        sums
    }

    /// The largest lane, by [`Real::max2`] in the fixed tree. A NaN isn't always propagated: test for it separately.
    #[inline(always)]
    pub fn horizontal_max(self) -> V::Elem {
        self.fold(V::Elem::max2)
    }

    /// The smallest lane, by [`Real::min2`] in the fixed tree. A NaN isn't always propagated: test for it separately.
    #[inline(always)]
    pub fn horizontal_min(self) -> V::Elem {
        self.fold(V::Elem::min2)
    }
}

/// The sum of a row in sixteen virtual lanes.
#[inline(always)]
pub fn sum<V: Vector>(row: &[V::Elem]) -> V::Elem {
    let mut total = Lanes16::<V>::zero();
    let mut blocks = row.chunks_exact(16);
    for block in &mut blocks {
        total = total.add(Lanes16::load(block));
    }
    if !blocks.remainder().is_empty() {
        total = total.add(Lanes16::load_partial(blocks.remainder(), <V::Elem as Real>::ZERO));
    }
    total.horizontal_sum()
}

/// The dot product of two rows of the same length in sixteen virtual lanes.
#[inline(always)]
pub fn dot<V: Vector>(a: &[V::Elem], b: &[V::Elem]) -> V::Elem {
    assert_eq!(a.len(), b.len(), "a dot product of rows of different lengths");
    let mut total = Lanes16::<V>::zero();
    let (mut a, mut b) = (a.chunks_exact(16), b.chunks_exact(16));
    for (a, b) in (&mut a).zip(&mut b) {
        total = Lanes16::<V>::load(a).mul_add(Lanes16::load(b), total);
    }
    if !a.remainder().is_empty() {
        let zero = <V::Elem as Real>::ZERO;
        let (a, b) = (a.remainder(), b.remainder());
        total = Lanes16::<V>::load_partial(a, zero).mul_add(Lanes16::load_partial(b, zero), total);
    }
    total.horizontal_sum()
}
