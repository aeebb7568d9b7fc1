//! Networks by the names of the cases, and their training steps.

use serde_json::Value;
use tomograd::{
    models::{Model, registry::families},
    prelude::*,
};

/// The configuration of a network: of the U-Nets, whose widths may be given, with this many classes; of a preset of the registry otherwise;
/// `None` if nothing has this name.
///
/// # Errors
/// Never in practice: configurations are plain data.
pub fn config(name: &str, classes: usize, widths: Option<&[usize]>) -> Result<Option<Value>> {
    let mut config = match name {
        "unet3d" => serde_json::to_value(UNet3dConfig::new(classes)),
        "unet2d" => serde_json::to_value(UNet2dConfig::new(classes)),
        _ => return Ok(families().iter().find_map(|family| family.preset(name).ok()).map(|preset| preset.config)),
    }
    .map_err(|error| crate::json_error(name, error))?;
    if let Some(widths) = widths {
        config["widths"] = widths.into();
    }
    Ok(Some(config))
}

/// A network that learns one batch of random images and labels again and again.
pub struct Training {
    model: Model,
    optimizer: Box<dyn Optimizer>,
    image: Tensor,
    label: Tensor,
    loss: DiceCe,
}

impl Training {
    /// The training of a network with images of this shape, by the optimizer that `optimizer` makes: Dice and cross-entropy for maps of
    /// classes, cross-entropy for one class an image.
    ///
    /// # Errors
    /// When the network doesn't take such images.
    pub fn new<O: Optimizer + 'static>(
        model: Model,
        shape: &[usize],
        optimizer: impl FnOnce(&Params) -> Result<O>,
    ) -> Result<Self> {
        let (device, seed) = (model.params().device(), Seed::new(6));
        let image = Tensor::normal(shape, 0.0, 1.0, seed.named("image"), DType::F32, Device::Cpu)?.to(device)?;
        let output = model.predict(&image)?;
        let [batch, classes, spatial @ ..] = output.shape() else {
            return Err(Error::shape("training", "an output without classes").shapes([output.shape()]));
        };
        let labels = [&[*batch], spatial].concat();
        let mut draw = seed.named("label").random();
        let numbers: Vec<i64> =
            (0..labels.iter().product::<usize>()).map(|_| draw.below(*classes as u64) as i64).collect();
        let label = Tensor::from_slice(&numbers, &labels, device)?;
        let loss = if spatial.is_empty() { DiceCe::cross_entropy() } else { DiceCe::default() };
        let optimizer = Box::new(optimizer(model.params())?);
        Ok(Self { model, optimizer, image, label, loss })
    }

    /// One step, with random numbers of `seed`; the loss before it.
    ///
    /// # Errors
    /// When an operation fails.
    pub fn step(&mut self, seed: Seed, clip: Option<f64>) -> Result<Tensor> {
        let pass = Pass::train(self.model.params(), seed)?;
        let image = pass.input(&self.image);
        let logits = self.model.network().run(&[("image", image)].into(), &pass)?.into_main()?;
        let loss = self.loss.forward(&logits, &self.label)?;
        drop(logits);
        let value = loss.value().clone();
        let update = pass.backward(loss)?;
        let update = match clip {
            Some(most) => update.clip_norm(most)?,
            None => update,
        };
        self.optimizer.step(self.model.params_mut(), update)?;
        Ok(value)
    }

    /// The network.
    pub fn model(&self) -> &Model {
        &self.model
    }
}
