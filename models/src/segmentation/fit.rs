//! What U-Nets do about sizes that their levels don't divide (checks of inputs, and borders), and their skip connections.

use tomograd_autodiff::{Var, methods::*};
use tomograd_core::{Error, Result};
use tomograd_kernels::index::PadMode;

/// The error for an input of another shape.
pub(super) fn refused(operation: &str, x: &Var, expected: impl std::fmt::Display) -> Error {
    Error::shape(operation, "the input's size doesn't fit the network")
        .expected(expected.to_string())
        .shapes([x.shape()])
}

/// Checks that `x` is (N, C, spatial...) with one spatial axis for each of `units`, each a multiple of its unit and not 0.
pub(super) fn multiples(operation: &str, x: &Var, units: &[usize]) -> Result<()> {
    let fits = |(&size, &unit): (&usize, &usize)| size > 0 && size.is_multiple_of(unit);
    if x.rank() == units.len() + 2 && x.shape()[2..].iter().zip(units).all(fits) {
        return Ok(());
    }
    let what = match units.iter().all(|unit| *unit == units[0]) {
        true => format!("all multiples of {}", units[0]),
        false => format!("multiples of {units:?}"),
    };
    Err(refused(operation, x, format_args!("(N, C, spatial...) with {} spatial axes, {what}", units.len())))
}

/// `x` with borders that make it as large as `spatial`: half of what is missing in front, the rest behind.
pub(super) fn padded(x: Var, spatial: &[usize], mode: PadMode) -> Result<Var> {
    if &x.shape()[2..] == spatial {
        return Ok(x);
    }
    let (mut before, mut after) = (vec![0, 0], vec![0, 0]);
    for (size, wanted) in x.shape()[2..].iter().zip(spatial) {
        let missing = wanted.saturating_sub(*size);
        before.push(missing / 2);
        after.push(missing - missing / 2);
    }
    x.pad(&before, &after, mode)
}

/// The middle of `x`, as large as `spatial`.
pub(super) fn cropped(x: Var, spatial: &[usize]) -> Result<Var> {
    spatial.iter().enumerate().try_fold(x, |x, (axis, &size)| {
        let start = x.shape()[axis + 2].saturating_sub(size) / 2;
        x.narrow(axis + 2, start, size)
    })
}

/// Maps of one size concatenated along channels.
pub(super) fn joined(maps: &[Var]) -> Result<Var> {
    match maps {
        [map] => Ok(map.clone()),
        maps => Var::concat(&maps.iter().collect::<Vec<_>>(), 1),
    }
}
