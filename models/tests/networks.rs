//! Networks of several inputs and outputs through the one trait: each trains on the CPU, and runs on the meta device.

use std::sync::Arc;

use tomograd_autodiff::{Var, methods::*};
use tomograd_core::{DType, Device, Error, ErrorKind, Result, Seed, Tensor};
use tomograd_models::{ResNetBlock, ResNetConfig, ResNetEncoder, formula};
use tomograd_nn::{
    Activation, AdamW, Conv, ConvTranspose, DiceCe, Interpolation, Kernel, Linear, Module, Named, Network, Optimizer,
    Params, Pass, Scope, Stage, losses,
};

/// A variational autoencoder of 2D images (Kingma and Welling 2014): three outputs.
struct Autoencoder {
    encoder: Conv,
    code: Stage,
    mean: Conv,
    log_variance: Conv,
    decoder: ConvTranspose,
    path: String,
}

impl Autoencoder {
    fn new(mut scope: Scope<'_>) -> Result<Self> {
        let half = Kernel::d2(2).stride(2);
        Ok(Self {
            encoder: Conv::new(scope.at("encoder"), 1, 4, half.clone())?,
            code: scope.stage("encoder", 4, 2)?,
            mean: Conv::new(scope.at("mean"), 4, 2, [1, 1])?,
            log_variance: Conv::new(scope.at("log_variance"), 4, 2, [1, 1])?,
            decoder: ConvTranspose::new(scope.at("decoder"), 2, 1, half)?,
            path: scope.path().to_owned(),
        })
    }
}

impl Network for Autoencoder {
    fn inputs(&self) -> &'static [&'static str] {
        &["image"]
    }

    fn run(&self, inputs: &Named<Var>, pass: &Pass) -> Result<Named<Var>> {
        let code = self.encoder.forward(inputs.get("image")?, pass)?.tanh()?;
        let code = pass.stage(self.code, code)?;
        let (mean, log_variance) = (self.mean.forward(&code, pass)?, self.log_variance.forward(&code, pass)?);
        // In inference the mean stands for the draw.
        let draw = if pass.is_training() {
            let seed = pass.random(&self.path);
            let noise = Tensor::normal(mean.shape(), 0.0, 1.0, seed, mean.dtype(), mean.value().device())?;
            mean.add(&log_variance.mul(0.5)?.exp()?.mul(&pass.input(&noise))?)?
        } else {
            mean.clone()
        };
        let reconstruction = self.decoder.forward(&draw, pass)?;
        Ok([("reconstruction", reconstruction), ("mean", mean), ("log_variance", log_variance)].into())
    }
}

/// Predicts the displacement that brings one volume onto another one: two inputs.
struct Registration(Conv, Conv);

impl Registration {
    fn new(mut scope: Scope<'_>) -> Result<Self> {
        let same = |size: usize| Kernel::d3(size).padding(size / 2);
        Ok(Self(Conv::new(scope.at("features"), 2, 4, same(3))?, Conv::new(scope.at("flow"), 4, 3, same(3))?))
    }
}

impl Network for Registration {
    fn inputs(&self) -> &'static [&'static str] {
        &["moving", "fixed"]
    }

    fn run(&self, inputs: &Named<Var>, pass: &Pass) -> Result<Named<Var>> {
        let pair = Var::concat(&[inputs.get("moving")?, inputs.get("fixed")?], 1)?;
        let features = Activation::LeakyRelu(0.1).forward(&self.0.forward(&pair, pass)?, pass)?;
        Ok(Named::from([("displacement", self.1.forward(&features, pass)?)]))
    }
}

/// Logits of voxels, coarser ones for deep supervision, and of the whole image; points are welcome, and not needed.
struct Heads {
    down: Conv,
    up: ConvTranspose,
    points: Linear,
    head: Conv,
    coarse: Conv,
    whole: Linear,
}

impl Heads {
    fn new(mut scope: Scope<'_>) -> Result<Self> {
        let half = Kernel::d2(2).stride(2);
        Ok(Self {
            down: Conv::new(scope.at("down"), 1, 4, half.clone())?,
            up: ConvTranspose::new(scope.at("up"), 4, 4, half)?,
            points: Linear::new(scope.at("points"), 2, 4)?,
            head: Conv::new(scope.at("head"), 4, 3, [1, 1])?,
            coarse: Conv::new(scope.at("coarse"), 4, 3, [1, 1])?,
            whole: Linear::new(scope.at("whole"), 4, 2)?,
        })
    }
}

