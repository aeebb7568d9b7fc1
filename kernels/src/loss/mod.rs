//! Fused losses.

mod cpu;
mod cuda;
#[cfg(feature = "testing")]
mod proofs;
#[cfg(feature = "testing")]
mod reference;
#[cfg(test)]
mod tests;

use tomograd_core::{DType, Error, ErrorKind, Result, Tensor};

use crate::{Context, Cost, Forward, Meta, Op, Saved, check, op::with_real};

/// Soft Dice and cross-entropy of class logits, computed together:
///
/// dice_weight · (1 − mean over classes c of (2 Σ p_c t_c + s) / (Σ (p_c + t_c) + s)) + ce_weight · Σ w_t (−log p_t) / Σ w_t
///
/// where p is the softmax over the class axis, t the one-hot label, and the sums are over all images and voxels whose label
/// isn't ignored. Without `batch_dice`, the Dice part is instead the mean over the images, each with its own sums. Inputs:
/// logits (N, C, spatial...) and labels, i64 (N, spatial...). Output: the loss, of rank 0.
///
/// Where a divisor is zero, the loss and its gradient are zero: the cross-entropy part is 0 if Σ w_t is 0 (all voxels are
/// ignored, or of classes of weight 0; PyTorch gives NaN); a class whose denominator is 0 (only possible without s) counts as
/// 1 in the mean over the classes; and the Dice part of no images is 0. The logits of ignored voxels don't matter, whatever
/// they are; a NaN in other logits makes the loss NaN.
///
/// Milletari et al. 2016 (Dice); Isensee et al. 2021 (the sum of both).
#[derive(Debug, Clone, PartialEq)]
pub struct DiceCe {
    /// The weight of the Dice part; 0 disables it.
    pub dice_weight: f64,
    /// The weight of the cross-entropy part; 0 disables it.
    pub ce_weight: f64,
    /// s, which avoids 0/0 for an absent class.
    pub smooth: f64,
    /// Whether class 0 counts in the mean of the Dice part.
    pub include_background: bool,
    /// Whether the sums of the Dice part are over all images of the batch.
    pub batch_dice: bool,
    /// Voxels with this label are ignored in both parts.
    pub ignore_index: Option<i64>,
    /// w, the weight of each class in the cross-entropy: at least 0, and not all 0. `None` means 1 for all classes.
    pub class_weights: Option<Vec<f64>>,
}

impl Default for DiceCe {
    fn default() -> Self {
        Self {
            dice_weight: 1.0,
            ce_weight: 1.0,
            smooth: 1e-5,
            include_background: true,
            batch_dice: true,
            ignore_index: None,
            class_weights: None,
        }
    }
}

/// The sums of which the loss is computed, over all voxels or those of one image.
#[derive(Debug, Clone)]
struct Sums {
    /// Σ p t, Σ p and Σ t of each class.
    intersection: Vec<f64>,
    probability: Vec<f64>,
    label: Vec<f64>,
    /// Σ w (−log p_t) and Σ w.
    entropy: f64,
    weight: f64,
}

impl Sums {
    fn from_slice(values: &[f64]) -> Self {
        let classes = (values.len() - 2) / 3;
        let part = |k: usize| values[k * classes..(k + 1) * classes].to_vec();
        Self {
            intersection: part(0),
            probability: part(1),
            label: part(2),
            entropy: values[3 * classes],
            weight: values[3 * classes + 1],
        }
    }
}

impl DiceCe {
    /// Checks that the weights and s are at least 0 and in f32's range, and that not all classes have the weight 0.
    ///
    /// # Errors
    /// When one of these conditions isn't met.
    pub fn check_numbers(&self) -> Result<()> {
        // With larger values, sums of weights could overflow f64.
        let fits = |number: f64| number >= 0.0 && (number as f32).is_finite();
        let numbers = [("dice_weight", self.dice_weight), ("ce_weight", self.ce_weight), ("smooth", self.smooth)];
        for (name, number) in numbers {
            if !fits(number) {
                return Err(
                    Error::argument("dice_ce", format!("{name} is {number}")).expected("a number ≥ 0 in f32's range")
                );
            }
        }
        let Some(weights) = &self.class_weights else { return Ok(()) };
        if let Some(class) = weights.iter().position(|&weight| !fits(weight)) {
            return Err(Error::argument("dice_ce", format!("class {class} has the weight {}", weights[class]))
                .expected("numbers ≥ 0 in f32's range"));
        }
        if weights.iter().all(|&weight| weight == 0.0) {
            return Err(Error::argument("dice_ce", format!("class weights {weights:?}")).expected("one above 0"));
        }
        Ok(())
    }

    fn first_class(&self) -> usize {
        usize::from(!self.include_background)
    }

    fn class_weight(&self, class: usize) -> f64 {
        self.class_weights.as_ref().map_or(1.0, |weights| weights[class])
    }

    /// The number of groups of images with separate sums.
    fn groups(&self, batch: usize) -> usize {
        if self.batch_dice { 1 } else { batch }
    }

