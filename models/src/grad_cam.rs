//! Grad-CAM: where in an image the evidence for a class lies.

use tomograd_autodiff::methods::*;
use tomograd_core::{DType, Error, Result, Tensor};
use tomograd_nn::{Interpolation, Network, Params, Pass};

use crate::Model;

const OPERATION: &str = "grad_cam";

/// Grad-CAM (Selvaraju et al. 2017, arXiv:1610.02391): for each image a heat map (N, spatial...) of its size, at least
/// 0, that is large where the feature map of the stage called `stage` raises the logit of the image's class in
/// `classes`.
///
/// The map is ReLU(Σ_k α_k A_k), interpolated linearly; A_k is channel k of the stage ([`Params::stages`]), and α_k the
/// mean over space of the score's derivative by A_k. The score is the logit of the class in the network's main output;
/// for logits with spatial axes, the sum of the class's logits over all voxels. The network runs in inference mode.
/// Heat maps of different images or classes don't have a common scale, so divide each by its maximum to show it.
///
/// Late stages have coarse maps of what decides the class, early ones fine maps of edges: for a picture take the last
/// one that still has some ten pixels along an axis.
///
/// ```
/// use tomograd_core::{DType, Device, Seed, Tensor};
/// use tomograd_models::{ResNetBlock, ResNetConfig, grad_cam, registry::Config};
/// use tomograd_nn::Params;
/// let mut params = Params::new(Device::Cpu, Seed::new(1));
/// let config = ResNetConfig { in_channels: 1, width: 4, ..ResNetConfig::new(ResNetBlock::Basic, [1, 1], 3) };
/// let net = config.build(params.root())?;
/// let images = Tensor::normal(&[2, 1, 32, 24], 0.0, 1.0, Seed::new(2), DType::F32, Device::Cpu)?;
/// let heat = grad_cam(&params, &net, &images, "layer2", &[0, 2])?; // the first image's class 0, the second's class 2
/// assert_eq!(heat.shape(), [2, 32, 24]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
///
/// # Errors
/// When the image doesn't fit the network, there isn't one class for each image, a class doesn't exist, or the stage
/// doesn't exist (the error has the nearest name), doesn't affect the output, or has other axes than the image.
pub fn grad_cam(
    params: &Params,
    network: &dyn Network,
    image: &Tensor,
    stage: &str,
    classes: &[usize],
) -> Result<Tensor> {
    let images = image.shape().first().copied().unwrap_or(0);
    if classes.len() != images {
        return Err(Error::argument(OPERATION, format!("{} classes for {images} images", classes.len()))
            .expected("one class for each image"));
    }
    let input = network.inputs().first().copied();
    let input = input.ok_or_else(|| Error::argument(OPERATION, "a network without inputs").expected("an image"))?;
    let pass = Pass::eval(params)?.recording(true)?.keep_stages([stage])?;
    let device = params.device();
    let logits = network.run(&[(input, pass.input(&image.to(device)?))].into(), &pass)?.into_main()?;
    let &[_, count, ..] = logits.shape() else {
        return Err(Error::shape(OPERATION, "the network's main output has no classes")
            .expected("logits (N, classes, ...)")
            .shapes([logits.shape()]));
    };
    if let Some(class) = classes.iter().find(|&&class| class >= count) {
        return Err(Error::argument(OPERATION, format!("class {class}")).expected(format!("one of {count} classes")));
    }
    let numbers: Vec<i64> = classes.iter().map(|&class| class as i64).collect();
    let chosen = Tensor::from_slice(&numbers, &[images], device)?.one_hot(count, 1, DType::F64)?;
    let mut shape = vec![1; logits.rank()];
    shape[..2].copy_from_slice(&[images, count]);
    let chosen = chosen.converted(logits.dtype())?.reshape(&shape)?;
    let score = logits.mul(&pass.input(&chosen))?.sum(..)?;
    let maps = pass.stages()?.take(stage)?.into_value();
    if maps.rank() != image.rank() || maps.rank() < 3 {
        return Err(Error::shape(OPERATION, format!("the stage {stage} has no map with the image's axes"))
            .expected("a stage of the shape (N, C, spatial...)")
            .shapes([maps.shape(), image.shape()]));
    }
    let update = pass.backward(score)?;
    let weights = update.stage_gradient(stage)?.mean_spatial()?;
    let heat = weights.mul(&maps)?.sum(keep(1))?.relu()?;
    heat.interpolate(&image.shape()[2..], Interpolation::Linear)?.select(1, 0)?.to(image.device())
}

impl Model {
    /// Heat maps (N, spatial...) of the evidence for a class of each image: [`grad_cam()`].
    ///
    /// ```
    /// use tomograd_core::{DType, Device, Seed, Tensor};
    /// use tomograd_models::{Model, ResNetBlock, ResNetConfig};
    /// let config = ResNetConfig { in_channels: 1, width: 4, ..ResNetConfig::new(ResNetBlock::Basic, [1, 1], 3) };
    /// let model = Model::new(&config, Device::Cpu, Seed::new(1))?;
    /// let image = Tensor::normal(&[1, 1, 32, 32], 0.0, 1.0, Seed::new(2), DType::F32, Device::Cpu)?;
    /// let class = model.predict(&image)?.argmax(1)?.to_vec::<i64>()?[0] as usize;
    /// # use tomograd_kernels::methods::*;
    /// assert_eq!(model.grad_cam(&image, "layer2", &[class])?.shape(), [1, 32, 32]);
    /// # Ok::<(), tomograd_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`grad_cam()`].
    pub fn grad_cam(&self, image: &Tensor, stage: &str, classes: &[usize]) -> Result<Tensor> {
        grad_cam(self.params(), self.network(), image, stage, classes)
    }
}
