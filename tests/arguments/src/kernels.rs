//! Cases of `tomograd-kernels`.

use std::{mem::MaybeUninit, ops::Range, sync::Mutex};

use tomograd::{
    core::{DType, Device, Error, ErrorKind, Result, Seed, Tensor},
    kernels::{
        Context, Cost, Forward, InPlace, Meta, Op, Precision, Recompute, Saved,
        attention::Attention,
        check,
        conv::{
            Conv, ConvActivation, ConvNormActivation, ConvShape, ConvTranspose,
            cpu::{self, Epilogue, Inputs, Outputs, Path},
            reference,
        },
        cumulative::CumulativeSum,
        dropout::Dropout,
        elementwise::{BinaryFunction, Chain, Function, Increment, Step},
        index::{Concat, Gather, IndexSelect, OneHot, Pad, PadMode, ScatterAdd},
        loss::DiceCe,
        matmul,
        matmul::cpu::{GemmShape, Start, View as Matrix},
        norm::{LayerNorm, Moments, Norm, Statistics},
        optim,
        parallel::{
            Grid, Order, PartialSlots, Partition, Settings, parallel_for, threads, with_settings, with_threads,
        },
        pool::{AdaptiveAveragePool, AdaptiveMaxPool, AveragePool, MaxPool},
        reduce::{self, ArgMax, Combine, Reduce},
        resample::{Interpolate, Interpolation},
        run, run_backward, run_in_place, run_recompute,
        simd::{Isa, Kernel, Lanes16, Real, Simd, Vector, dispatch, dot, math, sum},
        softmax::{LogSoftmax, Softmax},
        sort::Sort,
        testing, trace,
        view::View,
    },
};

use crate::walk::cases;

/// Distinct numbers between −1 and 1.
fn values(shape: &[usize]) -> Result<Tensor> {
    let count = shape.iter().product::<usize>();
    let values: Vec<f32> = (0..count).map(|i| (i as f32 * 0.7 + 0.3).sin()).collect();
    Tensor::from_slice(&values, shape, Device::Cpu)
}

fn labels(values: &[i64], shape: &[usize]) -> Result<Tensor> {
    Tensor::from_slice(values, shape, Device::Cpu)
}

fn meta(shape: &[usize]) -> Meta {
    Meta { shape: shape.to_vec(), dtype: DType::F32, device: Device::Cpu }
}

fn saved_of(op: &dyn Op, inputs: &[Tensor], forward: &Forward) -> Saved {
    Saved::new(op, &inputs.iter().collect::<Vec<_>>(), forward)
}

/// The outputs, and the gradients of all floating-point inputs.
fn both(op: &dyn Op, inputs: &[Tensor]) -> Result<(Vec<Tensor>, Vec<Tensor>)> {
    let context = Context::default();
    let forward = run(op, &inputs.iter().collect::<Vec<_>>(), &context)?;
    let cotangents = forward
        .outputs
        .iter()
        .map(|y| y.dtype().is_float().then(|| Tensor::ones(y.shape(), y.dtype(), y.device())).transpose())
        .collect::<Result<Vec<_>>>()?;
    let needed: Vec<bool> = inputs.iter().map(|x| x.dtype().is_float()).collect();
    let gradients = run_backward(op, saved_of(op, inputs, &forward), cotangents, &needed, &context)?;
    Ok((forward.outputs, gradients.into_iter().flatten().collect()))
}

fn finite(tensors: &[Tensor]) -> Result<bool> {
    Ok(tensors.iter().map(Tensor::to_vec_f64).collect::<Result<Vec<_>>>()?.iter().flatten().all(|x| x.is_finite()))
}

/// Whether an operation's outputs and gradients are finite, and output 0 has `shape`.
fn gives(op: &dyn Op, inputs: &[Tensor], shape: &[usize]) -> Result<bool> {
    let (outputs, gradients) = both(op, inputs)?;
    Ok(outputs[0].shape() == shape && finite(&outputs)? && finite(&gradients)?)
}

/// As [`gives`], for any shape.
fn works(op: &dyn Op, inputs: &[Tensor]) -> Result<bool> {
    let (outputs, gradients) = both(op, inputs)?;
    Ok(finite(&outputs)? && finite(&gradients)?)
}

/// Functions for use within chunks must run in a chunk, where violated contracts become errors.
fn in_a_chunk(body: impl Fn() + Sync) -> Result<bool> {
    parallel_for(1, 1, |_| body()).map(|()| true).map_err(|error| match error.kind() {
        ErrorKind::Panic => Error::argument("chunk", error.to_string()),
        _ => error,
    })
}

fn cost(flops: f64, bytes: f64) -> Cost {
    let mut cost = Cost::default();
    (cost.flops, cost.bytes) = (flops, bytes);
    cost
}

fn conv_shape() -> ConvShape {
    ConvShape {
        batch: 1,
        groups: 1,
        in_channels: 2,
        out_channels: 3,
        input: [1, 5, 6],
        kernel: [1, 3, 3],
        stride: [1, 1, 1],
        padding: [0, 1, 1],
        dilation: [1, 1, 1],
        precision: Precision::Strict,
    }
}

/// The shape with one number of each field replaced.
fn varied(sizes: &[usize], spatial: &[[usize; 3]]) -> ConvShape {
    let [batch, groups, in_channels, out_channels] = sizes[..] else { unreachable!() };
    let [input, kernel, stride, padding, dilation] = spatial[..] else { unreachable!() };
    ConvShape { batch, groups, in_channels, out_channels, input, kernel, stride, padding, dilation, ..conv_shape() }
}

/// Values for a checked shape, if it is small enough to be computed here.
fn numbers(count: usize) -> Result<Vec<f32>> {
    if count > 1 << 22 {
        return Err(Error::new(ErrorKind::OutOfMemory, "test", "more than this test computes"));
    }
    Ok((0..count).map(|i| (i as f32 * 0.3).cos()).collect())
}

fn room(count: usize) -> Result<Vec<MaybeUninit<f32>>> {
    numbers(count).map(|numbers| numbers.into_iter().map(MaybeUninit::new).collect())
}

fn all_finite(numbers: &[MaybeUninit<f32>]) -> bool {
    // SAFETY: `room` wrote every number.
    numbers.iter().all(|x| unsafe { x.assume_init() }.is_finite())
}

/// All functions of a convolution on every suitable path; `slack` is added to the lengths of all slices.
fn convolve(shape: &ConvShape, path: Option<Path>) -> Result<bool> {
    shape.check()?;
    let (x, w) = (numbers(shape.input_count())?, numbers(shape.weight_count())?);
    let dy = numbers(shape.output_count())?;
    let (mut y, mut dx, mut dw) = (room(dy.len())?, room(x.len())?, room(w.len())?);
    let (inputs, gradient) = (Inputs::one(&x, shape.in_channels), Inputs::one(&dy, shape.out_channels));
    match path {
        Some(path) => {
            path.forward(shape, inputs, &w, Epilogue::default(), Outputs::one(&mut y, shape.out_channels))?;
            path.backward_data(shape, &dy, &w, Outputs::one(&mut dx, shape.in_channels))?;
            path.transposed_forward(
                shape,
                gradient,
                &w,
                Epilogue::default(),
                Outputs::one(&mut dx, shape.in_channels),
            )?;
            path.backward_weights(shape, inputs, &dy, &mut dw)?;
        }
        None => {
            cpu::forward(shape, inputs, &w, Epilogue::default(), Outputs::one(&mut y, shape.out_channels))?;
            cpu::backward_data(shape, &dy, &w, Outputs::one(&mut dx, shape.in_channels))?;
            cpu::transposed_forward(
                shape,
                gradient,
                &w,
                Epilogue::default(),
                Outputs::one(&mut dx, shape.in_channels),
            )?;
            cpu::backward_weights(shape, inputs, &dy, &mut dw)?;
            let mut db = room(shape.out_channels)?;
            cpu::backward_bias(shape, &dy, &mut db)?;
            if !all_finite(&db) {
                return Ok(false);
            }
        }
    }
    Ok(all_finite(&y) && all_finite(&dx) && all_finite(&dw))
}

/// The forward pass of the default convolution on slices with these channels.
fn with_channels(channels: [usize; 4]) -> Result<bool> {
    let shape = conv_shape();
    let (x, w) = (numbers(shape.input_count())?, numbers(shape.weight_count())?);
    let mut y = room(shape.output_count())?;
    let voxels = shape.input_voxels();
    let (y_first, y_second) = y.split_at_mut(shape.output_voxels());
    cpu::forward(
        &shape,
        Inputs::two(&x[..voxels], channels[0], &x[voxels..], channels[1]),
        &w,
        Epilogue::default(),
        Outputs::two(y_first, channels[2], y_second, channels[3]),
    )?;
    Ok(all_finite(&y) && channels == [1, 1, 1, 2])
}

/// Calls `check` with a value of every registered operation and suitable inputs.
fn for_every_operation(mut check: impl FnMut(&dyn Op, &[Tensor]) -> Result<bool>) -> Result<bool> {
    for entry in testing::all() {
        for number in 0..3 {
            let case = entry.case(&mut Seed::new(5).named(entry.name).at(number).random())?;
            if !check(&*case.op, &case.inputs).map_err(|error| error.within(entry.name))? {
                return Err(Error::new(ErrorKind::Panic, entry.name, format!("case {number}: {:?}", case.op)));
            }
        }
    }
    Ok(true)
}

