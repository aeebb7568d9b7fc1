//! Every layer's gradients of its input and its parameters, against central differences in f64.

use proptest::prelude::*;
use tomograd_core::{DType, Device, Result, Seed, Tensor};
use tomograd_kernels::methods::*;
use tomograd_nn::{
    Activation, AdaptiveAveragePool, AdaptiveMaxPool, AveragePool, Conv, ConvNormActivation, ConvTranspose, Dropout,
    Interpolate, Interpolation, Kernel, LayerNorm, LayerNormOptions, Linear, LocalResponseNorm,
    LocalResponseNormOptions, LogSoftmax, MaxPool, Module, Norm, NormKind, NormOptions, PRelu, Params, Pass, Scope,
    Sequential, Softmax, Upsample, UpsampleOptions, Window, gradcheck,
};

/// Layers that take (N, 4, spatial...), by name.
const LAYERS: [&str; 20] = [
    "conv",
    "conv, strided groups",
    "conv, transposed",
    "conv, norm, activation",
    "batch norm",
    "instance norm",
    "group norm",
    "layer norm",
    "local response norm",
    "linear",
    "prelu",
    "activation",
    "dropout",
    "max pool",
    "average pool",
    "adaptive pools",
    "interpolate",
    "upsample",
    "softmax",
    "sequential",
];

fn layer(name: &str, scope: Scope<'_>, x: &Tensor) -> Result<Box<dyn Module>> {
    let mut scope = scope;
    let (rank, last) = (x.rank() - 2, x.shape()[x.rank() - 1]);
    let (three, two) = (vec![3; rank], vec![2; rank]);
    Ok(match name {
        "conv" => Box::new(Conv::new(scope, 4, 3, Kernel::new(rank, 3).padding(1))?),
        "conv, strided groups" => {
            Box::new(Conv::new(scope, 4, 6, Kernel::new(rank, 2).stride(2).padding(1).groups(2).bias(false))?)
        }
        "conv, transposed" => Box::new(ConvTranspose::new(scope, 4, 3, Kernel::new(rank, 2).stride(2))?),
        "conv, norm, activation" => {
            let conv = Conv::new(scope.at("conv"), 4, 6, Kernel::new(rank, 3).padding(1))?;
            let norm = Norm::new(
                scope.at("norm"),
                6,
                NormOptions::new(NormKind::Group(3)).activation(Activation::Silu).epsilon(0.1),
            )?;
            Box::new(ConvNormActivation::new(conv, norm)?)
        }
        "batch norm" => Box::new(Norm::new(scope, 4, NormOptions::new(NormKind::Batch).epsilon(0.1))?),
        "instance norm" => Box::new(Norm::new(
            scope,
            4,
            NormOptions::new(NormKind::Instance).activation(Activation::Gelu).epsilon(0.1),
        )?),
        "group norm" => Box::new(Norm::new(scope, 4, NormOptions::new(NormKind::Group(2)).epsilon(0.1))?),
        "layer norm" => Box::new(LayerNorm::new(scope, LayerNormOptions::new(last).epsilon(0.1))?),
        "local response norm" => {
            let options = LocalResponseNormOptions::new(if rank == 2 { 2 } else { 3 }).alpha(0.5).k(1.0);
            Box::new(LocalResponseNorm::new(options)?)
        }
        "linear" => Box::new(Linear::new(scope, last, 3)?),
        "prelu" => Box::new(PRelu::new(scope, 4)?),
        "activation" => Box::new(Activation::Mish),
        "dropout" => Box::new(Dropout::new(scope, 0.3)?),
        "max pool" => Box::new(MaxPool::new(Window::new(2).padding(1).ceil_mode(true))?),
        "average pool" => Box::new(AveragePool::new(Window::new(two).padding(1))?),
        "adaptive pools" => {
            Box::new(Sequential::new().then(AdaptiveMaxPool::new(three)?).then(AdaptiveAveragePool::new(2)?))
        }
        "interpolate" => Box::new(Interpolate { size: vec![4; rank], mode: Interpolation::LinearCorners }),
        "upsample" => Box::new(Upsample::new(UpsampleOptions::new(2).mode(Interpolation::Linear))?),
        "softmax" => Box::new(Sequential::new().then(Softmax { axis: 1 }).then(LogSoftmax { axis: rank + 1 })),
        "sequential" => Box::new(
            Sequential::new()
                .then(Conv::new(scope.at("0"), 4, 2, Kernel::new(rank, 3).padding(1))?)
                .then(Activation::Softplus)
                .then(Conv::new(scope.at("1"), 2, 1, Kernel::new(rank, 1))?),
        ),
        _ => unreachable!("{name} is in the list"),
    })
}

