//! From a volume to a network's input, and from a label to class numbers in the same grid.

use tomograd_core::{DType, Error, Result, Tensor};
use tomograd_io::{Interpolation, Volume};

use super::{OPERATION, Preparation};
use crate::{
    Scan, alignment,
    sample::{check_finite, numbers_of},
};

/// The part by which spacings may differ and count as one: rounding in headers, and in units, is far less.
const SAME_SPACING: f64 = 1e-3;

impl Preparation {
    /// The network's input for a volume, f32 `(C, D, H, W)` (`(C, H, W)` for patches of two axes): turned, resampled, each
    /// channel's intensities changed. The volumes of a volume of four axes are its channels.
    ///
    /// # Errors
    /// When the volume has other channels than the network takes, or one plane where the network takes several (or several where
    /// it takes one), a voxel isn't finite (the error names it), or a field is out of its range.
    pub fn image(&self, volume: &Volume) -> Result<Tensor> {
        self.check()?;
        Ok(self.image_scan(Scan::of_volume(volume)?)?.values)
    }

    /// The class numbers of a label in the grid of the network's input, u8 `(D, H, W)` (`(H, W)` for patches of two axes): its
    /// values as numbers of classes, turned, and resampled to the nearest voxel.
    ///
    /// # Errors
    /// When the label has several volumes, or a value that is no class's; the error names the value and its voxel.
    pub fn label(&self, volume: &Volume) -> Result<Tensor> {
        self.check()?;
        let scan = Scan::of_volume(volume)?;
        let numbers = alignment::label_numbers(&scan, |values| self.class_numbers(values))?;
        self.label_scan(numbers, &scan)
    }

    /// The class numbers of values in a file, in row-major order.
    pub(crate) fn class_numbers(&self, values: &Tensor) -> Result<Vec<u8>> {
        let mut table = vec![None; usize::from(u16::MAX) + 1];
        (0..=u8::MAX).zip(&self.classes).for_each(|(number, class)| table[usize::from(class.value)] = Some(number));
        let number = |value: f64| {
            let whole = value.fract() == 0.0 && (0.0..=f64::from(u16::MAX)).contains(&value);
            whole.then(|| table[usize::from(value as u16)]).flatten()
        };
        let known = || {
            let values = self.classes.iter().map(|class| format!("{} ({})", class.value, class.name));
            format!("one of {}", values.collect::<Vec<_>>().join(", "))
        };
        numbers_of(values, number, known)
    }

    /// The network's input for what a reader gives.
    pub(crate) fn image_scan(&self, scan: Scan) -> Result<Scan> {
        let turned = self.turned(self.accepted(scan)?)?;
        self.input(&turned)
    }

    /// Class numbers u8 `(D, H, W)` or `(H, W)` in the order of an image's voxels, brought into the grid of the network's input.
    pub(crate) fn label_scan(&self, numbers: Tensor, image: &Scan) -> Result<Tensor> {
        let label = Scan { values: numbers.unsqueeze(0)?, spacing: image.spacing.clone(), affine: image.affine };
        self.resampled(&self.turned(label)?, Interpolation::Nearest)?.values.squeeze(0)
    }

    /// A scan as f32, of the right channels, each voxel a number.
    pub(super) fn accepted(&self, scan: Scan) -> Result<Scan> {
        let channels = scan.values.shape().first().copied().unwrap_or(0);
        if channels != self.channels.len() {
            let names: Vec<&str> = self.channels.iter().map(|channel| channel.name.as_str()).collect();
            return Err(Error::shape(OPERATION, format!("an image of {channels} channels"))
                .expected(format!("{}, as the network was trained with: {}", names.len(), names.join(", ")))
                .shapes([scan.values.shape()]));
        }
        let values = scan.values.converted(DType::F32)?.contiguous()?;
        check_finite(OPERATION, &values)?;
        Ok(Scan { values, ..scan })
    }

    /// A scan with its axes in the order and the direction of the network's images.
    pub(super) fn turned(&self, scan: Scan) -> Result<Scan> {
        let turned = match (&self.orientation, scan.affine) {
            (None, _) => scan,
            (Some(codes), Some(affine)) => Scan::of_volume(&Volume::new(scan.values, affine)?.reorient(codes)?)?,
            (Some(codes), None) => {
                return Err(Error::argument(OPERATION, format!("orientation {codes} of a file without a place"))
                    .expected("a format that says where its voxels lie, or a preparation without an orientation"));
            }
        };
        let shape = turned.values.shape();
        let spatial = shape.get(1..).unwrap_or_default();
        let fail = |what: &str, expected: &str| Err(Error::shape(OPERATION, what).expected(expected).shapes([shape]));
        match (self.patch.len(), spatial) {
            (2, [_, _] | [1, _, _]) => Ok(turned),
            (2, _) => fail("a volume of several planes for a network of two axes", "(C, H, W), or (C, 1, H, W)"),
            (_, [_, _]) => fail("a picture for a network of three axes", "(C, D, H, W)"),
            // A plane has no depth to learn from, unless that is what the network was trained on.
            (_, sizes) if sizes.contains(&1) && !self.patch.contains(&1) => {
                fail("a volume of a single plane for a network of three axes", "at least 2 voxels along each axis")
            }
            _ => Ok(turned),
        }
    }

    /// The network's input for a scan that is accepted and turned.
    pub(super) fn input(&self, turned: &Scan) -> Result<Scan> {
        let mut scan = self.resampled(turned, self.interpolation)?;
        let channel: usize = scan.values.shape().iter().skip(1).product();
        let values = scan.values.as_mut_slice::<f32>()?.chunks_exact_mut(channel.max(1));
        for (values, channel) in values.zip(&self.channels) {
            channel.intensity.apply(values).map_err(|error| error.within(format!("channel {}", channel.name)))?;
        }
        Ok(scan)
    }

    /// A turned scan in the spacing of the network's images; a single plane without its third axis.
    fn resampled(&self, turned: &Scan, interpolation: Interpolation) -> Result<Scan> {
        let resampled = match self.target(&turned.spacing) {
            None => turned.clone(),
            Some(spacing) => {
                let Some(affine) = turned.affine else {
                    return Err(Error::argument(OPERATION, "a spacing for a file without a place")
                        .expected("a format that says where its voxels lie, or a preparation without a spacing"));
                };
                let volume = Volume::new(turned.values.clone(), affine)?;
                let scan = Scan::of_volume(&volume.resample(spacing, interpolation)?)?;
                Scan { values: scan.values.converted(turned.values.dtype())?, ..scan }
            }
        };
        match (self.patch.len(), resampled.values.shape()) {
            (2, &[channels, 1, height, width]) => Ok(Scan {
                values: resampled.values.reshape(&[channels, height, width])?,
                spacing: resampled.spacing[1..].to_vec(),
                affine: None,
            }),
            _ => Ok(resampled),
        }
    }

    /// The spacing along x, y and z to resample to, if that is another one than `own`, which runs as the shape does. An axis
    /// that has the right one keeps it to the bit.
    fn target(&self, own: &[f64]) -> Option<[f64; 3]> {
        let wanted = self.spacing?;
        let mut target = [1.0; 3];
        let mut differs = false;
        for (axis, (target, wanted)) in target.iter_mut().zip(wanted).enumerate() {
            let own = own.iter().rev().nth(axis).copied().unwrap_or(wanted);
            // What lies between planes that are seen one by one doesn't matter.
            let other = axis < self.patch.len() && (own - wanted).abs() > SAME_SPACING * wanted;
            *target = if other { wanted } else { own };
            differs |= other;
        }
        differs.then_some(target)
    }
}
