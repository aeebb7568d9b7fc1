//! A network with its parameters, configuration and preparation.

use std::path::Path;

use serde::Serialize;
use serde_json::Value;
use tomograd_core::{DType, Device, Error, Result, Seed, Tensor, memory};
use tomograd_nn::{Checkpoint, FoldedNorms, Loaded, Named, Network, Params, Pass, StageInfo};

use crate::{config::json, registry};

/// A network with its parameters, its configuration, and what prediction needs besides (the preparation).
///
/// ```
/// use tomograd_core::{DType, Device, Seed, Tensor};
/// use tomograd_models::{Model, UNet2dConfig};
/// let config = UNet2dConfig { in_channels: 1, classes: 2, widths: vec![2, 4] };
/// let model = Model::new(&config, Device::Cpu, Seed::new(1))?;
/// let image = Tensor::zeros(&[1, 1, 8, 8], DType::F32, Device::Cpu)?;
/// assert_eq!(model.predict(&image)?.shape(), [1, 2, 8, 8]);
/// assert_eq!(model.config()["network"], "unet2d");
/// # Ok::<(), tomograd_core::Error>(())
/// ```
pub struct Model {
    params: Params,
    network: Box<dyn Network>,
    config: Value,
    /// JSON, because its type is defined in a crate that depends on this one.
    preparation: Option<Value>,
}

impl Model {
    /// The network described by `config` (a family's configuration, or JSON), with parameters initialised from `seed`.
    ///
    /// # Errors
    /// When the configuration is invalid, or memory runs out.
    pub fn new(config: &impl Serialize, device: Device, seed: Seed) -> Result<Self> {
        Self::with_dtype(json(config)?, device, seed, DType::F32)
    }

    /// As [`Model::new`], with parameters of `dtype`.
    ///
    /// # Errors
    /// When the configuration is invalid, or memory runs out.
    pub fn with_dtype(config: Value, device: Device, seed: Seed, dtype: DType) -> Result<Self> {
        let mut params = Params::new(device, seed).with_dtype(dtype);
        let (network, config) = registry::build(params.root(), &config)?;
        Ok(Self { params, network, config, preparation: None })
    }

    /// Sets what prediction needs besides the network (`Preparation` of `tomograd-pipeline`).
    ///
    /// # Errors
    /// When it can't be serialised to JSON.
    pub fn with_preparation(mut self, preparation: &impl Serialize) -> Result<Self> {
        self.preparation = Some(json(preparation)?);
        Ok(self)
    }

    /// Loads a checkpoint and builds its network from the configuration in the file.
    ///
    /// # Errors
    /// When the file can't be read, has no configuration, or its parameters don't match the network.
    pub fn load(path: impl AsRef<Path>, device: Device) -> Result<Self> {
        let path = path.as_ref();
        Self::of(&Loaded::read(path)?, device).map_err(|error| error.within(path.display().to_string()))
    }

    /// As [`Model::load`], from a checkpoint that has already been read.
    ///
    /// # Errors
    /// When it has no configuration, or its parameters don't match the network.
    pub fn of(checkpoint: &Loaded, device: Device) -> Result<Self> {
        let dtype = checkpoint.state().map(|(_, value)| value.dtype()).find(|dtype| dtype.is_float());
        let mut model = Self::with_dtype(checkpoint.config_as()?, device, Seed::new(0), dtype.unwrap_or(DType::F32))?;
        checkpoint.restore(&mut model.params)?;
        if checkpoint.preparation().is_some() {
            model.preparation = Some(checkpoint.preparation_as()?);
        }
        Ok(model)
    }

    /// A checkpoint with parameters, configuration and preparation, to which more can be added.
    ///
    /// # Errors
    /// Never in practice: both are already JSON.
    pub fn checkpoint(&self) -> Result<Checkpoint> {
        let checkpoint = Checkpoint::new(&self.params).config(&self.config)?;
        match &self.preparation {
            Some(preparation) => checkpoint.preparation(preparation),
            None => Ok(checkpoint),
        }
    }

    /// The main output for the main input, in inference mode, as [`run`](Self::run).
    ///
    /// # Errors
    /// When the network needs more than one input, the image doesn't fit, or memory runs out.
    pub fn predict(&self, image: &Tensor) -> Result<Tensor> {
        self.run(&[(self.main_input()?, image.clone())].into())?.into_main()
    }

