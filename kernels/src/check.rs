//! Checks for `infer`, each with an error that names the operation.

use tomograd_core::{Error, ErrorKind, Result};

use crate::{Meta, op::check_outputs};

/// Checks that there are `least` to `most` inputs, each with a valid shape.
///
/// # Errors
/// When that isn't so.
pub fn inputs(operation: &str, inputs: &[Meta], least: usize, most: usize) -> Result<()> {
    if (least..=most).contains(&inputs.len()) {
        return check_outputs(operation, inputs);
    }
    let expected = if least == most { least.to_string() } else { format!("{least} to {most}") };
    Err(Error::argument(operation, format!("{} inputs", inputs.len())).expected(expected))
}

/// Checks that all inputs have the same floating-point dtype.
///
/// # Errors
/// When that isn't so.
pub fn same_float(operation: &str, inputs: &[Meta]) -> Result<()> {
    for meta in inputs {
        if !meta.dtype.is_float() || meta.dtype != inputs[0].dtype {
            let dtypes: Vec<&str> = inputs.iter().map(|meta| meta.dtype.name()).collect();
            return Err(Error::new(ErrorKind::DType, operation, format!("inputs hold {}", dtypes.join(", ")))
                .expected("one floating-point dtype")
                .shapes(inputs.iter().map(|meta| &meta.shape[..])));
        }
    }
    Ok(())
}

/// Checks that ε, which is added to a variance, is finite and not negative.
pub(crate) fn epsilon(operation: &str, epsilon: f64) -> Result<()> {
    if epsilon.is_finite() && epsilon >= 0.0 {
        return Ok(());
    }
    Err(Error::argument(operation, format!("ε is {epsilon}")).expected("a finite number of at least 0"))
}

/// The longest spatial axis for which positions are computed; for longer axes, the tables of positions would be too
/// large.
const LONGEST: usize = 1 << 24;

/// Checks that no spatial axis of an input or output is longer than [`LONGEST`].
pub(crate) fn lengths(operation: &str, input: &[usize], output: &[usize]) -> Result<()> {
    match input.iter().chain(output).find(|&&size| size > LONGEST) {
        Some(size) => Err(Error::shape(operation, format!("a spatial axis of {size}"))
            .expected("at most 2^24")
            .shapes([input, output])),
        None => Ok(()),
    }
}

/// Checks that the input has axis `axis`.
///
/// # Errors
/// When it hasn't.
pub fn axis(operation: &str, input: &Meta, axis: usize) -> Result<()> {
    if axis < input.rank() {
        return Ok(());
    }
    Err(Error::argument(operation, format!("axis {axis} of a tensor of rank {}", input.rank()))
        .shapes([&input.shape[..]]))
}

/// Checks that the input is `(N, C, spatial...)` with one to three spatial axes, and returns their number.
///
/// # Errors
/// When it isn't.
pub fn spatial(operation: &str, input: &Meta) -> Result<usize> {
    match input.rank() {
        rank @ 3..=5 => Ok(rank - 2),
        rank => Err(Error::shape(operation, format!("an input of rank {rank}"))
            .expected("(N, C, W), (N, C, H, W) or (N, C, D, H, W)")
            .shapes([&input.shape[..]])),
    }
}
