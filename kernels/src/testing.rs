//! The list of all operations, each with a reference, random cases, and a bound of its rounding error.
//!
//! `tests/proofs.rs` runs every entry with every instruction set, thread count and kind of view, compares it with its
//! reference, and checks its gradients. It also scans the sources and fails if an operation isn't listed here.
//!
//! Bugs in kernels are mostly in corner cases: an axis of 1 beside a long one, a kernel larger than its axis, depthwise
//! groups, one element more than a block. Purely random sizes rarely hit these, so about a third of the cases of every
//! operation are [corners](corner), with sizes [around] the blocks of its kernels.

use tomograd_core::{Error, Random, Result, Tensor, TensorBuilder};

use crate::{InPlace, Op};

/// An operation with a reference and random cases.
pub trait Proven: Op + Sized {
    /// The outputs for f64 (and integer) inputs, computed with simple loops that are easy to verify.
    ///
    /// # Errors
    /// When memory runs out.
    fn reference(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>>;

    /// A random operation and inputs that fit it: f64 where it takes floating point. The shapes should include odd ones:
    /// sizes 0 and 1, channels that don't fill a vector, several ranks, all attributes. Values keep a distance of more than
    /// 1e-3 from kinks (a tie of a maximum, the kink of a ReLU), so that finite differences can check the gradients. About a
    /// third of the cases are [corners](corner) of the operation's own kernels.
    ///
    /// # Errors
    /// When memory runs out.
    fn case(random: &mut Random) -> Result<(Self, Vec<Tensor>)>;

    /// The scale of the rounding error of each output element: an element y computed with unit roundoff ε must be within
    /// `TOLERANCE · ε · scale` of the reference. For a sum of K products it is K · Σ|a||b|; the default, 1 + |y|, suits
    /// operations without long sums.
    ///
    /// # Errors
    /// When memory runs out.
    fn scale(&self, inputs: &[Tensor], reference: &[Tensor]) -> Result<Vec<Tensor>> {
        let _ = inputs;
        reference.iter().map(|output| map(output, |y| 1.0 + y.abs())).collect()
    }

    /// The constant of the bound above.
    const TOLERANCE: f64 = 8.0;

    /// Whether input `index` has a gradient.
    fn is_differentiable(&self, index: usize) -> bool {
        let _ = index;
        true
    }
}

/// An operation that writes its targets in place, with a reference and random cases.
pub trait ProvenInPlace: InPlace + Sized {
    /// The targets after the operation, for f64 targets and inputs, computed with simple loops that are easy to verify.
    ///
    /// # Errors
    /// When memory runs out.
    fn reference(&self, targets: &[Tensor], inputs: &[Tensor]) -> Result<Vec<Tensor>>;

    /// A random operation, with f64 targets and inputs that fit it.
    ///
    /// # Errors
    /// When memory runs out.
    fn case(random: &mut Random) -> Result<(Self, Vec<Tensor>, Vec<Tensor>)>;

    /// The constant c of the bound c · ε · (1 + |y|) for the rounding error of an element y.
    const TOLERANCE: f64 = 16.0;
}

/// A random case of an operation that writes its targets in place.
pub struct InPlaceCase {
    /// The operation.
    pub op: Box<dyn InPlace>,
    /// Targets that fit it.
    pub targets: Vec<Tensor>,
    /// Inputs that fit it.
    pub inputs: Vec<Tensor>,
    /// [`ProvenInPlace::TOLERANCE`].
    pub tolerance: f64,
    #[allow(clippy::type_complexity, reason = "one use, and a name would say no more")]
    reference: Box<dyn Fn(&[Tensor], &[Tensor]) -> Result<Vec<Tensor>>>,
}

impl InPlaceCase {
    /// [`ProvenInPlace::reference`] of `targets` and `inputs`.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn reference(&self, targets: &[Tensor], inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        (self.reference)(targets, inputs)
    }
}

/// An entry of the list of operations that write their targets in place.
pub struct InPlaceEntry {
    /// The Rust type's name, as in `impl InPlace for NAME`.
    pub name: &'static str,
    case: fn(&mut Random) -> Result<InPlaceCase>,
}

