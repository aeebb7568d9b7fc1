//! Fifth task: weights of another program. A MeshNet trained and saved by PyTorch (`tests/golden/meshnet.py`) segments a
//! scan.
//!
//!     cargo run --release --example 5_weights

use std::path::Path;
use tomograd::{
    pipeline::{alignment, evaluate_volumes},
    prelude::*,
};

/// MeshNet (Fedorov et al. 2017): convolutions with constant width and increasing dilation. Names as in PyTorch's
/// `nn.Sequential`.
pub fn meshnet(mut scope: Scope, width: usize, classes: usize) -> Result<Sequential> {
    let (mut net, mut channels) = (Sequential::new(), 1);
    for (block, dilation) in [1, 2, 4, 2, 1].into_iter().enumerate() {
        let kernel = Kernel::d3(3).padding(dilation).dilation(dilation);
        let norm = NormOptions::new(NormKind::Batch).activation(Activation::Relu);
        net = net.then(Conv::new(scope.at(block).at(0), channels, width, kernel)?).then(Norm::new(
            scope.at(block).at(1),
            width,
            norm,
        )?);
        channels = width;
    }
    Ok(net.then(Conv::new(scope.at(5), width, classes, Kernel::d3(1))?))
}

/// Loads the weights. Names in the file start with the attribute that held the network.
pub fn load(params: &mut Params, file: &Path) -> Result<ImportReport> {
    params.import(&Import::of(&Weights::open(file)?)?.strip_prefix("model."))
}

fn main() -> Result<()> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data");
    let mut params = Params::new(Device::Cpu, Seed::new(0));
    let net = meshnet(params.root(), 8, 3)?;
    load(&mut params, &data.join("meshnet.safetensors"))?;

    let preparation = Preparation::new([40, 56, 40], ["background", "anterior", "posterior"])?.orientation("RAS")?;
    let scan = Volume::read(data.join("hippocampus/images/hippocampus_343.nii.gz"))?;
    let mask = preparation.segment(&scan, |patches| {
        let pass = Pass::eval(&params)?;
        Ok(net.forward(&pass.input(patches), &pass)?.into_value())
    })?;
    let truth = Volume::read(data.join("hippocampus/labels/hippocampus_343.nii.gz"))?;
    for (class, metrics) in preparation.foreground().zip(evaluate_volumes(&mask, &truth, 3, alignment::TOLERANCE)?) {
        println!("{class}: Dice {:.3}", metrics.dice);
    }
    Ok(())
}
