//! The convolutional block attention module.

use tomograd_autodiff::{Var, methods::*};
use tomograd_core::Result;
use tomograd_nn::{
    Activation, Conv, ConvNormActivation, Kernel, Linear, LinearOptions, Module, Norm, NormKind, NormOptions, Pass,
    Scope,
    init::{Fan, Init},
};

/// The convolutional block attention module (CBAM, Woo et al. 2018). (N, C, spatial...) to the same shape: each channel of an
/// image is multiplied by a factor that two linear layers compute from its mean and its maximum; then each voxel by a factor
/// that a 7-wide convolution computes from the maximum and the mean over channels.
///
/// State-dict names are those of the authors: `ChannelGate.mlp.1`, `ChannelGate.mlp.3`, `SpatialGate.spatial.conv`,
/// `SpatialGate.spatial.bn`.
///
/// ```
/// use tomograd_core::{DType, Device, Seed, Tensor};
/// use tomograd_models::blocks::Cbam;
/// use tomograd_nn::{Module, Params, Pass};
/// let mut params = Params::new(Device::Cpu, Seed::new(1));
/// let block = Cbam::new(params.root(), 3, 32, 2)?;
/// assert_eq!(params.get("ChannelGate.mlp.1.weight")?.shape(), [2, 32]);
/// let pass = Pass::eval(&params)?;
/// let x = pass.input(&Tensor::ones(&[1, 32, 4, 4, 4], DType::F32, Device::Cpu)?);
/// assert_eq!(block.forward(&x, &pass)?.shape(), x.shape());
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Cbam {
    squeeze: Linear,
    excite: Linear,
    spatial: ConvNormActivation,
}

impl Cbam {
    /// Creates the parameters in `scope`: for `rank` spatial axes and `reduced` channels between the linear layers.
    ///
    /// # Errors
    /// When there aren't one to three axes, a number of channels is 0, a name is taken, or memory runs out; then no parameter
    /// is created.
    pub fn new(mut scope: Scope<'_>, rank: usize, channels: usize, reduced: usize) -> Result<Self> {
        scope.whole(|scope| {
            let mut gate = scope.at("ChannelGate");
            let mut mlp = gate.at("mlp");
            let linear = |outputs: usize| LinearOptions::new(outputs).bias_filled(Init::Constant(0.0));
            let squeeze = Linear::new(mlp.at(1), channels, linear(reduced))?;
            let excite = Linear::new(mlp.at(3), reduced, linear(channels))?;
            let mut gate = scope.at("SpatialGate");
            let mut spatial = gate.at("spatial");
            let kernel = Kernel::new(rank, 7).padding(3).bias(false).weight(Init::kaiming_normal(Fan::Out));
            let conv = Conv::new(spatial.at("conv"), 2, 1, kernel)?;
            let norm = NormOptions::new(NormKind::Batch).momentum(0.01).activation(Activation::Sigmoid);
            // As the authors begin: a factor of one half for all voxels.
            let norm = norm.weight(Init::Constant(0.0));
            let spatial = ConvNormActivation::new(conv, Norm::new(spatial.at("bn"), 1, norm)?)?;
            Ok(Self { squeeze, excite, spatial })
        })
    }
}

impl Module for Cbam {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        let scores = |pooled: Var| {
            let hidden = self.squeeze.forward(&pooled.flatten(1..)?, pass)?.relu()?;
            self.excite.forward(&hidden, pass)
        };
        let sum = scores(x.mean_spatial()?)?.add(&scores(x.max(keep(2..))?)?)?;
        let factors = sum.sigmoid()?.reshape(&[sum.shape(), &vec![1; x.rank() - 2]].concat())?;
        let x = x.mul(&factors)?;
        let pooled = Var::concat(&[&x.max(keep(1))?, &x.mean(keep(1))?], 1)?;
        x.mul(&self.spatial.forward(&pooled, pass)?)
    }
}

#[cfg(test)]
mod tests {
    use tomograd_core::{DType, Device, Seed, Tensor};
    use tomograd_nn::gradcheck;

    use super::*;

    #[test]
    fn gradients_equal_differences() {
        for shape in [&[2, 4, 5][..], &[2, 4, 3, 2], &[2, 4, 2, 3, 2]] {
            let x = Tensor::normal(shape, 0.0, 1.0, Seed::new(3), DType::F64, Device::Cpu).unwrap();
            gradcheck::module(|scope| Cbam::new(scope, shape.len() - 2, 4, 2), &x).unwrap();
        }
    }
}
