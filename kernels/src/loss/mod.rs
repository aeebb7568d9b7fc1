//! Fused losses.

mod cpu;
#[cfg(feature = "testing")]
mod proofs;
#[cfg(feature = "testing")]
mod reference;
#[cfg(test)]
mod tests;

use tomograd_core::{DType, Error, ErrorKind, Result, Tensor};

use crate::{Context, Cost, Forward, Meta, Op, Saved, check, op::with_real};

/// Soft Dice and cross-entropy of class logits in one pass:
///
/// dice_weight · (1 − mean over classes c of (2 Σ p_c t_c + s) / (Σ (p_c + t_c) + s)) + ce_weight · Σ w_t (−log p_t) / Σ w_t
///
/// with p the softmax over the class axis, t the one-hot label, and sums over all images and voxels whose label isn't
/// ignored; without `batch_dice` the Dice part is instead the mean over the images, each with sums of its own. Inputs: logits
/// (N, C, spatial...) and labels, i64 (N, spatial...). Output: the loss, of rank 0.
///
/// Where nothing is there to be divided by, nothing is lost, and the gradient is zero: the cross-entropy part is 0 when Σ w_t is
/// 0 (all voxels are ignored, or of classes of weight 0; PyTorch gives NaN), a class whose denominator is 0 (only without s)
/// counts as 1 in the mean over the classes, and the Dice part of no images is 0. The logits of ignored voxels have no part in
/// it, whatever they are; a NaN among the others makes the loss NaN.
///
/// Milletari et al. 2016 (Dice); Isensee et al. 2021 (the sum of both).
#[derive(Debug, Clone, PartialEq)]
pub struct DiceCe {
    /// The weight of the Dice part; 0 leaves it out.
    pub dice_weight: f64,
    /// The weight of the cross-entropy part; 0 leaves it out.
    pub ce_weight: f64,
    /// s, which keeps the quotient of an absent class defined.
    pub smooth: f64,
    /// Whether class 0 counts in the mean of the Dice part.
    pub include_background: bool,
    /// Whether the Dice part sums over all images of the batch at once.
    pub batch_dice: bool,
    /// Voxels with this label count in neither part.
    pub ignore_index: Option<i64>,
    /// w, a weight of at least 0 for each class in the cross-entropy, not all of them 0; all 1 without it.
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

/// The sums over all voxels, or those of one image, that the loss is made of.
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
    /// That weights and s are numbers of at least 0 in f32's range, and not all classes have the weight 0.
    ///
    /// # Errors
    /// When they aren't.
    pub fn check_numbers(&self) -> Result<()> {
        // Beyond f32's range, sums of weights may leave that of f64.
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

    /// How many groups of images have sums of their own.
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
                // 0, or NaN if a logit is.
                0.0 => self.ce_weight * entropy,
                weight => self.ce_weight * entropy / weight,
            };
        }
        loss
    }

    /// What the Dice quotient of class `c` is divided by.
    fn denominator(&self, sums: &Sums, c: usize) -> f64 {
        sums.probability[c] + sums.label[c] + self.smooth
    }

    /// ∂loss/∂p of a voxel of a group is `slope[c]`, plus `bonus[c]` where c is its label.
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

    /// Of each group of images the sums that the loss is made of: three for each class, and two of the cross-entropy.
    fn state(&self, inputs: &[Meta], _: &[Meta]) -> Vec<Meta> {
        let (batch, classes) = (inputs[0].shape[0], inputs[0].shape[1]);
        vec![inputs[0].with_shape([self.groups(batch), 3 * classes + 2]).with_dtype(DType::F64)]
    }

    fn forward_cpu(&self, _: &Context, inputs: &[&Tensor], outputs: &[Meta]) -> Result<Forward> {
        with_real!("dice_ce", outputs[0].dtype, T => cpu::forward::<T>(self, inputs[0], inputs[1]))
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

    fn cost(&self, inputs: &[Meta], outputs: &[Meta]) -> Cost {
        Cost::of(20.0 * inputs[0].count() as f64, inputs, outputs)
    }
}
