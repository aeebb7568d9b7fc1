//! Inception v3.

use serde::{Deserialize, Serialize};
use tomograd_autodiff::{Var, methods::*};
use tomograd_core::Result;
use tomograd_nn::{
    AveragePool, ConvNormActivation, Dropout, Kernel, Linear, LinearOptions, MaxPool, Module, Named, Network, Pass,
    Scope, Stage, Window, init::Init,
};

use super::{BranchSpec, Builder, Layer, Mixed, Pooling, check_transform, transformed};
use crate::{
    check,
    classification::IMAGENET,
    config::{Card, Config, Preset, Task},
};

/// The configuration of an [`InceptionV3`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "network", rename = "inception_v3")]
pub struct InceptionV3Config {
    /// Input channels.
    pub in_channels: usize,
    /// Number of classes, the channels of the logits.
    pub classes: usize,
    /// Channels of the first convolution, a multiple of 2; all others follow in the original's proportions.
    #[serde(default = "InceptionV3Config::width")]
    pub width: usize,
    /// Whether there is an auxiliary head, which runs in training alone.
    #[serde(default = "InceptionV3Config::yes")]
    pub auxiliary: bool,
    /// Whether images that are normalised by ImageNet's statistics are normalised again to those with which the published
    /// weights were trained: needs three channels.
    #[serde(default)]
    pub transform_input: bool,
    /// Probability of the dropout before the last layer in training, from 0 to below 1.
    #[serde(default = "InceptionV3Config::half")]
    pub dropout: f64,
}

const NAME: &str = "inception_v3";
/// The standard deviation of initial weights.
const DEVIATION: f64 = 0.1;

impl InceptionV3Config {
    /// A network for photographs: three input channels, an auxiliary head.
    pub fn new(classes: usize) -> Self {
        let (width, dropout) = (Self::width(), Self::half());
        Self { in_channels: 3, classes, width, auxiliary: true, transform_input: false, dropout }
    }

    fn width() -> usize {
        32
    }

    fn yes() -> bool {
        true
    }

    fn half() -> f64 {
        0.5
    }

    fn builder(&self) -> Builder {
        Builder { width: self.width, original: Self::width(), deviation: DEVIATION }
    }

    fn check(&self) -> Result<()> {
        for (field, size) in [("in_channels", self.in_channels), ("classes", self.classes)] {
            check::sizes(NAME, field, &[size], check::MOST_CHANNELS)?;
        }
        self.builder().check(NAME, 2)?;
        check_transform(NAME, self.transform_input, self.in_channels)?;
        check::probability(NAME, "dropout", self.dropout)
    }
}

impl Config for InceptionV3Config {
    type Network = InceptionV3;

    const CARD: Card = Card {
        task: Task::Classification,
        ranks: &[2],
        about: "blocks of parallel, factorised convolutions, with an auxiliary head",
        source: "Szegedy et al.: Rethinking the Inception Architecture for Computer Vision, 2015, arXiv:1512.00567",
        code: Some("https://github.com/pytorch/vision/blob/main/torchvision/models/inception.py"),
        weights_licence: Some("BSD-3-Clause (torchvision), trained on ImageNet, whose images are for research"),
    };

    fn presets() -> Vec<Preset<Self>> {
        let config = Self { transform_input: true, ..Self::new(1000) };
        vec![Preset { channels: Some(IMAGENET), ..Preset::new("inception_v3", config).size([299, 299]) }]
    }

    fn build(&self, mut scope: Scope<'_>) -> Result<InceptionV3> {
        self.check()?;
        scope.whole(|scope| InceptionV3::make(scope, self))
    }
}

/// A kernel of height `h` and width `w` that keeps the size.
fn same([h, w]: [usize; 2]) -> Kernel {
    Kernel::d2([h, w]).padding([h / 2, w / 2])
}

/// A 3-wide kernel that halves the size, without padding.
fn halving() -> Kernel {
    Kernel::d2(3).stride(2)
}