impl InPlaceEntry {
    /// A random case.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn case(&self, random: &mut Random) -> Result<InPlaceCase> {
        (self.case)(random).map_err(|error: Error| error.within(self.name))
    }
}

fn in_place_case_of<O: ProvenInPlace + Clone>(random: &mut Random) -> Result<InPlaceCase> {
    let (op, targets, inputs) = O::case(random)?;
    let for_reference = op.clone();
    let reference = move |targets: &[Tensor], inputs: &[Tensor]| for_reference.reference(targets, inputs);
    Ok(InPlaceCase { targets, inputs, tolerance: O::TOLERANCE, reference: Box::new(reference), op: Box::new(op) })
}

/// Every operation of this crate that writes its targets in place.
pub fn in_place() -> Vec<InPlaceEntry> {
    use crate::{
        elementwise::ChainInPlace,
        optim::{AdamStep, ClipNorm, EmaStep, Scale, SgdStep},
    };
    vec![
        InPlaceEntry { name: "AdamStep", case: in_place_case_of::<AdamStep> },
        InPlaceEntry { name: "ChainInPlace", case: in_place_case_of::<ChainInPlace> },
        InPlaceEntry { name: "ClipNorm", case: in_place_case_of::<ClipNorm> },
        InPlaceEntry { name: "EmaStep", case: in_place_case_of::<EmaStep> },
        InPlaceEntry { name: "Scale", case: in_place_case_of::<Scale> },
        InPlaceEntry { name: "SgdStep", case: in_place_case_of::<SgdStep> },
    ]
}

/// Applies `function` to every element of a floating-point tensor; the result is f64.
///
/// # Errors
/// When memory runs out.
pub fn map(tensor: &Tensor, function: impl Fn(f64) -> f64) -> Result<Tensor> {
    let values: Vec<f64> = tensor.to_vec_f64()?.into_iter().map(function).collect();
    Tensor::from_slice(&values, tensor.shape(), tensor.device())
}

/// The sum, with the rounding errors of all additions added at the end (Neumaier 1974). A plain sum of many values would be
/// less exact than the sums of the kernels, which a reference must not be.
pub fn exact_sum(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, lost) = values.fold((0.0f64, 0.0), |(sum, lost), value| {
        let next = sum + value;
        let rounded = if sum.abs() >= value.abs() { (sum - next) + value } else { (value - next) + sum };
        (next, lost + rounded)
    });
    // If the sum isn't finite, the rounding errors are NaN.
    if sum.is_finite() { sum + lost } else { sum }
}

type Outputs = Box<dyn Fn(&[Tensor]) -> Result<Vec<Tensor>>>;

/// A random case of an operation.
pub struct Case {
    /// The operation.
    pub op: Box<dyn Op>,
    /// Inputs that fit it.
    pub inputs: Vec<Tensor>,
    /// Which inputs have gradients.
    pub differentiable: Vec<bool>,
    /// [`Proven::TOLERANCE`].
    pub tolerance: f64,
    reference: Outputs,
    #[allow(clippy::type_complexity, reason = "one use, and a name would say no more")]
    scale: Box<dyn Fn(&[Tensor], &[Tensor]) -> Result<Vec<Tensor>>>,
}

impl Case {
    /// [`Proven::reference`] of `inputs`.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn reference(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        (self.reference)(inputs)
    }

    /// [`Proven::scale`] of `inputs`.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn scale(&self, inputs: &[Tensor], reference: &[Tensor]) -> Result<Vec<Tensor>> {
        (self.scale)(inputs, reference)
    }
}

/// An entry of the list of operations.
pub struct Entry {
    /// The Rust type's name, as in `impl Op for NAME`.
    pub name: &'static str,
    case: fn(&mut Random) -> Result<Case>,
}

impl Entry {
    /// A random case.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn case(&self, random: &mut Random) -> Result<Case> {
        (self.case)(random).map_err(|error: Error| error.within(self.name))
    }
}

