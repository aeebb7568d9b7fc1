//! Gradients of a convolution's weights on tensor cores.

use std::collections::BTreeMap;

use tomograd_core::cuda::small_divisor;
use tomograd_emulator::{Emulator, Library};

use crate::{
    Outcome,
    implicit::{count, flat, places},
    support::{Buffer, Element, Figures, Random, measure, number, of_tensor_cores, to_tensor_cores},
};

/// Tap t of output p reads voxel p · stride + t · dilation + offset, along each axis.
#[derive(Debug, Clone, Copy)]
struct Case {
    images: usize,
    groups: usize,
    /// Channels of x and of dy, of a group.
    channels: usize,
    rows: usize,
    input: [i32; 3],
    output: [i32; 3],
    taps: [i32; 3],
    stride: [i32; 3],
    dilation: [i32; 3],
    offset: [i32; 3],
    /// Outputs of a part of the sum.
    length: usize,
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
    let kernel = format!("conv_tensor_weights_{}_{tile}", of_tensor_cores::<T>());
    let (mut random, mut figures) = (Random(tile as u64 + 1), Figures::default());
    let piece = 16 / size_of::<T>();
    let aligned = Case {
        images: 1,
        groups: 1,
        channels: 32,
        rows: tile,
        input: [2, 8, 16],
        output: [2, 8, 16],
        taps: [1, 3, 3],
        stride: [1; 3],
        dilation: [1; 3],
        offset: [0, -1, -1],
        length: 256,
    };
    let mut list = vec![
        aligned,
        // More than a tile of rows and columns, two groups, parts that end amid an image.
        Case {
            images: 2,
            groups: 2,
            channels: 3 * piece,
            rows: tile + 5,
            input: [3, 6, 7],
            output: [3, 4, 6],
            taps: [3, 3, 2],
            stride: [1, 2, 1],
            dilation: [1, 1, 2],
            offset: [-1, -2, 0],
            length: 96,
        },
        Case { channels: piece, rows: 1, input: [1; 3], output: [1; 3], taps: [1; 3], offset: [0; 3], ..aligned },
    ];
    for _ in 0..cases {
        let mut three = |low, high| std::array::from_fn(|_| random.within(low, high) as i32);
        let (input, output, taps): ([i32; 3], [i32; 3], [i32; 3]) = (three(1, 6), three(1, 6), three(1, 3));
        let (stride, dilation, before): ([i32; 3], [i32; 3], [i32; 3]) = (three(1, 2), three(1, 2), three(0, 2));
        list.push(Case {
            images: random.within(1, 2),
            groups: random.within(1, 2),
            channels: random.within(1, 5) * piece,
            rows: random.within(1, tile + 10),
            input,
            output,
            taps,
            stride,
            dilation,
            offset: before.map(|before| -before),
            length: random.within(1, 4) * 32,
        });
    }
    for (index, case) in list.into_iter().enumerate() {
        one::<T>(emulator, library, &kernel, tile, case, index == 0, &mut figures)?;
    }
    outcome.insert(kernel, figures);
    Ok(())
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
    let Case { images, groups, channels, rows, input, output, taps, stride, dilation, offset, length } = case;
    let mut random = Random((channels * 1000 + rows) as u64);
    let padded = rows.next_multiple_of(16 / size_of::<T>());
    let terms = images * count(output);
    // (group, image, voxel, channel) both.
    let x: Vec<T> = to_tensor_cores(random.elements(groups * images * count(input) * channels));
    let dy: Vec<T> = to_tensor_cores(random.elements(groups * terms * padded));
    let (columns, parts) = (count(taps) * channels, terms.div_ceil(length));
    let (dx, ddy) = (Buffer::of(emulator, &x), Buffer::of(emulator, &dy));
    let dw = Buffer::<f32>::new(emulator, parts * groups * rows * columns);
    let divisors = [count(output), output[1] as usize, output[2] as usize].map(small_divisor);
    let of_columns = [channels, taps[1] as usize, taps[2] as usize].map(small_divisor);
    // `Weights` of implicit_weights.cu.
    let numbers: Vec<i32> = [
        &[channels as i32][..],
        &taps,
        &input,
        &stride,
        &dilation,
        &offset,
        divisors.as_flattened(),
        &[rows as i32, padded as i32, terms as i32, length as i32],
        of_columns.as_flattened(),
    ]
    .concat();
    let numbers: [i32; 38] = numbers.try_into().expect("the numbers of a launch");
    let arguments = [dx.argument(), ddy.argument(), dw.argument(), number(&numbers)];
    let grid = [rows.div_ceil(tile) * columns.div_ceil(128), groups, parts];
    let (threads, shared) = (if tile > 64 { 256 } else { 128 }, (tile + 128) * 64 * 3);
    let report = measure(library, kernel, grid, [threads, 1, 1], shared, &arguments)
        .map_err(|fault| format!("{case:?}: {fault}"))?;
    if costs {
        figures.costs(&report, grid.iter().product());
    }
    // Products are exact; each sum of 32 bytes of terms is cut to 23 bits, where a rounding would leave half of that.
    let step = (length * size_of::<T>() / 32 + 2) as f64 * 4.0 * f32::ROUNDING;
    let mut expected = Vec::new();
    for (part, row) in (0..parts).flat_map(|part| (0..groups * rows).map(move |row| (part, row))) {
        let group = row / rows;
        for tap in places(taps) {
            for channel in 0..channels {
                let (mut sum, mut size) = (0.0, 0.0);
                for term in part * length..(part * length + length).min(terms) {
                    let (n, place) = (term / count(output), (term % count(output)) as i32);
                    let at = [place / (output[1] * output[2]), place / output[2] % output[1], place % output[2]];
                    let from: [i32; 3] = std::array::from_fn(|i| at[i] * stride[i] + tap[i] * dilation[i] + offset[i]);
                    if (0..3).any(|i| from[i] < 0 || from[i] >= input[i]) {
                        continue;
                    }
                    let voxel = (group * images + n) * count(input) + flat(input, from);
                    let of_dy = dy[(group * terms + term) * padded + row % rows].value();
                    let product = of_dy * x[voxel * channels + channel].value();
                    sum += product;
                    size += product.abs();
                }
                expected.push((sum, size * step));
            }
        }
    }
    figures.compare(&format!("{kernel}: {case:?}"), &dw.read(), &expected)
}
