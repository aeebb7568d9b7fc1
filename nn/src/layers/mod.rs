//! Layers. Each creates its parameters in a [`Scope`](crate::Scope) and holds their slots.
//!
//! All layers are built the same way: `Layer::new(scope, sizes, options)?`. A layer with parameters or random numbers takes
//! its scope first; others take none. Everything with a default is in one options value at the end, whose methods can't fail;
//! the number or list that usually suffices can be passed in its place. `new` checks everything before it creates a
//! parameter, and its error names the layer. No method changes a layer afterwards.

mod attention;
mod basic;
mod conv;
mod local_response;
mod norm;
mod per_axis;
mod pool;
mod recurrent;
mod stochastic_depth;

pub use attention::MultiHeadAttention;
pub use basic::{Dropout, DropoutOptions, Linear, LinearOptions, PRelu};
pub use conv::{Conv, ConvTranspose, Kernel};
pub use local_response::{LocalResponseNorm, LocalResponseNormOptions};
pub use norm::{ConvNormActivation, LayerNorm, LayerNormOptions, Norm, NormKind, NormOptions};
pub use per_axis::PerAxis;
pub use pool::{AdaptiveAveragePool, AdaptiveMaxPool, AveragePool, MaxPool, Upsample, UpsampleOptions, Window};
pub use recurrent::{Recurrence, Recurrent, RecurrentKind, RecurrentOptions};
pub use stochastic_depth::StochasticDepth;
