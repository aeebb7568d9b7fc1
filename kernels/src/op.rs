//! The trait of all operations, built-in and user-defined.

use std::{any::Any, fmt};

use tomograd_core::{DType, Device, Error, ErrorKind, Result, Tensor, element_count};

/// The metadata of a tensor: everything except its elements.
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

    /// The number of elements; saturates at `usize::MAX`, which no actual tensor has.
    pub fn count(&self) -> usize {
        if self.shape.contains(&0) { 0 } else { self.shape.iter().fold(1, |count, &size| count.saturating_mul(size)) }
    }
}

impl From<&Tensor> for Meta {
    fn from(tensor: &Tensor) -> Self {
        Self { shape: tensor.shape().to_vec(), dtype: tensor.dtype(), device: tensor.device() }
    }
}

/// The cost of an operation, computed from its shapes.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub struct Cost {
    /// Floating-point operations; an FMA counts as two.
    pub flops: f64,
    /// The multiply-adds of convolutions and matrix products among them, which papers on networks call FLOPs or MACs.
    pub multiply_adds: f64,
    /// Bytes of the inputs read and the outputs written, each counted once.
    pub bytes: f64,
}

impl Cost {
    /// A cost of `flops`, with the bytes of all inputs and outputs.
    pub fn of(flops: f64, inputs: &[Meta], outputs: &[Meta]) -> Self {
        let bytes = inputs.iter().chain(outputs).map(|meta| meta.count() as f64 * meta.dtype.size() as f64).sum();
        Self { flops, multiply_adds: 0.0, bytes }
    }

    /// The cost of a convolution or a matrix product.
    pub fn of_products(multiply_adds: f64, inputs: &[Meta], outputs: &[Meta]) -> Self {
        Self { multiply_adds, ..Self::of(2.0 * multiply_adds, inputs, outputs) }
    }
}

/// The execution options of operations; a pass holds one context.
///
/// ```
/// use tomograd_kernels::{Context, Precision};
/// let context = Context::default().precision(Precision::Strict).inference(true);
/// assert!(context.inference && context.precision == Precision::Strict);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Context {
    /// The required accuracy of the kernels.
    pub precision: Precision,
    /// Whether no backward pass will follow, so that operations may reuse memory that they would have saved for it.
    pub inference: bool,
}

impl Context {
    /// The same context with this precision.
    #[must_use]
    pub fn precision(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }

    /// The same context with this value of `inference`.
    #[must_use]
    pub fn inference(self, inference: bool) -> Self {
        Self { inference, ..self }
    }
}

/// The required accuracy of kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Precision {
    /// Algorithms with fewer multiplications and a slightly larger rounding error (Winograd) may be used.
    ///
    /// Winograd's algorithm computes convolutions in f32 with 3 × 3 or 5 × 5 kernels in a plane, stride 1 and many channels. It
    /// transforms 6 × 6 voxels into 4 × 4 outputs, and the rounding error of a voxel affects all of these outputs, also those
    /// whose kernel window doesn't contain the voxel. Such outputs are up to three voxels away from voxel x along H and W
    /// (along D within the reach of the kernel), and their error is up to 32 · 2⁻²⁴ |x| max|w| ≈ 2·10⁻⁶ |x| max|w|, where w
    /// are the weights of x's channel. Outputs further away aren't affected. So among voxels of similar magnitude, the error
    /// is a few roundings. Beside a voxel that is R times as large as its neighbours, these outputs have errors of up to
    /// 2·10⁻⁶ R times one of their products: one percent at R = 5·10³, and no correct digits from R = 5·10⁵ on. A NaN or
    /// infinity makes all outputs of its tile NaN, up to three voxels away, in every output channel. Images with clipped or
    /// standardised intensities stay far below such ratios; for others use [`Strict`](Self::Strict).
    #[default]
    Fast,
    /// Only algorithms that sum the products directly: a voxel affects only the outputs whose kernel window contains it.
    Strict,
}

/// The result of a forward pass.
#[derive(Debug)]
#[non_exhaustive]
pub struct Forward {
    /// The outputs, with the metadata that [`Op::infer`] announced.
    pub outputs: Vec<Tensor>,
    /// Values that only the backward pass needs (statistics, positions of maxima), as [`Op::state`] announced. Empty in
    /// inference.
    pub state: Vec<Tensor>,
}

impl Forward {
    /// Outputs and state.
    pub fn new(outputs: Vec<Tensor>, state: Vec<Tensor>) -> Self {
        Self { outputs, state }
    }

    /// One output and no state.
    pub fn one(output: Tensor) -> Self {
        Self { outputs: vec![output], state: Vec::new() }
    }
}

/// The saved values for a backward pass.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Saved {
    /// The inputs for which [`Op::saves_input`] is true; `None` for the others.
    pub inputs: Vec<Option<Tensor>>,
    /// The outputs for which [`Op::saves_output`] is true; `None` for the others.
    pub outputs: Vec<Option<Tensor>>,
    /// The state of the forward pass.
    pub state: Vec<Tensor>,
    /// Shape, dtype and device of every input.
    pub metas: Vec<Meta>,
    /// Shape, dtype and device of every output.
    pub output_metas: Vec<Meta>,
}

