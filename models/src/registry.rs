//! All networks by name: from a configuration, which is plain data, to a network that can be run.

use std::path::Path;

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use tomograd_autodiff::Var;
use tomograd_core::{DType, Device, Error, ErrorKind, Result, Seed, Tensor};
use tomograd_nn::{Checkpoint, Loaded, Module, Params, Pass, Scope};

use crate::{UNet2dConfig, UNet3dConfig};

/// What a network gives.
pub struct Outputs {
    /// The output that counts: logits at full resolution.
    pub main: Var,
    /// Outputs for deep supervision and auxiliary heads, the finest first; none for most networks.
    pub aux: Vec<Var>,
}

/// A network of the zoo. Every [`Module`] is one without auxiliary outputs.
pub trait Network: Send + Sync {
    /// Computes all outputs.
    ///
    /// # Errors
    /// When the input doesn't fit.
    fn outputs(&self, x: &Var, pass: &Pass) -> Result<Outputs>;
}

impl<M: Module> Network for M {
    fn outputs(&self, x: &Var, pass: &Pass) -> Result<Outputs> {
        Ok(Outputs { main: self.forward(x, pass)?, aux: Vec::new() })
    }
}

/// The configuration of a family of networks. As JSON it has the family's name under `network`.
pub trait Config: Serialize + DeserializeOwned {
    /// What is built.
    type Network: Network + 'static;

    /// Makes the network's parameters in `scope`.
    ///
    /// # Errors
    /// When the configuration makes no sense, or a name is taken.
    fn build(&self, scope: Scope<'_>) -> Result<Self::Network>;
}

/// A family of networks.
#[derive(Debug)]
pub struct Family {
    /// Its name, the `network` of its configurations.
    pub name: &'static str,
    /// What it is, in a line.
    pub about: &'static str,
    preset: fn() -> Result<Value>,
    build: fn(Scope<'_>, Value) -> Result<Built>,
}

/// A network and its configuration with all defaults filled in.
pub type Built = (Box<dyn Network>, Value);

impl Family {
    /// The configuration that its authors use.
    ///
    /// # Errors
    /// None in practice: configurations are plain data.
    pub fn preset(&self) -> Result<Value> {
        (self.preset)()
    }
}

const FAMILIES: &[Family] = &[
    Family {
        name: "unet3d",
        about: "3D U-Net: strided convolutions, instance norm, leaky ReLU, transposed convolutions",
        preset: || value(&UNet3dConfig::new(3)),
        build: build_of::<UNet3dConfig>,
    },
    Family {
        name: "unet2d",
        about: "2D U-Net (Ronneberger et al. 2015) with padded convolutions and batch norm",
        preset: || value(&UNet2dConfig::new(2)),
        build: build_of::<UNet2dConfig>,
    },
];

/// All families, in a fixed order.
pub fn families() -> &'static [Family] {
    FAMILIES
}

/// The family called `name`.
///
/// # Errors
/// When there is none.
pub fn family(name: &str) -> Result<&'static Family> {
    let known = || FAMILIES.iter().map(|family| family.name).collect::<Vec<_>>().join(", ");
    FAMILIES.iter().find(|family| family.name == name).ok_or_else(|| {
        Error::new(ErrorKind::Name, "registry", format!("no network is called {name}"))
            .expected(format!("one of {}", known()))
    })
}

fn value(plain: &impl Serialize) -> Result<Value> {
    serde_json::to_value(plain).map_err(|error| Error::argument("registry", "it has no JSON").source(error))
}

fn build_of<C: Config>(scope: Scope<'_>, given: Value) -> Result<Built> {
    let config: C = serde_json::from_value(given.clone())
        .map_err(|error| Error::argument("registry", format!("the configuration doesn't fit: {error}")))?;
    let full = value(&config)?;
    // A misspelt key would otherwise be passed over in silence.
    if let Some(key) = given.as_object().into_iter().flat_map(|map| map.keys()).find(|&key| full.get(key).is_none()) {
        return Err(Error::argument("registry", format!("the configuration has {key:?}, which is unknown"))
            .expected(full.to_string()));
    }
    Ok((Box::new(config.build(scope)?), full))
}

