//! Medical and tensor file formats of tomograd: NIfTI, safetensors, PyTorch's weights, NumPy, PNG, TensorBoard's event files, and
//! volumes with geometry.
//!
//! Files from outside are hostile: sizes are checked before memory is taken, and nothing panics. Files are written to a
//! temporary name and renamed.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

mod atomic;
mod blob;
mod element;
pub mod geometry;
mod gzip;
mod nifti;
pub mod numpy;
mod png;
pub mod pytorch;
pub mod safetensors;
mod stored;
pub mod tensorboard;
mod volume;
mod weights;
mod zip;

pub use atomic::{Target, write_atomically, write_atomically_through};
pub use png::{read_png, read_png_labels, write_gray, write_rgb};
pub use stored::{Skipped, StoredDType, StoredTensor};
pub use volume::{Geometry, Info, Interpolation, Volume, info};
pub use weights::Weights;
