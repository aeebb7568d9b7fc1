//! Batch norm folded into convolutions, for inference.
//!
//! With running statistics a batch norm is an affine function of each channel, γ (x − μ) / √(σ² + ε) + β, which can be merged
//! into the preceding convolution: the weight is multiplied by γ / √(σ² + ε), and the bias changes. Layers record on
//! construction which norm follows which convolution. The folded values are stored as weights of the ordinary network, in
//! which the norm only adds the bias if the convolution has none. So a checkpoint of a folded network loads into the ordinary
//! one, with the same outputs.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use tomograd_autodiff::{Var, methods::*};
use tomograd_core::{DType, Device, Error, ErrorKind, Result, Tensor};

use crate::{Conv, ConvTranspose, Params, Pass, Scope, Slot, lock::lock};

/// A reference to the convolution that a norm follows: `&Conv` or `&ConvTranspose`, for [`Norm::after`](crate::Norm::after).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Followed {
    pub(crate) weight: Slot,
    pub(crate) bias: Option<Slot>,
    pub(crate) channels: usize,
    /// The number of groups of a transposed convolution, whose weight has the output channels along axis 1; `None` for
    /// `Conv`.
    pub(crate) transposed: Option<usize>,
}

impl From<&Conv> for Followed {
    fn from(conv: &Conv) -> Self {
        conv.followed()
    }
}

impl From<&ConvTranspose> for Followed {
    fn from(conv: &ConvTranspose) -> Self {
        conv.followed()
    }
}

/// A batch norm and the layer that it follows.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) path: String,
    /// γ and β.
    pub(crate) affine: Option<[Slot; 2]>,
    pub(crate) mean: Slot,
    pub(crate) variance: Slot,
    pub(crate) epsilon: f64,
    /// The convolutions that it follows, of which it can be folded into one alone.
    pub(crate) follows: Mutex<Vec<Followed>>,
}

impl Link {
    /// Records that the norm follows `conv`.
    pub(crate) fn follow(&self, conv: Followed) {
        let mut follows = lock(&self.follows);
        if !follows.contains(&conv) {
            follows.push(conv);
        }
    }
}

/// The folded norms of a store.
#[derive(Debug, Default, Clone)]
pub(crate) struct Folds {
    /// The indices of their running means.
    norms: BTreeSet<usize>,
    /// By index of the weight, the biases of convolutions that have no bias parameter.
    biases: BTreeMap<usize, Bias>,
}

/// Where the bias of a convolution without a bias parameter is stored.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Bias {
    /// As the β of the norm.
    Beta(Slot),
    /// As the negated running mean of a norm without β, which subtracts it.
    MinusMean(Slot),
}

impl Bias {
    pub(crate) fn value(self, pass: &Pass) -> Result<Var> {
        match self {
            Self::Beta(slot) => pass.parameter(slot),
            Self::MinusMean(slot) => pass.parameter(slot)?.mul(-1.0),
        }
    }
}

impl Folds {
    pub(crate) fn has(&self, running_mean: Slot) -> bool {
        self.norms.contains(&running_mean.index)
    }

    pub(crate) fn bias_of(&self, weight: Slot) -> Option<Bias> {
        self.biases.get(&weight.index).copied()
    }

    /// # Errors
    /// When norms are folded and `training` is true.
    pub(crate) fn check(&self, training: bool) -> Result<()> {
        if !training || self.norms.is_empty() {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Argument,
            "fold_batch_norm",
            "batch norms are folded, and the pass is one of training",
        )
        .expected("an inference pass, or the parameters from before the folding"))
    }
}

impl Scope<'_> {
    /// Records a new batch norm.
    pub(crate) fn link(&mut self, link: Link) -> Arc<Link> {
        let link = Arc::new(link);
        self.params.links.push(link.clone());
        link
    }
}

impl Pass {
    /// Whether the batch norm with this running mean is folded into the preceding convolution.
    ///
    /// # Errors
    /// When it is folded and this is a training pass.
    pub(crate) fn is_folded(&self, running_mean: Slot) -> Result<bool> {
        let folded = self.outline.structure == running_mean.structure() && self.outline.folds.has(running_mean);
        if folded {
            self.outline.folds.check(self.training)?;
        }
        Ok(folded)
    }

    /// The bias that a convolution without a bias parameter got from a folded norm; `weight` is the convolution's.
    ///
    /// # Errors
    /// When memory runs out.
    pub(crate) fn folded_bias(&self, weight: Slot) -> Result<Option<Var>> {
        match self.outline.folds.bias_of(weight) {
            Some(bias) if self.outline.structure == weight.structure() => bias.value(self).map(Some),
            _ => Ok(None),
        }
    }
}

/// The result of [`Params::fold_batch_norm`]: paths of norms.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FoldedNorms {
    /// The norms that are folded now.
    pub folded: Vec<String>,
    /// Batch norms that aren't folded: no preceding convolution is recorded, the convolution or the norm is shared (with another
    /// batch norm, as far as is recorded), or ε is above 0.5.
    pub left: Vec<String>,
}

/// The largest ε of a norm that can be folded: the running variance becomes 1 − ε, which is rounded, and a larger ε would make
/// σ² + ε differ from 1 too much.
const LARGEST_EPSILON: f64 = 0.5;

