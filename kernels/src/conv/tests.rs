//! Compares convolutions of all shapes with the reference, and their bits between instruction sets, thread counts and orders.

use super::cpu::{Activation, Epilogue, Inputs, Outputs, Path, backward_bias, forward, transposed_forward};
use super::{Conv, ConvActivation, ConvShape, proofs::random_shape, reference};
use crate::elementwise::{Chain, Function};
use crate::norm::Moments;
use crate::parallel::{Order, Settings, as_uninit, with_settings};
use crate::simd::{Isa, Real};
use crate::{Context, Precision, run};
use proptest::prelude::*;
use tomograd_core::{DType, Device, Seed, Tensor};

fn numbers<T: Real>(count: usize, seed: u64) -> Vec<T> {
    let mut random = Seed::new(seed).random();
    (0..count).map(|_| T::from_f64(random.uniform_in(-1.0, 1.0))).collect()
}

/// The settings under which results must be bitwise equal. Portable code is slow, so large shapes leave it out.
fn ways(portable: bool) -> Vec<Settings> {
    let mut ways = Vec::new();
    for isa in Isa::available().filter(|&isa| portable || isa != Isa::Portable) {
        ways.push(Settings::default().isa(isa).unwrap().threads(1));
    }
    ways.push(Settings::default().threads(2));
    ways.push(Settings::default().threads(5).order(Order::Shuffled(7)));
    ways
}

/// Runs `f` under all settings, checks that the results are bitwise equal, and returns the result.
fn in_all_ways<T: Real>(portable: bool, what: &str, f: impl Fn() -> Vec<T>) -> Vec<T> {
    let mut first: Option<Vec<T>> = None;
    for way in ways(portable) {
        let out = with_settings(way, &f);
        if let Some(first) = &first {
            let differs = first.iter().zip(&out).position(|(a, b)| a.to_bits64() != b.to_bits64());
            assert_eq!(differs, None, "{what} {way:?}: other bits");
        }
        first.get_or_insert(out);
    }
    first.unwrap_or_default()
}

/// Checks sums of up to `length` products, computed as one chain or as a sum of chains: |error| ≤ c length ε Σ|a||b|, with
/// c = 0.51. `extra` is a value that was added to the sum.
fn assert_close<T: Real>(
    what: &str,
    got: &[T],
    exact: &(Vec<f64>, Vec<f64>),
    length: usize,
    extra: impl Fn(usize) -> f64,
) {
    assert_eq!(got.len(), exact.0.len());
    for (i, &y) in got.iter().enumerate() {
        let bound = 0.51 * (length + 2) as f64 * T::EPSILON.to_f64() * (exact.1[i] + extra(i).abs());
        let error = (y.to_f64() - exact.0[i] - extra(i)).abs();
        assert!(
            error <= bound,
            "{what}: element {i} is {y}, not {}, off by {error:e} > {bound:e}",
            exact.0[i] + extra(i)
        );
    }
}

/// Splits (N, C, voxels) after `channels` channels.
fn split<T: Copy>(data: &[T], batch: usize, channels: usize, first: usize, voxels: usize) -> (Vec<T>, Vec<T>) {
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for n in 0..batch {
        let image = &data[n * channels * voxels..(n + 1) * channels * voxels];
        a.extend_from_slice(&image[..first * voxels]);
        b.extend_from_slice(&image[first * voxels..]);
    }
    (a, b)
}

/// Checks every path that can compute the shape, not only the chosen one.
fn check<T: Real>(shape: ConvShape, first: usize, seed: u64, portable: bool) {
    for path in Path::ALL.into_iter().filter(|path| path.suits::<T>(&shape)) {
        check_path::<T>(path, shape, first, seed, portable);
    }
}