impl Saved {
    /// The values that `op` saves of its `inputs` and of the result of its forward pass.
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
    /// When [`Op::saves_input`] is false for it.
    pub fn input(&self, index: usize) -> Result<&Tensor> {
        self.inputs.get(index).and_then(Option::as_ref).ok_or_else(|| missing("input", index))
    }

    /// The saved output `index`.
    ///
    /// # Errors
    /// When [`Op::saves_output`] is false for it.
    pub fn output(&self, index: usize) -> Result<&Tensor> {
        self.outputs.get(index).and_then(Option::as_ref).ok_or_else(|| missing("output", index))
    }

    /// Tensor `index` of the state.
    ///
    /// # Errors
    /// When the forward pass returned no such state.
    pub fn state(&self, index: usize) -> Result<&Tensor> {
        self.state.get(index).ok_or_else(|| missing("state", index))
    }
}

#[cold]
fn missing(what: &str, index: usize) -> Error {
    Error::new(ErrorKind::Graph, "backward", format!("{what} {index} wasn't saved by the forward run"))
}

/// How f16 and bf16 inputs are treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HalfPolicy {
    /// Inputs are converted to f32, the operation computes in f32, and the outputs are converted back: all arithmetic
    /// operations.
    Widen,
    /// The operation handles half precision itself: it only moves elements, or does its own conversions.
    Keep,
}

/// An operation: a small struct of its attributes (stride, padding, ...), which is run only through [`run`](crate::run).
///
/// [`run`](crate::run) checks devices, calls [`infer`](Op::infer), applies the half-precision policy, traces, and verifies
/// the results; autodiff records exactly the operations that it runs. A user-defined operation implements this trait, as the
/// built-in ones do.
///
/// The definition of an operation (`infer`, `state`, what it saves, `cost`) is the same on every device. Its computation is a
/// pair of functions for each device: `forward_cpu` and `backward_cpu`, `forward_cuda` and `backward_cuda`. [`Device::Meta`] needs none: there, outputs, states
/// and gradients follow from the announced metadata. Device-independent operations, such as views, override
/// [`forward`](Op::forward) and [`backward`](Op::backward) instead.
pub trait Op: fmt::Debug + Send + Sync + Any {
    /// The name in errors, traces and lists: `conv`, `softmax`.
    fn name(&self) -> &'static str;

    /// Checks the inputs' shapes and dtypes and returns the metadata of the outputs. All checks belong here: the other
    /// functions are only called with inputs that have passed.
    ///
    /// # Errors
    /// When something doesn't fit; the error says what, and what was expected.
    fn infer(&self, inputs: &[Meta]) -> Result<Vec<Meta>>;

    /// The metadata of [`Forward::state`], which the forward pass leaves for the backward pass besides saved inputs and
    /// outputs, given the metadata of inputs and outputs.
    fn state(&self, inputs: &[Meta], outputs: &[Meta]) -> Vec<Meta> {
        let _ = (inputs, outputs);
        Vec::new()
    }

