//! The tensor core of tomograd: tensors, storage, layout, dtypes, devices, memory pools, random numbers and errors.