fn check_path<T: Real>(path: Path, shape: ConvShape, first: usize, seed: u64, portable: bool) {
    let name = format!("{} {path} {shape:?} first {first}", T::NAME);
    // The rounding error of the transforms, relative to the sum of absolute products. It is that of a whole tile, also for an
    // element at a corner that reads few of 25 voxels.
    let extra_length = match (path, shape.kernel[2]) {
        (Path::Winograd, 5) => 400,
        (Path::Winograd, _) => 60,
        _ => 0,
    };
    let x = numbers::<T>(shape.input_count(), seed);
    let w = numbers::<T>(shape.weight_count(), seed + 1);
    let dy = numbers::<T>(shape.output_count(), seed + 2);
    let bias = numbers::<T>(shape.out_channels, seed + 3);
    let (x1, x2) = split(&x, shape.batch, shape.in_channels, first, shape.input_voxels());
    let inputs = || Inputs::two(&x1, first, &x2, shape.in_channels - first);

    let y = in_all_ways(portable, &name, || {
        let mut y = vec![T::NAN; shape.output_count()];
        let out = Outputs::one(as_uninit(&mut y), shape.out_channels);
        path.forward(&shape, inputs(), &w, Epilogue::bias(Some(&bias)), out).unwrap();
        y
    });
    let exact = reference::forward(&shape, &x, &w).unwrap();
    let voxels = shape.output_voxels();
    let length = shape.group_inputs() * shape.taps() + 1 + extra_length;
    assert_close(&name, &y, &exact, length, |i| bias[i / voxels % shape.out_channels].to_f64());

    let dx = in_all_ways(portable, &name, || {
        let (mut a, mut b) = (vec![T::NAN; x1.len()], vec![T::NAN; x2.len()]);
        let out = Outputs::two(as_uninit(&mut a), first, as_uninit(&mut b), shape.in_channels - first);
        path.backward_data(&shape, &dy, &w, out).unwrap();
        a.extend(b);
        a
    });
    let exact = reference::backward_data(&shape, &dy, &w).unwrap();
    let parts = |v: &[f64]| {
        let (mut a, b) = split(v, shape.batch, shape.in_channels, first, shape.input_voxels());
        a.extend(b);
        a
    };
    let exact = (parts(&exact.0), parts(&exact.1));
    assert_close(&name, &dx, &exact, shape.group_outputs() * shape.taps() + extra_length, |_| 0.0);

    let dw = in_all_ways(portable, &name, || {
        let mut dw = vec![T::NAN; shape.weight_count()];
        path.backward_weights(&shape, inputs(), &dy, as_uninit(&mut dw)).unwrap();
        dw
    });
    let exact = reference::backward_weights(&shape, &x, &dy).unwrap();
    assert_close(&name, &dw, &exact, shape.batch * voxels + extra_length, |_| 0.0);

    let db = in_all_ways(portable, &name, || {
        let mut db = vec![T::NAN; shape.out_channels];
        backward_bias(&shape, &dy, as_uninit(&mut db)).unwrap();
        db
    });
    let mut exact = (vec![0.0; db.len()], vec![0.0; db.len()]);
    for (i, &d) in dy.iter().enumerate() {
        exact.0[i / voxels % shape.out_channels] += d.to_f64();
        exact.1[i / voxels % shape.out_channels] += d.to_f64().abs();
    }
    assert_close(&name, &db, &exact, 4096, |_| 0.0);
}

/// Checks the whole epilogue and the moments, for every path that can compute the shape.
fn check_epilogue<T: Real>(shape: ConvShape, seed: u64) {
    for path in Path::ALL.into_iter().filter(|path| path.suits::<T>(&shape)) {
        check_epilogue_path::<T>(path, shape, seed);
    }
}

