//! Depthwise convolution.

use std::collections::BTreeMap;

use tomograd_emulator::{Emulator, Library};

use crate::{
    Outcome,
    support::{Buffer, Element, Figures, Random, measure, number},
};

/// `Depthwise` of depthwise.cu.
#[repr(C)]
struct Shape {
    channels: i32,
    depth: i32,
    height: i32,
    width: i32,
    out_depth: i32,
    out_height: i32,
    out_width: i32,
    pad_z: i32,
    pad_y: i32,
    pad_x: i32,
    planes: i32,
    flip: i32,
    aligned: i32,
}

#[derive(Debug, Clone, Copy)]
struct Case {
    batch: usize,
    channels: usize,
    size: [usize; 3],
    pad: usize,
    planes: usize,
    flip: bool,
    bias: bool,
}

pub fn run(emulator: &'static Emulator, library: &Library, cases: usize) -> Outcome {
    let mut outcome = BTreeMap::new();
    for (rank, kernel, width) in
        [2, 3].into_iter().flat_map(|rank| [3, 5, 7].map(|k| [(rank, k, 64), (rank, k, 32)])).flatten()
    {
        all::<f32>(emulator, library, [rank, kernel, width], cases, &mut outcome)?;
        all::<half::f16>(emulator, library, [rank, kernel, width], cases, &mut outcome)?;
        all::<half::bf16>(emulator, library, [rank, kernel, width], cases, &mut outcome)?;
    }
    Ok(outcome)
}

fn all<T: Element>(
    emulator: &'static Emulator,
    library: &Library,
    [rank, kernel, width]: [usize; 3],
    cases: usize,
    outcome: &mut BTreeMap<String, Figures>,
) -> Result<(), String> {
    let name = format!("depthwise{rank}d_{kernel}_{width}_{}", T::NAME);
    let mut random = Random(kernel as u64);
    let mut figures = Figures::default();
    let deep = |depth| if rank == 3 { depth } else { 1 };
    let pad = kernel / 2;
    let aligned = Case { batch: 1, channels: 1, size: [deep(6), 16, 64], pad, planes: 6, flip: false, bias: false };
    let mut list = vec![
        aligned,
        Case { size: [deep(7), 9, 37], planes: 3, bias: true, ..aligned },
        Case { size: [deep(kernel), kernel, kernel], pad: 0, planes: 1, flip: true, ..aligned },
        Case { batch: 2, channels: 2, size: [deep(1), 1, 1], ..aligned },
    ];
    list.extend((0..cases).map(|_| {
        let pad = random.within(0, kernel - 1);
        let least = kernel.saturating_sub(2 * pad).max(1);
        let mut size = |most: usize| random.within(least, least + most);
        let size = [deep(size(6)), size(20), size(40)];
        let flip = random.next().is_multiple_of(2);
        Case { batch: 1, channels: random.within(1, 2), size, pad, planes: random.within(1, 4), flip, bias: !flip }
    }));
    for (index, case) in list.into_iter().enumerate() {
        one::<T>(emulator, library, &name, [rank, kernel, width], case, index == 0, &mut figures)?;
    }
    outcome.insert(name, figures);
    Ok(())
}

fn one<T: Element>(
    emulator: &'static Emulator,
    library: &Library,
    name: &str,
    [rank, kernel, tile]: [usize; 3],
    case: Case,
    costs: bool,
    figures: &mut Figures,
) -> Result<(), String> {
    let Case { batch, channels, size, pad, planes, flip, bias } = case;
    let (taps, pads) = if rank == 3 { ([kernel; 3], [pad; 3]) } else { ([1, kernel, kernel], [0, pad, pad]) };
    let out: [usize; 3] = std::array::from_fn(|axis| size[axis] + 2 * pads[axis] + 1 - taps[axis]);
    let mut random = Random((size[0] * 10_000 + size[1] * 100 + size[2]) as u64);
    let count = |size: [usize; 3]| size.iter().product::<usize>();
    let x: Vec<T> = random.elements(batch * channels * count(size));
    let w: Vec<T> = random.elements(channels * count(taps));
    let b: Vec<T> = random.elements(channels);
    let shape = Shape {
        channels: channels as i32,
        depth: size[0] as i32,
        height: size[1] as i32,
        width: size[2] as i32,
        out_depth: out[0] as i32,
        out_height: out[1] as i32,
        out_width: out[2] as i32,
        pad_z: pads[0] as i32,
        pad_y: pads[1] as i32,
        pad_x: pads[2] as i32,
        planes: planes as i32,
        flip: i32::from(flip),
        aligned: i32::from(out[2].is_multiple_of(4)),
    };
    let (dx, dw, db) = (Buffer::of(emulator, &x), Buffer::of(emulator, &w), Buffer::of(emulator, &b));
    let y = Buffer::<T>::new(emulator, batch * channels * count(out));
    let none = std::ptr::null::<T>();
    let arguments =
        [dx.argument(), dw.argument(), if bias { db.argument() } else { number(&none) }, y.argument(), number(&shape)];
    let tiles = out[2].div_ceil(tile) * out[1].div_ceil(1024 / tile);
    let grid = [batch * channels * tiles, out[0].div_ceil(planes), 1];
    let report =
        measure(library, name, grid, [256, 1, 1], 0, &arguments).map_err(|fault| format!("{case:?}: {fault}"))?;
    if costs {
        figures.costs(&report, grid.iter().product());
    }
    // A rounding for each addition, and one of the result.
    let step = (count(taps) + 1) as f64 * f32::ROUNDING;
    let mut expected = Vec::new();
    for image in 0..batch * channels {
        let channel = image % channels;
        for place in 0..count(out) {
            let at = [place / (out[1] * out[2]), place / out[2] % out[1], place % out[2]];
            let (mut sum, mut total) = if bias { (b[channel].value(), b[channel].value().abs()) } else { (0.0, 0.0) };
            for tap in 0..count(taps) {
                let of_tap = [tap / (taps[1] * taps[2]), tap / taps[2] % taps[1], tap % taps[2]];
                let from: [Option<usize>; 3] =
                    std::array::from_fn(|axis| (at[axis] + of_tap[axis]).checked_sub(pads[axis]));
                let [Some(z), Some(row), Some(column)] = from else { continue };
                if z < size[0] && row < size[1] && column < size[2] {
                    let weight = w[channel * count(taps) + if flip { count(taps) - 1 - tap } else { tap }];
                    let product =
                        weight.value() * x[image * count(size) + (z * size[1] + row) * size[2] + column].value();
                    sum += product;
                    total += product.abs();
                }
            }
            expected.push((sum, total * step + sum.abs() * T::ROUNDING * 1.001));
        }
    }
    figures.compare(&format!("{name}: {case:?}"), &y.read(), &expected)
}
