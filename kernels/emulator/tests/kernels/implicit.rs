//! Convolution on tensor cores.

use std::collections::BTreeMap;

use tomograd_core::cuda::small_divisor;
use tomograd_emulator::{Emulator, Library};

use crate::{
    Outcome,
    support::{Buffer, Element, Figures, Random, measure, number, of_tensor_cores, to_tensor_cores},
};

/// A convolution as implicit.cu computes it; three numbers are those of the axes. Tap t of output p reads voxel
/// p · stride + t · dilation + offset, its weight is tap first + t · step of `kernel`, and the result lies at start + p · distance of
/// `output`.
#[derive(Debug, Clone, Copy)]
struct Case {
    images: usize,
    groups: usize,
    channels: usize,
    rows: usize,
    input: [i32; 3],
    taps: [i32; 3],
    stride: [i32; 3],
    dilation: [i32; 3],
    offset: [i32; 3],
    kernel: [i32; 3],
    first: [i32; 3],
    step: [i32; 3],
    counted: [i32; 3],
    output: [i32; 3],
    start: [i32; 3],
    distance: [i32; 3],
    /// Channels of the first of two results.
    split: usize,
    bias: bool,
}

/// A convolution in the forward direction.
fn forward(input: [i32; 3], kernel: [i32; 3], stride: [i32; 3], dilation: [i32; 3], padding: [i32; 3]) -> Case {
    let output: [i32; 3] = std::array::from_fn(|axis| {
        (input[axis] + 2 * padding[axis] - dilation[axis] * (kernel[axis] - 1) - 1) / stride[axis] + 1
    });
    Case {
        images: 1,
        groups: 1,
        channels: 32,
        rows: 32,
        input,
        taps: kernel,
        stride,
        dilation,
        offset: padding.map(|padding| -padding),
        kernel,
        first: [0; 3],
        step: [1; 3],
        counted: output,
        output,
        start: [0; 3],
        distance: [1; 3],
        split: 32,
        bias: false,
    }
}

/// A residue of the data's gradient by the stride: windows run backwards, from some of the taps, to every other voxel.
fn backward(random: &mut Random) -> Case {
    let mut case = forward([1; 3], [1; 3], [1; 3], [1; 3], [0; 3]);
    for axis in 0..3 {
        let mut within = |low, high| random.within(low, high) as i32;
        case.distance[axis] = within(1, 3);
        case.counted[axis] = within(1, 5);
        case.start[axis] = within(0, case.distance[axis] as usize - 1);
        case.output[axis] =
            case.start[axis] + (case.counted[axis] - 1) * case.distance[axis] + 1 + within(0, 1).min(case.start[axis]);
        // No tap at all gives the bias alone.
        case.taps[axis] = if within(0, 9) == 0 { 0 } else { within(1, 3) };
        case.step[axis] = within(1, 2);
        case.first[axis] = within(0, 1);
        case.kernel[axis] = case.first[axis] + case.taps[axis].max(1) * case.step[axis];
        case.dilation[axis] = -within(1, 2);
        case.offset[axis] = within(0, 4) - 1;
        case.input[axis] = within(1, 6);
    }
    case
}

pub fn run(emulator: &'static Emulator, library: &Library, cases: usize) -> Outcome {
    let mut outcome = BTreeMap::new();
    for rows in [128, 64, 32] {
        all::<half::f16>(emulator, library, rows, cases, &mut outcome)?;
        all::<half::bf16>(emulator, library, rows, cases, &mut outcome)?;
        all::<f32>(emulator, library, rows, cases, &mut outcome)?;
    }
    Ok(outcome)
}

