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
#[non_exhaustive]
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
///
/// ```
/// use tomograd_kernels::{Context, Precision};
/// let context = Context::default().precision(Precision::Strict).inference(true);
/// assert!(context.inference && context.precision == Precision::Strict);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Context {
    /// How exact the kernels must be.
    pub precision: Precision,
    /// Whether no backward run will follow, so that an operation may reuse memory that it would have kept.
    pub inference: bool,
}

impl Context {
    /// The same, with kernels as exact as this.
    #[must_use]
    pub fn precision(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }

    /// The same, with or without a backward run to come.
    #[must_use]
    pub fn inference(self, inference: bool) -> Self {
        Self { inference, ..self }
    }
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
#[non_exhaustive]
pub struct Forward {
    /// The results, as [`Op::infer`] announced them.
    pub outputs: Vec<Tensor>,
    /// What only the backward run needs, as [`Op::state`] announced it: statistics, positions of maxima. None in inference.
    pub state: Vec<Tensor>,
}

impl Forward {
    /// Outputs, and what only the backward run needs.
    pub fn new(outputs: Vec<Tensor>, state: Vec<Tensor>) -> Self {
        Self { outputs, state }
    }

    /// One output and no state.
    pub fn one(output: Tensor) -> Self {
        Self { outputs: vec![output], state: Vec::new() }
    }
}

/// What a backward run gets to work with.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Saved {
    /// The inputs that [`Op::saves_input`] asked for; `None` for the others.
    pub inputs: Vec<Option<Tensor>>,
    /// The outputs that [`Op::saves_output`] asked for; `None` for the others.
    pub outputs: Vec<Option<Tensor>>,
    /// The state of the forward run.
    pub state: Vec<Tensor>,
    /// Shape, dtype and device of every input.
    pub metas: Vec<Meta>,
    /// Shape, dtype and device of every output.
    pub output_metas: Vec<Meta>,
}

impl Saved {
    /// What `op` keeps of its `inputs` and of what they gave.
    pub fn new(op: &dyn Op, inputs: &[&Tensor], forward: &Forward) -> Self {
        let kept = |keep: bool, tensor: &Tensor| keep.then(|| tensor.clone());
        Self {
            inputs: inputs.iter().enumerate().map(|(i, &x)| kept(op.saves_input(i), x)).collect(),
            outputs: forward.outputs.iter().enumerate().map(|(k, y)| kept(op.saves_output(k), y)).collect(),
            state: forward.state.clone(),
            metas: inputs.iter().map(|&x| Meta::from(x)).collect(),
            output_metas: forward.outputs.iter().map(Meta::from).collect(),
        }
    }

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
/// [`run`](crate::run) checks devices, calls [`infer`](Op::infer), applies the precision rules, traces, and verifies what the operation
/// gives; autodiff records exactly what passes through it. A user's operation is one `impl` of this trait, as the built-in ones
/// are.
///
/// What an operation is (`infer`, `state`, what it saves, `cost`) is the same on every device. How it is computed is a pair of
/// functions a device: `forward_cpu` and `backward_cpu`. [`Device::Meta`] needs none: there the outputs, states and gradients
/// are what the contract announces. Operations without a device of their own, such as views, override
/// [`forward`](Op::forward) and [`backward`](Op::backward) instead.
pub trait Op: fmt::Debug + Send + Sync + Any {
    /// The name in errors, traces and lists: `conv`, `softmax`.
    fn name(&self) -> &'static str;

    /// Checks the inputs' shapes and dtypes and gives those of the outputs. Every check lives here: the other functions are
    /// called with inputs that passed.
    ///
    /// # Errors
    /// Says what doesn't fit and what was expected.
    fn infer(&self, inputs: &[Meta]) -> Result<Vec<Meta>>;

    /// What a forward run leaves for the backward run besides saved inputs and outputs: shapes and dtypes of
    /// [`Forward::state`], from those of the inputs and outputs.
    fn state(&self, inputs: &[Meta], outputs: &[Meta]) -> Vec<Meta> {
        let _ = (inputs, outputs);
        Vec::new()
    }

    /// Computes the outputs on the device of the inputs. `outputs` is what `infer` gave.
    ///
    /// # Errors
    /// When memory runs out, a value (an index, a label) is out of range, or the operation has no kernel for the device.
    fn forward(&self, context: &Context, inputs: &[&Tensor], outputs: &[Meta]) -> Result<Forward> {
        match inputs.first().map_or(Device::Cpu, |input| input.device()) {
            Device::Cpu => self.forward_cpu(context, inputs, outputs),
            Device::Meta => {
                let metas: Vec<Meta> = inputs.iter().map(|&input| Meta::from(input)).collect();
                let state = if context.inference { Vec::new() } else { self.state(&metas, outputs) };
                Ok(Forward { outputs: meta::all(self.name(), outputs)?, state: meta::all(self.name(), &state)? })
            }
            device => Err(no_kernel(self.name(), device)),
        }
    }

    /// Computes the outputs on the CPU. `outputs` is what `infer` gave.
    ///
    /// # Errors
    /// When memory runs out, a value (an index, a label) is out of range, or the operation has no kernel for the CPU.
    fn forward_cpu(&self, context: &Context, inputs: &[&Tensor], outputs: &[Meta]) -> Result<Forward> {
        let _ = (context, inputs, outputs);
        Err(no_kernel(self.name(), Device::Cpu))
    }

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

