//! Printing tensors.

use std::fmt;

use super::Tensor;
use crate::{DType, Device, contiguous_strides, shape_text};

/// Of an axis that is too long, this many elements are printed at either end.
const EDGE: usize = 3;

/// How many elements the debug format prints.
const FIRST: usize = 6;

impl fmt::Display for Tensor {
    /// The elements in nested brackets with long axes shortened, then dtype, shape and device. Dots replace elements that the
    /// host can't read.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.device() {
            Device::Cpu => self.write_axis(f, 0)?,
            _ => f.write_str("[...]")?,
        }
        write!(f, " {} {} {}", self.dtype(), shape_text(self.shape()), self.device())
    }
}

impl fmt::Debug for Tensor {
    /// Dtype, shape, device, strides and the first elements, in one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Tensor({} {} {}, strides {:?}:",
            self.dtype(),
            shape_text(self.shape()),
            self.device(),
            self.strides()
        )?;
        for flat in 0..self.count().min(FIRST) {
            f.write_str(if flat > 0 { ", " } else { " " })?;
            let places = contiguous_strides(self.shape()).into_iter().zip(self.shape());
            let place = places.map(|(stride, size)| flat / stride % size);
            match place.into_iter().try_fold(self.clone(), |part, i| part.select(0, i)) {
                Ok(element) => element.write_axis(f, 0)?,
                Err(_) => f.write_str("?")?,
            }
        }
        f.write_str(if self.count() > FIRST { ", ...)" } else { ")" })
    }
}

impl Tensor {
    fn write_axis(&self, f: &mut fmt::Formatter<'_>, depth: usize) -> fmt::Result {
        if self.rank() == 0 {
            return match self.to_vec_f64() {
                Ok(values) => match (self.dtype(), values.first().copied().unwrap_or_default()) {
                    (DType::Bool, value) => write!(f, "{}", value != 0.0),
                    (dtype, value) if dtype.is_float() => match f.precision() {
                        Some(digits) => write!(f, "{value:.digits$}"),
                        None if value != 0.0 && !(1e-3..1e5).contains(&value.abs()) => write!(f, "{value:.4e}"),
                        None => write!(f, "{value:.4}"),
                    },
                    (_, value) => write!(f, "{value}"),
                },
                Err(_) => f.write_str("?"),
            };
        }
        let size = self.shape()[0];
        f.write_str("[")?;
        let hidden = if size > 2 * EDGE + 1 { EDGE..size - EDGE } else { size..size };
        for i in (0..hidden.start).chain(hidden.end..size) {
            if i == hidden.end {
                self.separate(f, depth)?;
                f.write_str("...")?;
            }
            if i > 0 {
                self.separate(f, depth)?;
            }
            match self.select(0, i) {
                Ok(part) => part.write_axis(f, depth + 1)?,
                Err(_) => f.write_str("?")?,
            }
        }
        f.write_str("]")
    }

    fn separate(&self, f: &mut fmt::Formatter<'_>, depth: usize) -> fmt::Result {
        if self.rank() == 1 { f.write_str(", ") } else { write!(f, ",\n{:width$}", "", width = depth + 1) }
    }
}
