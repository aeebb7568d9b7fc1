//! Converts a tensor of a file to the shape and dtype of a parameter.

use tomograd_core::{DType, Device, Error, ErrorKind, Result, Tensor, shape_text};
use tomograd_io::StoredTensor;
use tomograd_kernels::methods::*;

use super::OPERATION;

/// A value, and descriptions of the conversions (empty if it is as in the file).
pub(super) type Adapted = (Tensor, Vec<String>);

/// Limit of a convolution's input channels. A file of a few bytes can describe a tensor with any number of repeated channels.
const MOST_CHANNELS: usize = 4096;

/// The shape without axes of size 1, which don't affect the order of elements.
fn essential(shape: &[usize]) -> Vec<usize> {
    shape.iter().copied().filter(|&size| size != 1).collect()
}

fn other_shape(stored: &StoredTensor, expected: String) -> Error {
    Error::shape(OPERATION, format!("the file has {}", shape_text(stored.shape()))).expected(expected)
}

/// The tensor, of the shape and dtype of `old`.
pub(super) fn plain(stored: &StoredTensor, old: &Tensor) -> Result<Adapted> {
    // Checked before reading, because the file decides how much memory that takes.
    if essential(stored.shape()) != essential(old.shape()) {
        return Err(other_shape(stored, shape_text(old.shape())));
    }
    finished(stored, stored.read()?.reshape(old.shape())?, old, Vec::new())
}

/// A convolution's weight, adapted to the `channels` input channels of `old`.
pub(super) fn channels(stored: &StoredTensor, old: &Tensor, channels: usize) -> Result<Adapted> {
    let (given, wanted) = (stored.shape(), old.shape());
    let rest =
        |shape: &[usize]| shape.iter().enumerate().filter(|&(axis, _)| axis != 1).map(|(_, &n)| n).collect::<Vec<_>>();
    if wanted.len() < 3 || wanted[1] != channels {
        return Err(Error::argument(OPERATION, format!("{channels} channels for a weight of {}", shape_text(wanted)))
            .expected("the input channels of a convolution"));
    }
    if given.len() != wanted.len() || rest(given) != rest(wanted) || given[1] == 0 {
        return Err(other_shape(stored, format!("{} but for the second axis", shape_text(wanted))));
    }
    let from = given[1];
    if from > MOST_CHANNELS {
        return Err(other_shape(stored, format!("at most {MOST_CHANNELS} channels of the input")));
    }
    let value = stored.read()?;
    if from == channels {
        return finished(stored, value, old, Vec::new());
    }
    if !value.dtype().is_float() {
        return Err(Error::new(ErrorKind::DType, OPERATION, format!("a weight of {}", stored.stored()))
            .expected("a floating-point dtype"));
    }
    let value = value.converted(DType::F64)?;
    let value = if channels == 1 {
        value.sum(keep([1]))?
    } else {
        let sources: Vec<i64> = (0..channels).map(|channel| (channel % from) as i64).collect();
        let sources = Tensor::from_slice(&sources, &[channels], Device::Cpu)?;
        value.index_select(1, &sources)?.mul_scalar(from as f64 / channels as f64)?
    };
    finished(stored, value, old, vec![format!("{from} channels to {channels}")])
}

/// `old` with each row for which `rows` has a number replaced by that row of the file.
pub(super) fn rows(stored: &StoredTensor, old: &Tensor, rows: &[Option<usize>]) -> Result<Adapted> {
    let (given, wanted) = (stored.shape(), old.shape());
    if wanted.first() != Some(&rows.len()) {
        return Err(Error::argument(
            OPERATION,
            format!("{} rows for a parameter of {}", rows.len(), shape_text(wanted)),
        )
        .expected("one for each of its first axis"));
    }
    if given.get(1..) != wanted.get(1..) {
        return Err(other_shape(stored, format!("{} but for the first axis", shape_text(wanted))));
    }
    if let Some(row) = rows.iter().flatten().find(|&&row| row >= given[0]) {
        return Err(
            Error::argument(OPERATION, format!("row {row} of the file's {}", given[0])).expected("a row that it has")
        );
    }
    let (value, host) = (stored.read()?, old.to(Device::Cpu)?);
    let part = |(i, row): (usize, &Option<usize>)| {
        let own = host.narrow(0, i, 1)?;
        match row {
            Some(row) => Ok(finished(stored, value.narrow(0, *row, 1)?, &own, Vec::new())?.0),
            None => Ok(own),
        }
    };
    let parts = rows.iter().enumerate().map(part).collect::<Result<Vec<Tensor>>>()?;
    let value = Tensor::concat(&parts.iter().collect::<Vec<_>>(), 0)?;
    let taken = rows.iter().flatten().count();
    finished(stored, value, old, vec![format!("{taken} of {} rows", rows.len())])
}

/// `value` in the dtype and on the device of `old`.
fn finished(stored: &StoredTensor, value: Tensor, old: &Tensor, mut how: Vec<String>) -> Result<Adapted> {
    if how.is_empty() && stored.shape() != value.shape() {
        how.push(format!("{} to {}", shape_text(stored.shape()), shape_text(value.shape())));
    }
    let to = old.dtype();
    let converted = value.converted(to)?;
    let source = value.dtype();
    if source != to {
        let (before, after) = (value.to_vec_f64()?, converted.to_vec_f64()?);
        // Rounding a floating-point value is accepted; any other change is an error.
        let kept = |(x, y): (&f64, &f64)| {
            if to.is_float() && source.is_float() { x.is_infinite() || y.is_finite() || x.is_nan() } else { x == y }
        };
        if let Some((x, _)) = before.iter().zip(&after).find(|&(x, y)| !kept((x, y))) {
            return Err(Error::new(
                ErrorKind::DType,
                OPERATION,
                format!("the value {x} of {} as {to}", stored.stored()),
            )
            .expected(format!("a value that {to} can hold")));
        }
    }
    if stored.dtype() != to {
        how.push(format!("{} to {to}", stored.stored().name().to_lowercase()));
    }
    Ok((converted.to(old.device())?.contiguous()?, how))
}
