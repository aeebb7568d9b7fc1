//! Random inputs for property tests of gradients.

use std::ops::RangeInclusive;

use proptest::{collection::vec, prelude::*};
use tomograd_core::{Device, Tensor, element_count};

/// The largest number of elements that [`tensors`] generates.
const MOST: usize = 1 << 24;

/// The largest number of spatial axes that [`images`] generates.
const MOST_AXES: usize = 8;

/// f64 tensors of this shape with values in −2..2. A shape of more than 2²⁴ elements is rejected, as by `prop_filter`.
pub fn tensors(shape: Vec<usize>) -> impl Strategy<Value = Tensor> {
    let count = element_count("gradcheck", &shape).ok().filter(|&count| count <= MOST);
    let shape = if count.is_some() { shape } else { vec![0] };
    let values = vec(-2.0f64..2.0, count.unwrap_or(0));
    values.prop_filter("a shape of too many elements", move |_| count.is_some()).prop_map(move |values| {
        let result = Tensor::from_slice(&values, &shape, Device::Cpu);
        result.unwrap_or_else(|error| panic!("a small tensor couldn't be made: {error}"))
    })
}

/// Small images and volumes `(N, C, spatial...)` with `ranks` spatial axes and sizes that include odd ones. Of a range that
/// ends before it starts, only the start is used. An image of more than eight spatial axes is rejected, as by `prop_filter`.
pub fn images(ranks: RangeInclusive<usize>) -> impl Strategy<Value = Tensor> {
    images_of(ranks, 1..=5)
}

/// [`images`] with the given number of channels.
pub fn images_of(ranks: RangeInclusive<usize>, channels: RangeInclusive<usize>) -> impl Strategy<Value = Tensor> {
    let whole = |range: RangeInclusive<usize>| *range.start()..=(*range.end()).max(*range.start());
    (whole(ranks), 1usize..=2, whole(channels))
        .prop_filter("an image of too many axes", |(rank, ..)| *rank <= MOST_AXES)
        .prop_flat_map(|(rank, batch, channels)| {
            vec(1usize..=5, rank).prop_map(move |spatial| [vec![batch, channels], spatial].concat())
        })
        .prop_flat_map(tensors)
}