fn all<T: Element>(
    emulator: &'static Emulator,
    library: &Library,
    tile: usize,
    cases: usize,
    outcome: &mut BTreeMap<String, Figures>,
) -> Result<(), String> {
    let kernel = format!("conv_tensor_{}_{tile}", of_tensor_cores::<T>());
    let (mut random, mut figures) = (Random(tile as u64), Figures::default());
    let piece = 16 / size_of::<T>();
    let plain = |input, kernel, stride| forward(input, kernel, stride, [1; 3], kernel.map(|size| size / 2));
    let aligned = Case { rows: tile, split: tile, ..plain([4, 8, 16], [3; 3], [1; 3]) };
    let mut list = vec![
        aligned,
        // More than a tile of rows and columns, pieces of channels that don't fill a slice, two results, two groups.
        Case {
            images: 2,
            groups: 2,
            channels: 3 * piece,
            rows: tile + 5,
            split: tile + 9,
            bias: true,
            ..forward([5, 6, 7], [3, 1, 2], [1, 2, 1], [1, 1, 3], [1, 0, 2])
        },
        // One voxel, one term; and a window that lies in the padding alone.
        Case { channels: piece, rows: 1, split: 1, bias: true, ..plain([1; 3], [1; 3], [1; 3]) },
        Case { channels: piece, rows: 3, split: 2, bias: true, taps: [0; 3], ..plain([1, 2, 3], [1; 3], [1; 3]) },
        Case { channels: piece, ..forward([1, 1, 4], [1; 3], [1, 1, 5], [1; 3], [0, 0, 3]) },
    ];
    for _ in 0..cases {
        let mut case = if random.next().is_multiple_of(2) {
            backward(&mut random)
        } else {
            let mut three = |low, high| std::array::from_fn(|_| random.within(low, high) as i32);
            let (kernel, dilation, padding, stride): ([i32; 3], [i32; 3], [i32; 3], [i32; 3]) =
                (three(1, 3), three(1, 2), three(0, 2), three(1, 2));
            let mut input: [i32; 3] = three(1, 7);
            for axis in 0..3 {
                input[axis] = input[axis].max(dilation[axis] * (kernel[axis] - 1) + 1 - 2 * padding[axis]);
            }
            forward(input, kernel, stride, dilation, padding)
        };
        case.images = random.within(1, 2);
        case.groups = random.within(1, 2);
        case.channels = random.within(1, 5) * piece;
        case.rows = random.within(1, tile + 10);
        case.split = random.within(1, case.groups * case.rows);
        case.bias = random.next().is_multiple_of(2);
        list.push(case);
    }
    for (index, case) in list.into_iter().enumerate() {
        one::<T>(emulator, library, &kernel, tile, case, index == 0, &mut figures)?;
    }
    outcome.insert(kernel, figures);
    Ok(())
}

/// The product.
pub fn count(sizes: [i32; 3]) -> usize {
    sizes.iter().product::<i32>() as usize
}

/// All places of three axes.
pub fn places(sizes: [i32; 3]) -> impl Iterator<Item = [i32; 3]> {
    (0..sizes[0]).flat_map(move |z| (0..sizes[1]).flat_map(move |y| (0..sizes[2]).map(move |x| [z, y, x])))
}

/// The number of a place.
pub fn flat(sizes: [i32; 3], at: [i32; 3]) -> usize {
    ((at[0] * sizes[1] + at[1]) * sizes[2] + at[2]) as usize
}

