//! The contract that every operation fulfils, built-in or a user's own.

use std::{any::Any, fmt};

use tomograd_core::{DType, Device, Error, ErrorKind, Result, Tensor, element_count};

/// What is known of a tensor without its elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    /// The sizes of the axes.
    pub shape: Vec<usize>,
    /// The type of the elements.
    pub dtype: DType,
    /// The device that holds the elements.
    pub device: Device,
}

impl Meta {
    /// A meta of `shape` with this one's dtype and device.
    #[must_use]
    pub fn with_shape(&self, shape: impl Into<Vec<usize>>) -> Self {
        Self { shape: shape.into(), dtype: self.dtype, device: self.device }
    }

    /// A meta of `dtype` with this one's shape and device.
    #[must_use]
    pub fn with_dtype(&self, dtype: DType) -> Self {
        Self { shape: self.shape.clone(), dtype, device: self.device }
    }

    /// The number of axes.
    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    /// The number of elements; `usize::MAX` where it overflows, which no tensor's does.
    pub fn count(&self) -> usize {
        if self.shape.contains(&0) { 0 } else { self.shape.iter().fold(1, |count, &size| count.saturating_mul(size)) }
    }
}

impl From<&Tensor> for Meta {
    fn from(tensor: &Tensor) -> Self {
        Self { shape: tensor.shape().to_vec(), dtype: tensor.dtype(), device: tensor.device() }
    }
}

/// What an operation costs, from its shapes alone.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Cost {
    /// Floating-point operations, a fused multiply-add being two.
    pub flops: f64,
    /// Bytes of inputs read and outputs written, each once.
    pub bytes: f64,
}

impl Cost {
    /// `flops`, and the bytes of all inputs and outputs.
    pub fn of(flops: f64, inputs: &[Meta], outputs: &[Meta]) -> Self {
        let bytes = inputs.iter().chain(outputs).map(|meta| meta.count() as f64 * meta.dtype.size() as f64).sum();
        Self { flops, bytes }
    }
}

/// How a run is to be carried out; a pass holds one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Context {
    /// How exact the kernels must be.
    pub precision: Precision,
    /// Whether no backward run will follow, so that an operation may reuse memory that it would have kept.
    pub inference: bool,
}

/// How exact the kernels must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Precision {
    /// Algorithms with fewer multiplications and a slightly larger rounding error (Winograd) may be used.
    ///
    /// Winograd's algorithm computes convolutions with kernels of 3 × 3 in a plane, stride 1, many channels, in f32. It takes 6 × 6
    /// voxels to 4 × 4 outputs, and a voxel's rounding error reaches all of them: of a voxel x, outputs that are up to three
    /// voxels away from it along H and W (one along D, as far as the kernel reaches) and don't see it are off by up to
    /// 32 · 2⁻²⁴ |x| max|w| ≈ 2·10⁻⁶ |x| max|w|, w being the weights of x's channel; nothing is farther off. So among voxels
    /// of one magnitude the error is a few roundings. Next to a voxel that is R times as large as its neighbours, those
    /// outputs lose up to 2·10⁻⁶ R of the size of one of their products: a hundredth from R = 5·10³ on, all digits from
    /// R = 5·10⁵ on. One NaN or infinity makes NaN of the outputs of its tile, up to three voxels away, in every output channel.
    /// Images whose intensities are clipped or standardised stay far below
    /// such ratios; for others use [`Strict`](Self::Strict).
    #[default]
    Fast,
    /// Only algorithms that sum the products as they are: a voxel has a part in the outputs that see it alone.
    Strict,
}

/// What a forward run gives.
#[derive(Debug)]
pub struct Forward {
    /// The results, as [`Op::infer`] announced them.
    pub outputs: Vec<Tensor>,
    /// What only the backward run needs: statistics, positions of maxima.
    pub state: Vec<Tensor>,
}

impl Forward {
    /// One output and no state.
    pub fn one(output: Tensor) -> Self {
        Self { outputs: vec![output], state: Vec::new() }
    }
}

/// What a backward run gets to work with.
#[derive(Debug)]
pub struct Saved {
    /// The inputs that [`Op::saves_input`] asked for; `None` for the others.
    pub inputs: Vec<Option<Tensor>>,
    /// The outputs that [`Op::saves_output`] asked for; `None` for the others.
    pub outputs: Vec<Option<Tensor>>,
    /// The state of the forward run.
    pub state: Vec<Tensor>,
    /// Shape, dtype and device of every input.
    pub metas: Vec<Meta>,
}

impl Saved {
    /// The saved input `index`.
    ///
    /// # Errors
    /// When the operation didn't ask for it in [`Op::saves_input`].
    pub fn input(&self, index: usize) -> Result<&Tensor> {
        self.inputs.get(index).and_then(Option::as_ref).ok_or_else(|| missing("input", index))
    }

