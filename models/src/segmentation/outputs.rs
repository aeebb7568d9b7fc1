//! The end of networks whose originals return probabilities.

use tomograd_autodiff::{Var, methods::*};
use tomograd_core::Result;
use tomograd_nn::Named;

/// The outputs `(suffix, logits)`, the main one with an empty suffix: called `logits`, `logits_SUFFIX`, or after a sigmoid
/// `probabilities`, `probabilities_SUFFIX`.
pub(super) fn named<S: AsRef<str>>(sigmoid: bool, outputs: impl IntoIterator<Item = (S, Var)>) -> Result<Named<Var>> {
    let mut named = Named::new();
    for (suffix, logits) in outputs {
        let (kind, value) = if sigmoid { ("probabilities", logits.sigmoid()?) } else { ("logits", logits) };
        let suffix = suffix.as_ref();
        let separator = if suffix.is_empty() { "" } else { "_" };
        named.insert(format!("{kind}{separator}{suffix}"), value);
    }
    Ok(named)
}
