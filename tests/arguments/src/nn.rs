//! Cases of `tomograd-nn`.

use tomograd::{
    core::{DType, Device, Error, Result, Seed, Tensor},
    io::{Weights, safetensors},
    kernels::{methods::*, resample::Interpolation},
    nn::{
        Activation, AdamW, AdaptiveAveragePool, AdaptiveMaxPool, AveragePool, BufferChange, Conv, ConvNormActivation,
        ConvTranspose, DiceCe, Dropout, DropoutOptions, Group, Import, Kernel, LayerNorm, LayerNormOptions, Linear,
        LinearOptions, LocalResponseNorm, LocalResponseNormOptions, MaxPool, Module, MultiHeadAttention, Norm,
        NormKind, NormOptions, Optimizer, OptimizerState, PRelu, ParamInfo, Params, Pass, PerAxis, Recurrent,
        RecurrentKind, RecurrentOptions, Scope, Sgd, StochasticDepth, Update, Upsample, UpsampleOptions, Window,
        check_activation, gradcheck,
        init::{Distribution, Fan, Init},
        losses, schedule,
    },
};

use proptest::{prelude::Strategy, strategy::ValueTree, test_runner::TestRunner};

use crate::walk::{cases, made};

fn values(shape: &[usize]) -> Result<Tensor> {
    Tensor::normal(shape, 0.0, 1.0, Seed::new(3), DType::F32, Device::Cpu)
}

fn store() -> Params {
    Params::new(Device::Cpu, Seed::new(1))
}

fn finite(tensor: &Tensor) -> Result<bool> {
    Ok(tensor.to_vec_f64()?.iter().all(|x| x.is_finite()))
}