/// A branch of 3-wide average pooling and a 1-wide convolution.
fn average(channels: usize) -> Result<BranchSpec> {
    let pool = AveragePool::new(Window::new(3).stride(1).padding(1))?;
    Ok(BranchSpec::pooled(Pooling::Average(pool), [("branch_pool", channels, same([1, 1]))]))
}

/// A branch of max pooling alone, which halves the size.
fn max() -> Result<BranchSpec> {
    Ok(BranchSpec::pooled(Pooling::Max(MaxPool::new(Window::new(3).stride(2))?), []))
}

/// A block that keeps the size, of 1-, 3- and 5-wide convolutions.
fn block_a(pooled: usize) -> Result<Vec<BranchSpec>> {
    Ok(vec![
        BranchSpec::new([("branch1x1", 64, same([1, 1]))]),
        BranchSpec::new([("branch5x5_1", 48, same([1, 1])), ("branch5x5_2", 64, same([5, 5]))]),
        BranchSpec::new([
            ("branch3x3dbl_1", 64, same([1, 1])),
            ("branch3x3dbl_2", 96, same([3, 3])),
            ("branch3x3dbl_3", 96, same([3, 3])),
        ]),
        average(pooled)?,
    ])
}

/// The first block that halves the size.
fn block_b() -> Result<Vec<BranchSpec>> {
    Ok(vec![
        BranchSpec::new([("branch3x3", 384, halving())]),
        BranchSpec::new([
            ("branch3x3dbl_1", 64, same([1, 1])),
            ("branch3x3dbl_2", 96, same([3, 3])),
            ("branch3x3dbl_3", 96, halving()),
        ]),
        max()?,
    ])
}

/// A block that keeps the size, of 7-wide convolutions along one axis at a time; `inner` are their channels.
fn block_c(inner: usize) -> Result<Vec<BranchSpec>> {
    let (row, column) = (|| same([1, 7]), || same([7, 1]));
    Ok(vec![
        BranchSpec::new([("branch1x1", 192, same([1, 1]))]),
        BranchSpec::new([
            ("branch7x7_1", inner, same([1, 1])),
            ("branch7x7_2", inner, row()),
            ("branch7x7_3", 192, column()),
        ]),
        BranchSpec::new([
            ("branch7x7dbl_1", inner, same([1, 1])),
            ("branch7x7dbl_2", inner, column()),
            ("branch7x7dbl_3", inner, row()),
            ("branch7x7dbl_4", inner, column()),
            ("branch7x7dbl_5", 192, row()),
        ]),
        average(192)?,
    ])
}

/// The second block that halves the size.
fn block_d() -> Result<Vec<BranchSpec>> {
    Ok(vec![
        BranchSpec::new([("branch3x3_1", 192, same([1, 1])), ("branch3x3_2", 320, halving())]),
        BranchSpec::new([
            ("branch7x7x3_1", 192, same([1, 1])),
            ("branch7x7x3_2", 192, same([1, 7])),
            ("branch7x7x3_3", 192, same([7, 1])),
            ("branch7x7x3_4", 192, halving()),
        ]),
        max()?,
    ])
}

