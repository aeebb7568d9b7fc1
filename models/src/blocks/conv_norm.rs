//! A convolution with its norm.

use tomograd_core::Result;
use tomograd_nn::{Conv, ConvNormActivation, Kernel, Norm, NormOptions, Scope};

/// A convolution called `names[0]` and its norm called `names[1]`, with the norm's activation: one fused operation.
pub(crate) fn conv_norm(
    scope: &mut Scope<'_>,
    names: [&str; 2],
    [in_channels, channels]: [usize; 2],
    kernel: Kernel,
    norm: NormOptions,
) -> Result<ConvNormActivation> {
    let conv = Conv::new(scope.at(names[0]), in_channels, channels, kernel)?;
    ConvNormActivation::new(conv, Norm::new(scope.at(names[1]), channels, norm)?)
}
