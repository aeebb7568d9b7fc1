//! Walking the elements of a view in row-major order.

use crate::Layout;

/// Calls `row(start, stride, length)` for each run along the innermost of the [merged axes](Layout::merged_axes), in row-major
/// order; a contiguous layout is one run.
pub(crate) fn for_each_row(layout: &Layout, mut row: impl FnMut(usize, usize, usize)) {
    if layout.count() == 0 {
        return;
    }
    let axes = layout.merged_axes();
    let Some((&[length, stride], outer)) = axes.split_first() else { return row(layout.offset(), 1, 1) };
    let mut index = vec![0; outer.len()];
    let mut start = layout.offset();
    loop {
        row(start, stride, length);
        let mut axes = index.iter_mut().zip(outer);
        loop {
            let Some((place, &[size, step])) = axes.next() else { return };
            *place += 1;
            start += step;
            if *place < size {
                break;
            }
            start -= step * size;
            *place = 0;
        }
    }
}