/// A block that keeps the size, whose branches end in two convolutions along one axis each.
fn block_e() -> Result<Vec<BranchSpec>> {
    let ends = |names: [&'static str; 2]| [(names[0], 384, same([1, 3])), (names[1], 384, same([3, 1]))];
    Ok(vec![
        BranchSpec::new([("branch1x1", 320, same([1, 1]))]),
        BranchSpec::new([("branch3x3_1", 384, same([1, 1]))]).ends(ends(["branch3x3_2a", "branch3x3_2b"])),
        BranchSpec::new([("branch3x3dbl_1", 448, same([1, 1])), ("branch3x3dbl_2", 384, same([3, 3]))])
            .ends(ends(["branch3x3dbl_3a", "branch3x3dbl_3b"])),
        average(192)?,
    ])
}

/// The auxiliary head.
#[derive(Debug)]
struct Auxiliary {
    pool: AveragePool,
    convolutions: [ConvNormActivation; 2],
    fc: Linear,
}

impl Auxiliary {
    fn new(scope: &mut Scope<'_>, config: &InceptionV3Config, in_channels: usize) -> Result<Self> {
        let builder = config.builder();
        let (conv0, channels) = builder.unit(scope, in_channels, ("conv0", 128, Kernel::d2(1)))?;
        let (conv1, channels) = builder.unit(scope, channels, ("conv1", 768, Kernel::d2(5)))?;
        let options = LinearOptions::new(config.classes).weight(Init::Normal(1e-3));
        let pool = AveragePool::new(Window::new(5).stride(3))?;
        Ok(Self { pool, convolutions: [conv0, conv1], fc: Linear::new(scope.at("fc"), channels, options)? })
    }
}

impl Module for Auxiliary {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        let pooled = self.pool.forward(x, pass)?;
        let x = self.convolutions.iter().try_fold(pooled, |x, conv| conv.forward(&x, pass))?;
        self.fc.forward(&x.mean_spatial()?.flatten(1..)?, pass)
    }
}

/// Inception v3 (Szegedy et al. 2015): blocks of parallel branches, in which large convolutions are factorised into small ones
/// and into ones along one axis; an auxiliary head helps to train the early blocks. Input (N, C, H, W) of at least 75 × 75 pixels,
/// in training with the auxiliary head 299 × 299, the size for which the network was designed.
///
/// Outputs: `logits` (N, classes), and in training with the auxiliary head `logits_aux`, whose loss is usually added with a
/// weight of 0.4 (in TensorFlow's code of the network and in PyTorch's tutorial; the paper names no weight).
///
/// State-dict names are torchvision's: `Conv2d_1a_3x3.conv`, `Conv2d_1a_3x3.bn`, …, `Mixed_5b.branch1x1`, …, `AuxLogits.conv0`,
/// `AuxLogits.conv1`, `AuxLogits.fc`, `Mixed_7a.branch3x3_1`, …, `fc`. Stages: `Conv2d_2b_3x3` (1/2 of the input size),
/// `Conv2d_4a_3x3` (1/4), `Mixed_5b` to `Mixed_5d` (1/8), `Mixed_6a` to `Mixed_6e` (1/16), `Mixed_7a` to `Mixed_7c` (1/32).
///
/// ```
/// use tomograd_core::{DType, Device, Seed, Tensor};
/// use tomograd_models::{InceptionV3Config, Model};
/// let config = InceptionV3Config { in_channels: 1, width: 2, ..InceptionV3Config::new(2) };
/// let model = Model::new(&config, Device::Cpu, Seed::new(1))?;
/// let image = Tensor::zeros(&[1, 1, 80, 96], DType::F32, Device::Cpu)?;
/// assert_eq!(model.predict(&image)?.shape(), [1, 2]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug)]
pub struct InceptionV3 {
    transform_input: bool,
    /// In two parts, each followed by pooling.
    stem: [(Vec<ConvNormActivation>, Stage); 2],
    pool: MaxPool,
    /// Up to the auxiliary head.
    early: Vec<Mixed>,
    auxiliary: Option<Auxiliary>,
    late: Vec<Mixed>,
    dropout: Dropout,
    fc: Linear,
}