fn check_epilogue_path<T: Real>(path: Path, shape: ConvShape, seed: u64) {
    let x = numbers::<T>(shape.input_count(), seed);
    let w = numbers::<T>(shape.weight_count(), seed + 1);
    let c = shape.out_channels;
    // A large bias reveals moments that are computed as a difference of two large numbers.
    let bias: Vec<T> = (0..c).map(|i| T::from_f64(100.0 + i as f64)).collect();
    let [center, scale, shift] = [2, 3, 4].map(|k| numbers::<T>(c, seed + k));
    let exact = reference::forward(&shape, &x, &w).unwrap();
    let voxels = shape.output_voxels();
    let moments = std::cell::RefCell::new(Vec::new());
    let ends_in_cache = matches!(path, Path::Pointwise | Path::Depthwise);
    let function = |function: Option<Function>| (Activation::Identity, function);
    let activations = [Activation::Relu, Activation::LeakyRelu(0.01)].map(|activation| (activation, None));
    let functions = [None, ends_in_cache.then_some(Function::Silu)].map(function);
    for (activation, function) in activations.into_iter().chain(functions) {
        let y = in_all_ways(true, "epilogue", || {
            let mut y = vec![T::NAN; shape.output_count()];
            let mut taken = vec![Moments::default(); shape.batch * c];
            let epilogue = Epilogue {
                bias: Some(&bias),
                norm: Some([&center, &scale, &shift]),
                activation,
                function,
                moments: Some(&mut taken),
            };
            let out = Outputs::one(as_uninit(&mut y), c);
            path.forward(&shape, Inputs::one(&x, shape.in_channels), &w, epilogue, out).unwrap();
            let numbers = |m: &Moments| [m.count, m.mean, m.squares].map(T::from_f64);
            y.extend(taken.iter().flat_map(numbers));
            *moments.borrow_mut() = taken;
            y
        });
        for (i, &y) in y[..shape.output_count()].iter().enumerate() {
            let channel = i / voxels % c;
            let sum = exact.0[i] + bias[channel].to_f64();
            let z = (sum + center[channel].to_f64()) * scale[channel].to_f64() + shift[channel].to_f64();
            let want = match activation {
                Activation::Identity => z,
                Activation::Relu => z.max(0.0),
                Activation::LeakyRelu(slope) => {
                    if z < 0.0 {
                        z * slope
                    } else {
                        z
                    }
                }
            };
            // The slope of SiLU is at most 1.1.
            let want = if function.is_some() { want / (1.0 + (-want).exp()) } else { want };
            let error = (y.to_f64() - want).abs();
            assert!(error < 1e3 * T::EPSILON.to_f64() * sum.abs(), "{activation:?} {i}: {y}, not {want}");
        }
        for (i, moments) in moments.borrow().iter().enumerate() {
            let values: Vec<f64> =
                exact.0[i * voxels..(i + 1) * voxels].iter().map(|y| y + bias[i % c].to_f64()).collect();
            let mean = values.iter().sum::<f64>() / voxels as f64;
            let squares: f64 = values.iter().map(|y| (y - mean) * (y - mean)).sum();
            assert_eq!(moments.count, voxels as f64);
            assert!((moments.mean - mean).abs() < 1e2 * T::EPSILON.to_f64() * mean.abs(), "{moments:?} {mean}");
            let tolerance = 1e3 * T::EPSILON.to_f64() * (squares + mean.abs() * squares.sqrt());
            assert!((moments.squares - squares).abs() < tolerance, "{moments:?} {squares}");
        }
    }
}

