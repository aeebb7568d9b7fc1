//! Preparations, transforms, datasets, loaders, sliding-window inference, metrics and trainers of tomograd.
//!
//! Images are `(C, D, H, W)` or `(C, H, W)`, labels `(D, H, W)` or `(H, W)`; spacings are millimetres along the spatial axes
//! in the order of the shape.
//!
//! ```
//! use std::sync::Arc;
//! use tomograd_core::{DType, Device, Seed, Tensor};
//! use tomograd_pipeline::{Dataset, Loader, transforms::{Compose, Flip, ZScore}};
//! let images = Tensor::uniform(&[6, 16, 16], 0.0, 1.0, Seed::new(1), DType::F32, Device::Cpu)?;
//! let classes = Tensor::from_slice(&[0i64, 1, 0, 1, 2, 2], &[6], Device::Cpu)?;
//! let cases = Dataset::arrays("case", &images, Some(&classes))?.prepare(Compose::new().then(ZScore::default())?);
//! let loader = Loader::new(Arc::new(cases), 3, Seed::new(2))?.transforms(Compose::new().then(Flip::default())?);
//! for batch in loader.epoch(0) {
//!     let batch = batch?;
//!     assert_eq!((batch.image()?.shape(), batch.class()?.shape()), (&[3, 1, 16, 16][..], &[3][..]));
//! }
//! # Ok::<(), tomograd_core::Error>(())
//! ```

#![forbid(unsafe_code)]

mod csv;
mod grid;
mod names;
mod sample;
mod scan;

pub mod alignment;
pub mod cache;
pub mod contact_sheet;
pub mod dataset;
mod evaluation;
mod heat_sheet;
pub mod loader;
pub mod metrics;
pub mod preparation;
#[cfg(feature = "progress")]
pub mod progress;
pub mod report;
pub mod sliding_window;
pub mod split;
pub mod trainer;
pub mod transforms;

pub use cache::Cache;
pub use contact_sheet::ContactSheet;
pub use dataset::{Bids, Columns, Dataset};
pub use evaluation::Segmented;
pub use heat_sheet::HeatSheet;
pub use loader::{Batch, Cases, Collated, Loader};
pub use metrics::{
    ClassMetrics, Comparison, bootstrap_interval, compare_volumes, confusion, confusion_volumes, evaluate,
    evaluate_volumes, quantile, roc_auc,
};
pub use preparation::{Ensemble, Preparation, Segment};
pub use report::{Mean, Report};
pub use sample::{Boxes, Field, Kind, Points, Sample};
pub use scan::Scan;
pub use sliding_window::SlidingWindow;
pub use split::Split;
pub use trainer::{Batches, Generated, Learner, Step, Trainer, Validation};