impl InceptionV3 {
    fn make(scope: &mut Scope<'_>, config: &InceptionV3Config) -> Result<Self> {
        let builder = config.builder();
        let mut channels = config.in_channels;
        let mut part = |scope: &mut Scope<'_>, layers: Vec<Layer>, reduction: usize| {
            let (mut units, mut last) = (Vec::new(), "");
            for layer in layers {
                last = layer.0;
                let (unit, outputs) = builder.unit(scope, channels, layer)?;
                units.push(unit);
                channels = outputs;
            }
            Ok::<_, tomograd_core::Error>((units, scope.stage(last, channels, reduction)?))
        };
        let first = vec![
            ("Conv2d_1a_3x3", 32, halving()),
            ("Conv2d_2a_3x3", 32, Kernel::d2(3)),
            ("Conv2d_2b_3x3", 64, same([3, 3])),
        ];
        let second = vec![("Conv2d_3b_1x1", 80, Kernel::d2(1)), ("Conv2d_4a_3x3", 192, Kernel::d2(3))];
        let stem = [part(scope, first, 2)?, part(scope, second, 4)?];
        let mut blocks = |scope: &mut Scope<'_>, blocks: Vec<(&str, usize, Vec<BranchSpec>)>| {
            let mut made = Vec::new();
            for (name, reduction, branches) in blocks {
                let (block, outputs) = builder.mixed(scope, name, channels, reduction, branches)?;
                made.push(block);
                channels = outputs;
            }
            Ok::<_, tomograd_core::Error>((made, channels))
        };
        let early = vec![
            ("Mixed_5b", 8, block_a(32)?),
            ("Mixed_5c", 8, block_a(64)?),
            ("Mixed_5d", 8, block_a(64)?),
            ("Mixed_6a", 16, block_b()?),
            ("Mixed_6b", 16, block_c(128)?),
            ("Mixed_6c", 16, block_c(160)?),
            ("Mixed_6d", 16, block_c(160)?),
            ("Mixed_6e", 16, block_c(192)?),
        ];
        let (early, read) = blocks(scope, early)?;
        let auxiliary = match config.auxiliary {
            true => Some(Auxiliary::new(&mut scope.at("AuxLogits"), config, read)?),
            false => None,
        };
        let late = vec![("Mixed_7a", 32, block_d()?), ("Mixed_7b", 32, block_e()?), ("Mixed_7c", 32, block_e()?)];
        let (late, channels) = blocks(scope, late)?;
        let options = LinearOptions::new(config.classes).weight(Init::Normal(DEVIATION));
        Ok(Self {
            transform_input: config.transform_input,
            stem,
            pool: MaxPool::new(Window::new(3).stride(2))?,
            early,
            auxiliary,
            late,
            dropout: Dropout::new(scope.at("dropout"), config.dropout)?,
            fc: Linear::new(scope.at("fc"), channels, options)?,
        })
    }
}

impl Network for InceptionV3 {
    fn inputs(&self) -> &'static [&'static str] {
        &["image"]
    }

    fn run(&self, inputs: &Named<Var>, pass: &Pass) -> Result<Named<Var>> {
        let x = inputs.get("image")?;
        let auxiliary = self.auxiliary.as_ref().filter(|_| pass.is_training());
        // The auxiliary head's 5-wide convolution needs a feature map of 17 pixels.
        check::smallest(NAME, x.shape(), 2, if auxiliary.is_some() { 299 } else { 75 })?;
        let mut x = if self.transform_input { transformed(x, pass)? } else { x.clone() };
        for (units, stage) in &self.stem {
            x = pass.stage(*stage, units.iter().try_fold(x, |x, unit| unit.forward(&x, pass))?)?;
            x = self.pool.forward(&x, pass)?;
        }
        x = self.early.iter().try_fold(x, |x, block| block.forward(&x, pass))?;
        let head = auxiliary.map(|head| head.forward(&x, pass)).transpose()?;
        x = self.late.iter().try_fold(x, |x, block| block.forward(&x, pass))?;
        x = self.dropout.forward(&x.mean_spatial()?.flatten(1..)?, pass)?;
        let mut outputs = Named::from([("logits", self.fc.forward(&x, pass)?)]);
        if let Some(head) = head {
            outputs.insert("logits_aux", head);
        }
        Ok(outputs)
    }
}