impl Params {
    /// Folds each batch norm into the convolution that it follows, for inference: the outputs stay the same up to rounding,
    /// and the norms are no longer computed. A training pass is an error from then on. A checkpoint still has the layout of
    /// the ordinary network, with the same outputs. Setting or loading values unfolds all norms, since new values belong to
    /// an ordinary network.
    ///
    /// Which convolution a norm follows is known if both are in a [`ConvNormActivation`](crate::ConvNormActivation), or if
    /// the norm was made by [`Norm::after`](crate::Norm::after).
    ///
    /// ```
    /// use tomograd_core::{Device, Seed, Tensor};
    /// use tomograd_nn::{Conv, Kernel, Norm, NormKind, Params};
    /// let mut params = Params::new(Device::Cpu, Seed::new(1));
    /// let mut scope = params.root();
    /// let conv = Conv::new(scope.at("conv"), 1, 4, Kernel::d2(3).bias(false))?;
    /// let norm = Norm::after(scope.at("norm"), &conv, NormKind::Batch)?;
    /// let done = params.fold_batch_norm()?;
    /// assert_eq!((done.folded, done.left), (vec!["norm".to_owned()], vec![]));
    /// # Ok::<(), tomograd_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// When memory runs out; then nothing is changed.
    pub fn fold_batch_norm(&mut self) -> Result<FoldedNorms> {
        let mut folds = Folds::clone(&self.folds);
        let (mut done, mut values) = (FoldedNorms::default(), Vec::new());
        for link in self.links.iter().filter(|link| !self.folds.has(link.mean)) {
            match self.foldable(link) {
                Some(conv) => {
                    self.fold(link, &conv, &mut values)?;
                    folds.norms.insert(link.mean.index);
                    if conv.bias.is_none() {
                        let bias = link.affine.map_or(Bias::MinusMean(link.mean), |[_, beta]| Bias::Beta(beta));
                        folds.biases.insert(conv.weight.index, bias);
                    }
                    done.folded.push(link.path.clone());
                }
                None => done.left.push(link.path.clone()),
            }
        }
        for (slot, value) in values {
            self.entries[slot.index].value = value;
        }
        self.folds = Arc::new(folds);
        Ok(done)
    }

    /// Marks all norms as not folded. The values stay valid: they are those of an ordinary network with the same outputs.
    pub(crate) fn unfold(&mut self) {
        self.folds = Arc::default();
    }

    /// The convolution into which the norm can be folded.
    fn foldable(&self, link: &Link) -> Option<Followed> {
        let [conv] = lock(&link.follows)[..] else { return None };
        let same = |other: &&Arc<Link>| lock(&other.follows).iter().any(|other| other.weight == conv.weight);
        let alone = self.links.iter().filter(same).count() == 1;
        let own = conv.weight.structure() == self.structure();
        (own && alone && link.epsilon <= LARGEST_EPSILON).then_some(conv)
    }

    /// Appends the new values of a convolution and a norm.
    fn fold(&self, link: &Link, conv: &Followed, values: &mut Vec<(Slot, Tensor)>) -> Result<()> {
        // No CUDA kernel computes in f64, so values of such a device are folded on the host.
        let place = match self.device() {
            Device::Cuda(_) => Device::Cpu,
            other => other,
        };
        let exact = |slot: Slot| self.entries[slot.index].value.to(place)?.cast(DType::F64);
        let constant = |slot: Slot, number: f64| {
            let old = &self.entries[slot.index].value;
            Ok((slot, Tensor::full(old.shape(), number, old.dtype(), old.device())?))
        };
        let mut scale = exact(link.variance)?.add(link.epsilon)?.pow(-0.5)?;
        let mut bias = exact(link.mean)?.mul(-1.0)?;
        if let Some(own) = conv.bias {
            bias = bias.add(&exact(own)?)?;
        }
        if let Some([gamma, _]) = link.affine {
            scale = scale.mul(&exact(gamma)?)?;
        }
        bias = bias.mul(&scale)?;
        if let Some([gamma, beta]) = link.affine {
            bias = bias.add(&exact(beta)?)?;
            values.extend([constant(gamma, 1.0)?, constant(beta, 0.0)?]);
        }
        let weight = exact(conv.weight)?;
        let shape = weight.shape().to_vec();
        // (C_out, C_in / groups, kernel...); for a transposed convolution (C_in, C_out / groups, kernel...), where axis 0 is
        // split into groups and axis 1 has the output channels of a group.
        let (cut, channels) = match conv.transposed {
            Some(groups) => (vec![groups, shape[0] / groups], vec![groups, 1, conv.channels / groups]),
            None => (vec![shape[0]], vec![conv.channels, 1]),
        };
        let scale = scale.reshape(&[&channels[..], &vec![1; shape.len() - 2]].concat())?;
        let weight = weight.reshape(&[&cut, &shape[1..]].concat())?.mul(&scale)?.reshape(&shape)?;
        values.extend([constant(link.variance, 1.0 - link.epsilon)?, constant(link.mean, 0.0)?]);
        let of_bias = match (conv.bias, link.affine) {
            (Some(own), _) => own,
            (None, Some([_, beta])) => beta,
            (None, None) => {
                bias = bias.mul(-1.0)?;
                link.mean
            }
        };
        for (slot, value) in [(conv.weight, weight), (of_bias, bias)] {
            let old = &self.entries[slot.index].value;
            values.push((slot, value.cast(old.dtype())?.contiguous()?.to(old.device())?));
        }
        Ok(())
    }
}