impl Network for Heads {
    fn inputs(&self) -> &'static [&'static str] {
        &["image", "points"]
    }

    fn run(&self, inputs: &Named<Var>, pass: &Pass) -> Result<Named<Var>> {
        let mut features = self.down.forward(inputs.get("image")?, pass)?;
        if let Some(points) = inputs.find("points") {
            let shift = self.points.forward(points, pass)?.mean(1)?.unsqueeze(2)?.unsqueeze(3)?;
            features = features.add(&shift)?;
        }
        let fine = self.up.forward(&features, pass)?;
        let whole = self.whole.forward(&features.mean_spatial()?.flatten(1..)?, pass)?;
        Ok(Named::from([
            ("logits", self.head.forward(&fine, pass)?),
            ("logits.1", self.coarse.forward(&features, pass)?),
            ("image_logits", whole),
        ]))
    }
}

/// A residual network as a backbone, in a checkpointed segment, and a decoder that reads three of its feature maps.
struct Pyramid {
    backbone: Arc<dyn Module>,
    stages: Vec<Stage>,
    laterals: Vec<Conv>,
    head: Conv,
}

impl Pyramid {
    fn new(mut scope: Scope<'_>) -> Result<Self> {
        let config = ResNetConfig { in_channels: 1, width: 4, ..ResNetConfig::new(ResNetBlock::Basic, [1, 1], 2) };
        let backbone = Arc::new(ResNetEncoder::new(scope.at("backbone"), &config)?);
        let found = scope.at("backbone").find_stages(&["stem", "layer1", "layer2"])?;
        let mut laterals = Vec::new();
        for (place, (_, info)) in found.iter().enumerate() {
            laterals.push(Conv::new(scope.at("lateral").at(place), info.channels(), 4, [1, 1])?);
        }
        let head = Conv::new(scope.at("head"), 4, 2, [1, 1])?;
        let stages = found.into_iter().map(|(stage, _)| stage).collect();
        Ok(Self { backbone, stages, laterals, head })
    }
}

impl Module for Pyramid {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        let (deepest, maps) = pass.collect(&self.stages, || pass.checkpoint(&self.backbone, x))?;
        assert_eq!(deepest.shape(), maps[2].shape());
        let mut sum: Option<Var> = None;
        for (lateral, map) in self.laterals.iter().zip(&maps).rev() {
            let own = lateral.forward(map, pass)?;
            sum = Some(match sum {
                Some(coarse) => coarse.interpolate(&own.shape()[2..], Interpolation::Linear)?.add(&own)?,
                None => own,
            });
        }
        let features = sum.ok_or_else(|| Error::argument("pyramid", "no stages"))?;
        self.head.forward(&features.interpolate(&x.shape()[2..], Interpolation::Linear)?, pass)
    }
}

type Loss = fn(&Named<Var>, &Named<Tensor>) -> Result<Var>;

/// The image again, and Kullback-Leibler's divergence of the code from a standard normal distribution.
fn evidence(outputs: &Named<Var>, inputs: &Named<Tensor>) -> Result<Var> {
    let (mean, log_variance) = (outputs.get("mean")?, outputs.get("log_variance")?);
    let reconstruction = outputs.get("reconstruction")?;
    let image = reconstruction.tape().constant(inputs.get("image")?.clone());
    let divergence = mean.square()?.add(&log_variance.exp()?)?.sub(log_variance)?.sub(1.0)?.mean(..)?;
    losses::mean_squared_error(reconstruction, &image)?.add(&divergence.mul(0.01)?)
}

/// The displacement whose components are all the difference of the two volumes.
fn difference(outputs: &Named<Var>, inputs: &Named<Tensor>) -> Result<Var> {
    let displacement = outputs.get("displacement")?;
    let target = inputs.get("moving")?.sub(inputs.get("fixed")?)?;
    losses::mean_squared_error(displacement, &displacement.tape().constant(target))
}

fn all_heads(outputs: &Named<Var>, _: &Named<Tensor>) -> Result<Var> {
    let of = |logits: &Var| {
        let shape = [&logits.shape()[..1], &logits.shape()[2..]].concat();
        DiceCe::default().forward(logits, &Tensor::zeros(&shape, DType::I64, logits.value().device())?)
    };
    let main = of(outputs.main()?)?;
    main.add(&of(outputs.get("logits.1")?)?.mul(0.5)?)?.add(&outputs.get("image_logits")?.square()?.mean(..)?)
}

