//! The selective scan.

use std::collections::BTreeMap;

use tomograd_emulator::{Emulator, Library};

use crate::{
    Outcome,
    support::{Buffer, Element, Figures, Random, measure, number},
};

/// Steps of a chunk.
const CHUNK: usize = 512;

/// `Scan` of scan.cu.
#[repr(C)]
struct Shape {
    channels: i32,
    groups: i32,
    states: i32,
    length: i32,
    softplus: i32,
    aligned: i32,
}

#[derive(Debug, Clone, Copy)]
struct Case {
    batch: usize,
    channels: usize,
    groups: usize,
    states: usize,
    length: usize,
    softplus: bool,
    /// skip, z and delta_bias.
    optional: [bool; 3],
}

pub fn run(emulator: &'static Emulator, library: &Library, cases: usize) -> Outcome {
    let mut outcome = BTreeMap::new();
    all::<f32>(emulator, library, cases, &mut outcome)?;
    all::<half::f16>(emulator, library, cases, &mut outcome)?;
    all::<half::bf16>(emulator, library, cases, &mut outcome)?;
    Ok(outcome)
}

fn all<T: Element>(
    emulator: &'static Emulator,
    library: &Library,
    cases: usize,
    outcome: &mut BTreeMap<String, Figures>,
) -> Result<(), String> {
    let mut random = Random(3);
    let mut figures = Figures::default();
    let aligned =
        Case { batch: 1, channels: 2, groups: 1, states: 4, length: 1024, softplus: true, optional: [true; 3] };
    let mut list = vec![
        aligned,
        Case { batch: 2, channels: 4, groups: 2, states: 1, length: 1600, ..aligned },
        Case { length: 1, states: 16, optional: [false; 3], ..aligned },
        Case { length: 515, states: 3, softplus: false, ..aligned },
    ];
    list.extend((0..cases).map(|_| {
        let groups = random.within(1, 2);
        Case {
            batch: random.within(1, 2),
            channels: groups * random.within(1, 2),
            groups,
            states: random.within(1, 9),
            length: random.within(1, 700),
            softplus: random.next().is_multiple_of(2),
            optional: [0; 3].map(|_| random.next().is_multiple_of(2)),
        }
    }));
    for (index, case) in list.into_iter().enumerate() {
        one::<T>(emulator, library, case, index == 0, &mut figures)?;
    }
    outcome.insert(format!("scan_{}", T::NAME), figures);
    Ok(())
}

fn one<T: Element>(
    emulator: &'static Emulator,
    library: &Library,
    case: Case,
    costs: bool,
    figures: &mut Figures,
) -> Result<(), String> {
    let Case { batch, channels, groups, states, length, softplus, optional } = case;
    let mut random = Random((length * 100 + states) as u64);
    let over_time = batch * channels * length;
    let u: Vec<T> = random.elements(over_time);
    // Positive steps of up to 0.5, also without softplus, and rates below 0, as the states decay.
    let scaled = |values: Vec<T>, low: f64, high: f64| -> Vec<T> {
        values.into_iter().map(|value| T::of(low + (value.value() + 1.0) * 0.5 * (high - low))).collect()
    };
    let delta = scaled(random.elements(over_time), 0.0, 0.5);
    let a = scaled(random.elements(channels * states), -4.0, 0.0);
    let b: Vec<T> = random.elements(batch * groups * states * length);
    let c: Vec<T> = random.elements(batch * groups * states * length);
    let skip: Vec<T> = random.elements(channels);
    let z: Vec<T> = random.elements(over_time);
    let bias = scaled(random.elements(channels), 0.0, 0.1);
    let shape = Shape {
        channels: channels as i32,
        groups: groups as i32,
        states: states as i32,
        length: length as i32,
        softplus: i32::from(softplus),
        aligned: i32::from(length % 4 == 0),
    };
    let inputs = [&u, &delta, &a, &b, &c, &skip, &z, &bias].map(|values| Buffer::of(emulator, values));
    let y = Buffer::<T>::new(emulator, over_time);
    let chunks = length.div_ceil(CHUNK);
    let borders = Buffer::<f32>::new(emulator, batch * channels * chunks * states);
    let none = std::ptr::null::<T>();
    let mut arguments: Vec<_> = inputs.iter().map(Buffer::argument).collect();
    for (argument, present) in arguments[5..].iter_mut().zip(optional) {
        if !present {
            *argument = number(&none);
        }
    }
    arguments.extend([y.argument(), borders.argument(), number(&shape)]);
    let grid = [batch * channels, 1, 1];
    let name = format!("scan_{}", T::NAME);
    let report = measure(library, &name, grid, [128, 1, 1], states * 8, &arguments)
        .map_err(|fault| format!("{case:?}: {fault}"))?;
    if costs {
        figures.costs(&report, grid[0]);
    }
    // Errors as in the recurrence (kernels/src/scan/reference.rs), with four roundings for each composition of maps: a state goes
    // through 2 + 5 + 4 of these.
    let mut expected = Vec::new();
    let mut starts = Vec::new();
    for (batch, d) in (0..batch).flat_map(|batch| (0..channels).map(move |d| (batch, d))) {
        let group = d / (channels / groups);
        let mut x = vec![[0.0f64; 3]; states];
        for t in 0..length {
            if t % CHUNK == 0 {
                starts.extend(x.iter().map(|&[value, _, error]| (value, error * f32::ROUNDING)));
            }
            let place = (batch * channels + d) * length + t;
            let mut step = delta[place].value() + if optional[2] { bias[d].value() } else { 0.0 };
            let mut off = 1.0;
            if softplus {
                off = 8.0 + step.abs();
                step = step.max(0.0) + (-step.abs()).exp().ln_1p();
            }
            let mut sum = if optional[0] { skip[d].value() * u[place].value() } else { 0.0 };
            let mut error = (2.0 + states as f64) * sum.abs();
            for (n, [value, size, wrong]) in x.iter_mut().enumerate() {
                let at = ((batch * groups + group) * states + n) * length + t;
                let exponent = step * a[d * states + n].value();
                let (decay, drive) = (exponent.exp(), step * b[at].value() * u[place].value());
                *wrong = decay * (*wrong + *size * (8.0 + 20.0 + (3.0 + off) * exponent.abs()));
                *value = decay * *value + drive;
                *size = decay * *size + drive.abs();
                *wrong += (4.0 + off) * drive.abs() + 2.0 * *size;
                sum += c[at].value() * *value;
                error += c[at].value().abs() * (*wrong + (2.0 + states as f64) * *size);
            }
            let gate = if optional[1] { z[place].value() / (1.0 + (-z[place].value()).exp()) } else { 1.0 };
            let result = sum * gate;
            expected.push((
                result,
                gate.abs() * (error + 8.0 * sum.abs()) * f32::ROUNDING + result.abs() * T::ROUNDING * 1.001,
            ));
        }
    }
    figures.compare(&format!("{name}: {case:?}"), &y.read(), &expected)?;
    let mut of_borders = Figures::default();
    of_borders.compare(&format!("{name}: states at borders: {case:?}"), &borders.read(), &starts)
}
