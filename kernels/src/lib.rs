//! The operations of tomograd, forward and backward, as functions of tensors.
