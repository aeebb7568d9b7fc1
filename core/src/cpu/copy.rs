//! Copying a view into row-major order.

use crate::{Element, Layout, Result, Tensor, TensorBuilder, tensor::with_element};

/// Calls `row(start, stride, length)` for each row along the last axis, in row-major order. A contiguous layout is one row.
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

/// A row-major copy of `tensor` in memory of its own.
pub(crate) fn copy(tensor: &Tensor) -> Result<Tensor> {
    fn copy_elements<T: Element>(tensor: &Tensor) -> Result<Tensor> {
        let source = tensor.as_storage_slice::<T>()?;
        let mut builder = TensorBuilder::<T>::new("copy", tensor.shape(), tensor.device())?;
        let target = builder.uninit()?;
        let mut written = 0;
        for_each_row(tensor.layout(), |start, stride, length| {
            let row = &mut target[written..written + length];
            if stride == 1 {
                row.write_copy_of_slice(&source[start..start + length]);
            } else {
                for (i, element) in row.iter_mut().enumerate() {
                    element.write(source[start + i * stride]);
                }
            }
            written += length;
        });
        assert_eq!(written, tensor.count());
        // SAFETY: the rows of a layout cover each of its elements once, as the assertion checks.
        Ok(unsafe { builder.assume_init() })
    }
    with_element!(tensor.dtype(), T => copy_elements::<T>(tensor))
}