    /// The saved output `index`.
    ///
    /// # Errors
    /// When the operation didn't ask for it in [`Op::saves_output`].
    pub fn output(&self, index: usize) -> Result<&Tensor> {
        self.outputs.get(index).and_then(Option::as_ref).ok_or_else(|| missing("output", index))
    }

    /// Tensor `index` of the state.
    ///
    /// # Errors
    /// When the forward run left no such state.
    pub fn state(&self, index: usize) -> Result<&Tensor> {
        self.state.get(index).ok_or_else(|| missing("state", index))
    }
}

#[cold]
fn missing(what: &str, index: usize) -> Error {
    Error::new(ErrorKind::Graph, "backward", format!("{what} {index} wasn't saved by the forward run"))
}

/// What happens to f16 and bf16 inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HalfPolicy {
    /// They are converted to f32, computed so, and the outputs converted back: every arithmetic operation.
    Widen,
    /// The operation moves elements of any dtype, or converts them itself.
    Keep,
}

/// An operation: a small struct of its attributes (stride, padding, ...), run through [`run`](crate::run) only.
///
/// The door checks devices, calls [`infer`](Op::infer), applies the precision rules, traces, and dispatches on the device;
/// autodiff records exactly what passes through it. A user's operation is one `impl` of this trait, as the built-in ones are.
pub trait Op: fmt::Debug + Send + Sync + Any {
    /// The name in errors, traces and the registry: `conv`, `softmax`.
    fn name(&self) -> &'static str;

    /// Checks the inputs' shapes and dtypes and gives those of the outputs. Every check lives here: the other functions are
    /// called with inputs that passed.
    ///
    /// # Errors
    /// Says what doesn't fit and what was expected.
    fn infer(&self, inputs: &[Meta]) -> Result<Vec<Meta>>;

    /// Computes the outputs on the CPU. `outputs` is what `infer` gave.
    ///
    /// # Errors
    /// When memory runs out, or a value (an index, a label) is out of range.
    fn forward_cpu(&self, context: &Context, inputs: &[&Tensor], outputs: &[Meta]) -> Result<Forward>;

    /// Whether the backward run reads input `index`. What isn't saved can be freed.
    fn saves_input(&self, index: usize) -> bool {
        let _ = index;
        false
    }

    /// Whether the backward run reads output `index`.
    fn saves_output(&self, index: usize) -> bool {
        let _ = index;
        false
    }

    /// The gradients of the inputs on the CPU: for input `i`, Σ over outputs `k` of the product of `gradients[k]` (`None`
    /// where an output had no part in the loss) with the derivative of output `k` with respect to input `i`. `None` where
    /// `needed[i]` is false.
    ///
    /// What was saved and the gradients are handed over: an operation frees a tensor that it needs no more by dropping it
    /// before it makes the next, and may write over one that [is unique](Tensor::is_unique).
    ///
    /// # Errors
    /// When memory runs out.
    fn backward_cpu(
        &self,
        context: &Context,
        saved: Saved,
        gradients: Vec<Option<Tensor>>,
        needed: &[bool],
    ) -> Result<Vec<Option<Tensor>>>;

    /// Whether output 0 can be had again from what was saved for far less than the whole operation. Then operations that
    /// save it don't keep it in memory, and [`recompute_cpu`](Op::recompute_cpu) makes it again.
    fn recomputes(&self) -> bool {
        false
    }

    /// Whether [`recompute_cpu`](Op::recompute_cpu) reads input `index`. An input that is itself recomputed is made again
    /// only when it does.
    fn recompute_reads_input(&self, index: usize) -> bool {
        self.saves_input(index)
    }

    /// Output 0 again, the same bits, from what was saved.
    ///
    /// # Errors
    /// When memory runs out, or the operation can't.
    fn recompute_cpu(&self, context: &Context, saved: &Saved) -> Result<Tensor> {
        let _ = (context, saved);
        Err(Error::new(ErrorKind::Graph, self.name(), "the operation can't recompute its output"))
    }

    /// What happens to f16 and bf16 inputs.
    fn half_policy(&self) -> HalfPolicy {
        HalfPolicy::Widen
    }

    /// Work and traffic of a forward run, for traces and rooflines.
    fn cost(&self, inputs: &[Meta], outputs: &[Meta]) -> Cost {
        Cost::of(0.0, inputs, outputs)
    }
}

/// Checks for `infer`, each with an error that names the operation.
pub mod check {
    use super::{Error, ErrorKind, Meta, Result, check_outputs};

    /// That there are between `least` and `most` inputs, each of a shape that a tensor can have.
    ///
    /// # Errors
    /// When there aren't.
    pub fn inputs(operation: &str, inputs: &[Meta], least: usize, most: usize) -> Result<()> {
        if (least..=most).contains(&inputs.len()) {
            return check_outputs(operation, inputs);
        }
        let expected = if least == most { least.to_string() } else { format!("{least} to {most}") };
        Err(Error::argument(operation, format!("{} inputs", inputs.len())).expected(expected))
    }

