//! What operations are called in a drawing.

use tomograd::{
    kernels::{
        conv::{Conv, ConvNormActivation, ConvTranspose},
        elementwise::Function,
        norm::{Norm, Statistics},
        pool::{AveragePool, MaxPool},
        resample::{Interpolate, Interpolation},
    },
    nn::Activation,
};

use super::{
    super::shapes::power,
    record::{Operation, Role},
};

/// The operations that a block is made of; all others are details.
pub(super) fn is_main(operation: &Operation) -> bool {
    // A checkpointed segment stands for the layers in it, which aren't recorded.
    let segment = operation.role == Role::Operation && operation.op.is_none();
    segment
        || matches!(
            operation.name(),
            "conv" | "conv_norm_activation" | "conv_transpose" | "linear" | "matmul" | "attention" | "selective_scan"
        )
}

/// The convolution of an operation, if it has one.
pub(super) fn convolution(operation: &Operation) -> Option<&Conv> {
    operation.downcast::<Conv>().or_else(|| operation.downcast::<ConvNormActivation>().map(|fused| &fused.conv))
}

/// Sizes along the axes: `3²`, `1×3×3`.
pub(super) fn sizes(sizes: &[usize]) -> String {
    match sizes {
        [first, rest @ ..] if rest.iter().all(|size| size == first) => power(*first, sizes.len()),
        _ => sizes.iter().map(usize::to_string).collect::<Vec<_>>().join("×"),
    }
}

/// The name of a main operation without its stride: `conv 3²`, `linear`.
pub(super) fn main(operation: &Operation) -> String {
    if let Some(conv) = convolution(operation) {
        let kernel = sizes(operation.weight.get(2..).unwrap_or_default());
        let channels = operation.weight.first().copied().unwrap_or(1);
        let kind = match conv.groups {
            1 => "conv",
            groups if groups == channels => "depthwise",
            _ => "grouped conv",
        };
        let dilation = if conv.dilation.iter().all(|&dilation| dilation == 1) {
            String::new()
        } else {
            format!(" dilated {}", alike(&conv.dilation))
        };
        return format!("{kind} {kernel}{dilation}");
    }
    match operation.name() {
        "conv_transpose" => format!("transposed conv {}", sizes(operation.weight.get(2..).unwrap_or_default())),
        "matmul" => "product".to_owned(),
        "selective_scan" => "selective scan".to_owned(),
        "" => "checkpointed layers".to_owned(),
        name => name.to_owned(),
    }
}

/// One number for all axes, or one for each.
fn alike(numbers: &[usize]) -> String {
    match numbers {
        [first, rest @ ..] if rest.iter().all(|number| number == first) => first.to_string(),
        _ => sizes(numbers),
    }
}

/// The norm of an operation.
pub(super) fn norm(operation: &Operation) -> Option<&'static str> {
    let fused = operation.downcast::<ConvNormActivation>().map(|fused| &fused.norm);
    match (fused.or_else(|| operation.downcast::<Norm>()), operation.name()) {
        (Some(norm), _) => Some(match norm.statistics {
            Statistics::Instance => "instance norm",
            Statistics::Group(_) => "group norm",
            Statistics::Batch | Statistics::Running => "batch norm",
        }),
        (None, "layer_norm") => Some("layer norm"),
        _ => None,
    }
}

/// The activation of an operation.
pub(super) fn activation(operation: &Operation) -> Option<&'static str> {
    let of = |function: Function| match function {
        Activation::Relu => Some("ReLU"),
        Activation::LeakyRelu(_) => Some("leaky ReLU"),
        Activation::Elu(_) => Some("ELU"),
        Activation::Gelu | Activation::GeluTanh => Some("GELU"),
        Activation::Silu => Some("SiLU"),
        Activation::Mish => Some("Mish"),
        Activation::Hardswish => Some("hard swish"),
        _ => None,
    };
    if let Some(fused) = operation.downcast::<ConvNormActivation>() {
        return fused.norm.activation.and_then(of);
    }
    if let Some(norm) = operation.downcast::<Norm>() {
        return norm.activation.and_then(of);
    }
    match operation.name() {
        "relu" | "add_relu" => Some("ReLU"),
        "leaky_relu" => Some("leaky ReLU"),
        "elu" => Some("ELU"),
        "gelu" | "gelu_tanh" => Some("GELU"),
        "silu" => Some("SiLU"),
        "mish" => Some("Mish"),
        "hardswish" => Some("hard swish"),
        "prelu" | "p_relu" => Some("PReLU"),
        _ => None,
    }
}