    /// Computes the outputs on the device of the inputs. `outputs` is the result of `infer`.
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
            Device::Cuda(_) => self.forward_cuda(context, inputs, outputs),
            device => Err(no_kernel(self.name(), device)),
        }
    }

    /// Computes the outputs on the CPU. `outputs` is the result of `infer`.
    ///
    /// # Errors
    /// When memory runs out, a value (an index, a label) is out of range, or the operation has no kernel for the CPU.
    fn forward_cpu(&self, context: &Context, inputs: &[&Tensor], outputs: &[Meta]) -> Result<Forward> {
        let _ = (context, inputs, outputs);
        Err(no_kernel(self.name(), Device::Cpu))
    }

    /// Computes the outputs on the CUDA device of the inputs. `outputs` is the result of `infer`.
    ///
    /// # Errors
    /// When memory runs out, the device can't be used any more, or the operation has no kernel for CUDA devices.
    fn forward_cuda(&self, context: &Context, inputs: &[&Tensor], outputs: &[Meta]) -> Result<Forward> {
        let _ = (context, outputs);
        Err(no_kernel(self.name(), inputs.first().map_or(Device::Cuda(0), |input| input.device())))
    }

    /// Whether the backward pass reads input `index`. Inputs that aren't saved can be freed.
    fn saves_input(&self, index: usize) -> bool {
        let _ = index;
        false
    }

    /// Whether the backward pass reads output `index`.
    fn saves_output(&self, index: usize) -> bool {
        let _ = index;
        false
    }

    /// The gradients of the inputs, on their device. That of input `i` is the sum over outputs `k` of `gradients[k]` (`None`
    /// if the loss doesn't depend on that output) times the derivative of output `k` with respect to input `i`. It is `None`
    /// where `needed[i]` is false.
    ///
    /// Saved values and gradients are passed by value: an operation frees a tensor that it no longer needs by dropping it
    /// before it allocates the next one, and may overwrite a tensor that [is unique](Tensor::is_unique).
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

    /// [`backward`](Op::backward) on a CUDA device.
    ///
    /// # Errors
    /// When memory runs out, the device can't be used any more, or the operation has no kernel for CUDA devices.
    fn backward_cuda(
        &self,
        context: &Context,
        saved: Saved,
        gradients: Vec<Option<Tensor>>,
        needed: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        let _ = (context, gradients, needed);
        Err(no_kernel(self.name(), saved.metas.first().map_or(Device::Cuda(0), |meta| meta.device)))
    }

    /// When the backward pass frees the saved values, for the memory statistics of [`Device::Meta`].
    fn saved_until(&self) -> SavedUntil {
        SavedUntil::TheEnd
    }

    /// `Some` if output 0 can be recomputed from the saved values at far lower cost than the operation itself. Later
    /// operations that would save this output then don't keep it in memory: it is recomputed when they need it.
    fn recompute(&self) -> Option<&dyn Recompute> {
        None
    }

    /// How f16 and bf16 inputs are treated on `device`. A device whose kernels compute in half precision keeps them. On
    /// [`Device::Meta`] this should be the policy of the device that is simulated.
    fn half_policy(&self, device: Device) -> HalfPolicy {
        let _ = device;
        HalfPolicy::Widen
    }

    /// The cost of a forward pass, for traces and rooflines.
    fn cost(&self, inputs: &[Meta], outputs: &[Meta]) -> Cost {
        Cost::of(0.0, inputs, outputs)
    }
}

/// [`Op::backward`] for operations with kernels.
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
        Device::Cuda(_) => op.backward_cuda(context, saved, gradients, needed),
        device => Err(no_kernel(op.name(), device)),
    }
}

/// When a backward pass frees the saved values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SavedUntil {
    /// After all gradients have been computed.
    TheEnd,
    /// Before the largest gradient is allocated, so that it can reuse the memory.
    TheGradients,
}

/// An operation whose output 0 can be recomputed from what its backward pass saves.
pub trait Recompute: Op {
    /// Whether [`output`](Recompute::output) reads saved input `index`. An input that is itself recomputed is only recomputed
    /// in that case.
    fn reads_input(&self, index: usize) -> bool {
        self.saves_input(index)
    }

    /// Recomputes output 0 from the saved values, with the same bits.
    ///
    /// # Errors
    /// When memory runs out, or the operation has no kernel for the device.
    fn output(&self, context: &Context, saved: &Saved) -> Result<Tensor> {
        match saved.metas.first().map_or(Device::Cpu, |meta| meta.device) {
            Device::Cpu => self.output_cpu(context, saved),
            Device::Meta => meta::one(self.name(), saved.output_metas.first().ok_or_else(|| missing("output", 0))?),
            Device::Cuda(_) => self.output_cuda(context, saved),
            device => Err(no_kernel(self.name(), device)),
        }
    }

    /// [`output`](Recompute::output) on the CPU.
    ///
    /// # Errors
    /// When memory runs out.
    fn output_cpu(&self, context: &Context, saved: &Saved) -> Result<Tensor>;

    /// [`output`](Recompute::output) on a CUDA device.
    ///
    /// # Errors
    /// When memory runs out, the device can't be used any more, or the operation has no kernel for CUDA devices.
    fn output_cuda(&self, context: &Context, saved: &Saved) -> Result<Tensor> {
        let _ = context;
        Err(no_kernel(self.name(), saved.metas.first().map_or(Device::Cuda(0), |meta| meta.device)))
    }
}

/// The error for an operation that can't run on `device`: the device can't be used, or has no kernel for the operation.
#[cold]
pub(crate) fn no_kernel(operation: &str, device: Device) -> Error {
    match device.check(operation) {
        Ok(()) => Error::new(ErrorKind::Device, operation, format!("no kernel for {device}"))
            .expected("tensors on another device (--device cpu has all operations)"),
        Err(error) => error,
    }
}

/// Results of operations on [`Device::Meta`].
mod meta {
    use super::{Meta, Result, Saved, SavedUntil, Tensor};

    pub(super) fn one(operation: &str, meta: &Meta) -> Result<Tensor> {
        Tensor::meta(operation, &meta.shape, meta.dtype)
    }

    pub(super) fn all(operation: &str, metas: &[Meta]) -> Result<Vec<Tensor>> {
        metas.iter().map(|meta| one(operation, meta)).collect()
    }

    /// Gradients with the metadata of the inputs, allocated while the values that real kernels would hold are still held.
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

/// Runs `$body` with `$type` as an alias of the Rust type of a floating-point dtype in which kernels compute.
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

/// Runs `$body` with `$type` as an alias of the Rust type of any dtype, for operations that only move elements.
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
