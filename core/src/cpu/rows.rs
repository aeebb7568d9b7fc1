//! Walking the elements of a view in row-major order.

use crate::Layout;

/// Calls `row(start, stride, length)` for each run along the last axis, in row-major order; a contiguous layout is one run.
pub(crate) fn for_each_row(layout: &Layout, mut row: impl FnMut(usize, usize, usize)) {
    if layout.count() == 0 {
        return;
    }
    if layout.is_contiguous() {
        return row(layout.offset(), 1, layout.count());
    }
    let last = layout.rank() - 1;
    let (outer, strides) = (&layout.shape()[..last], &layout.strides()[..last]);
    let mut index = vec![0; last];
    let mut start = layout.offset();
    loop {
        row(start, layout.strides()[last], layout.shape()[last]);
        let mut axis = last;
        loop {
            if axis == 0 {
                return;
            }
            axis -= 1;
            index[axis] += 1;
            start += strides[axis];
            if index[axis] < outer[axis] {
                break;
            }
            start -= strides[axis] * outer[axis];
            index[axis] = 0;
        }
    }
}
