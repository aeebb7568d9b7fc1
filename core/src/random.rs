//! Counter-based random numbers: Philox 4×32-10 (Salmon et al., *Parallel random numbers: as easy as 1, 2, 3*, SC 2011).
//!
//! A [`Seed`] is a plain value from which other seeds are derived, by step, name or index. A random number depends only on
//! its seed and its index in the stream, so neither threads, loader workers nor recomputation change any other numbers.

use crate::{Result, cpu::room_for};

/// The key of a stream of random numbers, from which the seeds of further streams can be derived.
///
/// ```
/// use tomograd_core::Seed;
/// let seed = Seed::new(7);
/// let mut dropout = seed.at(12).named("decoder.0.dropout").random();
/// let again = seed.at(12).named("decoder.0.dropout").random().uniform();
/// assert_eq!(dropout.uniform(), again);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Seed {
    key: u64,
    stream: u64,
}

/// The finalizer of splitmix64: a bijection in which every input bit affects all output bits.
fn spread(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

impl Seed {
    /// The root seed that belongs to the number `seed`.
    pub fn new(seed: u64) -> Self {
        Self { key: seed, stream: 0 }
    }

    fn derive(self, tag: u64) -> Self {
        Self { key: self.key, stream: spread(self.stream.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ spread(tag)) }
    }

    /// The derived seed of step, epoch or item `index`.
    #[must_use]
    pub fn at(self, index: u64) -> Self {
        self.derive(index.wrapping_mul(2).wrapping_add(1))
    }

    /// The derived seed of the layer or transform called `name`.
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        let hash = name
            .bytes()
            .fold(0xCBF2_9CE4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3));
        self.derive(hash & !1)
    }

    /// The stream of random numbers of this seed, from its start.
    pub fn random(self) -> Random {
        Random { seed: self, next: 0, block: [0; 4], spare: None }
    }

    /// Both words of the seed, as a checkpoint stores them.
    pub fn to_words(self) -> [u64; 2] {
        [self.key, self.stream]
    }

    /// The seed made of the words of [`to_words`](Self::to_words).
    pub fn from_words([key, stream]: [u64; 2]) -> Self {
        Self { key, stream }
    }
}

/// Block number `counter` of the stream: 128 random bits.
fn philox(key: u64, counter: [u64; 2]) -> [u32; 4] {
    let [mut key_low, mut key_high] = [key as u32, (key >> 32) as u32];
    let mut x = [counter[0] as u32, (counter[0] >> 32) as u32, counter[1] as u32, (counter[1] >> 32) as u32];
    for _ in 0..10 {
        let first = u64::from(x[0]) * 0xD251_1F53;
        let second = u64::from(x[2]) * 0xCD9E_8D57;
        x = [
            (second >> 32) as u32 ^ x[1] ^ key_low,
            second as u32,
            (first >> 32) as u32 ^ x[3] ^ key_high,
            first as u32,
        ];
        key_low = key_low.wrapping_add(0x9E37_79B9);
        key_high = key_high.wrapping_add(0xBB67_AE85);
    }
    x
}

/// A stream of random numbers.
#[derive(Debug, Clone)]
pub struct Random {
    seed: Seed,
    next: u64,
    block: [u32; 4],
    spare: Option<f64>,
}

impl Random {
    /// 32 random bits.
    pub fn next_u32(&mut self) -> u32 {
        let lane = (self.next % 4) as usize;
        if lane == 0 {
            self.block = philox(self.seed.key, [self.next / 4, self.seed.stream]);
        }
        self.next += 1;
        self.block[lane]
    }