/// One step of both optimizers, which must either leave finite numbers, or fail and leave the parameter unchanged.
fn stepped(step: impl Fn(&mut Tensor, &Tensor, &mut Tensor, &mut Tensor) -> Result<()>) -> Result<bool> {
    let zeros = || Tensor::zeros(&[5], DType::F32, Device::Cpu);
    let (mut value, gradient, mut first, mut second) = (values(&[5])?, values(&[5])?, zeros()?, zeros()?);
    let before = value.to_vec_f64()?;
    match step(&mut value, &gradient, &mut first, &mut second) {
        Ok(()) => finite(&[value, first, second]),
        Err(error) => {
            let untouched = value.to_vec_f64()? == before
                && first.to_vec_f64()?.iter().chain(&second.to_vec_f64()?).all(|&x| x == 0.0);
            if untouched { Err(error) } else { Ok(false) }
        }
    }
}

/// Arguments of vector functions, which run in every instruction set.
#[derive(Clone, Copy)]
struct Probe {
    count: u32,
    bits: u64,
    x: f32,
    row: [f32; 16],
}

#[derive(Debug, Clone, PartialEq)]
struct Probed {
    shl: u32,
    shr: u32,
    splat: f32,
    splat_bits: u32,
    row: Vec<f32>,
    lanes: Vec<f32>,
    sums: Vec<f32>,
    folded: f32,
    sum: f32,
    dot: f32,
    polynomial: f32,
}

impl Kernel for Probe {
    type Output = Probed;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> Probed {
        probed::<<f32 as Real>::Vec<S>>(self)
    }
}

#[inline(always)]
fn probed<V: Vector<Elem = f32>>(probe: Probe) -> Probed {
    let first = |v: V| {
        let mut all = [0.0f32; 16];
        v.store(&mut all);
        all[0]
    };
    let bits = V::splat_bits(0x8000_0001);
    let mut row = vec![0.0; V::LANES];
    V::load(&probe.row).store(&mut row);
    V::load_partial(&probe.row).store_partial(&mut row);
    let lanes = Lanes16::<V>::load(&probe.row);
    let mut all = vec![0.0; 16];
    lanes.store_partial(&mut all);
    let partial = Lanes16::<V>::load_partial(&probe.row[..3], probe.x);
    Probed {
        shl: first(bits.bits_shl(probe.count)).to_bits(),
        shr: first(bits.bits_shr(probe.count)).to_bits(),
        splat: first(V::splat(probe.x)),
        splat_bits: first(V::splat_bits(probe.bits)).to_bits(),
        row,
        lanes: [all, partial.to_array().to_vec(), Lanes16::<V>::splat(probe.x).to_array().to_vec()].concat(),
        sums: Lanes16::<V>::horizontal_sums(&[probe.row; 16]).to_array().to_vec(),
        folded: lanes.fold(|a, b| a + b),
        sum: sum::<V>(&probe.row),
        dot: dot::<V>(&probe.row, &[1.0; 16]),
        polynomial: first(math::polynomial(V::splat(2.0), &[probe.x, 1.0, 1.0])),
    }
}

fn same(a: f32, b: f32) -> bool {
    a == b || a.is_nan() && b.is_nan()
}

fn probe(change: impl Fn(&mut Probe), right: impl Fn(&Probe, &Probed) -> bool) -> bool {
    let mut probe = Probe { count: 1, bits: 0x3F80_0000, x: 0.5, row: std::array::from_fn(|i| i as f32) };
    change(&mut probe);
    Isa::available().all(|isa| {
        let probed = with_settings(Settings::default().isa(isa).unwrap(), || dispatch(probe));
        right(&probe, &probed)
    })
}

/// The sum of a row by a plain loop, which propagates NaN and infinities.
fn plain(row: &[f32]) -> f64 {
    row.iter().map(|&x| f64::from(x)).sum()
}

fn near(found: f32, expected: f64) -> bool {
    same(found, expected as f32)
        || (f64::from(found) - expected).abs() <= 1e-5 * expected.abs()
        || expected.abs() > 1e37 && !expected.is_nan()
}

