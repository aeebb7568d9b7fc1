//! Conversion to and from `ndarray`.

use ndarray::{ArrayD, ArrayViewD, IxDyn};

use super::Tensor;
use crate::{Device, Element, Error, ErrorKind, Result, TensorBuilder};

impl Tensor {
    /// A tensor with the shape and elements of an `ndarray` array or view.
    ///
    /// # Errors
    /// When memory runs out, or the device can't be used.
    pub fn from_ndarray<T: Element>(array: ArrayViewD<'_, T>, device: Device) -> Result<Tensor> {
        let mut elements = array.iter();
        TensorBuilder::<T>::new("from_ndarray", array.shape(), device)?
            .fill_with(|_| elements.next().copied().unwrap_or_default())
    }

    /// The elements as an `ndarray` array of the same shape.
    ///
    /// ```
    /// use tomograd_core::{Device, Tensor};
    /// let array = ndarray::arr2(&[[1.0f32, 2.0], [3.0, 4.0]]).into_dyn();
    /// let tensor = Tensor::from_ndarray(array.view(), Device::Cpu)?;
    /// assert_eq!(tensor.to_ndarray::<f32>()?, array);
    /// # Ok::<(), tomograd_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// When `T` isn't the tensor's dtype, memory runs out, or the memory isn't the host's.
    pub fn to_ndarray<T: Element>(&self) -> Result<ArrayD<T>> {
        ArrayD::from_shape_vec(IxDyn(self.shape()), self.to_vec::<T>()?).map_err(|error| {
            Error::new(ErrorKind::Shape, "to_ndarray", error.to_string()).shapes([self.shape()]).source(error)
        })
    }
}
