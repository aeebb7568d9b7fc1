//! Gradient checks for user-defined layers and operations, suited for CI. The random inputs for `proptest` (`tensors`,
//! `images`) need the feature `testing`.
//!
//! ```
//! use proptest::prelude::*;
//! use tomograd_autodiff::{gradcheck, methods::*};
//!
//! let mut runner = proptest::test_runner::TestRunner::deterministic();
//! runner
//!     .run(&gradcheck::images(1..=3), |x| {
//!         gradcheck::check(|vars| vars[0].tanh()?.mul(&vars[0]), &[x]).map_err(|e| TestCaseError::fail(e.to_string()))
//!     })
//!     .unwrap();
//! ```

#[cfg(feature = "testing")]
mod strategies;

#[cfg(feature = "testing")]
pub use strategies::{images, images_of, tensors};

use tomograd_core::{DType, Device, Error, ErrorKind, Result, Seed, Tensor};
use tomograd_kernels::{Context, Op, Precision};

use crate::{Tape, Var};

/// The smallest step allowed: below it, the bound for rounding errors would be so large that a wrong gradient passes.
const LEAST_STEP: f64 = 1e-12;

/// The settings of a check.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// The step of the central differences, at least 10⁻¹²: with smaller steps rounding errors dominate.
    pub step: f64,
    /// A difference may be off by `tolerance · (1 + ‖gradient‖ · ‖direction‖)`.
    pub tolerance: f64,
    /// Inputs with at most this many elements are checked element by element; larger ones along random directions.
    pub elementwise: usize,
    /// The number of random directions for larger inputs.
    pub directions: u64,
    /// The seed of the cotangent and the directions.
    pub seed: Seed,
}

impl Default for Options {
    fn default() -> Self {
        Self { step: 1e-5, tolerance: 1e-6, elementwise: 32, directions: 4, seed: Seed::new(0) }
    }
}

impl Options {
    fn check(&self) -> Result<()> {
        let positive = |name: &str, value: f64| match value.is_finite() && value > 0.0 {
            true => Ok(()),
            false => Err(Error::argument("gradcheck", format!("{name} is {value}")).expected("a positive number")),
        };
        positive("the step", self.step)?;
        positive("the tolerance", self.tolerance)?;
        if self.step < LEAST_STEP {
            return Err(Error::argument("gradcheck", format!("the step is {:e}", self.step))
                .expected(format!("at least {LEAST_STEP:e}, so that differences aren't lost to rounding")));
        }
        if self.directions == 0 {
            return Err(Error::argument("gradcheck", "no directions").expected("one at least"));
        }
        Ok(())
    }
}

/// Checks the gradients of `function` at `inputs` against central differences, in f64. Floating-point inputs are
/// differentiated. The output may have any shape; it is weighted with a random cotangent.
///
/// # Errors
/// When a gradient is wrong (the error names input, direction and both values), an output isn't finite, or `function` fails.
pub fn check(function: impl Fn(&[Var]) -> Result<Var>, inputs: &[Tensor]) -> Result<()> {
    check_with(function, inputs, Options::default())
}

/// [`check`] for a single operation applied to `inputs`.
///
/// # Errors
/// As for [`check`].
pub fn operation(op: impl Op + Clone, inputs: &[Tensor]) -> Result<()> {
    check(
        |vars| {
            let vars: Vec<&Var> = vars.iter().collect();
            Var::apply(op.clone(), &vars)
        },
        inputs,
    )
}

/// [`check`] with the given options.
///
/// # Errors
/// As for [`check`], and when step or tolerance isn't positive, the step is below 10⁻¹², or there are no directions.
pub fn check_with(function: impl Fn(&[Var]) -> Result<Var>, inputs: &[Tensor], options: Options) -> Result<()> {
    options.check()?;
    let inputs: Vec<Tensor> = inputs
        .iter()
        .map(|x| if x.dtype().is_float() { x.converted(DType::F64) } else { Ok(x.clone()) })
        .collect::<Result<_>>()?;
    let context = Context::default().precision(Precision::Strict);
    let fail = |what: String| Error::new(ErrorKind::Argument, "gradcheck", what);

    let tape = Tape::recording(context);
    let vars: Vec<Var> = inputs
        .iter()
        .map(|x| if x.dtype().is_float() { tape.leaf(x.clone()) } else { Ok(tape.constant(x.clone())) })
        .collect::<Result<_>>()?;
    let output = function(&vars)?;
    if output.value().to_vec_f64()?.iter().any(|value| !value.is_finite()) {
        return Err(fail("the output has a value that isn't finite".to_owned()));
    }
    let cotangent = Tensor::normal(output.shape(), 0.0, 1.0, options.seed.named("cotangent"), DType::F64, Device::Cpu)?;
    let weights = cotangent.to_vec::<f64>()?;
    let gradients = if output.has_gradient() { Some(tape.backward_with(&[(&output, cotangent)])?) } else { None };
    let loss = |inputs: &[Tensor]| -> Result<f64> {
        let tape = Tape::off(context);
        let vars: Vec<Var> = inputs.iter().map(|x| tape.constant(x.clone())).collect();
        Ok(function(&vars)?.value().to_vec_f64()?.iter().zip(&weights).map(|(y, w)| y * w).sum())
    };

    for (index, (x, var)) in inputs.iter().zip(&vars).enumerate() {
        if !x.dtype().is_float() {
            continue;
        }
        let values = x.to_vec_f64()?;
        let gradient = match gradients.as_ref().and_then(|gradients| gradients.get(var)) {
            Some(gradient) => gradient.to_vec_f64()?,
            None => vec![0.0; values.len()],
        };
        for (number, direction) in directions(values.len(), index, &options).enumerate() {
            let at = |sign: f64| -> Result<f64> {
                let moved: Vec<f64> =
                    values.iter().zip(&direction).map(|(value, slope)| value + sign * options.step * slope).collect();
                let mut inputs = inputs.clone();
                inputs[index] = Tensor::from_slice(&moved, x.shape(), x.device())?;
                loss(&inputs)
            };
            let (above, below) = (at(1.0)?, at(-1.0)?);
            let difference = (above - below) / (2.0 * options.step);
            let product: f64 = gradient.iter().zip(&direction).map(|(g, d)| g * d).sum();
            let norm = |values: &[f64]| values.iter().map(|value| value * value).sum::<f64>().sqrt();
            // Cancellation gives the difference quotient an error of about ε · |loss| / step.
            let cancellation = 8.0 * f64::EPSILON * (above.abs() + below.abs()) / options.step;
            let bound = options.tolerance * (1.0 + norm(&gradient) * norm(&direction)) + cancellation;
            // `<=` rather than a negated `>`, so that a NaN fails the check.
            if (difference - product).abs() <= bound {
                continue;
            }
            return Err(fail(format!(
                "input {index}, direction {number}: the gradient gives {product:.9e}, differences give {difference:.9e}"
            ))
            .expected(format!("a difference of at most {bound:.1e}"))
            .shapes([x.shape()]));
        }
    }
    Ok(())
}

/// The unit vectors for a small input, random directions for a large one.
fn directions(count: usize, index: usize, options: &Options) -> Box<dyn Iterator<Item = Vec<f64>>> {
    if count <= options.elementwise {
        return Box::new((0..count).map(move |element| {
            let mut direction = vec![0.0; count];
            direction[element] = 1.0;
            direction
        }));
    }
    let seed = options.seed.named("direction").at(index as u64);
    Box::new((0..options.directions).map(move |number| {
        let mut random = seed.at(number).random();
        (0..count).map(|_| random.normal()).collect()
    }))
}