cases! {
    "kernels::Cost::of": (flops: f64 = 10.0, shape: Vec<usize> = vec![2, 3]) => {
        let cost = Cost::of(flops, &[meta(&shape)], &[]);
        let bytes = shape.iter().fold(4.0, |bytes, &size| bytes * size as f64);
        (cost.flops == flops || flops.is_nan()) && (cost.bytes == bytes || bytes > 1e18 && cost.bytes >= 1e18)
    };
    "kernels::Cost::of_products": (multiply_adds: f64 = 10.0, shape: Vec<usize> = vec![2, 3]) => {
        let cost = Cost::of_products(multiply_adds, &[meta(&shape)], &[]);
        same(cost.multiply_adds as f32, multiply_adds as f32) && same(cost.flops as f32, 2.0 * multiply_adds as f32)
    };
    "kernels::Meta {}": (shape: Vec<usize> = vec![2, 3], device: Device = Device::Cpu) => {
        let meta = Meta { shape: shape.clone(), dtype: DType::F32, device };
        let exact = shape.iter().fold(1u128, |count, &size| count.saturating_mul(size as u128));
        let count = if shape.contains(&0) { 0 } else { exact.min(usize::MAX as u128) as usize };
        meta.count() == count && meta.rank() == shape.len()
    };
    "kernels::Meta::with_shape": (shape: Vec<usize> = vec![2, 3]) => {
        meta(&[1]).with_shape(shape.clone()).shape == shape
    };
    "kernels::Op::infer": (size: usize = 2) => for_every_operation(|op, inputs| {
        let metas: Vec<Meta> = inputs.iter().map(Meta::from).collect();
        let mut right = op.infer(&metas).is_ok();
        for (input, axis) in metas.iter().enumerate().flat_map(|(i, meta)| (0..meta.rank()).map(move |axis| (i, axis)))
        {
            let mut metas = metas.clone();
            metas[input].shape[axis] = size;
            if let Ok(outputs) = op.infer(&metas) {
                let cost = op.cost(&metas, &outputs);
                right &= cost.flops >= 0.0 && cost.bytes.is_finite() && !outputs.is_empty();
            }
        }
        Ok(right)
    });
    "kernels::Op::cost": (size: usize = 2) => {
        let (x, y) = (meta(&[size, 3]), meta(&[size]));
        let cost = Softmax { axis: 1 }.cost(&[x], &[y]);
        cost.flops >= 0.0 && cost.bytes >= 0.0 && (size == 0 || cost.bytes >= size as f64)
    };
    "kernels::Op::state": (size: usize = 3) => for_every_operation(|op, inputs| {
        let metas: Vec<Meta> = inputs.iter().map(Meta::from).collect();
        let axes = metas.iter().enumerate().flat_map(|(i, meta)| (0..meta.rank()).map(move |axis| (i, axis)));
        for (input, axis) in axes {
            let mut metas = metas.clone();
            metas[input].shape[axis] = size;
            if let Ok(outputs) = op.infer(&metas) {
                let _ = op.state(&metas, &outputs);
            }
        }
        Ok(true)
    });
    "kernels::Op::forward": (size: usize = 3) => {
        let x = values(&[2, 1])?.expand(&[2, size])?;
        gives(&Softmax { axis: 1 }, &[x], &[2, size])
    };
    "kernels::Op::backward": (size: usize = 3) => {
        let x = values(&[2, 1])?.expand(&[2, size])?;
        gives(&View::Reshape(vec![size, 2]), &[x], &[size, 2])
    };
    "kernels::InPlace::check": (size: usize = 3) => {
        optim::Scale { factor: 2.0 }.check(&[meta(&[size])], &[]).map(|()| true)
    };
    "kernels::InPlace::cost": (size: usize = 3) => {
        let cost = optim::Scale { factor: 2.0 }.cost(&[meta(&[size])], &[]);
        cost.flops >= 0.0 && cost.bytes >= 0.0
    };
    "kernels::Recompute::output": (size: usize = 3) => {
        let norm = Norm { statistics: Statistics::Instance, epsilon: 1e-5, affine: false, activation: None };
        let x = values(&[1, 2, 1])?.expand(&[1, 2, size])?;
        let forward = run(&norm, &[&x], &Context::default())?;
        let again = norm.output(&Context::default(), &saved_of(&norm, &[x], &forward))?;
        Ok::<_, Error>(again.to_vec_f64()? == forward.outputs[0].to_vec_f64()?)
    };
    "kernels::dropout::Dropout {}": (probability: f64 = 0.5) => {
        let op = Dropout { seed: Seed::new(1), probability, whole_channels: false };
        gives(&op, &[values(&[2, 3])?], &[2, 3])
    };
    "kernels::elementwise::Increment {}": (number: i64 = 3) => {
        let outputs = run(&Increment(number), &[&labels(&[1, -2], &[2])?], &Context::default())?.outputs;
        Ok::<_, Error>(outputs[0].to_vec::<i64>()? == [1 + number, number - 2])
    };
    "kernels::Op::saves_input": (index: usize = 0) => for_every_operation(|op, _| {
        // Querying an input that doesn't exist is allowed.
        Ok(op.saves_input(index) == op.saves_input(index))
    });
    "kernels::Op::half_policy": (index: usize = 0) => {
        // A device that isn't there may be asked about.
        let device = Device::Cuda(index);
        for_every_operation(|op, _| Ok(op.half_policy(device) == op.half_policy(device)))
    };
    "kernels::Op::saves_output": (index: usize = 0) => {
        for_every_operation(|op, _| Ok(op.saves_output(index) == op.saves_output(index)))
    };
    "kernels::Recompute::reads_input": (index: usize = 0) => {
        for_every_operation(|op, _| Ok(op.recompute().is_none_or(|op| op.reads_input(index) == op.reads_input(index))))
    };
    "kernels::Op::forward_cpu": (size: usize = 3) => {
        let x = values(&[2, 1])?.expand(&[2, size])?;
        gives(&Softmax { axis: 1 }, &[x], &[2, size])
    };
    "kernels::Op::backward_cpu": (size: usize = 3) => {
        let x = values(&[2, 1])?.expand(&[2, size])?;
        gives(&View::Reshape(vec![size, 2]), &[x], &[size, 2])
    };
    "kernels::Recompute::output_cpu": (size: usize = 3) => {
        let norm = Norm { statistics: Statistics::Instance, epsilon: 1e-5, affine: false, activation: None };
        let x = values(&[1, 2, 1])?.expand(&[1, 2, size])?;
        let forward = run(&norm, &[&x], &Context::default())?;
        let again = run_recompute(&norm, &saved_of(&norm, &[x], &forward), &Context::default())?;
        Ok::<_, Error>(again.to_vec_f64()? == forward.outputs[0].to_vec_f64()?)
    };
    "kernels::Op::forward_cuda": (size: usize = 3) => {
        // The host's memory given to a kernel is refused, whatever its size.
        let x = values(&[2, 1])?.expand(&[2, size])?;
        let output = Meta::from(&x);
        Ok::<_, Error>(Softmax { axis: 1 }.forward_cuda(&Context::default(), &[&x], &[output]).is_err())
    };
    "kernels::Op::backward_cuda": (size: usize = 3) => {
        let x = values(&[2, 1])?.expand(&[2, size])?;
        let forward = Forward::one(x.clone());
        let saved = saved_of(&Softmax { axis: 1 }, std::slice::from_ref(&x), &forward);
        let gradients = Softmax { axis: 1 }.backward_cuda(&Context::default(), saved, vec![Some(x)], &[true]);
        Ok::<_, Error>(gradients.is_err())
    };
    "kernels::Recompute::output_cuda": (size: usize = 3) => {
        let norm = Norm { statistics: Statistics::Instance, epsilon: 1e-5, affine: false, activation: None };
        let x = values(&[1, 2, 1])?.expand(&[1, 2, size])?;
        let forward = run(&norm, &[&x], &Context::default())?;
        let saved = saved_of(&norm, &[x], &forward);
        Ok::<_, Error>(norm.output_cuda(&Context::default(), &saved).is_err())
    };
    "kernels::run_recompute": (metas: Vec<usize> = vec![1, 2, 3]) => {
        let norm = Norm { statistics: Statistics::Instance, epsilon: 1e-5, affine: false, activation: None };
        let x = values(&[1, 2, 3])?;
        let forward = run(&norm, &[&x], &Context::default())?;
        let mut saved = saved_of(&norm, &[x], &forward);
        saved.metas = vec![meta(&metas)];
        run_recompute(&norm, &saved, &Context::default())
    };
    "kernels::run_backward": (shape: Vec<usize> = vec![2, 3], gradient: Vec<usize> = vec![2, 3]) => {
        let op = Softmax { axis: 1 };
        let x = values(&[2, 3])?;
        let forward = run(&op, &[&x], &Context::default())?;
        let mut saved = saved_of(&op, &[x], &forward);
        saved.metas = vec![meta(&shape)];
        let dy = Tensor::ones(&gradient, DType::F32, Device::Cpu)?;
        Ok::<_, Error>(
            run_backward(&op, saved, vec![Some(dy)], &[true], &Context::default())?
                .into_iter()
                .flatten()
                .collect::<Vec<_>>(),
        )
    };
    "kernels::run_backward": (count: Vec<f64> = vec![1.0]) => {
        // No gradient, or one per output for many outputs, and as many inputs with gradients.
        let op = Softmax { axis: 0 };
        let x = values(&[3])?;
        let forward = run(&op, &[&x], &Context::default())?;
        let gradients = count.iter().map(|_| Some(x.clone())).collect();
        let needed: Vec<bool> = count.iter().map(|_| true).collect();
        let gradients = run_backward(
            &op,
            saved_of(&op, std::slice::from_ref(&x), &forward),
            gradients,
            &needed,
            &Context::default(),
        )?;
        Ok::<_, Error>(count.len() == 1 && gradients.len() == 1)
    };
    "kernels::Saved {}": (places: Vec<usize> = vec![3]) => {
        // A saved input with another shape than its metadata, too few saved inputs, or too many.
        let op = Chain::unary(Function::Square);
        let x = values(&[3])?;
        let inputs = places
            .iter()
            .map(|&size| Tensor::ones(&[size], DType::F32, Device::Cpu).map(Some))
            .collect::<Result<_>>()?;
        let mut saved = saved_of(&op, std::slice::from_ref(&x), &run(&op, &[&x], &Context::default())?);
        saved.inputs = inputs;
        let gradients = run_backward(&op, saved, vec![Some(x.clone())], &[true], &Context::default())?;
        Ok::<_, Error>(places == [3] && gradients[0].as_ref().is_some_and(|gradient| gradient.shape() == [3]))
    };
    "kernels::Saved::input": (index: usize = 0) => {
        let mut saved = Saved::default();
        saved.inputs = vec![Some(values(&[2])?)];
        saved.input(index).cloned()
    };
    "kernels::Saved::output": (index: usize = 0) => {
        let mut saved = Saved::default();
        saved.outputs = vec![Some(values(&[2])?)];
        saved.output(index).cloned()
    };
    "kernels::Saved::state": (index: usize = 0) => {
        let mut saved = Saved::default();
        saved.state = vec![values(&[2])?];
        saved.state(index).cloned()
    };
    "kernels::check::axis": (shape: Vec<usize> = vec![2, 3], axis: usize = 1) => {
        check::axis("test", &meta(&shape), axis).map(|()| axis < shape.len())
    };
    "kernels::check::inputs": (count: usize = 1, least: usize = 1, most: usize = 1) => {
        let count = count.min(9);
        check::inputs("test", &vec![meta(&[2]); count], least, most).map(|()| least <= count && count <= most)
    };
    "kernels::check::same_float": (shape: Vec<usize> = vec![2, 3], device: Device = Device::Cpu) => {
        check::same_float("test", &[Meta { device, ..meta(&shape) }, meta(&[1])]).map(|()| true)
    };
    "kernels::check::spatial": (shape: Vec<usize> = vec![1, 2, 3, 4]) => {
        check::spatial("test", &meta(&shape)).map(|rank| (3..=5).contains(&shape.len()) && rank == shape.len() - 2)
    };

    "kernels::attention::Attention {}": (scale: Option<f64> = Some(0.5)) => {
        let inputs = [values(&[2, 3, 4])?, values(&[2, 5, 4])?, values(&[2, 5, 3])?];
        let right = gives(&Attention { scale, causal: false }, &inputs, &[2, 3, 3])?;
        // A factor that makes the scores overflow gives non-finite results, as in plain arithmetic.
        Ok::<_, Error>(right || scale.is_some_and(|scale| scale.abs() > 1e37))
    };
    "kernels::conv::Conv::new": (rank: usize = 2) => {
        let op = Conv::new(rank)?;
        Ok::<_, Error>((1..=3).contains(&rank) && op.stride.len() == rank)
    };
    "kernels::conv::ConvTranspose::new": (rank: usize = 2, stride: usize = 2) => {
        let op = ConvTranspose::new(rank, stride)?;
        Ok::<_, Error>((1..=3).contains(&rank) && op.stride.len() == rank && stride > 0)
    };
    "kernels::conv::Conv {}": (
        stride: Vec<usize> = vec![2, 1],
        padding: Vec<usize> = vec![1, 1],
        dilation: Vec<usize> = vec![1, 2],
        groups: usize = 1,
    ) => {
        let op = Conv { stride, padding, dilation, groups, two_inputs: false, bias: true };
        works(&op, &[values(&[1, 2, 7, 8])?, values(&[3, 2, 3, 3])?, values(&[3])?])
    };
    "kernels::conv::Conv {}": (x: Vec<usize> = vec![1, 2, 5, 6], weight: Vec<usize> = vec![2, 1, 3, 3]) => {
        let op = Conv {
            stride: vec![1; 2],
            padding: vec![1; 2],
            dilation: vec![1; 2],
            groups: 2,
            two_inputs: false,
            bias: false,
        };
        let one = values(&vec![1; x.len()])?;
        works(&op, &[one.expand(&x)?, values(&vec![1; weight.len()])?.expand(&weight)?])
    };
    "kernels::conv::ConvTranspose {}": (
        stride: Vec<usize> = vec![2, 1],
        padding: Vec<usize> = vec![1, 1],
        output_padding: Vec<usize> = vec![1, 0],
        dilation: Vec<usize> = vec![1, 2],
        groups: usize = 1,
    ) => {
        let op = ConvTranspose { stride, padding, output_padding, dilation, groups, bias: true };
        works(&op, &[values(&[1, 2, 4, 5])?, values(&[2, 3, 3, 3])?, values(&[3])?])
    };
    "kernels::conv::ConvActivation {}": (
        stride: Vec<usize> = vec![1, 1],
        groups: usize = 1,
        slope: f64 = 0.01,
    ) => {
        let conv = Conv { stride, padding: vec![1; 2], dilation: vec![1; 2], groups, two_inputs: false, bias: false };
        let activation = Function::LeakyRelu(slope);
        let right = works(&ConvActivation { conv, activation }, &[values(&[1, 2, 5, 6])?, values(&[3, 2, 3, 3])?])?;
        Ok::<_, Error>(right || slope.abs() > 1e37)
    };
    "kernels::conv::ConvNormActivation {}": (
        stride: Vec<usize> = vec![1, 1],
        groups: usize = 1,
        norm_groups: usize = 3,
        epsilon: f64 = 1e-5,
        slope: f64 = 0.01,
    ) => {
        let conv = Conv { stride, padding: vec![1; 2], dilation: vec![1; 2], groups, two_inputs: false, bias: false };
        let activation = Some(Function::LeakyRelu(slope));
        let norm = Norm { statistics: Statistics::Group(norm_groups), epsilon, affine: false, activation };
        let right = works(&ConvNormActivation { conv, norm }, &[values(&[1, 2, 5, 6])?, values(&[3, 2, 3, 3])?])?;
        Ok::<_, Error>(right || slope.abs() > 1e37)
    };
    "kernels::conv::ConvShape {}": (
        sizes: Vec<usize> = vec![1, 1, 2, 3],
        spatial: Vec<[usize; 3]> = vec![[1, 5, 6], [1, 3, 3], [1; 3], [0, 1, 1], [1; 3]],
    ) => {
        if sizes.len() != 4 || spatial.len() != 5 {
            return Err(Error::argument("test", "not a shape"));
        }
        let shape = varied(&sizes, &spatial);
        shape.check()?;
        let output = shape.output();
        let counts = [shape.input_count(), shape.output_count(), shape.weight_count(), shape.multiply_adds()];
        let exact = [
            sizes[0] as u128 * sizes[2] as u128 * spatial[0].iter().map(|&s| s as u128).product::<u128>(),
            sizes[0] as u128 * sizes[3] as u128 * output.iter().map(|&s| s as u128).product::<u128>(),
        ];
        Ok::<_, Error>(
            output.iter().all(|&size| size > 0)
                && counts.iter().zip(exact).all(|(&count, exact)| count as u128 == exact),
        )
    };
    "kernels::conv::cpu::forward": (
        sizes: Vec<usize> = vec![1, 1, 2, 3],
        spatial: Vec<[usize; 3]> = vec![[1, 5, 6], [1, 3, 3], [1; 3], [0, 1, 1], [1; 3]],
    ) => {
        if sizes.len() != 4 || spatial.len() != 5 {
            return Err(Error::argument("test", "not a shape"));
        }
        convolve(&varied(&sizes, &spatial), None)
    };
    "kernels::conv::cpu::Path::forward": (
        sizes: Vec<usize> = vec![1, 1, 2, 3],
        spatial: Vec<[usize; 3]> = vec![[1, 5, 6], [1, 3, 3], [1; 3], [0, 1, 1], [1; 3]],
    ) => {
        if sizes.len() != 4 || spatial.len() != 5 {
            return Err(Error::argument("test", "not a shape"));
        }
        let shape = varied(&sizes, &spatial);
        shape.check()?;
        Path::ALL
            .into_iter()
            .filter(|path| path.suits::<f32>(&shape))
            .map(|path| convolve(&shape, Some(path)))
            .collect::<Result<Vec<_>>>()
    };
    // One row per function of a shape; each is called by `convolve`.
    "kernels::conv::cpu::backward_data": (stride: usize = 1) => {
        convolve(&ConvShape { stride: [1, stride, 1], ..conv_shape() }, None)
    };
    "kernels::conv::cpu::backward_data": (stride: [usize; 3] = [1 << 39; 3]) => {
        // A stride larger than the input is valid: there is one output.
        convolve(&ConvShape { stride, ..conv_shape() }, None)
    };
    "kernels::conv::cpu::transposed_forward": (padding: usize = 1) => {
        convolve(&ConvShape { padding: [0, padding, 1], ..conv_shape() }, None)
    };
    "kernels::conv::cpu::backward_weights": (dilation: usize = 1) => {
        convolve(&ConvShape { dilation: [1, 1, dilation], ..conv_shape() }, None)
    };
    "kernels::conv::cpu::backward_bias": (batch: usize = 1) => convolve(&ConvShape { batch, ..conv_shape() }, None);
    "kernels::conv::cpu::Path::backward_data": (stride: usize = 1) => {
        convolve(&ConvShape { stride: [1, stride, 1], ..conv_shape() }, Some(Path::Dense))
    };
    "kernels::conv::cpu::Path::transposed_forward": (padding: usize = 1) => {
        convolve(&ConvShape { padding: [0, padding, 1], ..conv_shape() }, Some(Path::Dense))
    };
    "kernels::conv::cpu::Path::backward_weights": (dilation: usize = 1) => {
        convolve(&ConvShape { dilation: [1, 1, dilation], ..conv_shape() }, Some(Path::Dense))
    };
    "kernels::conv::cpu::Path::choose": (
        sizes: Vec<usize> = vec![1, 1, 16, 16],
        spatial: Vec<[usize; 3]> = vec![[8, 8, 8], [3, 3, 3], [1; 3], [1; 3], [1; 3]],
    ) => {
        if sizes.len() != 4 || spatial.len() != 5 {
            return Err(Error::argument("test", "not a shape"));
        }
        let shape = ConvShape { precision: Precision::Fast, ..varied(&sizes, &spatial) };
        shape.check()?;
        Ok::<_, Error>(Path::choose::<f32>(&shape).suits::<f32>(&shape))
    };
    "kernels::conv::cpu::Path::suits": (
        sizes: Vec<usize> = vec![1, 1, 16, 16],
        spatial: Vec<[usize; 3]> = vec![[8, 8, 8], [3, 3, 3], [1; 3], [1; 3], [1; 3]],
    ) => {
        if sizes.len() != 4 || spatial.len() != 5 {
            return Err(Error::argument("test", "not a shape"));
        }
        let shape = varied(&sizes, &spatial);
        // Any shape may be queried.
        let suited = Path::ALL.map(|path| path.suits::<f32>(&shape));
        Ok::<_, Error>(shape.check().is_err() || suited.contains(&true))
    };
    "kernels::conv::cpu::Path::estimate": (
        sizes: Vec<usize> = vec![1, 1, 16, 16],
        spatial: Vec<[usize; 3]> = vec![[8, 8, 8], [3, 3, 3], [1; 3], [1; 3], [1; 3]],
    ) => {
        if sizes.len() != 4 || spatial.len() != 5 {
            return Err(Error::argument("test", "not a shape"));
        }
        let shape = varied(&sizes, &spatial);
        shape.check()?;
        let paths = Path::ALL.into_iter().filter(|path| path.suits::<f32>(&shape));
        Ok::<_, Error>(paths.map(|path| path.estimate(&shape)).all(|time| time.is_finite() && time > 0.0))
    };
    "kernels::conv::cpu::Inputs::one": (channels: usize = 2) => {
        let shape = conv_shape();
        let (x, w, mut y) =
            (numbers(shape.input_count())?, numbers(shape.weight_count())?, room(shape.output_count())?);
        let x = Inputs::one(&x, channels);
        cpu::forward(&shape, x, &w, Epilogue::default(), Outputs::one(&mut y, 3)).map(|()| channels == 2)
    };
    "kernels::conv::cpu::Outputs::one": (channels: usize = 3) => {
        let shape = conv_shape();
        let (x, w, mut y) =
            (numbers(shape.input_count())?, numbers(shape.weight_count())?, room(shape.output_count())?);
        let y = Outputs::one(&mut y, channels);
        cpu::forward(&shape, Inputs::one(&x, 2), &w, Epilogue::default(), y).map(|()| channels == 3)
    };
    "kernels::conv::cpu::Inputs::two": (first: usize = 1, second: usize = 1) => with_channels([first, second, 1, 2]);
    "kernels::conv::cpu::Inputs::two": (first: usize = 1) => with_channels([first, 2usize.wrapping_sub(first), 1, 2]);
    "kernels::conv::cpu::Outputs::two": (first: usize = 1, second: usize = 2) => with_channels([1, 1, first, second]);
    "kernels::conv::cpu::Outputs::two": (first: usize = 1) => with_channels([1, 1, first, 3usize.wrapping_sub(first)]);
    "kernels::norm::Moments {}": (count: f64 = 3.0, mean: f64 = 1.0, rest: f64 = 1e-20, squares: f64 = 2.0) => {
        let moments = Moments { count, mean, rest, squares };
        // Joining empty moments changes nothing.
        moments.join(Moments::default()) == moments
            || [count, mean, rest, squares].iter().any(|x| x.is_nan())
            || count == 0.0
    };
    "kernels::norm::Moments::join": (count: f64 = 3.0, mean: f64 = 1.0, squares: f64 = 2.0) => {
        let joined = Moments { count: 2.0, mean: 0.5, rest: 0.0, squares: 0.25 }
            .join(Moments { count, mean, rest: 0.0, squares });
        let sound = (0.0..=u64::MAX as f64).contains(&count) && mean.abs() < 1e100 && squares.abs() < 1e100;
        !sound || joined.mean.is_finite() && joined.squares.is_finite() && joined.count == 2.0 + count
    };
    "kernels::conv::reference::forward": (stride: [usize; 3] = [1; 3], length: usize = 60) => {
        let shape = ConvShape { stride, ..conv_shape() };
        let (x, w) = (numbers(length)?, numbers(shape_count(&shape, ConvShape::weight_count)?)?);
        let (y, magnitude) = reference::forward(&shape, &x, &w)?;
        Ok::<_, Error>(y.iter().zip(&magnitude).all(|(y, magnitude)| y.abs() <= *magnitude) && length == 60)
    };
    "kernels::conv::reference::backward_data": (padding: [usize; 3] = [0, 1, 1], length: usize = 54) => {
        let shape = ConvShape { padding, ..conv_shape() };
        let (dy, w) = (numbers(shape_count(&shape, ConvShape::output_count)?)?, numbers(length)?);
        let (dx, _) = reference::backward_data(&shape, &dy, &w)?;
        Ok::<_, Error>(dx.len() == 60 && length == 54)
    };
    "kernels::conv::reference::backward_weights": (dilation: [usize; 3] = [1; 3], length: usize = 60) => {
        let shape = ConvShape { dilation, ..conv_shape() };
        let (x, dy) = (numbers(length)?, numbers(shape_count(&shape, ConvShape::output_count)?)?);
        let (dw, _) = reference::backward_weights(&shape, &x, &dy)?;
        Ok::<_, Error>(dw.len() == 54 && length == 60)
    };

    "kernels::elementwise::Function {}": (slope: f64 = 0.1, number: f64 = 0.7) => {
        let x = values(&[3, 5])?;
        let mut right = true;
        // Values that overflow f32 give non-finite results, as in plain arithmetic; NaN attributes are rejected.
        let large = slope.abs() > 1e37 || number.abs() > 1e37;
        for function in
            [Function::LeakyRelu(slope), Function::Elu(slope), Function::Add(number), Function::Multiply(number)]
        {
            right &= works(&Chain::unary(function), std::slice::from_ref(&x))? || large;
        }
        Ok::<_, Error>(right)
    };
    "kernels::elementwise::Function {}": (low: f64 = -0.5, high: f64 = 0.5) => {
        let (y, dx) = both(&Chain::unary(Function::Clamp(low, high)), &[values(&[3, 5])?])?;
        Ok::<_, Error>(
            low <= high
                && finite(&dx)?
                && y[0].to_vec_f64()?.iter().all(|y| (low as f32 as f64..=high as f32 as f64).contains(y)),
        )
    };
    "kernels::elementwise::Function {}": (power: f64 = 1.5) => {
        let x = testing::map(&values(&[3, 5])?, |x| 1.0 + 0.25 * x.abs())?;
        let (y, dx) = both(&Chain::unary(Function::Power(power)), &[x])?;
        Ok::<_, Error>(finite(&y)? && finite(&dx)? || power.abs() > 1e3)
    };
    "kernels::elementwise::Chain::unary": (number: f64 = 2.0) => {
        let y = run(&Chain::unary(Function::Multiply(number)), &[&values(&[4])?], &Context::default())?;
        let expected: Vec<f32> = values(&[4])?.to_vec::<f32>()?.into_iter().map(|x| x * number as f32).collect();
        Ok::<_, Error>(y.outputs[0].to_vec::<f32>()? == expected)
    };
    "kernels::elementwise::Chain::then": (input: usize = 1, number: f64 = 2.0) => {
        let chain = Chain::unary(Function::Add(number)).then(Step::Binary(BinaryFunction::Mul, input));
        let right = works(&chain, &[values(&[4])?, values(&[4])?])?;
        Ok::<_, Error>(right || number.abs() > 1e37)
    };
    "kernels::index::Concat {}": (axis: usize = 1) => {
        gives(&Concat { axis }, &[values(&[3, 2])?, values(&[3, 4])?], &[3, 6])
    };
    "kernels::index::Gather {}": (axis: usize = 1, index: Vec<i64> = vec![0, 1, 1, 2, 0, 0, 1, 1]) => {
        let (op, x) = (Gather { axis }, values(&[2, 3])?);
        if index.len() % 2 == 1 {
            return Err(Error::argument("test", "not whole rows"));
        }
        gives(&op, &[x, labels(&index, &[2, index.len() / 2])?], &[2, index.len() / 2])
    };
    "kernels::index::IndexSelect {}": (axis: usize = 1, index: Vec<i64> = vec![0, 2, 1]) => {
        let mut shape = vec![2, 3];
        if let Some(size) = shape.get_mut(axis) {
            *size = index.len();
        }
        gives(&IndexSelect { axis }, &[values(&[2, 3])?, labels(&index, &[index.len()])?], &shape)
    };
    "kernels::index::ScatterAdd {}": (axis: usize = 1, index: Vec<i64> = vec![0, 1, 1, 2]) => {
        if index.len() % 2 == 1 {
            return Err(Error::argument("test", "not whole rows"));
        }
        let shape = [2, index.len() / 2];
        gives(&ScatterAdd { axis }, &[values(&[2, 3])?, labels(&index, &shape)?, values(&shape)?], &[2, 3])
    };
    "kernels::index::OneHot {}": (classes: usize = 4, axis: usize = 1, index: Vec<i64> = vec![0, 3, 1, 2]) => {
        let op = OneHot { classes, axis, dtype: DType::F32 };
        let y = run(&op, &[&labels(&index, &[index.len()])?], &Context::default())?;
        Ok::<_, Error>(y.outputs[0].to_vec_f64()?.iter().sum::<f64>() == index.len() as f64)
    };
    "kernels::index::Pad {}": (
        before: Vec<usize> = vec![1, 0],
        after: Vec<usize> = vec![0, 2],
        constant: f64 = 0.5,
    ) => {
        let mut right = true;
        for mode in [PadMode::Constant(constant), PadMode::Reflect, PadMode::Replicate] {
            let (y, dx) = both(&Pad { before: before.clone(), after: after.clone(), mode }, &[values(&[3, 4])?])?;
            // A border of infinities or NaN is what was requested.
            right &= finite(&dx)?
                && (finite(&y)? || !(constant as f32).is_finite())
                && y[0].shape() == [3 + before[0] + after[0], 4 + before[1] + after[1]];
        }
        Ok::<_, Error>(right)
    };
    "kernels::index::Pad {}": (before: Vec<usize> = vec![1, 0]) => {
        // Without elements, the padded tensor has no elements either.
        let x = Tensor::zeros(&[2, 0], DType::F32, Device::Cpu)?;
        let (y, _) = both(&Pad { before: before.clone(), after: vec![0, 0], mode: PadMode::Constant(0.0) }, &[x])?;
        finite(&y)
    };
    "kernels::loss::DiceCe {}": (
        dice_weight: f64 = 1.0,
        ce_weight: f64 = 1.0,
        smooth: f64 = 1e-5,
        ignore: Option<i64> = Some(-1),
        weights: Option<Vec<f64>> = Some(vec![0.5, 1.0, 2.0]),
    ) => {
        let op = DiceCe {
            dice_weight,
            ce_weight,
            smooth,
            ignore_index: ignore,
            class_weights: weights,
            ..DiceCe::default()
        };
        gives(&op, &[values(&[2, 3, 4])?, labels(&[0, 1, 2, 1, 0, 1, 2, 2], &[2, 4])?], &[])
    };
    "kernels::loss::DiceCe {}": (label: Vec<i64> = vec![0, 1, 2, 1]) => {
        gives(&DiceCe::default(), &[values(&[1, 3, label.len()])?, labels(&label, &[1, label.len()])?], &[])
    };
    "kernels::matmul::cpu::View {}": (batch: usize = 6, row: usize = 3, column: usize = 1) => {
        let data = numbers(12)?;
        let a = Matrix { data: &data, batch_stride: batch, row_stride: row, column_stride: column };
        let mut out = room(8)?;
        matmul::cpu::gemm(
            GemmShape { batch: 2, m: 2, n: 2, k: 3 },
            a,
            Matrix::contiguous(&data, 3, 2),
            Start::Zero,
            &mut out,
        )?;
        Ok::<_, Error>(all_finite(&out) && a.get(1, 1, 2) == data.get(batch + row + 2 * column).copied())
    };
    "kernels::matmul::cpu::View::contiguous": (rows: usize = 3, columns: usize = 4) => {
        let data = numbers(12)?;
        let mut out = room(9)?;
        let view = Matrix::contiguous(&data, rows, columns);
        matmul::cpu::gemm(GemmShape { batch: 1, m: 3, n: 3, k: 4 }, view, view.transposed(), Start::Zero, &mut out)?;
        Ok::<_, Error>(all_finite(&out))
    };
    "kernels::matmul::cpu::View::get": (batch: usize = 0, row: usize = 1, column: usize = 2) => {
        let data = numbers(12)?;
        let found = Matrix::contiguous(&data, 3, 4).get(batch, row, column);
        let place = batch as u128 * 12 + row as u128 * 4 + column as u128;
        Ok::<_, Error>(found == usize::try_from(place).ok().and_then(|place| data.get(place).copied()))
    };
    "kernels::matmul::cpu::gemm": (
        batch: usize = 1,
        m: usize = 2,
        n: usize = 3,
        k: usize = 2,
        bias: Vec<f32> = vec![1.0, 2.0, 3.0],
    ) => {
        let (a, b, mut out) = (numbers(4)?, numbers(6)?, room(6)?);
        let shape = GemmShape { batch, m, n, k };
        matmul::cpu::gemm(
            shape,
            Matrix::contiguous(&a, 2, 2),
            Matrix::contiguous(&b, 2, 3),
            Start::Columns(&bias),
            &mut out,
        )?;
        // A non-finite bias propagates to its column, as in plain arithmetic.
        Ok::<_, Error>(all_finite(&out) || bias.iter().any(|x| !x.is_finite()))
    };
    "kernels::matmul::cpu::gemm_add": (batch: usize = 1, m: usize = 2, n: usize = 3, k: usize = 2) => {
        let (a, b, mut out) = (numbers(4)?, numbers(6)?, numbers(6)?);
        let shape = GemmShape { batch, m, n, k };
        matmul::cpu::gemm_add(shape, Matrix::contiguous(&a, 2, 2), Matrix::contiguous(&b, 2, 3), &mut out)?;
        Ok::<_, Error>(out.iter().all(|x| x.is_finite()))
    };
    "kernels::matmul::reference::matmul": (batch: usize = 1, m: usize = 2, n: usize = 3, k: usize = 2) => {
        let (a, b) = (numbers(4)?, numbers(6)?);
        let shape = GemmShape { batch, m, n, k };
        let (out, _) = matmul::reference::matmul(shape, Matrix::contiguous(&a, 2, 2), Matrix::contiguous(&b, 2, 3))?;
        Ok::<_, Error>(out.len() == batch * m * n)
    };
    "kernels::norm::LayerNorm {}": (axes: usize = 1, epsilon: f64 = 1e-5) => {
        gives(&LayerNorm { axes, epsilon, affine: false }, &[values(&[2, 3, 5])?], &[2, 3, 5])
    };
    "kernels::norm::Norm {}": (groups: usize = 2, epsilon: f64 = 1e-5, slope: f64 = 0.01) => {
        let activation = Some(Function::LeakyRelu(slope));
        let right = |statistics| {
            gives(&Norm { statistics, epsilon, affine: false, activation }, &[values(&[2, 4, 5])?], &[2, 4, 5])
        };
        Ok::<_, Error>(
            right(Statistics::Group(groups))? && right(Statistics::Batch)? && right(Statistics::Instance)?
                || slope.abs() > 1e37,
        )
    };
    "kernels::norm::Norm {}": (epsilon: f64 = 1e-5) => {
        let norm = Norm { statistics: Statistics::Running, epsilon, affine: false, activation: None };
        let positive = testing::map(&values(&[4])?, |x| x.abs() + 0.1)?.converted(DType::F32)?;
        gives(&norm, &[values(&[2, 4, 5])?, values(&[4])?, positive], &[2, 4, 5])
    };

    "kernels::optim::sgd_step": (
        rate: f64 = 0.1,
        weight_decay: f64 = 0.01,
        momentum: f64 = 0.9,
        dampening: f64 = 0.0,
        first_step: bool = false,
    ) => {
        let sgd = optim::Sgd { momentum, dampening, nesterov: false };
        Ok::<_, Error>(
            stepped(|value, gradient, first, _| {
                let mut parameters =
                    [optim::SgdParameter { value, gradient, momentum: Some(first), rate, weight_decay, first_step }];
                optim::sgd_step(&mut parameters, &sgd)
            })? || [rate, weight_decay].iter().any(|x| *x > 1e37),
        )
    };
    "kernels::optim::adam_step": (
        rate: f64 = 0.1,
        weight_decay: f64 = 0.01,
        betas: [f64; 2] = [0.9, 0.999],
        epsilon: f64 = 1e-8,
        step: u64 = 1,
    ) => {
        let adam = optim::Adam { betas, epsilon, decoupled: true };
        Ok::<_, Error>(
            stepped(|value, gradient, first, second| {
                let mut parameters =
                    [optim::AdamParameter { value, gradient, first, second, rate, weight_decay, step }];
                optim::adam_step(&mut parameters, &adam)
            })? || [rate, weight_decay].iter().any(|x| *x > 1e37),
        )
    };
    "kernels::optim::SgdStep {}": (
        rate: f64 = 0.1,
        weight_decay: f64 = 0.01,
        momentum: f64 = 0.9,
        dampening: f64 = 0.0,
    ) => {
        let sgd = optim::Sgd { momentum, dampening, nesterov: false };
        let numbers = optim::SgdNumbers { rate, weight_decay, first_step: false, momentum: true };
        let op = optim::SgdStep { sgd, parameters: vec![numbers] };
        Ok::<_, Error>(
            stepped(|value, gradient, first, _| run_in_place(&op, &mut [value, first], &[gradient]))?
                || [rate, weight_decay].iter().any(|x| *x > 1e37),
        )
    };
    "kernels::optim::AdamStep {}": (
        rate: f64 = 0.1,
        weight_decay: f64 = 0.01,
        betas: [f64; 2] = [0.9, 0.999],
        epsilon: f64 = 1e-8,
        step: u64 = 1,
    ) => {
        let adam = optim::Adam { betas, epsilon, decoupled: true };
        let op = optim::AdamStep { adam, parameters: vec![optim::AdamNumbers { rate, weight_decay, step }] };
        Ok::<_, Error>(
            stepped(|value, gradient, first, second| run_in_place(&op, &mut [value, first, second], &[gradient]))?
                || [rate, weight_decay].iter().any(|x| *x > 1e37),
        )
    };
    "kernels::optim::ClipNorm {}": (max: f64 = 0.5) => {
        let (mut norm, mut x) = (values(&[])?, values(&[4])?);
        run_in_place(&optim::ClipNorm { max }, &mut [&mut norm, &mut x], &[])?;
        finite(&[norm, x])
    };
    "kernels::optim::Scale {}": (factor: f64 = 0.5) => {
        let mut x = values(&[4])?;
        run_in_place(&optim::Scale { factor }, &mut [&mut x], &[])?;
        Ok::<_, Error>(finite(&[x])? || factor.abs() > 1e37)
    };
    "kernels::optim::EmaStep {}": (decay: f64 = 0.9) => {
        let (mut average, value) = (values(&[4])?, values(&[4])?);
        run_in_place(&optim::EmaStep { decay }, &mut [&mut average], &[&value])?;
        Ok::<_, Error>((0.0..=1.0).contains(&decay) && finite(&[average])?)
    };
    "kernels::optim::ema_step": (decay: f64 = 0.9) => {
        let (mut average, value) = (values(&[4])?, values(&[4])?);
        optim::ema_step(&mut [(&mut average, &value)], decay)?;
        Ok::<_, Error>((0.0..=1.0).contains(&decay) && finite(&[average])?)
    };
    "kernels::optim::scale": (factor: f64 = 0.5) => {
        let mut x = values(&[4])?;
        optim::scale(&mut x, factor)?;
        let expected: Vec<f32> = values(&[4])?.to_vec::<f32>()?.into_iter().map(|x| x * factor as f32).collect();
        Ok::<_, Error>(x.to_vec::<f32>()? == expected)
    };

    "kernels::parallel::Partition::new": (block: usize = 4) => {
        let mut numbers = [0u8; 10];
        let partition = Partition::new(&mut numbers, block);
        Ok::<_, Error>(
            in_a_chunk(|| partition.block(0).fill(1))?
                && numbers.iter().filter(|&&x| x == 1).count() == block.clamp(1, 10),
        )
    };
    "kernels::parallel::Partition::block": (i: usize = 1) => {
        let mut numbers = [0u8; 10];
        let partition = Partition::new(&mut numbers, 4);
        Ok::<_, Error>(
            in_a_chunk(|| partition.block(i).fill(1))?
                && numbers.iter().filter(|&&x| x == 1).count() == if i < 2 { 4 } else { 2 }
                && i < 3,
        )
    };
    "kernels::parallel::Partition::take": (start: usize = 4, end: usize = 8) => {
        let mut numbers = [0u8; 10];
        let partition = Partition::new(&mut numbers, 4);
        Ok::<_, Error>(
            in_a_chunk(|| partition.take(start..end).fill(1))?
                && numbers.iter().filter(|&&x| x == 1).count() == end - start,
        )
    };
    "kernels::parallel::Grid::new": (
        rows: usize = 5,
        columns: usize = 7,
        row_block: usize = 2,
        column_block: usize = 3,
    ) => {
        let mut numbers = [0u8; 35];
        let grid = Grid::new(&mut numbers, rows, columns, row_block, column_block)?;
        Ok::<_, Error>(
            in_a_chunk(|| grid.tile(0, 0).row(0).fill(1))?
                && numbers.iter().filter(|&&x| x == 1).count() == column_block.clamp(1, 7),
        )
    };
    "kernels::parallel::Grid::batched": (
        planes: usize = 2,
        rows: usize = 3,
        columns: usize = 4,
        row_block: usize = 2,
        column_block: usize = 3,
    ) => {
        let mut numbers = [0u8; 24];
        let grid = Grid::batched(&mut numbers, planes, rows, columns, row_block, column_block)?;
        Ok::<_, Error>(in_a_chunk(|| grid.tile_of(1, 0, 0).row(0).fill(1))? && numbers[12] == 1)
    };
    "kernels::parallel::Grid::batched": (planes: usize = 0, rows: usize = 3, columns: usize = 4) => {
        // Sizes whose product would be 0 or wrap around to it.
        let mut numbers = [0u8; 0];
        let grid = Grid::batched(&mut numbers, planes, rows, columns, 2, 2)?;
        Ok::<_, Error>(
            in_a_chunk(|| {
                grid.tile_of(0, 0, 0);
            })
            .is_err(),
        )
    };
    "kernels::parallel::Grid::tile": (i: usize = 1, j: usize = 1) => {
        let mut numbers = [0u8; 35];
        let grid = Grid::new(&mut numbers, 5, 7, 2, 3)?;
        Ok::<_, Error>(in_a_chunk(|| grid.tile(i, j).row(0).fill(1))? && i < 3 && j < 3 && numbers[i * 14 + j * 3] == 1)
    };
    "kernels::parallel::Grid::tile_of": (plane: usize = 1, i: usize = 1, j: usize = 1) => {
        let mut numbers = [0u8; 40];
        let grid = Grid::batched(&mut numbers, 2, 4, 5, 2, 3)?;
        Ok::<_, Error>(
            in_a_chunk(|| grid.tile_of(plane, i, j).row(0).fill(1))? && numbers[plane * 20 + i * 10 + j * 3] == 1,
        )
    };
    "kernels::parallel::Tile::row": (row: usize = 1) => {
        let mut numbers = [0u8; 12];
        let grid = Grid::new(&mut numbers, 3, 4, 2, 4)?;
        Ok::<_, Error>(in_a_chunk(|| grid.tile(0, 0).row(row).fill(1))? && row < 2 && numbers[4 * row] == 1)
    };
    "kernels::parallel::PartialSlots::new": (values: Vec<f32> = vec![1.0, 2.0, 3.0, 4.0], width: usize = 2) => {
        let mut values = values;
        Ok::<_, Error>(PartialSlots::new(&mut values, width)?.sum().iter().all(|&x| x == 0.0))
    };
    "kernels::parallel::PartialSlots::filled": (values: Vec<f32> = vec![1.0, 2.0, 3.0, 4.0], width: usize = 2) => {
        let mut copy = values.clone();
        let sums = PartialSlots::filled(&mut copy, width)?.sum();
        let expected: Vec<f32> = (0..width.clamp(1, values.len().max(1)).min(values.len()))
            .map(|i| values.iter().skip(i).step_by(width.max(1)).sum())
            .collect();
        Ok::<_, Error>(sums.iter().zip(&expected).all(|(a, b)| same(*a, *b)) && sums.len() == expected.len())
    };
    "kernels::parallel::Settings::threads": (count: usize = 2) => {
        let settings = Settings::default().threads(count);
        let seen = Mutex::new(0);
        with_settings(settings, || parallel_for(8, 1, |range| *seen.lock().unwrap() += range.len()))?;
        let running = with_settings(settings, threads);
        Ok::<_, Error>(
            *seen.lock().unwrap() == 8 && running >= 1 && (running == count || count == 0 || count > 1 << 16),
        )
    };
    "kernels::parallel::with_threads": (count: usize = 2) => {
        let seen = Mutex::new(0);
        with_threads(count, || parallel_for(8, 1, |range| *seen.lock().unwrap() += range.len()))?;
        Ok::<_, Error>(seen.into_inner().unwrap() == 8)
    };
    "kernels::parallel::Settings::order": (seed: u64 = 3) => {
        let seen = Mutex::new(Vec::new());
        with_settings(Settings::default().order(Order::Shuffled(seed)), || {
            parallel_for(8, 1, |range| seen.lock().unwrap().extend(range))
        })?;
        let mut seen = seen.into_inner().unwrap();
        seen.sort_unstable();
        Ok::<_, Error>(seen.into_iter().eq(0..8))
    };
    "kernels::parallel::parallel_for": (range: usize = 10, grain: usize = 1 << 62) => {
        let seen = Mutex::new(Vec::<Range<usize>>::new());
        parallel_for(range, grain, |chunk| seen.lock().unwrap().push(chunk))?;
        let mut seen = seen.into_inner().unwrap();
        seen.sort_by_key(|chunk| chunk.start);
        let joined = seen.windows(2).all(|pair| pair[0].end == pair[1].start)
            && seen.iter().all(|chunk| chunk.start < chunk.end);
        Ok::<_, Error>(
            joined
                && seen.first().map_or(0, |chunk| chunk.start) == 0
                && seen.last().map_or(0, |chunk| chunk.end) == range,
        )
    };

    "kernels::pool::MaxPool::new": (kernel: Vec<usize> = vec![2, 2]) => {
        let op = MaxPool::new(&kernel)?;
        Ok::<_, Error>(works(&op, &[values(&[1, 2, 5, 6])?]).is_ok_and(|right| right) || kernel.len() != 2)
    };
    "kernels::pool::AveragePool::new": (kernel: Vec<usize> = vec![2, 2]) => {
        let op = AveragePool::new(&kernel)?;
        Ok::<_, Error>(works(&op, &[values(&[1, 2, 5, 6])?]).is_ok_and(|right| right) || kernel.len() != 2)
    };
    "kernels::pool::MaxPool {}": (
        kernel: Vec<usize> = vec![3, 2],
        stride: Vec<usize> = vec![2, 1],
        padding: Vec<usize> = vec![1, 0],
        dilation: Vec<usize> = vec![1, 2],
    ) => {
        let both_modes = [false, true].map(|ceil_mode| {
            let op = MaxPool {
                kernel: kernel.clone(),
                stride: stride.clone(),
                padding: padding.clone(),
                dilation: dilation.clone(),
                ceil_mode,
            };
            works(&op, &[values(&[1, 2, 7, 8])?])
        });
        both_modes.into_iter().collect::<Result<Vec<bool>>>()
    };
    "kernels::pool::AveragePool {}": (
        kernel: Vec<usize> = vec![3, 2],
        stride: Vec<usize> = vec![2, 1],
        padding: Vec<usize> = vec![1, 0],
    ) => {
        let both_modes = [false, true].map(|ceil_mode| {
            let op = AveragePool {
                kernel: kernel.clone(),
                stride: stride.clone(),
                padding: padding.clone(),
                ceil_mode,
                count_include_pad: !ceil_mode,
            };
            works(&op, &[values(&[1, 2, 7, 8])?])
        });
        both_modes.into_iter().collect::<Result<Vec<bool>>>()
    };
    "kernels::pool::AdaptiveMaxPool {}": (output: Vec<usize> = vec![2, 3], batch: usize = 1) => {
        let x = values(&[1, 2, 5, 6])?.expand(&[batch, 2, 5, 6])?;
        gives(&AdaptiveMaxPool { output: output.clone() }, &[x], &[&[batch, 2], &output[..]].concat())
    };
    "kernels::pool::AdaptiveAveragePool {}": (output: Vec<usize> = vec![2, 3], batch: usize = 1) => {
        let x = values(&[1, 2, 5, 6])?.expand(&[batch, 2, 5, 6])?;
        gives(&AdaptiveAveragePool { output: output.clone() }, &[x], &[&[batch, 2], &output[..]].concat())
    };
    "kernels::pool::AdaptiveMaxPool {}": (output: Vec<usize> = vec![2, 3]) => {
        // Without images there is nothing to compute, whatever the size.
        let x = Tensor::zeros(&[0, 2, 5, 6], DType::F32, Device::Cpu)?;
        works(&AdaptiveMaxPool { output: output.clone() }, std::slice::from_ref(&x))?;
        works(&AdaptiveAveragePool { output: output.clone() }, std::slice::from_ref(&x))?;
        works(&Interpolate { size: output, mode: Interpolation::Linear }, &[x])
    };
    "kernels::resample::Interpolate {}": (size: Vec<usize> = vec![3, 9]) => {
        let modes = [Interpolation::Nearest, Interpolation::Linear, Interpolation::LinearCorners].map(|mode| {
            gives(&Interpolate { size: size.clone(), mode }, &[values(&[1, 2, 5, 6])?], &[&[1, 2], &size[..]].concat())
        });
        modes.into_iter().collect::<Result<Vec<bool>>>()
    };
    "kernels::reduce::Reduce {}": (axes: Vec<usize> = vec![0, 2]) => {
        let all = [Combine::Sum, Combine::Mean, Combine::Max, Combine::Min].map(|combine| {
            let kept: Vec<usize> = (0..3).map(|axis| if axes.contains(&axis) { 1 } else { [2, 3, 4][axis] }).collect();
            gives(&Reduce { combine, axes: axes.clone(), keep_axes: true }, &[values(&[2, 3, 4])?], &kept)
        });
        all.into_iter().collect::<Result<Vec<bool>>>()
    };
    "kernels::sort::Sort {}": (axis: usize = 1, count: Option<usize> = Some(2)) => {
        let shape: Vec<usize> =
            [2, 3].iter().enumerate().map(|(a, &size)| if a == axis { count.unwrap_or(size) } else { size }).collect();
        gives(&Sort { axis, descending: true, count }, &[values(&[2, 3])?], &shape)
    };
    "kernels::cumulative::CumulativeSum {}": (axis: usize = 1) => {
        gives(&CumulativeSum { axis, reverse: true }, &[values(&[2, 3])?], &[2, 3])
    };
    "kernels::reduce::ArgMax {}": (axis: usize = 1) => {
        Ok::<_, Error>(
            run(&ArgMax { axis }, &[&values(&[2, 3])?], &Context::default())?.outputs[0].rank() == 1 && axis < 2,
        )
    };
    "kernels::reduce::sum_to": (shape: Vec<usize> = vec![1, 3]) => {
        let sum = reduce::sum_to(&values(&[2, 3])?, &shape)?;
        let fits = shape.iter().rev().zip([3, 2]).all(|(&size, full)| size == full || size == 1);
        Ok::<_, Error>(sum.shape() == shape && fits && finite(&[sum])?)
    };
    "kernels::testing::Proven::is_differentiable": (index: usize = 0) => {
        use testing::Proven;
        Gather { axis: 0 }.is_differentiable(index) == (index == 0) && Softmax { axis: 0 }.is_differentiable(index)
    };
    "kernels::testing::around": (blocks: Vec<usize> = vec![4, 8]) => {
        let size = testing::around(&mut Seed::new(1).random(), &blocks);
        blocks.iter().any(|block| block.abs_diff(size) <= 1) || blocks.is_empty() && size <= 2
    };
    "kernels::testing::corner": (least: usize = 2, most: usize = 4, blocks: Vec<usize> = vec![4, 8]) => {
        // At most eight axes; a single axis near a block size.
        let shape = testing::corner(&mut Seed::new(1).random(), least, most, &blocks);
        let most = most.min(8);
        (least.max(2).min(most)..=most).contains(&shape.len())
            && shape.iter().filter(|size| !(1..=3).contains(*size)).count() <= 1
    };
    "kernels::testing::exact_sum": (value: f64 = 2.0) => {
        let (sum, expected) = (testing::exact_sum([value, 1.0].into_iter()), value + 1.0);
        Ok::<_, Error>(sum == expected || sum.is_nan() && expected.is_nan())
    };
    "kernels::testing::map": (value: f64 = 2.0) => {
        let mapped = testing::map(&values(&[3])?, |_| value)?.to_vec_f64()?;
        Ok::<_, Error>(mapped.iter().all(|x| x.to_bits() == value.to_bits()))
    };
    "kernels::testing::shape": (least: usize = 1, most: usize = 4) => {
        // At most eight axes, and otherwise as many as requested.
        let shape = testing::shape(&mut Seed::new(1).random(), least, most);
        (least.min(8)..=most.clamp(least.min(8), 8)).contains(&shape.len())
    };
    "kernels::testing::values": (shape: Vec<usize> = vec![2, 3]) => {
        testing::values(&mut Seed::new(1).random(), &shape)
    };

    "kernels::simd::Vector::bits_shl": (count: u32 = 1) => {
        probe(|probe| probe.count = count, |_, probed| probed.shl == 0x8000_0001u32.checked_shl(count).unwrap_or(0))
    };
    "kernels::simd::Vector::bits_shr": (count: u32 = 1) => {
        probe(|probe| probe.count = count, |_, probed| probed.shr == 0x8000_0001u32.checked_shr(count).unwrap_or(0))
    };
    "kernels::simd::Vector::splat": (x: f32 = 0.5) => probe(|probe| probe.x = x, |_, probed| same(probed.splat, x));
    "kernels::simd::Vector::splat_bits": (bits: u64 = 1) => {
        probe(|probe| probe.bits = bits, |_, probed| probed.splat_bits == bits as u32)
    };
    "kernels::simd::Vector::load": (row: [f32; 16] = [1.0; 16]) => {
        probe(|probe| probe.row = row, |_, probed| probed.row.iter().zip(row).all(|(&a, b)| same(a, b)))
    };
    "kernels::simd::Vector::load_partial": (row: [f32; 16] = [1.0; 16]) => {
        probe(|probe| probe.row = row, |_, probed| probed.row.iter().zip(row).all(|(&a, b)| same(a, b)))
    };
    "kernels::simd::Vector::store": (row: [f32; 16] = [2.0; 16]) => {
        probe(|probe| probe.row = row, |_, probed| probed.row.iter().zip(row).all(|(&a, b)| same(a, b)))
    };
    "kernels::simd::Vector::store_partial": (row: [f32; 16] = [2.0; 16]) => {
        probe(|probe| probe.row = row, |_, probed| probed.row.iter().zip(row).all(|(&a, b)| same(a, b)))
    };
    "kernels::simd::Lanes16::splat": (x: f32 = 0.5) => {
        probe(|probe| probe.x = x, |_, probed| probed.lanes[32..].iter().all(|&a| same(a, x)))
    };
    "kernels::simd::Lanes16::load": (row: [f32; 16] = [1.0; 16]) => {
        probe(|probe| probe.row = row, |_, probed| probed.lanes.iter().zip(row).all(|(&a, b)| same(a, b)))
    };
    "kernels::simd::Lanes16::store_partial": (row: [f32; 16] = [2.0; 16]) => {
        probe(|probe| probe.row = row, |_, probed| probed.lanes.iter().zip(row).all(|(&a, b)| same(a, b)))
    };
    "kernels::simd::Lanes16::load_partial": (row: [f32; 16] = [1.0; 16], fill: f32 = 0.5) => {
        probe(
            |probe| (probe.row, probe.x) = (row, fill),
            |_, probed| {
                probed.lanes[16..19].iter().zip(row).all(|(&a, b)| same(a, b))
                    && probed.lanes[19..32].iter().all(|&a| same(a, fill))
            },
        )
    };
    "kernels::simd::Lanes16::fold": (row: [f32; 16] = [1.0; 16]) => {
        probe(|probe| probe.row = row, |_, probed| near(probed.folded, plain(&row)))
    };
    "kernels::simd::Lanes16::horizontal_sums": (row: [f32; 16] = [1.0; 16]) => {
        probe(|probe| probe.row = row, |_, probed| probed.sums.iter().all(|&sum| near(sum, plain(&row))))
    };
    "kernels::simd::sum": (row: [f32; 16] = [1.0; 16]) => {
        probe(|probe| probe.row = row, |_, probed| near(probed.sum, plain(&row)))
    };
    "kernels::simd::dot": (row: [f32; 16] = [1.0; 16]) => {
        probe(|probe| probe.row = row, |_, probed| near(probed.dot, plain(&row)))
    };
    "kernels::simd::math::polynomial": (x: f32 = 0.5) => {
        probe(|probe| probe.x = x, |_, probed| near(probed.polynomial, f64::from(x) + 2.0 + 4.0))
    };

    "kernels::softmax::Softmax {}": (axis: usize = 1) => gives(&Softmax { axis }, &[values(&[2, 3])?], &[2, 3]);
    "kernels::softmax::LogSoftmax {}": (axis: usize = 1) => gives(&LogSoftmax { axis }, &[values(&[2, 3])?], &[2, 3]);
    "kernels::trace::Peaks {}": (gflops: f64 = 100.0, gbytes: f64 = 20.0) => {
        let seconds = trace::Peaks { gflops, gbytes }.seconds(cost(1e9, 1e9));
        // With a throughput of 0, the time is infinite.
        if gflops > 0.0 && gbytes > 0.0 { seconds >= 0.0 } else { seconds == f64::INFINITY }
    };
    "kernels::trace::Peaks::seconds": (flops: f64 = 1e9, bytes: f64 = 1e9) => {
        let seconds = trace::Peaks { gflops: 100.0, gbytes: 20.0 }.seconds(cost(flops, bytes));
        if flops >= 0.0 && bytes >= 0.0 { seconds >= 0.0 } else { true }
    };
    "kernels::trace::estimates": (time: f64 = 1.0) => {
        let (_, events) = trace::collect(|| {
            trace::estimates(&[("a", time)]);
            run(&Softmax { axis: 0 }, &[&values(&[3]).unwrap()], &Context::default()).is_ok()
        });
        events.iter().any(|event| event.estimates.first().is_some_and(|(_, found)| found.to_bits() == time.to_bits()))
    };
    "kernels::view::View {}": (axes: Vec<usize> = vec![1, 0]) => {
        gives(&View::Permute(axes), &[values(&[2, 3])?], &[3, 2])
    };
    "kernels::view::View {}": (axis: usize = 1, start: usize = 1, length: usize = 2, step: usize = 2) => {
        let mut shape = vec![3, 5];
        if let Some(size) = shape.get_mut(axis) {
            *size = length;
        }
        gives(&View::Slice { axis, start, length, step }, &[values(&[3, 5])?], &shape)
    };
    "kernels::view::View {}": (shape: Vec<usize> = vec![2, 3]) => {
        let x = values(&[1, 3])?;
        gives(&View::Expand(shape.clone()), &[x], &shape)
    };
    "kernels::view::View {}": (shape: Vec<usize> = vec![3, 2]) => {
        let x = values(&[2, 3])?.transpose(0, 1)?;
        gives(&View::Reshape(shape.clone()), &[x], &shape)
    };
}

/// A count of a shape that passes its check.
fn shape_count(shape: &ConvShape, count: impl Fn(&ConvShape) -> usize) -> Result<usize> {
    shape.check().map(|()| count(shape))
}