/// Whether a constructed layer gives finite values and a finite gradient for a suitable input: arguments that a constructor
/// accepts must work.
fn layer<M: Module>(x: &[usize], make: impl FnOnce(Scope<'_>) -> Result<M>) -> Result<bool> {
    let mut params = store();
    let module = make(params.root())?;
    let works = || {
        let pass = Pass::train(&params, Seed::new(2))?;
        let x = pass.input(&values(x)?);
        let y = module.forward(&x, &pass)?;
        let right = finite(y.value())?;
        let update = pass.backward(y.square()?.mean(..)?)?;
        Ok::<_, Error>(right && update.norm()?.is_finite())
    };
    works().or(Ok(false))
}

/// As [`layer`], for a layer without parameters.
fn function<M: Module>(x: &[usize], module: M) -> Result<bool> {
    let params = store();
    let pass = Pass::train(&params, Seed::new(2))?;
    let x = pass.input(&values(x)?);
    finite(module.forward(&x, &pass)?.value())
}

/// As [`function`]; an error is accepted, since a valid layer may be for other images.
fn pooled<M: Module>(x: &[usize], module: M) -> Result<bool> {
    function(x, module).or(Ok(true))
}

fn conv(kernel: Kernel) -> Result<bool> {
    layer(&[1, 4, 7, 8], |scope| Conv::new(scope, 4, 4, kernel))
}

fn transposed(kernel: Kernel) -> Result<bool> {
    layer(&[1, 4, 7, 8], |scope| ConvTranspose::new(scope, 4, 4, kernel))
}

/// A fixed-size list; another length is an error.
fn list<const N: usize>(numbers: &[usize]) -> Result<[usize; N]> {
    numbers.try_into().map_err(|_| Error::argument("test", "not one number for each axis"))
}

/// Imports a file with one tensor.
fn imported(
    params: &mut Params,
    (name, shape): (&str, &[usize]),
    steps: impl FnOnce(Import<'_>) -> Import<'_>,
) -> Result<()> {
    let path = std::env::temp_dir().join(format!("tomograd-arguments-import-{}", std::process::id()));
    safetensors::save(&path, &[(name.to_owned(), values(shape)?)], &Default::default())?;
    let file = Weights::open(&path)?;
    let _ = std::fs::remove_file(&path);
    params.import(&steps(Import::of(&file)?)).map(|_| ())
}

/// A store with one parameter, and an update with gradient 1 for each element.
fn learned() -> Result<(Params, Update)> {
    let mut params = store();
    let slot = params.root().parameter("w", &[3], Init::Constant(1.0))?;
    let pass = Pass::train(&params, Seed::new(1))?;
    let loss = pass.parameter(slot)?.sum(..)?;
    let update = pass.backward(loss)?;
    Ok((params, update))
}

/// One step of the optimizer from `make`: parameters must stay finite and not move uphill, or stay unchanged if the step
/// fails.
fn stepped<O: Optimizer>(make: impl FnOnce(&Params) -> Result<O>) -> Result<bool> {
    let (mut params, update) = learned()?;
    let mut optimizer = make(&params)?;
    let stepped = optimizer.step(&mut params, update);
    let value = params.get("w")?.to_vec_f64()?;
    match stepped {
        Ok(()) => Ok(value.iter().all(|x| x.is_finite() && *x <= 1.0)),
        // Arguments that a constructor accepts must work.
        Err(_) => Ok(false),
    }
}

fn one(strategy: impl Strategy<Value = Tensor>) -> Result<Tensor> {
    let tree = strategy.new_tree(&mut TestRunner::deterministic());
    tree.map(|tree| tree.current()).map_err(|reason| Error::argument("test", reason.to_string()))
}

/// Whether a schedule's factor is in [0, 1]. For an invalid `number`, any result of the formula is accepted, since
/// optimizers reject it.
fn is_factor(factor: f64, number: f64) -> bool {
    (0.0..=1.0).contains(&factor) || !(0.0..=1.0).contains(&number)
}

cases! {
    "nn::check_activation": (slope: f64 = 0.1) => {
        check_activation("activation", Activation::LeakyRelu(slope))?;
        Ok::<_, Error>(slope.abs() <= 1e30)
    };
    "nn::AdamW::new": (rate: f64 = 0.1) => {
        Ok::<_, Error>(stepped(|params| AdamW::new(params, rate))? || rate > 1e37)
    };
    "nn::AdamW::betas": (betas: [f64; 2] = [0.9, 0.999]) => {
        stepped(|params| AdamW::new(params, 0.1)?.betas(betas))
    };
    "nn::AdamW::decay": (decay: f64 = 0.1) => {
        Ok::<_, Error>(stepped(|params| AdamW::new(params, 0.1)?.decay(decay))? || decay > 1e37)
    };
    "nn::AdamW::epsilon": (epsilon: f64 = 1e-8) => {
        stepped(|params| AdamW::new(params, 0.1)?.epsilon(epsilon))
    };
    "nn::Group::rate": (rate: f64 = 0.1) => {
        Ok::<_, Error>(stepped(|params| AdamW::new(params, 0.1)?.group(|_| true, Group::new().rate(rate)))? || rate > 1e37)
    };
    "nn::Group::decay": (decay: f64 = 0.1) => {
        let stepped = stepped(|params| AdamW::new(params, 0.1)?.group(|_| true, Group::new().decay(decay)));
        Ok::<_, Error>(stepped? || decay > 1e37)
    };
    "nn::Sgd::new": (rate: f64 = 0.1) => {
        Ok::<_, Error>(stepped(|params| Sgd::new(params, rate))? || rate > 1e37)
    };
    "nn::Sgd::decay": (decay: f64 = 0.1) => {
        Ok::<_, Error>(stepped(|params| Sgd::new(params, 0.1)?.decay(decay))? || decay > 1e37)
    };
    "nn::Sgd::momentum": (momentum: f64 = 0.9) => {
        stepped(|params| Sgd::new(params, 0.1)?.momentum(momentum)?.nesterov())
            .or_else(|_| stepped(|params| Sgd::new(params, 0.1)?.momentum(momentum)))
    };
    "nn::Sgd::dampening": (dampening: f64 = 0.1) => {
        stepped(|params| Sgd::new(params, 0.1)?.momentum(0.9)?.dampening(dampening))
    };
    "nn::Optimizer::set_rate_factor": (factor: f64 = 0.5) => {
        // Factors of schedules aren't checked on assignment: the step fails and changes nothing.
        let (mut params, update) = learned()?;
        let mut optimizer = AdamW::new(&params, 0.1)?;
        made::<()>(optimizer.set_rate_factor(factor))?;
        let stepped = optimizer.step(&mut params, update);
        let value = params.get("w")?.to_vec_f64()?;
        match stepped {
            Ok(()) => Ok(value.iter().all(|x| x.is_finite() && *x <= 1.0) || factor > 1e37),
            Err(error) if value == [1.0; 3] => Err(error),
            Err(_) => Ok(false),
        }
    };
    "nn::Optimizer::load_state": (steps: u64 = 3, other: Option<u64> = Some(2), size: usize = 3) => {
        let (mut params, update) = learned()?;
        let mut optimizer = AdamW::new(&params, 0.1)?;
        let moment = Tensor::ones(&[size], DType::F32, Device::Cpu)?;
        let tensors = ["first_moment.w", "second_moment.w"].map(|name| (name.to_owned(), moment.clone())).to_vec();
        let others = other.map(|steps| ("w".to_owned(), steps)).into_iter().collect();
        optimizer.load_state(OptimizerState { tensors, steps, others })?;
        optimizer.step(&mut params, update)?;
        finite(params.get("w")?)
    };
    "nn::Conv::new": (inputs: usize = 4, outputs: usize = 4, kernel: Vec<usize> = vec![3, 3]) => {
        layer(&[1, 4, 7, 8], |scope| Conv::new(scope, inputs, outputs, &kernel)).map(|right| {
            // A layer whose sizes don't match the test's input may still be valid.
            right || inputs != 4 || kernel.len() != 2 || outputs == 0
        })
    };
    "nn::Conv::forward_activated": (slope: f64 = 0.01) => {
        let mut params = store();
        let conv = Conv::new(params.root(), 2, 2, Kernel::d2(3))?;
        let pass = Pass::eval(&params)?;
        let x = pass.input(&values(&[1, 2, 5, 6])?);
        let right = finite(conv.forward_activated(&[&x], Activation::LeakyRelu(slope), &pass)?.value())?;
        Ok::<_, Error>(right || slope.abs() > 1e37)
    };
    "nn::ConvTranspose::new": (inputs: usize = 4, outputs: usize = 4, kernel: Vec<usize> = vec![3, 3]) => {
        layer(&[1, 4, 7, 8], |scope| ConvTranspose::new(scope, inputs, outputs, &kernel))
            .map(|right| right || inputs != 4 || kernel.len() != 2 || outputs == 0)
    };
    "nn::Import::channels": (channels: usize = 3) => {
        let mut params = store();
        Conv::new(params.root(), 3, 2, Kernel::d2(3).bias(false))?;
        imported(&mut params, ("weight", &[2, 4, 3, 3]), |import| import.channels("weight", channels))?;
        Ok::<_, Error>(channels == 3 && finite(params.get("weight")?)?)
    };
    "nn::Import::head_rows": (row: usize = 1, other: Option<usize> = Some(0)) => {
        let mut params = store();
        Linear::new(params.root(), 3, 2)?;
        imported(&mut params, ("weight", &[4, 3]), |import| {
            import.skip(|name| name == "bias").head_rows("weight", &[Some(row), other]).partial()
        })?;
        Ok::<_, Error>(row < 4 && other.is_none_or(|row| row < 4) && finite(params.get("weight")?)?)
    };
    "nn::Kernel::new": (rank: usize = 2, size: usize = 3) => {
        // A kernel that doesn't fit the input may be valid for others.
        Ok::<_, Error>(conv(Kernel::new(rank, size))? || rank != 2)
    };
    "nn::Kernel::d1": (size: usize = 3) => {
        layer(&[1, 4, 7], |scope| Conv::new(scope, 4, 4, Kernel::d1(size)))
    };
    "nn::Kernel::d2": (size: Vec<usize> = vec![3, 2]) => conv(Kernel::d2(&size));
    "nn::Kernel::d3": (size: Vec<usize> = vec![3, 2, 1]) => {
        layer(&[1, 4, 4, 5, 3], |scope| Conv::new(scope, 4, 4, Kernel::d3(&size[..])))
    };
    "nn::Kernel::stride": (stride: Vec<usize> = vec![1, 2], one: usize = 2) => {
        let numbers = list::<2>(&stride)?;
        Ok::<_, Error>(conv(Kernel::d2(3).stride(numbers))? && transposed(Kernel::d2(3).stride(one))?)
    };
    "nn::Kernel::stride": (stride: Vec<usize> = vec![1, 2]) => conv(Kernel::d2(3).stride(stride));
    "nn::Kernel::padding": (padding: Vec<usize> = vec![1, 0], one: usize = 1) => {
        let numbers = list::<2>(&padding)?;
        Ok::<_, Error>(conv(Kernel::d2(3).padding(numbers))? && transposed(Kernel::d2(3).padding(one))?)
    };
    "nn::Kernel::padding": (padding: Vec<usize> = vec![1, 0]) => conv(Kernel::d2(3).padding(padding));
    "nn::Kernel::dilation": (dilation: Vec<usize> = vec![1, 2], one: usize = 2) => {
        let numbers = list::<2>(&dilation)?;
        Ok::<_, Error>(conv(Kernel::d2(3).dilation(numbers))? && transposed(Kernel::d2(3).dilation(one))?)
    };
    "nn::Kernel::dilation": (dilation: Vec<usize> = vec![1, 2]) => conv(Kernel::d2(3).dilation(dilation));
    "nn::Kernel::groups": (groups: usize = 2) => {
        Ok::<_, Error>(conv(Kernel::d2(3).groups(groups))? && transposed(Kernel::d2(3).groups(groups))?)
    };
    "nn::Kernel::weight": (bound: f64 = 0.5) => {
        let made = layer(&[1, 4, 7], |scope| Conv::new(scope, 4, 4, Kernel::d1(3).weight(Init::Uniform(bound))));
        made.map(|right| right || bound > 1e15)
    };
    "nn::Kernel::bias_filled": (bias: f64 = 0.1) => {
        let kernel = Kernel::d1(3).bias_filled(Init::Constant(bias));
        layer(&[1, 4, 7], |scope| Conv::new(scope, 4, 4, kernel)).map(|right| right || bias.abs() > 1e15)
    };
    "nn::Kernel::output_padding": (output_padding: Vec<usize> = vec![1, 0], one: usize = 1) => {
        let kernel = Kernel::d2(3).stride(2);
        let numbers = list::<2>(&output_padding)?;
        Ok::<_, Error>(
            transposed(kernel.clone().output_padding(numbers))? && transposed(kernel.output_padding(one))?,
        )
    };
    "nn::Kernel::output_padding": (output_padding: Vec<usize> = vec![1, 0]) => {
        transposed(Kernel::d2(3).stride(2).output_padding(output_padding))
    };
    "nn::MaxPool::new": (sizes: Vec<usize> = vec![2, 3], one: usize = 2) => {
        Ok::<_, Error>(pooled(&[1, 2, 4, 5], MaxPool::new(sizes)?)? && pooled(&[1, 2, 4, 5], MaxPool::new(one)?)?)
    };
    "nn::AveragePool::new": (sizes: Vec<usize> = vec![2, 3], one: usize = 2) => {
        Ok::<_, Error>(pooled(&[1, 2, 4, 5], AveragePool::new(sizes)?)? && pooled(&[1, 2, 4, 5], AveragePool::new(one)?)?)
    };
    "nn::AdaptiveMaxPool::new": (sizes: Vec<usize> = vec![2, 3], one: usize = 2) => {
        let layers = (AdaptiveMaxPool::new(sizes)?, AdaptiveMaxPool::new(one)?);
        Ok::<_, Error>(pooled(&[1, 2, 4, 5], layers.0)? && pooled(&[1, 2, 4, 5], layers.1)?)
    };
    "nn::AdaptiveAveragePool::new": (sizes: Vec<usize> = vec![2, 3], one: usize = 2) => {
        let layers = (AdaptiveAveragePool::new(sizes)?, AdaptiveAveragePool::new(one)?);
        Ok::<_, Error>(pooled(&[1, 2, 4, 5], layers.0)? && pooled(&[1, 2, 4, 5], layers.1)?)
    };
    "nn::Window::new": (sizes: Vec<usize> = vec![2, 3]) => {
        pooled(&[1, 2, 4, 5], MaxPool::new(Window::new(sizes))?)
    };
    "nn::Window::stride": (stride: Vec<usize> = vec![2, 1]) => {
        pooled(&[1, 2, 4, 5], MaxPool::new(Window::new(2).stride(stride))?)
    };
    "nn::Window::padding": (padding: Vec<usize> = vec![1, 0]) => {
        pooled(&[1, 2, 4, 5], AveragePool::new(Window::new(2).padding(padding))?)
    };
    "nn::Window::dilation": (dilation: Vec<usize> = vec![2, 1]) => {
        pooled(&[1, 2, 4, 5], MaxPool::new(Window::new(2).dilation(dilation))?)
    };
    "nn::ConvNormActivation::new": (channels: usize = 4, groups: usize = 2) => {
        layer(&[1, 4, 7, 8], |mut scope| {
            let conv = Conv::new(scope.at("0"), 4, 4, [3, 3])?;
            let norm = Norm::new(scope.at("1"), channels, NormKind::Group(groups))?;
            made::<ConvNormActivation>(ConvNormActivation::new(conv, norm))
        })
    };
    "nn::DiceCe::with_class_weights": (weights: Vec<f64> = vec![0.5, 1.0, 2.0]) => {
        let loss = DiceCe::default().with_class_weights(&weights)?;
        let params = store();
        let pass = Pass::eval(&params)?;
        let labels = Tensor::from_slice(&[0i64, 1, 2, 1, 0, 1, 2, 2], &[2, 4], Device::Cpu)?;
        loss.forward(&pass.input(&values(&[2, 3, 4])?), &labels)?.value().to_scalar()
    };
    "nn::Dropout::new": (probability: f64 = 0.5) => {
        layer(&[2, 3], |mut scope| {
            Ok::<_, Error>(Both(Dropout::new(scope.at("drop"), probability)?, Linear::new(scope, 3, 3)?))
        })
    };
    "nn::DropoutOptions::new": (probability: f64 = 0.5) => {
        let options = DropoutOptions::new(probability).whole_channels(true);
        layer(&[2, 3, 3], |mut scope| {
            Ok::<_, Error>(Both(Dropout::new(scope.at("drop"), options)?, Linear::new(scope, 3, 3)?))
        })
    };
    "nn::Recurrent::new": (inputs: usize = 3) => {
        let options = RecurrentOptions::new(RecurrentKind::Gru, 4);
        layer(&[2, 3, inputs], |scope| Recurrent::new(scope, inputs, options))
    };
    "nn::RecurrentOptions::new": (hidden: usize = 4) => {
        let options = RecurrentOptions::new(RecurrentKind::Lstm, hidden).bidirectional(true);
        layer(&[2, 3, 3], |scope| Recurrent::new(scope, 3, options))
    };
    "nn::RecurrentOptions::layers": (layers: usize = 2) => {
        let options = RecurrentOptions::new(RecurrentKind::Lstm, 4).layers(layers);
        layer(&[2, 3, 3], |scope| Recurrent::new(scope, 3, options))
    };
    "nn::RecurrentOptions::dropout": (probability: f64 = 0.5) => {
        let options = RecurrentOptions::new(RecurrentKind::Gru, 4).layers(2).dropout(probability);
        layer(&[2, 3, 3], |scope| Recurrent::new(scope, 3, options))
    };
    "nn::StochasticDepth::new": (probability: f64 = 0.5) => {
        layer(&[2, 3], |mut scope| {
            Ok::<_, Error>(Both(StochasticDepth::new(scope.at("drop"), probability)?, Linear::new(scope, 3, 3)?))
        })
    };
    "nn::LayerNorm::new": (shape: Vec<usize> = vec![3, 4]) => {
        layer(&[&[2], &shape[..]].concat(), |scope| LayerNorm::new(scope, &shape))
    };
    "nn::LayerNormOptions::new": (size: usize = 3) => {
        layer(&[2, size], |scope| LayerNorm::new(scope, LayerNormOptions::new(size)))
    };
    "nn::LayerNormOptions::epsilon": (epsilon: f64 = 1e-5) => {
        layer(&[2, 3], |scope| LayerNorm::new(scope, LayerNormOptions::new(3).epsilon(epsilon)))
    };
    "nn::Linear::new": (inputs: usize = 3, outputs: usize = 2) => {
        layer(&[2, inputs], |scope| Linear::new(scope, inputs, outputs)).map(|right| right || outputs == 0)
    };
    "nn::LinearOptions::new": (outputs: usize = 2) => {
        layer(&[2, 3], |scope| Linear::new(scope, 3, LinearOptions::new(outputs).bias(false)))
            .map(|right| right || outputs == 0)
    };
    "nn::LinearOptions::weight": (bound: f64 = 0.5) => {
        let made = layer(&[2, 3], |scope| Linear::new(scope, 3, LinearOptions::new(2).weight(Init::Uniform(bound))));
        // Numbers beyond the range of f32 give non-finite results, as in plain arithmetic.
        made.map(|right| right || bound > 1e15)
    };
    "nn::LinearOptions::bias_filled": (bias: f64 = 0.1) => {
        let options = LinearOptions::new(2).bias_filled(Init::Constant(bias));
        layer(&[2, 3], |scope| Linear::new(scope, 3, options)).map(|right| right || bias.abs() > 1e15)
    };
    "nn::LocalResponseNorm::new": (channels: usize = 5) => pooled(&[2, 6, 3], LocalResponseNorm::new(channels)?);
    "nn::LocalResponseNormOptions::new": (channels: usize = 4) => {
        pooled(&[2, 6, 3], LocalResponseNorm::new(LocalResponseNormOptions::new(channels))?)
    };
    "nn::LocalResponseNormOptions::alpha": (alpha: f64 = 1e-4) => {
        function(&[2, 6, 3], LocalResponseNorm::new(LocalResponseNormOptions::new(5).alpha(alpha))?)
    };
    "nn::LocalResponseNormOptions::beta": (beta: f64 = 0.75) => {
        function(&[2, 6, 3], LocalResponseNorm::new(LocalResponseNormOptions::new(5).beta(beta))?)
    };
    "nn::LocalResponseNormOptions::k": (k: f64 = 2.0) => {
        function(&[2, 6, 3], LocalResponseNorm::new(LocalResponseNormOptions::new(5).k(k))?)
    };
    "nn::MultiHeadAttention::new": (size: usize = 6, heads: usize = 3) => {
        layer(&[2, 5, size], |scope| MultiHeadAttention::new(scope, size, heads))
    };
    "nn::Norm::after": (groups: usize = 2, momentum: f64 = 0.1) => {
        layer(&[2, 4, 5, 5], |mut scope| {
            let conv = Conv::new(scope.at("conv"), 4, 4, [1, 1])?;
            Norm::after(scope.at("group"), &conv, NormKind::Group(groups))?;
            Norm::after(scope.at("batch"), &conv, NormOptions::new(NormKind::Batch).momentum(momentum))
        })
    };
    "nn::Norm::new": (channels: usize = 4, groups: usize = 2) => {
        Ok::<_, Error>(
            layer(&[2, channels, 3], |scope| Norm::new(scope, channels, NormKind::Group(groups)))?
                && layer(&[2, channels, 3], |scope| Norm::new(scope, channels, NormKind::Batch))?,
        )
    };
    "nn::NormOptions::weight": (gamma: f64 = 0.5) => {
        let options = NormOptions::new(NormKind::Instance).weight(Init::Constant(gamma));
        layer(&[2, 4, 3], |scope| Norm::new(scope, 4, options)).map(|right| right || gamma.abs() > 1e15)
    };
    "nn::NormOptions::new": (channels: usize = 4, groups: usize = 2) => {
        let right = |kind| {
            layer(&[2, channels, 3], |mut scope| {
                let options = NormOptions::new(kind).affine(false);
                Ok::<_, Error>(Both(Norm::new(scope.at("norm"), channels, options)?, Linear::new(scope, 3, 3)?))
            })
        };
        // Without parameters, a layer may have more channels than an image here can have.
        Ok::<_, Error>(right(NormKind::Group(groups))? && right(NormKind::Instance)? || channels >= 1 << 40)
    };
    "nn::NormOptions::activation": (slope: f64 = 0.1) => {
        let options = NormOptions::new(NormKind::Instance).activation(Activation::LeakyRelu(slope));
        layer(&[2, 4, 3], |scope| Norm::new(scope, 4, options)).map(|right| right || slope.abs() > 1e15)
    };
    "nn::NormOptions::epsilon": (epsilon: f64 = 1e-5) => {
        layer(&[2, 4, 3], |scope| Norm::new(scope, 4, NormOptions::new(NormKind::Instance).epsilon(epsilon)))
    };
    "nn::NormOptions::momentum": (momentum: f64 = 0.1) => {
        // The running statistics must be right too.
        let mut params = store();
        let norm = Norm::new(params.root(), 2, NormOptions::new(NormKind::Batch).momentum(momentum))?;
        let mut optimizer = Sgd::new(&params, 0.1)?;
        let pass = Pass::train(&params, Seed::new(1))?;
        let x = pass.input(&values(&[2, 2, 3])?);
        let loss = norm.forward(&x, &pass)?.square()?.mean(..)?;
        let update = pass.backward(loss)?;
        optimizer.step(&mut params, update)?;
        let variance = params.get("running_var")?.to_vec_f64()?;
        Ok::<_, Error>(variance.iter().all(|x| x.is_finite() && *x >= 0.0) && finite(params.get("running_mean")?)?)
    };
    "nn::PRelu::new": (channels: usize = 3) => layer(&[2, channels, 2], |scope| PRelu::new(scope, channels));
    "nn::ParamInfo {}": (shape: Vec<usize> = vec![2, 3]) => {
        ParamInfo { name: "w", shape: &shape, frozen: false }.is_matrix() == (shape.len() > 1)
    };
    "nn::Params::ema_update": (decay: f64 = 0.9) => {
        let mut params = store();
        params.root().parameter("w", &[3], Init::Normal(1.0))?;
        let mut average = params.replica();
        average.set("w", values(&[3])?)?;
        let before = average.get("w")?.to_vec_f64()?;
        let updated = average.ema_update(&params, decay);
        let value = average.get("w")?.to_vec_f64()?;
        let (own, other) = (before.clone(), params.get("w")?.to_vec_f64()?);
        match updated {
            // A weighted mean is between its two values.
            Ok(()) => Ok(value
                .iter()
                .zip(own.iter().zip(&other))
                .all(|(x, (a, b))| (a.min(*b) - 1e-6..=a.max(*b) + 1e-6).contains(x))),
            Err(error) if value == before => Err(error),
            Err(_) => Ok(false),
        }
    };
    "nn::Params::new": (device: Device = Device::Cpu) => {
        let mut params = Params::new(device, Seed::new(1));
        params.root().parameter("w", &[2], Init::Normal(1.0))?;
        finite(params.get("w")?)
    };
    "nn::Pass::fork": (index: u64 = 1) => {
        let mut params = store();
        let dropout = Dropout::new(params.root().at("drop"), 0.5)?;
        let pass = Pass::train(&params, Seed::new(1))?;
        let fork = pass.fork(index);
        let x = pass.input(&Tensor::ones(&[64], DType::F32, Device::Cpu)?);
        let (a, b) = (dropout.forward(&x, &pass)?, dropout.forward(&x, &fork)?);
        // Each index must give a different stream.
        let [a, b] = [a, b].map(|y| y.value().to_vec_f64());
        Ok::<_, Error>(a? != b?)
    };
    "nn::Pass::update_buffer": (weight: f64 = 0.5, count: i64 = 2) => {
        let mut params = store();
        let slot = params.root().parameter("w", &[3], Init::Constant(1.0))?;
        let average = params.root().buffer("average", Tensor::zeros(&[2], DType::F32, Device::Cpu)?)?;
        let steps = params.root().buffer("steps", Tensor::from_slice(&[1i64], &[], Device::Cpu)?)?;
        let pass = Pass::train(&params, Seed::new(1))?;
        let value = Tensor::ones(&[2], DType::F32, Device::Cpu)?;
        pass.update_buffer(average, BufferChange::Blend { value, weight })?;
        pass.update_buffer(steps, BufferChange::Count(count))?;
        let loss = pass.parameter(slot)?.sum(..)?;
        let update = pass.backward(loss)?;
        let changed = |name| {
            update.buffer(&params, name)?.ok_or_else(|| Error::argument("test", "a buffer that changed isn't there"))
        };
        let average = changed("average")?.to_vec_f64()?;
        Ok::<_, Error>(
            (0.0..=1.0).contains(&weight)
                && average.iter().all(|x| (x - weight).abs() < 1e-6)
                && Some(changed("steps")?.to_vec::<i64>()?[0]) == count.checked_add(1),
        )
    };
    "nn::Scope::constant_buffer": (shape: Vec<usize> = vec![2, 3], value: f64 = 1.0) => {
        let mut params = store();
        let made = params.root().constant_buffer("b", &shape, value);
        match made {
            Ok(_) => Ok(params
                .get("b")?
                .to_vec::<f32>()?
                .iter()
                .all(|x| x.to_bits() == (value as f32).to_bits() || x.is_nan() && value.is_nan())),
            // Detects a partially created parameter.
            Err(error) if params.state().count() == 0 => Err(error),
            Err(_) => Ok(false),
        }
    };
    "nn::Scope::parameter": (shape: Vec<usize> = vec![2, 3], deviation: f64 = 1.0) => {
        let mut params = store();
        let made = params.root().parameter("w", &shape, Init::Normal(deviation));
        match made {
            Ok(_) => finite(params.get("w")?).map(|right| right || deviation > 1e37),
            Err(error) if params.state().count() == 0 => Err(error),
            Err(_) => Ok(false),
        }
    };
    "nn::Scope::stage": (channels: usize = 2, reduction: Vec<usize> = vec![2, 4]) => {
        let mut params = store();
        let stage = params.root().stage("stage", channels, &reduction)?;
        let pass = Pass::eval(&params)?.keep_stages(["stage"])?;
        pass.stage(stage, pass.input(&values(&[1, 2, 2, 2])?))?;
        let info = &params.stages()[0];
        Ok::<_, Error>(
            info.channels() == channels && *info.reduction() == PerAxis::Each(reduction) && pass.stages()?.len() == 1,
        )
    };
    "nn::Update::clip_norm": (most: f64 = 1.0) => {
        let (_, update) = learned()?;
        let update = update.clip_norm(most)?;
        let gradient = update.gradient("w").map(Tensor::to_vec_f64).transpose()?.unwrap_or_default();
        Ok::<_, Error>(update.norm()? <= most + 1e-6 && gradient.iter().all(|x| x.is_finite() && *x >= 0.0))
    };
    "nn::Update::scale": (factor: f64 = 0.5) => {
        let (_, update) = learned()?;
        let update = update.scale(factor)?;
        let gradient = update.gradient("w").map(Tensor::to_vec::<f32>).transpose()?.unwrap_or_default();
        Ok::<_, Error>(gradient.iter().all(|x| *x == factor as f32))
    };
    "nn::Upsample::new": (factors: Vec<usize> = vec![2, 3]) => {
        function(&[1, 2, 3, 4], Upsample::new(&factors)?)
    };
    "nn::UpsampleOptions::new": (factor: usize = 2) => {
        function(&[1, 2, 3, 4], Upsample::new(UpsampleOptions::new(factor).mode(Interpolation::Linear))?)
    };
    "nn::gradcheck::check_with": (
        step: f64 = 1e-5,
        tolerance: f64 = 1e-6,
        elementwise: usize = 32,
        directions: u64 = 4,
    ) => {
        let options = gradcheck::Options { step, tolerance, elementwise, directions, seed: Seed::new(1) };
        gradcheck::check_with(|vars| vars[0].square(), &[values(&[3])?], options)
            .map(|()| directions > 0 && step > 0.0 && tolerance > 0.0)
    };
    "nn::gradcheck::tensors": (shape: Vec<usize> = vec![2, 3]) => {
        Ok::<_, Error>(one(gradcheck::tensors(shape.clone()))?.shape() == shape)
    };
    "nn::gradcheck::images": (first: usize = 1, last: usize = 3) => {
        Ok::<_, Error>((first..=last.max(first)).contains(&(one(gradcheck::images(first..=last))?.rank() - 2)))
    };
    "nn::gradcheck::images_of": (least: usize = 1, most: usize = 4) => {
        {
            Ok::<_, Error>(
                (least..=most.max(least)).contains(&one(gradcheck::images_of(1..=2, least..=most))?.shape()[1]),
            )
        }
    };
    "nn::init::Init {}": (number: f64 = 0.5, fan: usize = 9) => {
        let scaled = |fan, distribution| Init::Scaled { gain: number, fan, distribution };
        let made = [
            Init::Constant(number),
            Init::Uniform(number),
            Init::Normal(number),
            Init::NormalAround { mean: number, deviation: 0.1 },
            Init::NormalAround { mean: 1.0, deviation: number },
            Init::TruncatedNormal(number),
            Init::FanIn(fan),
            Init::Icnr { copies: fan.min(5) },
            Init::KaimingNormal(fan),
            scaled(Fan::In, Distribution::Normal),
            scaled(Fan::Out, Distribution::TruncatedNormal),
            scaled(Fan::Average, Distribution::Uniform),
        ];
        let made = made.map(|init| {
            Ok::<_, Error>(finite(&init.tensor(&[5, 2], Seed::new(1), DType::F32, Device::Cpu)?)? || number.abs() > 1e37)
        });
        made.into_iter().collect::<Result<Vec<bool>>>()
    };
    "nn::init::Init::tensor": (shape: Vec<usize> = vec![2, 3], device: Device = Device::Cpu) => {
        let made = [Init::TruncatedNormal(1.0), Init::Constant(1.0), Init::FanIn(3)].map(|init| {
            let tensor = init.tensor(&shape, Seed::new(1), DType::F64, device)?;
            Ok::<_, Error>(tensor.shape() == shape && finite(&tensor)?)
        });
        made.into_iter().collect::<Result<Vec<bool>>>()
    };
    "nn::losses::smooth_l1": (beta: f64 = 1.0) => {
        let params = store();
        let pass = Pass::eval(&params)?;
        let (x, y) = (pass.input(&values(&[4])?), pass.input(&Tensor::zeros(&[4], DType::F32, Device::Cpu)?));
        losses::smooth_l1(&x, &y, beta)?.value().to_scalar()
    };
    "nn::schedule::cosine": (step: u64 = 3, total: u64 = 10, least: f64 = 0.1) => {
        is_factor(schedule::cosine(step, total, least), least)
    };
    "nn::schedule::linear_warmup": (step: u64 = 3, steps: u64 = 10, start: f64 = 0.1) => {
        let factor = schedule::linear_warmup(step, steps, start);
        // Without a warm-up, the factor is 1.
        is_factor(factor, start) && (steps > 0 || factor == 1.0 || !start.is_finite())
    };
    "nn::schedule::one_cycle": (step: u64 = 3, total: u64 = 10) => is_factor(schedule::one_cycle(step, total), 0.5);
    "nn::schedule::polynomial": (step: u64 = 3, total: u64 = 10, power: f64 = 0.9) => {
        // A nonnegative power of a number from 0 to 1 is from 0 to 1.
        is_factor(schedule::polynomial(step, total, power), if power >= 0.0 { 0.5 } else { power })
    };
    "nn::schedule::step": (step: u64 = 3, every: u64 = 2, gamma: f64 = 0.1) => {
        is_factor(schedule::step(step, every, gamma), gamma)
    };
}

/// A chain of two modules.
struct Both<A, B>(A, B);

impl<A: Module, B: Module> Module for Both<A, B> {
    fn forward(&self, x: &tomograd::autodiff::Var, pass: &Pass) -> Result<tomograd::autodiff::Var> {
        let x = self.0.forward(x, pass)?;
        self.1.forward(&x, pass)
    }
}