/// Names and shapes of outputs.
type OutputShapes = Vec<(String, Vec<usize>)>;

/// Trains for some steps through the trait alone; the losses, and the names and shapes of the outputs.
fn train<N: Network>(
    make: fn(Scope<'_>) -> Result<N>,
    shapes: &[&[usize]],
    loss: Loss,
    device: Device,
    steps: u64,
) -> Result<(Vec<Tensor>, OutputShapes)> {
    let mut params = Params::new(device, Seed::new(1));
    let network: Box<dyn Network> = Box::new(make(params.root())?);
    let image = |(&name, &shape): (&&'static str, &&[usize])| {
        Ok((name, Tensor::normal(shape, 0.0, 1.0, Seed::new(2).named(name), DType::F32, device)?))
    };
    let inputs: Named<Tensor> = network.inputs().iter().zip(shapes).map(image).collect::<Result<_>>()?;
    let mut optimizer = AdamW::new(&params, 1e-2)?;
    let (mut losses, mut last) = (Vec::new(), Vec::new());
    for step in 0..steps {
        let pass = Pass::train(&params, Seed::new(3).at(step))?;
        let variables = inputs.iter().map(|(name, value)| (name, pass.input(value))).collect();
        let outputs = network.run(&variables, &pass)?;
        last = outputs.iter().map(|(name, output)| (name.to_owned(), output.shape().to_vec())).collect();
        let loss = loss(&outputs, &inputs)?;
        losses.push(loss.value().clone());
        // Without points their layer has no part in the loss.
        let update = pass.backward(loss)?.clip_norm(12.0)?.allow_unused();
        optimizer.step(&mut params, update)?;
    }
    Ok((losses, last))
}

fn check<N: Network + 'static>(
    make: fn(Scope<'_>) -> Result<N>,
    shapes: &[&[usize]],
    loss: Loss,
    expected: &[(&str, &[usize])],
) {
    let expected: OutputShapes = expected.iter().map(|(name, shape)| ((*name).to_owned(), shape.to_vec())).collect();
    let (losses, outputs) = train(make, shapes, loss, Device::Cpu, 25).unwrap();
    assert_eq!(outputs, expected);
    let [first, .., last] = &losses[..] else { panic!("25 steps") };
    let (first, last) = (first.to_scalar().unwrap(), last.to_scalar().unwrap());
    assert!(last < 0.9 * first, "{first} {last}");
    let (losses, outputs) = train(make, shapes, loss, Device::Meta, 2).unwrap();
    assert_eq!(outputs, expected);
    assert_eq!(losses[1].to_scalar().unwrap_err().kind(), ErrorKind::Device);
}

#[test]
fn an_autoencoder_with_three_outputs() {
    let outputs: [(&str, &[usize]); 3] =
        [("reconstruction", &[2, 1, 8, 6]), ("mean", &[2, 2, 4, 3]), ("log_variance", &[2, 2, 4, 3])];
    check(Autoencoder::new, &[&[2, 1, 8, 6]], evidence, &outputs);
}

#[test]
fn a_registration_with_two_inputs() {
    let shape: &[usize] = &[1, 1, 4, 6, 5];
    check(Registration::new, &[shape, shape], difference, &[("displacement", &[1, 3, 4, 6, 5])]);
}

#[test]
fn auxiliary_heads_and_an_input_that_may_be_missing() {
    let outputs: [(&str, &[usize]); 3] =
        [("logits", &[2, 3, 8, 6]), ("logits.1", &[2, 3, 4, 3]), ("image_logits", &[2, 2])];
    check(Heads::new, &[&[2, 1, 8, 6]], all_heads, &outputs);
    check(Heads::new, &[&[2, 1, 8, 6], &[2, 5, 2]], all_heads, &outputs);
}

/// Dice and cross-entropy with the bright half of the image as one class.
fn bright(outputs: &Named<Var>, inputs: &Named<Tensor>) -> Result<Var> {
    let (logits, image) = (outputs.get("logits")?, inputs.get("image")?);
    DiceCe::default().forward(logits, &image.gt(0.0)?.select(1, 0)?.converted(DType::I64)?)
}

#[test]
fn a_decoder_over_the_feature_maps_of_a_backbone() {
    check(Pyramid::new, &[&[2, 1, 16, 24]], bright, &[("logits", &[2, 2, 16, 24])]);
    // Who keeps a stage from outside gets it beside the decoder, with its gradient, and every parameter has one.
    let mut params = Params::new(Device::Cpu, Seed::new(1)).with_dtype(DType::F64);
    let network = Pyramid::new(params.root()).unwrap();
    let pass = Pass::train(&params, Seed::new(0)).unwrap().keep_stages(["backbone.layer1"]).unwrap();
    let image = pass.input(&formula::signed("input", &[1, 1, 16, 16], DType::F64).unwrap());
    let loss = network.forward(&image, &pass).unwrap().square().unwrap().mean(..).unwrap();
    let kept = pass.stages().unwrap();
    assert_eq!(kept.names().collect::<Vec<_>>(), ["backbone.layer1"]);
    assert_eq!(kept.main().unwrap().shape(), [1, 4, 4, 4]);
    drop(kept);
    let update = pass.backward(loss).unwrap();
    assert!(params.parameters().all(|info| update.gradient(info.name).is_some()));
    assert_eq!(update.stage_gradient("backbone.layer1").unwrap().shape(), [1, 4, 4, 4]);
    let error = params.root().at("backbone").find_stages(&["layer3"]).unwrap_err().to_string();
    assert!(error.contains("no stage is called backbone.layer3, did you mean backbone.layer1?"), "{error}");
}

#[test]
fn a_dump_has_all_inputs_and_outputs() {
    let mut params = Params::new(Device::Cpu, Seed::new(1)).with_dtype(DType::F64);
    let network = Registration::new(params.root()).unwrap();
    formula::fill(&mut params).unwrap();
    let shape: &[usize] = &[1, 1, 2, 3, 2];
    let names = |network: &dyn Network, params: &Params, shapes: &[&[usize]]| -> Result<Vec<String>, Error> {
        Ok(formula::dump(params, network, shapes, false)?.into_iter().map(|(name, _)| name).collect())
    };
    let found = names(&network, &params, &[shape, shape]).unwrap();
    assert_eq!(found[..3], ["output.0", "grad.input.0", "grad.input.1"]);
    let error = names(&network, &params, &[shape]).unwrap_err().to_string();
    assert!(error.contains("no tensor is called fixed; expected one of moving"), "{error}");
    assert!(names(&network, &params, &[shape; 3]).is_err());
    let mut params = Params::new(Device::Cpu, Seed::new(1)).with_dtype(DType::F64);
    let network = Autoencoder::new(params.root()).unwrap();
    let found = names(&network, &params, &[&[1, 1, 4, 4]]).unwrap();
    assert_eq!(found[..4], ["output.0", "output.1", "output.2", "grad.input.0"]);
}

#[test]
fn a_module_takes_an_image_and_gives_logits() {
    let mut params = Params::new(Device::Cpu, Seed::new(1));
    let conv = Conv::new(params.root(), 1, 2, [1, 1]).unwrap();
    let pass = Pass::eval(&params).unwrap();
    let image = pass.input(&Tensor::ones(&[1, 1, 2, 2], DType::F32, Device::Cpu).unwrap());
    let outputs = conv.run(&[("image", image.clone())].into(), &pass).unwrap();
    assert_eq!(outputs.names().collect::<Vec<_>>(), ["logits"]);
    let error = conv.run(&[("imgae", image)].into(), &pass).unwrap_err();
    assert!(error.to_string().contains("no tensor is called image, did you mean imgae?"), "{error}");
}

#[test]
fn stages_of_a_network_of_several_outputs() {
    let mut params = Params::new(Device::Cpu, Seed::new(1));
    let network = Autoencoder::new(params.root().at("vae")).unwrap();
    let pass = Pass::eval(&params).unwrap().keep_stages(["vae.encoder"]).unwrap();
    let image = pass.input(&Tensor::ones(&[1, 1, 4, 4], DType::F32, Device::Cpu).unwrap());
    network.run(&[("image", image)].into(), &pass).unwrap();
    assert_eq!(pass.stages().unwrap().get("vae.encoder").unwrap().shape(), [1, 4, 2, 2]);
}
