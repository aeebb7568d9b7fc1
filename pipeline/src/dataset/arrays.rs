//! Cases that are rows of arrays.

use std::sync::Arc;

use tomograd_core::{DType, Error, Result, Tensor};

use super::{Case, Source};
use crate::{Field, Scan};

/// An array of images along its first axis.
#[derive(Clone)]
pub(super) struct Rows {
    images: Tensor,
    /// Whether the last axis has the channels; otherwise there is one channel.
    channels_last: bool,
}

impl Rows {
    /// Image number `row`, with 1 mm spacing.
    pub(super) fn scan(&self, row: usize) -> Result<Scan> {
        let image = self.images.select(0, row)?;
        let values = if self.channels_last {
            let last = image.rank() - 1;
            let axes: Vec<usize> = std::iter::once(last).chain(0..last).collect();
            image.permute(&axes)?
        } else {
            image.unsqueeze(0)?
        };
        let values = values.contiguous()?;
        let spacing = vec![1.0; values.rank() - 1];
        Ok((values, spacing).into())
    }
}

/// The cases of an array of images and one of labels, named after `name`, and the number of classes.
pub(super) fn cases(name: &str, images: &Tensor, labels: Option<&Tensor>) -> Result<(Vec<Case>, usize)> {
    let wrong = |what: &str, expected: &str, tensor: &Tensor| {
        Error::shape("dataset", what).expected(expected).shapes([tensor.shape()])
    };
    let channels_last = match images.shape() {
        shape if shape.contains(&0) => return Err(wrong("no images", "at least one, with pixels", images)),
        [_, _, _] => false,
        [_, _, _, last] => *last == 3,
        [_, _, _, _, _] => true,
        _ => {
            let expected = "(N, H, W), (N, H, W, 3), (N, D, H, W) or (N, D, H, W, C)";
            return Err(wrong("an array that isn't one of images", expected, images));
        }
    };
    let count = images.shape()[0];
    let values = match labels {
        None => None,
        Some(labels) => match labels.shape() {
            [rows] if *rows == count => Some(labels.unsqueeze(1)?),
            [rows, columns] if *rows == count && *columns > 0 => Some(labels.clone()),
            _ => {
                let expected = format!("({count},), or ({count}, K), one row an image");
                return Err(wrong("labels that aren't those of the images", &expected, labels));
            }
        },
    };
    let values = values.map(|labels| Ok((labels.shape()[1], labels.dtype(), labels.to_vec_f64()?))).transpose()?;
    let binary = values.iter().all(|(_, _, values)| values.iter().all(|value| [0.0, 1.0].contains(value)));
    let rows = Arc::new(Rows { images: images.clone(), channels_last });
    let (digits, mut classes) = ((count - 1).to_string().len(), 0);
    let value = |row: usize| -> Option<(String, Source)> {
        let (columns, dtype, all) = values.as_ref()?;
        let of_row = &all[row * columns..(row + 1) * columns];
        let whole = !matches!(dtype, DType::F16 | DType::BF16 | DType::F32 | DType::F64);
        let (name, field) = match of_row {
            [class] if whole => ("class", Field::Class(*class as i64)),
            labels if whole && binary => ("labels", Field::Labels(labels.iter().map(|x| *x == 1.0).collect())),
            numbers => ("numbers", Field::Numbers(numbers.to_vec())),
        };
        Some((name.to_owned(), Source::Value(field)))
    };
    let mut cases = Vec::with_capacity(count);
    for row in 0..count {
        let label = value(row);
        match &label {
            Some((_, Source::Value(Field::Class(class)))) => {
                classes = classes.max(usize::try_from(*class).map_or(0, |c| c + 1))
            }
            Some((_, Source::Value(Field::Labels(labels)))) => classes = labels.len(),
            _ => {}
        }
        let image = ("image".to_owned(), Source::Row(rows.clone(), row));
        cases.push(Case::new(format!("{name}_{row:0digits$}"), std::iter::once(image).chain(label)));
    }
    Ok((cases, classes))
}