    /// The gradients of the inputs, on their device: for input `i`, Σ over outputs `k` of the product of `gradients[k]` (`None`
    /// where an output had no part in the loss) with the derivative of output `k` with respect to input `i`. `None` where
    /// `needed[i]` is false.
    ///
    /// What was saved and the gradients are handed over: an operation frees a tensor that it needs no more by dropping it
    /// before it makes the next, and may write over one that [is unique](Tensor::is_unique).
    ///
    /// # Errors
    /// When memory runs out, or the operation has no kernel for the device.
    fn backward(
        &self,
        context: &Context,
        saved: Saved,
        gradients: Vec<Option<Tensor>>,
        needed: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        backward_by_device(self, context, saved, gradients, needed)
    }

    /// [`backward`](Op::backward) on the CPU.
    ///
    /// # Errors
    /// When memory runs out, or the operation has no kernel for the CPU.
    fn backward_cpu(
        &self,
        context: &Context,
        saved: Saved,
        gradients: Vec<Option<Tensor>>,
        needed: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        let _ = (context, saved, gradients, needed);
        Err(no_kernel(self.name(), Device::Cpu))
    }

    /// How long the backward run holds what was saved, for the memory statistics of [`Device::Meta`].
    fn saved_until(&self) -> SavedUntil {
        SavedUntil::TheEnd
    }

    /// The operation as one whose output 0 can be had again from what was saved, for far less than the whole operation. Then
    /// operations that save that output don't keep it in memory: it is made again when they need it.
    fn recompute(&self) -> Option<&dyn Recompute> {
        None
    }

    /// What happens to f16 and bf16 inputs on `device`: a device whose kernels compute in half precision keeps them. On
    /// [`Device::Meta`] it should be what the device has that it stands for.
    fn half_policy(&self, device: Device) -> HalfPolicy {
        let _ = device;
        HalfPolicy::Widen
    }

    /// Work and traffic of a forward run, for traces and rooflines.
    fn cost(&self, inputs: &[Meta], outputs: &[Meta]) -> Cost {
        Cost::of(0.0, inputs, outputs)
    }
}

/// [`Op::backward`] of an operation that has kernels.
pub(crate) fn backward_by_device<O: Op + ?Sized>(
    op: &O,
    context: &Context,
    saved: Saved,
    gradients: Vec<Option<Tensor>>,
    needed: &[bool],
) -> Result<Vec<Option<Tensor>>> {
    match saved.metas.first().map_or(Device::Cpu, |meta| meta.device) {
        Device::Cpu => op.backward_cpu(context, saved, gradients, needed),
        Device::Meta => meta::backward(op.name(), op.saved_until(), saved, gradients, needed),
        device => Err(no_kernel(op.name(), device)),
    }
}

/// When a backward run lets go of what was saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SavedUntil {
    /// When all gradients are there.
    TheEnd,
    /// Before the largest gradient is made, so that it can have the same memory.
    TheGradients,
}

/// An operation whose output 0 can be made again from what its backward run saves.
pub trait Recompute: Op {
    /// Whether [`output`](Recompute::output) reads saved input `index`. An input that is itself recomputed is made again only
    /// when it does.
    fn reads_input(&self, index: usize) -> bool {
        self.saves_input(index)
    }

    /// Output 0 again, the same bits, from what was saved.
    ///
    /// # Errors
    /// When memory runs out, or the operation has no kernel for the device.
    fn output(&self, context: &Context, saved: &Saved) -> Result<Tensor> {
        match saved.metas.first().map_or(Device::Cpu, |meta| meta.device) {
            Device::Cpu => self.output_cpu(context, saved),
            Device::Meta => meta::one(self.name(), saved.output_metas.first().ok_or_else(|| missing("output", 0))?),
            device => Err(no_kernel(self.name(), device)),
        }
    }

    /// [`output`](Recompute::output) on the CPU.
    ///
    /// # Errors
    /// When memory runs out.
    fn output_cpu(&self, context: &Context, saved: &Saved) -> Result<Tensor>;
}

/// That `operation` can't run on `device`: the device can't be used at all, or has no kernel for it.
#[cold]
pub(crate) fn no_kernel(operation: &str, device: Device) -> Error {
    match device.check(operation) {
        Ok(()) => Error::new(ErrorKind::Device, operation, format!("no kernel for {device}"))
            .expected("tensors on another device"),
        Err(error) => error,
    }
}

/// What operations give on [`Device::Meta`].
mod meta {
    use super::{Meta, Result, Saved, SavedUntil, Tensor};

    pub(super) fn one(operation: &str, meta: &Meta) -> Result<Tensor> {
        Tensor::meta(operation, &meta.shape, meta.dtype)
    }

    pub(super) fn all(operation: &str, metas: &[Meta]) -> Result<Vec<Tensor>> {
        metas.iter().map(|meta| one(operation, meta)).collect()
    }

    /// Gradients like the inputs, made while what kernels hold meanwhile is held.
    pub(super) fn backward(
        operation: &str,
        until: SavedUntil,
        saved: Saved,
        gradients: Vec<Option<Tensor>>,
        needed: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        if gradients.iter().all(Option::is_none) {
            return Ok(vec![None; needed.len()]);
        }
        let Saved { inputs, outputs, state, metas, .. } = saved;
        let held = (until == SavedUntil::TheEnd).then_some((inputs, outputs, state));
        let gradient = |(meta, &needed): (&Meta, &bool)| needed.then(|| one(operation, meta)).transpose();
        let results = metas.iter().zip(needed).map(gradient).collect();
        drop((held, gradients));
        results
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