    /// That all inputs hold one floating-point dtype.
    ///
    /// # Errors
    /// When one doesn't.
    pub fn same_float(operation: &str, inputs: &[Meta]) -> Result<()> {
        for meta in inputs {
            if !meta.dtype.is_float() || meta.dtype != inputs[0].dtype {
                let dtypes: Vec<&str> = inputs.iter().map(|meta| meta.dtype.name()).collect();
                return Err(Error::new(ErrorKind::DType, operation, format!("inputs hold {}", dtypes.join(", ")))
                    .expected("one floating-point dtype")
                    .shapes(inputs.iter().map(|meta| &meta.shape[..])));
            }
        }
        Ok(())
    }

    /// That ε, which is added to a variance, leaves it a variance.
    pub(crate) fn epsilon(operation: &str, epsilon: f64) -> Result<()> {
        if epsilon.is_finite() && epsilon >= 0.0 {
            return Ok(());
        }
        Err(Error::argument(operation, format!("ε is {epsilon}")).expected("a finite number of at least 0"))
    }

    /// The longest spatial axis that positions are computed for: beyond it the tables of an axis are larger than any image.
    const LONGEST: usize = 1 << 24;

    /// That no spatial axis of an input or output is longer than what positions are computed for.
    pub(crate) fn lengths(operation: &str, input: &[usize], output: &[usize]) -> Result<()> {
        match input.iter().chain(output).find(|&&size| size > LONGEST) {
            Some(size) => Err(Error::shape(operation, format!("a spatial axis of {size}"))
                .expected("at most 2^24")
                .shapes([input, output])),
            None => Ok(()),
        }
    }

    /// That `axis` is one of the input's.
    ///
    /// # Errors
    /// When it isn't.
    pub fn axis(operation: &str, input: &Meta, axis: usize) -> Result<()> {
        if axis < input.rank() {
            return Ok(());
        }
        Err(Error::argument(operation, format!("axis {axis} of a tensor of rank {}", input.rank()))
            .shapes([&input.shape[..]]))
    }

    /// That the input is `(N, C, spatial...)` with one to three spatial axes; returns how many.
    ///
    /// # Errors
    /// When it isn't.
    pub fn spatial(operation: &str, input: &Meta) -> Result<usize> {
        match input.rank() {
            rank @ 3..=5 => Ok(rank - 2),
            rank => Err(Error::shape(operation, format!("an input of rank {rank}"))
                .expected("(N, C, W), (N, C, H, W) or (N, C, D, H, W)")
                .shapes([&input.shape[..]])),
        }
    }
}

/// Runs `$body` with `$type` standing for the Rust type of the floating-point dtype that kernels compute in.
macro_rules! with_real {
    ($operation:expr, $dtype:expr, $type:ident => $body:expr) => {
        match $dtype {
            tomograd_core::DType::F32 => {
                type $type = f32;
                $body
            }
            tomograd_core::DType::F64 => {
                type $type = f64;
                $body
            }
            dtype => Err(tomograd_core::Error::new(
                tomograd_core::ErrorKind::DType,
                $operation,
                format!("no kernel computes in {dtype}"),
            )
            .expected("f32 or f64")),
        }
    };
}
pub(crate) use with_real;

/// Runs `$body` with `$type` standing for the Rust type of any dtype, for operations that only move elements.
macro_rules! with_element {
    ($dtype:expr, $type:ident => $body:expr) => {
        match $dtype {
            tomograd_core::DType::F32 => crate::op::with_element!(@ $type, f32, $body),
            tomograd_core::DType::F64 => crate::op::with_element!(@ $type, f64, $body),
            tomograd_core::DType::F16 => crate::op::with_element!(@ $type, tomograd_core::f16, $body),
            tomograd_core::DType::BF16 => crate::op::with_element!(@ $type, tomograd_core::bf16, $body),
            tomograd_core::DType::I64 => crate::op::with_element!(@ $type, i64, $body),
            tomograd_core::DType::I32 => crate::op::with_element!(@ $type, i32, $body),
            tomograd_core::DType::U8 => crate::op::with_element!(@ $type, u8, $body),
            tomograd_core::DType::Bool => crate::op::with_element!(@ $type, bool, $body),
        }
    };
    (@ $type:ident, $element:ty, $body:expr) => {{
        type $type = $element;
        $body
    }};
}
pub(crate) use with_element;

pub(crate) fn check_outputs(operation: &str, outputs: &[Meta]) -> Result<()> {
    outputs.iter().try_for_each(|meta| element_count(operation, &meta.shape).map(|_| ()))
}
