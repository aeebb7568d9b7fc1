//! Medical and tensor file formats of tomograd: NIfTI, NRRD, MetaImage, PNG, TIFF, JPEG, safetensors, PyTorch's weights, NumPy,
//! TensorBoard's event files, and volumes with geometry.
//!
//! Files from outside are hostile: sizes are checked before memory is taken, and nothing panics. Files are written to a
//! temporary name and renamed.
//!
//! ```
//! use tomograd_core::{DType, Device, Tensor};
//! use tomograd_io::{Volume, geometry};
//! let voxels = Tensor::zeros(&[4, 5, 6], DType::F32, Device::Cpu)?; // (z, y, x)
//! let path = std::env::temp_dir().join(format!("tomograd-io-doc-{}.nii.gz", std::process::id()));
//! Volume::new(voxels, geometry::from_spacing([1.0, 1.0, 2.5])?)?.write(&path)?; // mm along x, y, z
//! let volume = Volume::read(&path)?;
//! assert_eq!((volume.spacing(), &volume.orientation()[..]), ([1.0, 1.0, 2.5], "RAS"));
//! # std::fs::remove_file(path).ok();
//! # Ok::<(), tomograd_core::Error>(())
//! ```

#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

mod array;
mod atomic;
mod blob;
mod detached;
#[cfg(feature = "dicom")]
pub mod dicom;
pub mod digest;
mod element;
pub mod geometry;
mod gzip;
#[cfg(feature = "jpeg")]
mod jpeg;
mod metaimage;
mod nifti;
mod nrrd;
pub mod numpy;
mod picture;
mod png;
pub mod pytorch;
pub mod safetensors;
#[cfg(feature = "tiff")]
mod slide;
mod stored;
mod stream;
pub mod tensorboard;
#[cfg(feature = "tiff")]
mod tiff;
mod volume;
mod voxels;
mod weights;
mod zip;
mod zlib;

pub use atomic::{Target, abandon_writes, write_atomically, write_atomically_through};
#[cfg(feature = "jpeg")]
pub use jpeg::encode_jpeg;
pub use png::{encode_png, read_png, read_png_labels, write_gray, write_rgb};
#[cfg(feature = "tiff")]
pub use slide::{Level, Slide};
pub use stored::{Skipped, StoredDType, StoredTensor};
pub use volume::{Format, Geometry, Info, Interpolation, Slabs, Volume, WriteOptions, info};
pub use weights::Weights;
