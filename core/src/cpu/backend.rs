//! The host as a device.

use std::sync::Arc;

use crate::{
    DType, Element, Layout, Result,
    backend::Backend,
    cpu::rows::for_each_row,
    dtype::with_element,
    memory::{Block, Purpose},
    storage::Storage,
};

/// The host.
pub(crate) struct Cpu;

impl Cpu {
    /// Memory filled with what `elements` gives: `count` values of `T` in row-major order.
    fn filled<T: Element>(operation: &str, count: usize, mut value: impl FnMut(usize) -> T) -> Result<Arc<Storage>> {
        let mut storage = Cpu.allocate(operation, count.saturating_mul(size_of::<T>()), Purpose::Tensor)?;
        for (i, element) in storage.uninit_slice_mut::<T>()[..count].iter_mut().enumerate() {
            element.write(value(i));
        }
        Ok(Arc::new(storage))
    }
}

impl Backend for Cpu {
    fn allocate(&self, operation: &str, bytes: usize, purpose: Purpose) -> Result<Storage> {
        Ok(Storage::of_host(Block::of_host(operation, bytes, purpose)?, bytes))
    }

    fn fill(&self, count: usize, value: f64, dtype: DType) -> Result<Arc<Storage>> {
        with_element!(dtype, T => {
            let value = T::from_f64(value);
            Self::filled("full", count, |_| value)
        })
    }

    fn copy(&self, from: &Arc<Storage>, layout: &Layout, dtype: DType) -> Result<Arc<Storage>> {
        with_element!(dtype, T => mapped::<T, T>("copy", from, layout, |value| value))
    }

    fn convert(&self, from: &Arc<Storage>, layout: &Layout, [dtype, to]: [DType; 2]) -> Result<Arc<Storage>> {
        with_element!(dtype, S => {
            with_element!(to, T => mapped::<S, T>("converted", from, layout, |value| T::from_f64(value.to_f64())))
        })
    }
}

/// `convert` of each element of a view of `S`, in row-major order.
fn mapped<S: Element, T: Element>(
    operation: &str,
    from: &Storage,
    layout: &Layout,
    convert: impl Fn(S) -> T,
) -> Result<Arc<Storage>> {
    // SAFETY: a tensor's storage was filled with elements of its dtype when the tensor was made.
    let source = unsafe { from.slice::<S>() };
    let mut storage = Cpu.allocate(operation, layout.count().saturating_mul(size_of::<T>()), Purpose::Tensor)?;
    let target = &mut storage.uninit_slice_mut::<T>()[..layout.count()];
    let mut written = 0;
    for_each_row(layout, |start, stride, length| {
        let row = &mut target[written..written + length];
        if stride == 1 {
            // Without a stride the compiler makes a copy of blocks of it.
            for (element, &value) in row.iter_mut().zip(&source[start..start + length]) {
                element.write(convert(value));
            }
        } else {
            for (i, element) in row.iter_mut().enumerate() {
                element.write(convert(source[start + i * stride]));
            }
        }
        written += length;
    });
    // Later reads of the storage take it as filled.
    assert_eq!(written, layout.count());
    Ok(Arc::new(storage))
}