/// Builds the network that `config` describes, and gives the configuration with all defaults filled in.
///
/// # Errors
/// When `network` is missing or unknown, or the rest doesn't fit the family.
pub fn build(scope: Scope<'_>, config: Value) -> Result<Built> {
    let Some(name) = config.get("network").and_then(Value::as_str) else {
        return Err(Error::argument("registry", "the configuration doesn't say which network it is of")
            .expected("a family's name under `network`"));
    };
    (family(name)?.build)(scope, config)
}

/// A network with its parameters, the configuration it was built from, and what prediction needs beside it.
pub struct Model {
    params: Params,
    network: Box<dyn Network>,
    config: Value,
    /// JSON of a type that isn't known here.
    preparation: Option<Value>,
}

impl Model {
    /// The network that `config` (a family's configuration, or JSON) describes, its parameters filled by `seed`.
    ///
    /// # Errors
    /// When the configuration doesn't fit, or memory runs out.
    pub fn new(config: &impl Serialize, device: Device, seed: Seed) -> Result<Self> {
        Self::with_dtype(value(config)?, device, seed, DType::F32)
    }

    /// The same, with parameters of `dtype`.
    ///
    /// # Errors
    /// When the configuration doesn't fit, or memory runs out.
    pub fn with_dtype(config: Value, device: Device, seed: Seed, dtype: DType) -> Result<Self> {
        let mut params = Params::new(device, seed).with_dtype(dtype);
        let (network, config) = build(params.root(), config)?;
        Ok(Self { params, network, config, preparation: None })
    }

    /// With what prediction needs beside the network (`Preparation` in `tomograd-pipeline`), in place of what it had.
    ///
    /// # Errors
    /// When it has no JSON.
    pub fn with_preparation(mut self, preparation: &impl Serialize) -> Result<Self> {
        self.preparation = Some(value(preparation)?);
        Ok(self)
    }

    /// The network in a checkpoint, built from the configuration that travels in the file.
    ///
    /// # Errors
    /// When the file can't be read, has no configuration, or its parameters aren't the network's.
    pub fn load(path: impl AsRef<Path>, device: Device) -> Result<Self> {
        let path = path.as_ref();
        Self::of(&Loaded::read(path)?, device).map_err(|error| error.within(path.display().to_string()))
    }

    /// The network in a checkpoint that was already read.
    ///
    /// # Errors
    /// When it has no configuration, or its parameters aren't the network's.
    pub fn of(checkpoint: &Loaded, device: Device) -> Result<Self> {
        let dtype = checkpoint.state().map(|(_, value)| value.dtype()).find(|dtype| dtype.is_float());
        let mut model = Self::with_dtype(checkpoint.config_as()?, device, Seed::new(0), dtype.unwrap_or(DType::F32))?;
        checkpoint.restore(&mut model.params)?;
        if checkpoint.preparation().is_some() {
            model.preparation = Some(checkpoint.preparation_as()?);
        }
        Ok(model)
    }

    /// A checkpoint of parameters, configuration and preparation, to which more can be added.
    ///
    /// # Errors
    /// None in practice: both are JSON.
    pub fn checkpoint(&self) -> Result<Checkpoint> {
        let checkpoint = Checkpoint::new(&self.params).config(&self.config)?;
        match &self.preparation {
            Some(preparation) => checkpoint.preparation(preparation),
            None => Ok(checkpoint),
        }
    }

    /// The main output for `image`, without training mode and gradients.
    ///
    /// # Errors
    /// When the image doesn't fit.
    pub fn predict(&self, image: &Tensor) -> Result<Tensor> {
        let pass = Pass::eval(&self.params)?;
        let x = pass.input(image);
        Ok(self.network.outputs(&x, &pass)?.main.into_value())
    }

    /// The parameters.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The parameters, for an optimizer or to load others.
    pub fn params_mut(&mut self) -> &mut Params {
        &mut self.params
    }

    /// The network.
    pub fn network(&self) -> &dyn Network {
        &*self.network
    }

    /// The configuration, all defaults filled in.
    pub fn config(&self) -> &Value {
        &self.config
    }

    /// What prediction needs beside the network, as JSON; none when nobody said.
    pub fn preparation_json(&self) -> Option<&Value> {
        self.preparation.as_ref()
    }
}
