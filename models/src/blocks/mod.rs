//! Building blocks that several networks share.

mod adn;
mod double_conv;
mod subpixel;

use tomograd_autodiff::{Var, methods::*};
use tomograd_core::{Error, Result};
use tomograd_nn::Activation;

pub use adn::{ActivationChoice, Adn, ConvAdn, NormChoice};
pub use double_conv::{DoubleConv, DoubleConvOptions};
pub(crate) use subpixel::SubpixelUpsample;

/// Two maps concatenated along channels.
pub(crate) fn join(first: Var, second: Var) -> Result<Var> {
    Var::concat(&[&first, &second], 1)
}

/// The largest number of an activation, so that usual products don't overflow an f32.
const LARGEST: f64 = 1e30;

/// Checks the numbers of an activation that isn't part of a layer that does.
pub(crate) fn check_activation(activation: Activation) -> Result<()> {
    let fits = match activation {
        Activation::LeakyRelu(number)
        | Activation::Elu(number)
        | Activation::Add(number)
        | Activation::Multiply(number)
        | Activation::Power(number) => number.abs() <= LARGEST,
        Activation::Clamp(low, high) => low <= high,
        _ => true,
    };
    if fits {
        return Ok(());
    }
    Err(Error::argument("activation", format!("{activation:?}"))
        .expected("numbers within 1e30 of 0, and bounds in their order"))
}
