//! Layers. Each makes its parameters in a [`Scope`](crate::Scope) and holds their slots.
//!
//! All are built in one way: `Layer::new(scope, sizes, options)?`. A layer with parameters or random numbers takes its scope
//! first, another one takes none. What has a default stands in one value at the end, whose methods change it and can't fail; the
//! number or list that is enough mostly can stand in its place. `new` checks everything together, before it makes a parameter,
//! and its error says which layer it is. A layer has no methods that change it afterwards.

mod attention;
mod basic;
mod conv;
mod norm;
mod per_axis;
mod pool;

pub use attention::MultiHeadAttention;
pub use basic::{Dropout, DropoutOptions, Linear, LinearOptions, PRelu};
pub use conv::{Conv, ConvTranspose, Kernel};
pub use norm::{ConvNormActivation, LayerNorm, LayerNormOptions, Norm, NormKind, NormOptions};
pub use per_axis::PerAxis;
pub use pool::{AdaptiveAveragePool, AdaptiveMaxPool, AveragePool, MaxPool, Upsample, UpsampleOptions, Window};