fn one<T: Element>(
    emulator: &'static Emulator,
    library: &Library,
    kernel: &str,
    tile: usize,
    case: Case,
    costs: bool,
    figures: &mut Figures,
) -> Result<(), String> {
    let Case { images, groups, channels, rows, input, taps, stride, dilation, offset, .. } = case;
    let mut random = Random((channels * 1000 + rows) as u64);
    // (group, image, voxel, channel), (group, row, tap, channel).
    let x: Vec<T> = to_tensor_cores(random.elements(groups * images * count(input) * channels));
    let w: Vec<T> = to_tensor_cores(random.elements(groups * rows * count(case.kernel) * channels));
    let b: Vec<T> = random.elements(groups * rows);
    let (dx, dw, db) = (Buffer::of(emulator, &x), Buffer::of(emulator, &w), Buffer::of(emulator, &b));
    let all = groups * rows;
    let before: [Vec<T>; 2] =
        [case.split, all - case.split].map(|own| vec![T::of(7.0); images * own * count(case.output)]);
    let y = [0, 1].map(|i| Buffer::of(emulator, &before[i]));
    let table = [y[0].address(), y[1].address()];
    let columns = images * count(case.counted);
    let plane = case.kernel[1] * case.kernel[2];
    let first_tap = case.first[0] * plane + case.first[1] * case.kernel[2] + case.first[2];
    let divisors = [count(case.counted), case.counted[1] as usize, case.counted[2] as usize].map(small_divisor);
    let pieces = case.distance == [1; 3]
        && case.counted == case.output
        && count(case.counted).is_multiple_of(16 / size_of::<T>());
    // `Implicit` of implicit.cu.
    let numbers: Vec<i32> = [
        &[channels as i32][..],
        &taps,
        &input,
        &stride,
        &dilation,
        &offset,
        divisors.as_flattened(),
        &[rows as i32, columns as i32, count(case.kernel) as i32, first_tap],
        &[case.step[0] * plane, case.step[1] * case.kernel[2], case.step[2]],
        &[case.split as i32, all as i32],
        &case.output,
        &case.start,
        &case.distance,
        &[i32::from(pieces)],
    ]
    .concat();
    let numbers: [i32; 44] = numbers.try_into().expect("the numbers of a launch");
    let none = std::ptr::null::<T>();
    let bias = if case.bias { db.argument() } else { number(&none) };
    let arguments = [dx.argument(), dw.argument(), bias, number(&table), number(&numbers)];
    let grid = [rows.div_ceil(tile) * columns.div_ceil(128), groups, 1];
    let (threads, shared) = (if tile > 64 { 256 } else { 128 }, (tile + 128) * 64 * 3);
    let report = measure(library, kernel, grid, [threads, 1, 1], shared, &arguments)
        .map_err(|fault| format!("{case:?}: {fault}"))?;
    if costs {
        figures.costs(&report, grid.iter().product());
    }
    // Products are exact; each sum of 32 bytes of terms is cut to 23 bits where a rounding would leave half of that, and the result is rounded.
    let terms = count(taps) * channels;
    let step = (terms * size_of::<T>() / 32 + 3) as f64 * 4.0 * f32::ROUNDING;
    let mut expected = before.map(|before| before.iter().map(|value| (value.value(), 0.0)).collect::<Vec<_>>());
    for (n, channel) in (0..images).flat_map(|n| (0..all).map(move |channel| (n, channel))) {
        let group = channel / rows;
        for p in places(case.counted) {
            let (mut sum, mut size) =
                if case.bias { (b[channel].value(), b[channel].value().abs()) } else { (0.0, 0.0) };
            for t in places(taps) {
                let from: [i32; 3] = std::array::from_fn(|i| p[i] * stride[i] + t[i] * dilation[i] + offset[i]);
                if (0..3).any(|i| from[i] < 0 || from[i] >= input[i]) {
                    continue;
                }
                let tap = flat(case.kernel, std::array::from_fn(|i| case.first[i] + t[i] * case.step[i]));
                for c in 0..channels {
                    let voxel = (group * images + n) * count(input) + flat(input, from);
                    let weight = channel * count(case.kernel) + tap;
                    let product = x[voxel * channels + c].value() * w[weight * channels + c].value();
                    sum += product;
                    size += product.abs();
                }
            }
            let to = flat(case.output, std::array::from_fn(|i| case.start[i] + p[i] * case.distance[i]));
            let (result, own, channel) = match channel < case.split {
                true => (0, case.split, channel),
                false => (1, all - case.split, channel - case.split),
            };
            expected[result][(n * own + channel) * count(case.output) + to] =
                (sum, size * step + sum.abs() * T::ROUNDING * 1.001);
        }
    }
    figures.compare(&format!("{kernel}: {case:?}"), &[y[0].read(), y[1].read()].concat(), &expected.concat())
}