    /// 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        u64::from(self.next_u32()) << 32 | u64::from(self.next_u32())
    }

    /// A number in `0..1`, a multiple of 2⁻⁵³.
    pub fn uniform(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// A number in `low..high`, never `high` itself; `low` if both are equal. Bounds in the wrong order or not finite aren't
    /// refused; the result is then that of the formula.
    pub fn uniform_in(&mut self, low: f64, high: f64) -> f64 {
        let part = self.uniform();
        let value = low + (high - low) * part;
        if value < high || low >= high {
            return value;
        }
        if (high - low).is_infinite() && low.is_finite() && high.is_finite() {
            // `high - low` overflows although both bounds are finite.
            return (low * (1.0 - part) + high * part).min(high.next_down());
        }
        // The sum was rounded up to `high`, or one of the values is NaN.
        if value == high { high.next_down() } else { value }
    }

    /// A whole number below `bound` (0 when `bound` is 0), each equally likely (Lemire's rejection).
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 {
            return 0;
        }
        let threshold = bound.wrapping_neg() % bound;
        loop {
            let product = u128::from(self.next_u64()) * u128::from(bound);
            if product as u64 >= threshold {
                return (product >> 64) as u64;
            }
        }
    }

    /// `true` with the given probability.
    pub fn bernoulli(&mut self, probability: f64) -> bool {
        self.uniform() < probability
    }

    /// A number of the standard normal distribution (Box and Muller).
    pub fn normal(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        // 1 - u is in (0, 1], so the logarithm is finite.
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        let (sine, cosine) = (std::f64::consts::TAU * self.uniform()).sin_cos();
        self.spare = Some(radius * sine);
        radius * cosine
    }

    /// A number of the standard normal distribution, redrawn until it lies in `low..=high`. After 1000 failed draws it is
    /// `low` if that is positive, `high` otherwise. It is NaN when `low..=high` is empty.
    pub fn truncated_normal(&mut self, low: f64, high: f64) -> f64 {
        if low > high || low.is_nan() || high.is_nan() {
            return f64::NAN;
        }
        for _ in 0..1000 {
            let value = self.normal();
            if (low..=high).contains(&value) {
                return value;
            }
        }
        if low > 0.0 { low } else { high }
    }

    /// The numbers `0..count` in random order (Fisher and Yates).
    ///
    /// # Errors
    /// When memory runs out.
    pub fn permutation(&mut self, count: usize) -> Result<Vec<usize>> {
        let mut order = room_for("permutation", count)?;
        order.extend(0..count);
        for i in (1..count).rev() {
            order.swap(i, self.below(i as u64 + 1) as usize);
        }
        Ok(order)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers from the authors' Random123 test suite.
    #[test]
    fn philox_gives_the_known_answers() {
        assert_eq!(philox(0, [0, 0]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox(u64::MAX, [u64::MAX, u64::MAX]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        let counter = [0x85a3_08d3_243f_6a88, 0x0370_7344_1319_8a2e];
        assert_eq!(philox(0x299f_31d0_a409_3822, counter), [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]);
    }

    #[test]
    fn distributions_have_their_moments() {
        let mut random = Seed::new(1).named("moments").random();
        let count = 100_000;
        let moments = |values: &[f64]| {
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            (mean, values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / values.len() as f64)
        };
        // The bounds are six standard errors of each estimate.
        let uniform: Vec<f64> = (0..count).map(|_| random.uniform()).collect();
        let (mean, variance) = moments(&uniform);
        assert!((mean - 0.5).abs() < 0.006 && (variance - 1.0 / 12.0).abs() < 0.002);
        assert!(uniform.iter().all(|u| (0.0..1.0).contains(u)));
        let normal: Vec<f64> = (0..count).map(|_| random.normal()).collect();
        let (mean, variance) = moments(&normal);
        assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.03);
        let ones = (0..count).filter(|_| random.bernoulli(0.3)).count() as f64 / count as f64;
        assert!((ones - 0.3).abs() < 0.009);
        assert!((0..1000).all(|_| random.truncated_normal(-1.0, 0.5) <= 0.5));
        assert!((0..1000).all(|_| random.below(7) < 7));
    }

    #[test]
    fn half_open_ranges_leave_the_end_out() {
        let mut random = Seed::new(5).random();
        // Only four representable numbers lie in the range, so that most draws would be rounded to one of its ends.
        let (low, high) = (1.0, 1.0 + 4.0 * f64::EPSILON);
        let drawn: Vec<f64> = (0..1000).map(|_| random.uniform_in(low, high)).collect();
        assert!(drawn.iter().all(|value| (low..high).contains(value)));
        assert_eq!(drawn.iter().map(|value| value.to_bits()).collect::<std::collections::BTreeSet<_>>().len(), 4);
        assert!((0..100).all(|_| (-f64::MAX..f64::MAX).contains(&random.uniform_in(-f64::MAX, f64::MAX))));
        assert_eq!(random.uniform_in(2.0, 2.0), 2.0);
        assert!(random.uniform_in(f64::NAN, 1.0).is_nan());
    }

    #[test]
    fn a_permutation_names_each_once() {
        let mut order = Seed::new(3).random().permutation(100).unwrap();
        assert_ne!(order, (0..100).collect::<Vec<_>>());
        order.sort_unstable();
        assert_eq!(order, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn streams_differ() {
        let seed = Seed::new(0);
        let first: Vec<u64> = [
            seed,
            seed.at(0),
            seed.at(1),
            seed.named("a"),
            seed.named("b"),
            seed.at(1).named("a"),
            seed.named("a").at(1),
        ]
        .iter()
        .map(|seed| seed.random().next_u64())
        .collect();
        let distinct: std::collections::BTreeSet<u64> = first.iter().copied().collect();
        assert_eq!(distinct.len(), first.len());
    }
}