    /// All outputs for these inputs, in inference mode. Inputs are copied to the device of the parameters if they are
    /// elsewhere, and outputs are on that device.
    ///
    /// ```
    /// use tomograd_core::{DType, Device, Seed, Tensor};
    /// use tomograd_models::{Model, UNet3dConfig};
    /// use tomograd_nn::Named;
    /// let config = UNet3dConfig { in_channels: 1, classes: 3, widths: vec![2, 4] };
    /// let model = Model::new(&config, Device::Cpu, Seed::new(1))?;
    /// let image = Tensor::zeros(&[1, 1, 8, 8, 8], DType::F32, Device::Cpu)?;
    /// let outputs = model.run(&Named::from([("image", image)]))?;
    /// assert_eq!(outputs.get("logits")?.shape(), [1, 3, 8, 8, 8]);
    /// # Ok::<(), tomograd_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// When an input is missing, unknown, or doesn't fit, or memory runs out.
    pub fn run(&self, inputs: &Named<Tensor>) -> Result<Named<Tensor>> {
        self.outputs(inputs, &Pass::eval(&self.params)?)
    }

    /// The feature maps of these stages ([`Model::stages`]) for the main input, in inference mode.
    ///
    /// ```
    /// use tomograd_core::{DType, Device, Seed, Tensor};
    /// use tomograd_models::{Model, UNet3dConfig};
    /// let config = UNet3dConfig { in_channels: 1, classes: 3, widths: vec![2, 4] };
    /// let model = Model::new(&config, Device::Cpu, Seed::new(1))?;
    /// let image = Tensor::zeros(&[1, 1, 8, 8, 8], DType::F32, Device::Cpu)?;
    /// let maps = model.features(&image, &["enc.1", "dec.0"])?;
    /// assert_eq!(maps.get("enc.1")?.shape(), [1, 4, 4, 4, 4]);
    /// # Ok::<(), tomograd_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// When a stage doesn't exist (the error has the nearest name), the network needs more than one input, or the image
    /// doesn't fit.
    pub fn features(&self, image: &Tensor, stages: &[&str]) -> Result<Named<Tensor>> {
        let pass = Pass::eval(&self.params)?.keep_stages(stages)?;
        self.outputs(&[(self.main_input()?, image.clone())].into(), &pass)?;
        pass.stages()?.try_map(|map| Ok(map.into_value()))
    }

    fn main_input(&self) -> Result<&'static str> {
        let missing = || Error::argument("model", "the network takes no input").expected("one at least");
        self.network.inputs().first().copied().ok_or_else(missing)
    }

    fn outputs(&self, inputs: &Named<Tensor>, pass: &Pass) -> Result<Named<Tensor>> {
        inputs.only(self.network.inputs())?;
        let device = self.params.device();
        let inputs = inputs.iter().map(|(name, value)| Ok((name, pass.input(&value.to(device)?))));
        self.network.run(&inputs.collect::<Result<_>>()?, pass)?.try_map(|output| Ok(output.into_value()))
    }

    /// The stages of the network, whose feature maps can be requested.
    pub fn stages(&self) -> &[StageInfo] {
        self.params.stages()
    }

    /// Folds batch norms into the preceding convolutions, for inference: [`Params::fold_batch_norm`].
    ///
    /// ```
    /// use tomograd_core::{DType, Device, Seed, Tensor};
    /// use tomograd_models::{Model, UNet2dConfig};
    /// let config = UNet2dConfig { in_channels: 1, classes: 2, widths: vec![2, 4] };
    /// let mut model = Model::new(&config, Device::Cpu, Seed::new(1))?;
    /// let image = Tensor::normal(&[1, 1, 8, 8], 0.0, 1.0, Seed::new(2), DType::F32, Device::Cpu)?;
    /// let before = model.predict(&image)?.to_vec::<f32>()?;
    /// assert_eq!(model.fold_batch_norm()?.folded.len(), 6);
    /// let after = model.predict(&image)?.to_vec::<f32>()?;
    /// assert!(before.iter().zip(&after).all(|(a, b)| (a - b).abs() < 1e-5));
    /// # Ok::<(), tomograd_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// When memory runs out.
    pub fn fold_batch_norm(&mut self) -> Result<FoldedNorms> {
        let folded = self.params.fold_batch_norm()?;
        // The pool would keep the old weights' memory, as much as the new ones take.
        memory::trim(self.params.device())?;
        Ok(folded)
    }

    /// The parameters.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The parameters, for an optimizer or for loading weights.
    pub fn params_mut(&mut self) -> &mut Params {
        &mut self.params
    }

    /// The network.
    pub fn network(&self) -> &dyn Network {
        &*self.network
    }

    /// The configuration with all defaults.
    pub fn config(&self) -> &Value {
        &self.config
    }

    /// What prediction needs besides the network, as JSON; `None` if it wasn't set.
    pub fn preparation_json(&self) -> Option<&Value> {
        self.preparation.as_ref()
    }
}