/// How an operation between two blocks is called, given the shape of its input; `None` if it isn't worth mentioning.
pub(super) fn between(operation: &Operation, from: &[usize]) -> Option<String> {
    let factor = || {
        let pairs = operation.shape.get(2..)?.iter().zip(from.get(2..)?);
        let factors: Vec<usize> = pairs.map(|(to, from)| (to + from / 2) / (*from).max(1)).collect();
        Some(alike(&factors))
    };
    if let Some(pool) = operation.downcast::<MaxPool>() {
        return Some(format!("max pool {}", pooled(&pool.kernel, &pool.stride)));
    }
    if let Some(pool) = operation.downcast::<AveragePool>() {
        return Some(format!("average pool {}", pooled(&pool.kernel, &pool.stride)));
    }
    if let Some(interpolate) = operation.downcast::<Interpolate>() {
        let mode = if interpolate.mode == Interpolation::Nearest { "nearest" } else { "linear" };
        let larger = operation.shape.iter().zip(from).any(|(to, from)| to > from);
        return Some(match factor() {
            Some(factor) if larger => format!("{mode} upsampling ×{factor}"),
            _ => format!("{mode} resampling"),
        });
    }
    if let Some(transposed) = operation.downcast::<ConvTranspose>() {
        return Some(format!("{}, stride {}", main(operation), alike(&transposed.stride)));
    }
    match operation.name() {
        "concat" => Some("concatenation".to_owned()),
        "mean" if product(&operation.shape) < product(from) => Some("global average".to_owned()),
        "max" if product(&operation.shape) < product(from) => Some("global maximum".to_owned()),
        "adaptive_average_pool" | "adaptive_max_pool" => {
            let what = if operation.name() == "adaptive_max_pool" { "maximum" } else { "average" };
            let spatial = operation.shape.get(2..).unwrap_or_default();
            let one = spatial.iter().all(|&size| size == 1);
            Some(if one { format!("global {what}") } else { format!("{what} to {}", sizes(spatial)) })
        }
        _ => joins(operation).map(str::to_owned),
    }
}

/// The kernel of a pooling window, and its stride where that differs.
fn pooled(kernel: &[usize], stride: &[usize]) -> String {
    if kernel == stride { sizes(kernel) } else { format!("{}, stride {}", sizes(kernel), alike(stride)) }
}

/// The stride of a convolution that reduces the resolution.
pub(super) fn stride(operation: &Operation) -> Option<String> {
    let stride = &convolution(operation)?.stride;
    stride.iter().any(|&stride| stride > 1).then(|| format!("stride {}", alike(stride)))
}

/// How an operation joins what comes from several blocks.
pub(super) fn joins(operation: &Operation) -> Option<&'static str> {
    if operation.inputs.len() < 2 {
        return None;
    }
    if convolution(operation).is_some_and(|conv| conv.two_inputs) || operation.name() == "concat" {
        return Some("concatenation");
    }
    match operation.name() {
        "add" | "add_relu" | "sub" | "reverse_sub" | "chain" => Some("sum"),
        "mul" => Some("product"),
        "maximum" => Some("maximum"),
        _ => None,
    }
}

fn product(shape: &[usize]) -> usize {
    shape.iter().fold(1, |product, &size| product.saturating_mul(size))
}

/// Whether an operation only moves elements, or does nothing in inference.
pub(super) fn is_silent(operation: &Operation) -> bool {
    matches!(
        operation.name(),
        "permute" | "slice" | "expand" | "reshape" | "contiguous" | "cast" | "dropout" | "pad" | "flip" | "view"
    )
}