    fn value(&self, groups: &[Sums]) -> f64 {
        let mut loss = 0.0;
        if self.dice_weight != 0.0 {
            let quotients = groups.iter().flat_map(|sums| {
                (self.first_class()..sums.label.len()).map(|c| match self.denominator(sums, c) {
                    0.0 => 1.0,
                    denominator => (2.0 * sums.intersection[c] + self.smooth) / denominator,
                })
            });
            let count = groups.iter().map(|sums| sums.label.len() - self.first_class()).sum::<usize>();
            if count > 0 {
                loss += self.dice_weight * (1.0 - quotients.sum::<f64>() / count as f64);
            }
        }
        if self.ce_weight != 0.0 {
            let entropy: f64 = groups.iter().map(|sums| sums.entropy).sum();
            loss += match total_weight(groups) {
                // The entropy is 0 here, or NaN if a logit is NaN.
                0.0 => self.ce_weight * entropy,
                weight => self.ce_weight * entropy / weight,
            };
        }
        loss
    }

    /// The denominator of the Dice quotient of class `c`.
    fn denominator(&self, sums: &Sums, c: usize) -> f64 {
        sums.probability[c] + sums.label[c] + self.smooth
    }

    /// ∂loss/∂p_c of a voxel of the group is `slope[c]`, plus `bonus[c]` if c is its label.
    fn dice_gradient(&self, sums: &Sums, groups: usize) -> (Vec<f64>, Vec<f64>) {
        let classes = sums.label.len();
        let count = ((classes - self.first_class()) * groups) as f64;
        let (mut slope, mut bonus) = (vec![0.0; classes], vec![0.0; classes]);
        if self.dice_weight != 0.0 {
            for c in self.first_class()..classes {
                let denominator = self.denominator(sums, c);
                if denominator == 0.0 {
                    continue;
                }
                bonus[c] = -2.0 * self.dice_weight / (count * denominator);
                slope[c] =
                    self.dice_weight * (2.0 * sums.intersection[c] + self.smooth) / (count * denominator * denominator);
            }
        }
        (slope, bonus)
    }
}

/// Σ w over all groups.
fn total_weight(groups: &[Sums]) -> f64 {
    groups.iter().map(|sums| sums.weight).sum()
}

impl Op for DiceCe {
    fn name(&self) -> &'static str {
        "dice_ce"
    }

    fn infer(&self, inputs: &[Meta]) -> Result<Vec<Meta>> {
        check::inputs("dice_ce", inputs, 2, 2)?;
        let (logits, labels) = (&inputs[0], &inputs[1]);
        check::same_float("dice_ce", &inputs[..1])?;
        if labels.dtype != DType::I64 {
            return Err(
                Error::new(ErrorKind::DType, "dice_ce", format!("labels hold {}", labels.dtype)).expected("i64")
            );
        }
        let fits = logits.rank() >= 2
            && labels.shape.first() == logits.shape.first()
            && labels.shape.get(1..) == logits.shape.get(2..);
        if !fits {
            return Err(Error::shape("dice_ce", "labels don't fit the logits")
                .expected("logits (N, C, spatial...) and labels (N, spatial...)")
                .shapes([&logits.shape[..], &labels.shape]));
        }
        let classes = logits.shape[1];
        if classes <= self.first_class() {
            return Err(Error::shape("dice_ce", format!("logits of {classes} classes"))
                .expected("at least one class that counts")
                .shapes([&logits.shape[..]]));
        }
        if let Some(weights) = self.class_weights.as_ref().filter(|weights| weights.len() != classes) {
            return Err(Error::argument("dice_ce", format!("{} class weights for {classes} classes", weights.len())));
        }
        self.check_numbers()?;
        Ok(vec![logits.with_shape([])])
    }

    /// The sums of each group of images from which the loss is computed: three for each class, and two of the cross-entropy.
    fn state(&self, inputs: &[Meta], _: &[Meta]) -> Vec<Meta> {
        let (batch, classes) = (inputs[0].shape[0], inputs[0].shape[1]);
        vec![inputs[0].with_shape([self.groups(batch), 3 * classes + 2]).with_dtype(DType::F64)]
    }

    fn forward_cpu(&self, _: &Context, inputs: &[&Tensor], outputs: &[Meta]) -> Result<Forward> {
        with_real!("dice_ce", outputs[0].dtype, T => cpu::forward::<T>(self, inputs[0], inputs[1]))
    }

    fn forward_cuda(&self, _: &Context, inputs: &[&Tensor], _: &[Meta]) -> Result<Forward> {
        cuda::forward(self, inputs[0], inputs[1])
    }

    fn saves_input(&self, _: usize) -> bool {
        true
    }

    fn backward_cpu(
        &self,
        _: &Context,
        saved: Saved,
        gradients: Vec<Option<Tensor>>,
        needed: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        let Some(gradient) = gradients[0].as_ref().filter(|_| needed[0]) else { return Ok(vec![None, None]) };
        with_real!("dice_ce", gradient.dtype(), T => Ok(vec![Some(cpu::backward::<T>(self, &saved, gradient)?), None]))
    }

    fn backward_cuda(
        &self,
        _: &Context,
        saved: Saved,
        gradients: Vec<Option<Tensor>>,
        needed: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        let Some(gradient) = gradients[0].as_ref().filter(|_| needed[0]) else { return Ok(vec![None, None]) };
        Ok(vec![Some(cuda::backward(self, &saved, gradient)?), None])
    }

    fn cost(&self, inputs: &[Meta], outputs: &[Meta]) -> Cost {
        Cost::of(20.0 * inputs[0].count() as f64, inputs, outputs)
    }
}