/// Numbers in the order of those of `x`, a step apart and as far from 0: differences across a kink mean nothing.
fn spread(x: &Tensor) -> Tensor {
    let values = x.to_vec::<f64>().unwrap();
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut spread = vec![0.0; values.len()];
    for (rank, &place) in order.iter().enumerate() {
        spread[place] = (rank as f64 - (values.len() / 2) as f64 + 0.5) * 0.05;
    }
    Tensor::from_slice(&spread, x.shape(), Device::Cpu).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) })]
    #[test]
    fn of_every_layer(x in gradcheck::images_of(1..=3, 4..=4)) {
        for name in LAYERS {
            let kinks = ["prelu", "max pool", "adaptive pools"].contains(&name);
            let x = if kinks { spread(&x) } else { x.clone() };
            let alone = x.shape()[2..].iter().product::<usize>() == 1;
            if alone && ["batch norm", "instance norm"].contains(&name) {
                // Statistics of a single voxel are refused.
                continue;
            }
            gradcheck::module(|scope| layer(name, scope, &x), &x)
                .map_err(|error| TestCaseError::fail(format!("{name}: {error}")))?;
        }
    }
}

#[test]
fn a_wrong_gradient_is_found() {
    /// A layer that takes its scale out of the graph.
    struct Detached(Linear);
    impl Module for Detached {
        fn forward(&self, x: &tomograd_autodiff::Var, pass: &tomograd_nn::Pass) -> Result<tomograd_autodiff::Var> {
            self.0.forward(x, pass)?.mul(&x.detach())
        }
    }
    let x = Tensor::normal(&[2, 3], 0.0, 1.0, Seed::new(2), DType::F64, Device::Cpu).unwrap();
    assert!(gradcheck::module(|scope| Ok(Detached(Linear::new(scope, 3, 3)?)), &x).is_err());
}

/// What PyTorch 2.15 gives.
#[test]
fn a_prelu_keeps_infinite_numbers() {
    let mut params = Params::new(Device::Cpu, Seed::new(1)).with_dtype(DType::F64);
    let layer = PRelu::new(params.root(), 1).unwrap();
    let gradients = |x: &[f64]| {
        let pass = Pass::train(&params, Seed::new(0)).unwrap();
        let x = pass.input_with_gradient(&Tensor::from_slice(x, &[1, 1, x.len()], Device::Cpu).unwrap()).unwrap();
        let y = layer.forward(&x, &pass).unwrap();
        let values = y.value().to_vec_f64().unwrap();
        let update = pass.backward(y.sum(..).unwrap()).unwrap();
        let of_input = update.input_gradient(&x).unwrap().to_vec_f64().unwrap();
        (values, of_input, update.gradient("weight").unwrap().to_vec_f64().unwrap())
    };
    let infinite = f64::INFINITY;
    let (values, of_input, of_weight) = gradients(&[infinite, 2.0, -3.0, 0.0]);
    assert_eq!(values, [infinite, 2.0, -0.75, 0.0]);
    assert_eq!((of_input, of_weight), (vec![1.0, 1.0, 0.25, 0.25], vec![-3.0]));
    assert_eq!(gradients(&[-infinite, 1.0]).0, [-infinite, 1.0]);
    assert!(gradients(&[f64::NAN, 1.0]).0[0].is_nan());
}