/// Shapes of every kind, small enough for the reference.
fn shapes() -> impl Strategy<Value = (ConvShape, usize)> {
    let axis = || (0usize..12, 1usize..4, 1usize..4, 0usize..3, 1usize..3);
    let channels = (0usize..3, 1usize..4, 0usize..6, 0usize..10);
    (channels, axis(), axis(), axis(), any::<[bool; 2]>(), 0usize..20).prop_map(
        |((batch, groups, inputs, outputs), z, y, x, [flat_z, flat_y], first)| {
            let flat = (1, 1, 1, 0, 1);
            let axes = [if flat_z { flat } else { z }, if flat_z && flat_y { flat } else { y }, x];
            // Large enough for the kernel, so that the shape is valid.
            let input = axes.map(|(size, kernel, _, padding, dilation)| {
                size.max((dilation * (kernel - 1) + 1usize).saturating_sub(2 * padding))
            });
            let shape = ConvShape {
                batch,
                groups,
                in_channels: inputs * groups,
                out_channels: outputs * groups,
                input,
                kernel: axes.map(|a| a.1),
                stride: axes.map(|a| a.2),
                padding: axes.map(|a| a.3),
                dilation: axes.map(|a| a.4),
                precision: Precision::Fast,
            };
            let first = first.min(shape.in_channels);
            (shape, first)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn convolutions_are_right((shape, first) in shapes(), seed in 0u64..99) {
        prop_assume!(shape.multiply_adds() < 400_000);
        check::<f32>(shape, first, seed, true);
        check::<f64>(shape, first, seed, true);
    }
}

fn shape(batch: usize, channels: [usize; 2], input: [usize; 3], kernel: [usize; 3], stride: usize) -> ConvShape {
    ConvShape {
        batch,
        groups: 1,
        in_channels: channels[0],
        out_channels: channels[1],
        input,
        kernel,
        stride: kernel.map(|k| if k == 1 { 1 } else { stride }),
        padding: kernel.map(|k| k / 2),
        dilation: [1; 3],
        precision: Precision::Fast,
    }
}

#[test]
fn layers_with_many_channels_are_right() {
    check::<f32>(shape(1, [19, 35], [5, 6, 20], [3; 3], 1), 7, 1, false);
    check::<f32>(shape(1, [70, 33], [4, 4, 4], [3; 3], 1), 0, 2, false);
    check::<f32>(shape(2, [33, 70], [1, 12, 9], [1, 3, 3], 2), 33, 3, false);
    check::<f32>(shape(1, [3, 140], [1, 9, 10], [1, 5, 5], 1), 1, 4, false);
    check::<f64>(shape(1, [10, 20], [4, 5, 6], [3; 3], 2), 4, 5, false);
    // So few positions that the weights are read where they are: the panels of all groups are whole.
    check::<f32>(ConvShape { groups: 2, ..shape(2, [20, 48], [1, 5, 5], [1, 3, 3], 2) }, 10, 6, true);
    check_path::<f32>(Path::Dense, shape(1, [600, 24], [1, 7, 7], [1, 3, 3], 1), 300, 7, false);
    check::<f64>(shape(1, [30, 16], [2, 3, 3], [3; 3], 1), 11, 8, false);
}

#[test]
fn winograd_layers_are_right() {
    let padded = |shape: ConvShape, padding| ConvShape { padding, ..shape };
    let shapes = [
        (shape(1, [16, 16], [3, 4, 8], [3; 3], 1), 3, true),
        (shape(2, [17, 33], [2, 5, 7], [3; 3], 1), 17, false),
        (shape(3, [40, 16], [1, 9, 30], [1, 3, 3], 1), 24, false),
        (shape(0, [16, 16], [1, 9, 30], [1, 3, 3], 1), 0, false),
        (padded(shape(1, [16, 48], [5, 7, 6], [3; 3], 1), [2, 0, 2]), 16, false),
        (padded(shape(1, [24, 20], [4, 6, 11], [2, 3, 3], 1), [0, 2, 0]), 5, false),
        (ConvShape { groups: 2, ..shape(1, [34, 36], [3, 6, 8], [3; 3], 1) }, 18, false),
        (shape(1, [130, 16], [3, 18, 8], [3; 3], 1), 0, false),
        // Boxes of many planes: the planes that a step shares with the previous one are reused.
        (shape(1, [16, 16], [40, 16, 17], [3; 3], 1), 4, false),
        (shape(2, [16, 20], [19, 13, 14], [2, 3, 3], 1), 4, false),
        // The output channels are divided into parts.
        (shape(1, [16, 130], [3, 4, 5], [3; 3], 1), 0, false),
        // Five taps along y and x.
        (shape(1, [16, 16], [6, 7, 9], [5; 3], 1), 3, true),
        (shape(2, [17, 33], [1, 5, 8], [1, 5, 5], 1), 17, false),
        (padded(shape(1, [20, 24], [4, 6, 11], [2, 5, 5], 1), [1, 0, 4]), 5, false),
        (padded(shape(1, [16, 20], [3, 5, 6], [4, 5, 5], 1), [3, 3, 2]), 16, false),
        (ConvShape { groups: 2, ..shape(1, [34, 36], [4, 6, 5], [3, 5, 5], 1) }, 18, false),
        (shape(1, [16, 16], [30, 14, 17], [5; 3], 1), 4, false),
    ];
    for (seed, (shape, first, portable)) in shapes.into_iter().enumerate() {
        check_path::<f32>(Path::Winograd, shape, first, seed as u64, portable);
    }
    check_epilogue::<f32>(shape(2, [16, 17], [4, 7, 18], [3; 3], 1), 1);
    check_epilogue::<f32>(shape(2, [16, 16], [1, 7, 18], [1, 3, 3], 1), 1);
    check_epilogue::<f32>(shape(2, [16, 20], [9, 13, 14], [5; 3], 1), 1);
    check_epilogue::<f32>(shape(1, [16, 33], [18, 13, 14], [3; 3], 1), 1);
    // So many weights that the output channels are computed in rounds.
    check_epilogue_path::<f32>(Path::Winograd, shape(1, [480, 500], [1, 2, 3], [1, 3, 3], 1), 1);
}

#[test]
fn the_model_chooses_what_is_fast_and_what_is_allowed() {
    let usual = shape(1, [32, 32], [32; 3], [3; 3], 1);
    let first_layer = shape(1, [1, 32], [32; 3], [3; 3], 1);
    let path = |shape: ConvShape| Path::choose::<f32>(&shape);
    assert_eq!(path(usual), Path::Winograd);
    assert_eq!(path(ConvShape { precision: Precision::Strict, ..usual }), Path::Dense);
    assert_eq!(Path::choose::<f64>(&usual), Path::Dense);
    assert_eq!(path(first_layer), Path::Dense);
    assert_eq!(path(shape(1, [320, 320], [2; 3], [3; 3], 1)), Path::Dense);
    assert_eq!(path(shape(1, [32, 64], [32; 3], [3; 3], 2)), Path::Dense);
    let out = Outputs::one(&mut [], 0);
    let strided = ConvShape { batch: 0, out_channels: 0, ..shape(1, [32, 64], [32; 3], [3; 3], 2) };
    let error = Path::Winograd.forward(&strided, Inputs::one(&[], 32), &[] as &[f32], Epilogue::default(), out);
    assert!(error.unwrap_err().to_string().contains("winograd"), "a path that doesn't suit is an error");
}

/// Verifies the documentation of [`Precision::Fast`] for a voxel that is far larger than its neighbours, or not finite.
#[test]
fn an_outlier_reaches_three_voxels_of_a_winograd_plane() {
    let shape = shape(1, [16, 16], [3, 19, 22], [3; 3], 1);
    let noise: Vec<f32> = numbers::<f32>(shape.input_count(), 1).into_iter().map(|x| 0.01 * x).collect();
    let w = numbers::<f32>(shape.weight_count(), 2);
    let run = |path: Path, x: &[f32]| {
        let mut y = vec![f32::NAN; shape.output_count()];
        let out = Outputs::one(as_uninit(&mut y), 16);
        path.forward(&shape, Inputs::one(x, 16), &w, Epilogue::default(), out).unwrap();
        y
    };
    let (size, channel) = (1e6f32, 5);
    let largest = w.chunks(27).skip(channel).step_by(16).flatten().fold(0.0f32, |largest, w| largest.max(w.abs()));
    let bound = 32.0 / 16_777_216.0 * f64::from(size * largest);
    let mut worst = 0.0f64;
    let mut farthest = 0;
    for at in 0..16 {
        let place = [1, 4 + at % 5, 6 + at % 7];
        let flat = ((channel * 3 + place[0]) * 19 + place[1]) * 22 + place[2];
        let mut x = noise.clone();
        x[flat] = size;
        let exact = reference::forward(&shape, &x, &w).unwrap().0;
        // The distance of an output from the outlier: along D, and along H and W.
        let far = |i: usize| [i / 418 % 3, i / 22 % 19, i % 22].map(|v| v as isize);
        let distances = |i: usize| {
            let [z, y, x] = far(i);
            [(z - place[0] as isize).abs(), (y - place[1] as isize).abs().max((x - place[2] as isize).abs())]
        };
        for path in [Path::Winograd, Path::Dense] {
            for (i, (&y, exact)) in run(path, &x).iter().zip(&exact).enumerate() {
                let ([deep, across], error) = (distances(i), (f64::from(y) - exact).abs());
                if deep <= 1 && across <= 1 {
                    continue;
                }
                if path == Path::Winograd && deep <= 1 && across <= 3 {
                    worst = worst.max(error);
                    assert!(error <= bound, "{error} is more than {bound}");
                } else {
                    assert!(error < 1e-5, "{path} {across} voxels away: off by {error}");
                }
            }
            for wrong in [f32::NAN, f32::INFINITY] {
                x[flat] = wrong;
                for (i, y) in run(path, &x).iter().enumerate() {
                    let [deep, across] = distances(i);
                    let sees = deep <= 1 && across <= 1;
                    let reach = path == Path::Winograd && deep <= 1 && across <= 3;
                    assert!(if sees { !y.is_finite() } else { reach || y.is_finite() }, "{path} {across} away: {y}");
                    if !sees && y.is_nan() {
                        farthest = farthest.max(across);
                    }
                }
            }
            x[flat] = size;
        }
    }
    // The documented bound is tight.
    assert!(worst > bound / 32.0, "{worst} is far below {bound}");
    assert_eq!(farthest, 3);
}

#[test]
fn depthwise_layers_are_right() {
    let deep = |groups: usize, outputs: usize, shape: ConvShape| ConvShape {
        groups,
        in_channels: groups,
        out_channels: groups * outputs,
        ..shape
    };
    let shapes = [
        deep(5, 1, shape(2, [1, 1], [4, 5, 21], [3; 3], 1)),
        deep(3, 2, shape(1, [1, 1], [3, 9, 7], [3; 3], 2)),
        deep(2, 1, shape(1, [1, 1], [1, 20, 40], [1, 7, 7], 1)),
        deep(2, 3, shape(2, [1, 1], [1, 1, 40], [1, 1, 5], 1)),
        deep(2, 1, ConvShape { dilation: [2; 3], padding: [2; 3], ..shape(1, [1, 1], [6, 5, 8], [3; 3], 1) }),
        // More rows of taps than a group holds, tiles of every size, a pitch that would be 128.
        deep(2, 1, shape(1, [1, 1], [3, 25, 121], [1, 9, 5], 1)),
        deep(2, 1, shape(1, [1, 1], [1, 1, 300], [1, 1, 3], 1)),
        // A source that is larger than the output, with planes that no tap reads.
        deep(3, 1, ConvShape { padding: [0; 3], ..shape(1, [1, 1], [5, 9, 20], [2, 4, 5], 1) }),
        deep(2, 1, ConvShape { stride: [4, 1, 3], ..shape(2, [1, 1], [9, 6, 20], [3; 3], 1) }),
    ];
    for (seed, shape) in shapes.into_iter().enumerate() {
        assert_eq!(Path::choose::<f32>(&shape), Path::Depthwise);
        check::<f32>(shape, 1, seed as u64, true);
        check::<f64>(shape, 0, seed as u64, true);
        check_epilogue::<f32>(shape, 1);
    }
    check::<f32>(deep(2, 1, shape(1, [1, 1], [60, 60, 60], [3; 3], 1)), 1, 9, false);
}

/// A single row of outputs that several rows of taps read: it can't be cut into pieces that serve as rows of a strip.
#[test]
fn the_weights_of_a_depthwise_kernel_higher_than_its_output_are_right() {
    let base = shape(1, [2, 2], [1, 1, 17], [1, 3, 1], 1);
    let shape = ConvShape { groups: 2, ..base };
    let mut dw = vec![f32::NAN; 6];
    let (x, dy) = (vec![1.0f32; 34], vec![1.0f32; 34]);
    Path::Depthwise.backward_weights(&shape, Inputs::one(&x, 2), &dy, as_uninit(&mut dw)).unwrap();
    assert_eq!(dw, [0.0, 17.0, 0.0, 0.0, 17.0, 0.0]);
    for (seed, width) in [15, 16, 17, 31, 32, 33, 65, 129].into_iter().enumerate() {
        for kernel in [[1, 3, 1], [1, 2, 3], [3, 5, 2], [1, 9, 1]] {
            let wide = ConvShape { input: [1, 1, width], kernel, padding: kernel.map(|size| size / 2), ..shape };
            check::<f32>(wide, 1, seed as u64, true);
            check::<f64>(ConvShape { dilation: [1, 2, 1], padding: [1, 8, 1], ..wide }, 1, seed as u64, false);
        }
    }
}

#[test]
fn several_boxes_are_right() {
    check::<f32>(shape(2, [3, 9], [1, 90, 70], [1, 3, 3], 1), 1, 1, false);
    check::<f32>(shape(1, [2, 5], [9, 40, 41], [3; 3], 2), 1, 2, false);
    check::<f32>(shape(1, [1, 8], [1, 1, 5000], [1, 1, 7], 1), 1, 3, false);
}

#[test]
fn pointwise_layers_are_right() {
    check::<f32>(shape(2, [12, 3], [3, 5, 11], [1; 3], 1), 5, 1, true);
    check::<f64>(shape(2, [12, 3], [3, 5, 11], [1; 3], 1), 12, 1, true);
    // With a stride, of the voxels that the kernel reads; the last ones of an axis may be none of them.
    let strided = |stride| ConvShape { stride, ..shape(2, [12, 3], [3, 5, 11], [1; 3], 1) };
    check::<f32>(strided([2, 2, 3]), 5, 2, true);
    check::<f64>(strided([1, 3, 1]), 0, 3, true);
    check::<f32>(strided([4, 8, 16]), 12, 4, true);
    check::<f32>(ConvShape { batch: 0, ..strided([2; 3]) }, 5, 5, true);
}

#[test]
fn epilogues_are_right() {
    check_epilogue::<f32>(shape(2, [3, 5], [4, 7, 18], [3; 3], 1), 1);
    check_epilogue::<f32>(shape(1, [3, 5], [1, 60, 50], [1, 3, 3], 1), 1);
    check_epilogue::<f64>(shape(2, [4, 3], [3, 4, 5], [1; 3], 1), 2);
    check_epilogue::<f64>(ConvShape { stride: [1, 2, 2], ..shape(2, [4, 3], [3, 4, 5], [1; 3], 1) }, 3);
}

#[test]
fn a_transposed_convolution_has_bias_and_two_inputs() {
    let shape = ConvShape { padding: [0; 3], ..shape(2, [3, 4], [6, 8, 10], [2; 3], 2) };
    let shape = ConvShape { stride: [2; 3], ..shape };
    let x = numbers::<f32>(shape.output_count(), 1);
    let w = numbers::<f32>(shape.weight_count(), 2);
    let (x1, x2) = split(&x, 2, 4, 1, shape.output_voxels());
    let mut y = vec![f32::NAN; shape.input_count()];
    let out = Outputs::one(as_uninit(&mut y), 3);
    transposed_forward(&shape, Inputs::two(&x1, 1, &x2, 3), &w, Epilogue::bias(Some(&[1.0, 2.0, 3.0])), out).unwrap();
    let exact = reference::backward_data(&shape, &x, &w).unwrap();
    let voxels = shape.input_voxels();
    assert_close("transposed", &y, &exact, 4, |i| (i / voxels % 3) as f64 + 1.0);
}

#[test]
fn what_does_not_fit_is_an_error() {
    let good = shape(1, [2, 2], [4; 3], [3; 3], 1);
    for bad in [
        ConvShape { groups: 0, ..good },
        ConvShape { groups: 3, ..good },
        ConvShape { stride: [0, 1, 1], ..good },
        ConvShape { kernel: [9, 3, 3], ..good },
        ConvShape { padding: [usize::MAX, 1, 1], ..good },
        ConvShape { batch: usize::MAX / 4, ..good },
    ] {
        assert!(bad.check().is_err(), "{bad:?}");
    }
    let (x, w) = (vec![0.0f32; 128], vec![0.0f32; 108]);
    let mut y = vec![0.0f32; 128];
    let mut run = |x: &[f32], w: &[f32], bias: Option<&[f32]>, length: usize| {
        let out = Outputs::one(as_uninit(&mut y[..length]), 2);
        forward(&good, Inputs::one(x, 2), w, Epilogue::bias(bias), out)
    };
    assert!(run(&x, &w, None, 128).is_ok());
    assert!(run(&x[1..], &w, None, 128).is_err());
    assert!(run(&x, &w[1..], None, 128).is_err());
    assert!(run(&x, &w, Some(&[0.0]), 128).is_err());
    assert!(run(&x, &w, None, 127).is_err());
}

/// Some parts of the paths are used by few kernels only; the forty random cases of an operation must reach them.
#[test]
fn random_shapes_reach_all_parts_of_a_path() {
    let mut random = Seed::new(1).random();
    let (mut planes, mut wide, mut groups) = (0, 0, 0);
    for _ in 0..4000 {
        let shape = ConvShape { precision: Precision::Fast, ..random_shape(&mut random).1 };
        let path = Path::choose::<f32>(&shape);
        planes += usize::from(path == Path::Winograd && shape.kernel == [3; 3]);
        wide += usize::from(path == Path::Winograd && shape.kernel[2] == 5);
        // Rows of taps in two groups, both of which read voxels.
        let tall = shape.kernel[1] > 7 && shape.stride[1] == 1 && shape.dilation[1] == 1;
        groups += usize::from(path == Path::Depthwise && tall && shape.input[1] > shape.kernel[1] / 2);
    }
    assert!(planes >= 150 && wide >= 60 && groups >= 60, "of 4000 shapes {planes}, {wide} and {groups}");
}

#[test]
fn a_function_that_the_path_does_not_apply_is_an_error() {
    let shape = ConvShape {
        batch: 1,
        groups: 1,
        in_channels: 2,
        out_channels: 2,
        input: [1, 4, 4],
        kernel: [1, 3, 3],
        stride: [1; 3],
        padding: [0, 1, 1],
        dilation: [1; 3],
        precision: Precision::Fast,
    };
    let (x, w) = (numbers::<f32>(shape.input_count(), 1), numbers::<f32>(shape.weight_count(), 2));
    let mut y = vec![0.0; shape.output_count()];
    let epilogue = Epilogue { function: Some(Function::Silu), ..Epilogue::default() };
    let out = Outputs::one(as_uninit(&mut y), shape.out_channels);
    let error = Path::Dense.forward(&shape, Inputs::one(&x, shape.in_channels), &w, epilogue, out).unwrap_err();
    assert!(error.to_string().contains("a pointwise or depthwise convolution"), "{error}");
}

/// In inference the convolution applies the activation itself where its path can; the bits are those of two operations.
#[test]
fn an_activation_after_a_convolution_is_that_of_two_operations() {
    let conv = |kernel: usize, groups: usize| Conv {
        stride: vec![1; 2],
        padding: vec![kernel / 2; 2],
        dilation: vec![1; 2],
        groups,
        two_inputs: false,
        bias: true,
    };
    let values =
        |shape: &[usize], seed| Tensor::uniform(shape, -1.0, 1.0, Seed::new(seed), DType::F32, Device::Cpu).unwrap();
    // The paths: pointwise, depthwise, dense and Winograd.
    for (kernel, groups, channels) in [(1, 1, 5), (3, 6, 6), (3, 1, 3), (3, 1, 40)] {
        let inputs = [
            values(&[2, channels, 13, 18], 1),
            values(&[channels, channels / groups, kernel, kernel], 2),
            values(&[channels], 3),
        ];
        let inputs: Vec<&Tensor> = inputs.iter().collect();
        for activation in [Function::Relu, Function::LeakyRelu(0.1), Function::Silu, Function::Elu(1.0)] {
            let op = ConvActivation { conv: conv(kernel, groups), activation };
            let inference = Context::default().inference(true);
            let z = run(&op.conv, &inputs, &inference).unwrap().outputs.remove(0);
            let apart = run(&Chain::unary(activation), &[&z], &inference).unwrap().outputs.remove(0);
            for context in [inference, Context::default()] {
                let y = run(&op, &inputs, &context).unwrap().outputs.remove(0);
                assert_eq!(y.to_vec::<f32>().unwrap(), apart.to_vec::<f32>().unwrap(), "{kernel} {activation:?}");
            }
        }
    }
}
