//! NaN and infinities in every input of every operation: the outputs that become NaN are those of the reference, in every
//! instruction set. A NaN that an operation drops would be a wrong number that nobody sees.

use tomograd_core::{DType, Device, Random, Result, Seed, Tensor};
use tomograd_kernels::{
    Context, Op, Precision, Saved,
    cast::cast,
    elementwise::Function,
    norm::{LayerNorm, Norm, Statistics},
    parallel::{Settings, with_settings},
    run, run_backward,
    simd::Isa,
    testing::{self, Case},
};

/// Where an operation may make NaN of more outputs than the reference does: it multiplies a number by a weight of zero that the
/// reference leaves out. (Input: which ones; `None`: all.)
const MORE: [(&str, Option<&[usize]>, &str); 5] = [
    ("Conv", None, "taps in the padding, and zeros that fill panels up, are multiplied"),
    ("ConvTranspose", None, "as Conv"),
    ("ConvActivation", None, "as Conv"),
    ("ConvNormActivation", None, "as Conv"),
    ("Attention", Some(&[2]), "the values of keys that a query doesn't see have the weight 0 within its block of keys"),
];

fn references(tensors: &[Tensor]) -> Vec<&Tensor> {
    tensors.iter().collect()
}

/// The case's inputs in f32, one element of input `index` being `value`; nothing when that has none.
fn with_one(case: &Case, index: usize, value: f64, random: &mut Random) -> Result<Option<Vec<Tensor>>> {
    let mut inputs: Vec<Tensor> = Vec::new();
    for x in &case.inputs {
        inputs.push(if x.dtype().is_float() { cast(x, DType::F32)? } else { x.clone() });
    }
    let x = &inputs[index];
    if !x.dtype().is_float() || x.count() == 0 {
        return Ok(None);
    }
    let mut values = x.to_vec::<f32>()?;
    let place = random.below(values.len() as u64) as usize;
    values[place] = value as f32;
    inputs[index] = Tensor::from_slice(&values, x.shape(), Device::Cpu)?;
    Ok(Some(inputs))
}

fn nans(tensor: &Tensor) -> Result<Vec<bool>> {
    Ok(tensor.to_vec_f64()?.into_iter().map(f64::is_nan).collect())
}

#[test]
fn what_is_not_a_number_comes_through_in_every_instruction_set() {
    let cases = std::env::var("TOMOGRAD_CASES").ok().and_then(|count| count.parse().ok()).unwrap_or(40);
    let chosen = std::env::var("TOMOGRAD_OPERATIONS").ok();
    let context = Context::default().precision(Precision::Strict);
    let mut failures: Vec<String> = Vec::new();
    for entry in testing::all() {
        if chosen.as_ref().is_some_and(|chosen| !chosen.split(',').any(|name| name == entry.name)) {
            continue;
        }
        let (mut tried, mut lost) = (0, Vec::new());
        for number in 0..cases {
            let mut random = Seed::new(2027).named(entry.name).at(number).random();
            let case = entry.case(&mut random).unwrap();
            for index in 0..case.inputs.len() {
                for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
                    let Some(inputs) = with_one(&case, index, value, &mut random).unwrap() else { continue };
                    tried += 1;
                    let exact: Vec<Tensor> = inputs
                        .iter()
                        .map(|x| if x.dtype().is_float() { cast(x, DType::F64).unwrap() } else { x.clone() })
                        .collect();
                    let expected = case.reference(&exact).unwrap();
                    let more = MORE.iter().any(|(name, inputs, _)| {
                        *name == entry.name && inputs.is_none_or(|inputs| inputs.contains(&index))
                    });
                    for isa in Isa::available() {
                        let settings = Settings::default().isa(isa).unwrap();
                        let outputs = with_settings(settings, || run(&*case.op, &references(&inputs), &context));
                        for (k, (y, expected)) in outputs.unwrap().outputs.iter().zip(&expected).enumerate() {
                            if !y.dtype().is_float() {
                                // A place, or a number cast.
                                let [got, expected] = [y, expected].map(|tensor| tensor.to_vec_f64().unwrap());
                                assert_eq!(got, expected, "{}: {value}, {isa:?}", entry.name);
                                continue;
                            }
                            let (got, expected) = (nans(y).unwrap(), nans(expected).unwrap());
                            // An infinity may overflow a number that the reference, in f64, still holds.
                            let wrong = |(got, expected): (&bool, &bool)| {
                                if *expected { !got } else { *got && !more && value.is_nan() }
                            };
                            if let Some(i) = got.iter().zip(&expected).position(wrong) {
                                lost.push(format!(
                                    "case {number}, {:?}, {value} in input {index} of {:?}, {isa:?}: output {k}, element {i} \
                                     should be {}",
                                    case.op,
                                    case.inputs.iter().map(|x| x.shape().to_vec()).collect::<Vec<_>>(),
                                    if expected[i] { "NaN" } else { "a number" },
                                ));
                            }
                        }
                    }
                }
            }
        }
        if let Some(first) = lost.first() {
            failures.push(format!("{}: {} of {tried}; {first}", entry.name, lost.len()));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// The gradient of x of an operation without parameters, for a cotangent of ones.
fn gradient(op: &dyn Op, x: &Tensor) -> Vec<f64> {
    let forward = run(op, &[x], &Context::default()).unwrap();
    let cotangents = forward.outputs.iter().map(|y| Tensor::ones(y.shape(), y.dtype(), Device::Cpu).ok()).collect();
    let gradients = run_backward(op, Saved::new(op, &[x], &forward), cotangents, &[true], &Context::default()).unwrap();
    gradients[0].as_ref().unwrap().to_vec_f64().unwrap()
}

/// What fills a row of 17 up to whole vectors must not have an infinite derivative, however far the row lies from 0.
#[test]
fn gradients_of_short_rows_are_numbers() {
    let rows = [-100.0, 100.0, 1.2e37].map(|center: f64| {
        let values: Vec<f32> = (0..17).map(|i| (center * (1.0 + 0.01 * f64::from(i % 5))) as f32).collect();
        Tensor::from_slice(&values, &[1, 1, 17], Device::Cpu).unwrap()
    });
    let constant = Tensor::from_slice(&[1.2e37f32; 17], &[1, 1, 17], Device::Cpu).unwrap();
    for x in rows.iter().chain([&constant]) {
        for activation in [None, Some(Function::Exp), Some(Function::Silu), Some(Function::GeluTanh)] {
            let norm = Norm { statistics: Statistics::Instance, epsilon: 1e-5, affine: false, activation };
            let dx = gradient(&norm, x);
            assert!(dx.iter().all(|value| value.is_finite()), "{activation:?}: {dx:?}");
        }
        let dx = gradient(&LayerNorm { axes: 1, epsilon: 1e-5, affine: false }, x);
        assert!(dx.iter().all(|value| value.is_finite()), "{dx:?}");
    }
}