fn case_of<O: Proven + Clone>(random: &mut Random) -> Result<Case> {
    let (op, inputs) = O::case(random)?;
    let (for_reference, for_scale) = (op.clone(), op.clone());
    Ok(Case {
        differentiable: (0..inputs.len()).map(|index| op.is_differentiable(index)).collect(),
        inputs,
        tolerance: O::TOLERANCE,
        reference: Box::new(move |inputs| for_reference.reference(inputs)),
        scale: Box::new(move |inputs, reference| for_scale.scale(inputs, reference)),
        op: Box::new(op),
    })
}

macro_rules! operations {
    ($($path:ident :: $name:ident),* $(,)?) => {
        /// Every operation of this crate.
        pub fn all() -> Vec<Entry> {
            vec![$(Entry { name: stringify!($name), case: case_of::<crate::$path::$name> }),*]
        }
    };
}

operations! {
    attention::Attention,
    cast::Cast,
    compare::Compare,
    conv::Conv,
    conv::ConvActivation,
    conv::ConvNormActivation,
    conv::ConvTranspose,
    cumulative::CumulativeSum,
    dropout::Dropout,
    elementwise::Chain,
    elementwise::Increment,
    index::Concat,
    index::Gather,
    index::IndexSelect,
    index::OneHot,
    index::Pad,
    index::ScatterAdd,
    index::Where,
    loss::DiceCe,
    matmul::Linear,
    matmul::Matmul,
    norm::LayerNorm,
    norm::Norm,
    pool::AdaptiveAveragePool,
    pool::AdaptiveMaxPool,
    pool::AveragePool,
    pool::MaxPool,
    reduce::ArgMax,
    reduce::Reduce,
    resample::Interpolate,
    scan::SelectiveScan,
    softmax::LogSoftmax,
    softmax::Softmax,
    sort::Sort,
    view::View,
}

/// Sizes around which kernels have remainders: the lengths of vectors and of some multiples.
pub const VECTORS: [usize; 4] = [16, 32, 64, 80];

/// Whether a case should have sizes around block boundaries: true for one case in three.
pub fn at_corner(random: &mut Random) -> bool {
    random.below(3) == 0
}

/// A size around one of `blocks` (around 1 if it is empty): one less, equal, or one more.
pub fn around(random: &mut Random, blocks: &[usize]) -> usize {
    let block = if blocks.is_empty() { 1 } else { blocks[random.below(blocks.len() as u64) as usize] };
    block.saturating_add(random.below(3) as usize).saturating_sub(1)
}

/// A shape of `least` to `most` axes around block boundaries: one axis is [around] one of `blocks`, another (if there is one)
/// is 1, and the others are 1 to 3.
pub fn corner(random: &mut Random, least: usize, most: usize, blocks: &[usize]) -> Vec<usize> {
    let most = most.min(8);
    let least = least.max(2).min(most);
    let rank = least + random.below((most - least + 1) as u64) as usize;
    let mut shape: Vec<usize> = (0..rank).map(|_| 1 + random.below(3) as usize).collect();
    let order = random.permutation(rank).unwrap_or_default();
    if let Some(&single) = order.get(1) {
        shape[single] = 1;
    }
    if let Some(&long) = order.first() {
        shape[long] = around(random, blocks);
    }
    shape
}

/// A random shape of `least` to `most` axes, eight at most, with odd sizes and in some cases 0 and 1. One in three is a
/// [corner] of vector lengths.
pub fn shape(random: &mut Random, least: usize, most: usize) -> Vec<usize> {
    let least = least.min(8);
    let most = most.clamp(least, 8);
    if at_corner(random) {
        return corner(random, least, most, &VECTORS);
    }
    let rank = least + random.below((most - least + 1) as u64) as usize;
    (0..rank).map(|_| size(random)).collect()
}

/// A random axis size: mostly 1 to 9, sometimes 0, 16, 17 or 33.
pub fn size(random: &mut Random) -> usize {
    match random.below(20) {
        0 => 0,
        1 | 2 => 1,
        3 => 16,
        4 => 17,
        5 => 33,
        _ => 1 + random.below(9) as usize,
    }
}

/// Random f64 values of the standard normal distribution.
///
/// # Errors
/// When memory runs out.
pub fn values(random: &mut Random, shape: &[usize]) -> Result<Tensor> {
    TensorBuilder::<f64>::new("values", shape, tomograd_core::Device::Cpu)?.fill_with(|_| random.normal())
}
