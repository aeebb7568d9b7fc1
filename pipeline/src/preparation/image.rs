//! Preprocessing: from a volume to a network's input, and from a label to class numbers on the same grid.

use tomograd_core::{DType, Error, Result, Tensor};
use tomograd_io::{Interpolation, Volume};

use super::{OPERATION, Preparation};
use crate::{
    Scan, alignment,
    sample::{check_finite, numbers_of},
};

/// Spacings with a smaller relative difference count as equal; rounding in headers and units is far less.
const SAME_SPACING: f64 = 1e-3;

impl Preparation {
    /// The network's input for a volume, f32 `(C, D, H, W)` (`(C, H, W)` for 2D patches): reoriented, resampled, the
    /// intensities of each channel normalised. The volumes of a 4D file are its channels.
    ///
    /// ```
    /// use tomograd_core::{DType, Device, Seed, Tensor};
    /// use tomograd_io::{Volume, geometry};
    /// use tomograd_pipeline::Preparation;
    /// let preparation = Preparation::new([8, 8, 8], ["background", "liver"])?.orientation("RAS")?.spacing([2.0; 3])?;
    /// let voxels = Tensor::uniform(&[10, 12, 14], 0.0, 1.0, Seed::new(1), DType::F32, Device::Cpu)?;
    /// let volume = Volume::new(voxels, geometry::from_orientation("LPS")?)?; // 1 mm
    /// assert_eq!(preparation.image(&volume)?.shape(), [1, 5, 6, 7]);
    /// # Ok::<(), tomograd_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// When the volume has other channels than the network needs, or a single plane where the network needs several (or vice
    /// versa), a voxel isn't finite (the error has its index), or a field is out of range.
    pub fn image(&self, volume: &Volume) -> Result<Tensor> {
        self.check()?;
        Ok(self.image_scan(Scan::of_volume(volume)?)?.values)
    }

    /// The class numbers of a label on the grid of the network's input, u8 `(D, H, W)` (`(H, W)` for 2D patches): label
    /// values mapped to class numbers, reoriented, and resampled with nearest-neighbour interpolation.
    ///
    /// ```
    /// use tomograd_core::{Device, Tensor};
    /// use tomograd_io::{Volume, geometry};
    /// use tomograd_pipeline::Preparation;
    /// let preparation = Preparation::new([1, 1, 2], ["background", "liver"])?.label_values(&[0, 5])?;
    /// let values = Tensor::from_slice(&[5u8, 0, 0, 5], &[1, 2, 2], Device::Cpu)?;
    /// let label = Volume::new(values, geometry::from_spacing([1.0; 3])?)?;
    /// assert_eq!(preparation.label(&label)?.to_vec::<u8>()?, [1, 0, 0, 1]);
    /// # Ok::<(), tomograd_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// When the label has several volumes, or a value that isn't a class's; the error has the value and its voxel.
    pub fn label(&self, volume: &Volume) -> Result<Tensor> {
        self.check()?;
        let scan = Scan::of_volume(volume)?;
        let numbers = alignment::label_numbers(&scan, |values| self.class_numbers(values))?;
        self.label_scan(numbers, &scan)
    }

    /// The class numbers of the values in a file, in row-major order.
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

    /// The network's input for a scan.
    pub(crate) fn image_scan(&self, scan: Scan) -> Result<Scan> {
        let turned = self.turned(self.accepted(scan)?)?;
        self.input(&turned)
    }

    /// Class numbers, u8 `(D, H, W)` or `(H, W)` on the grid of an image, moved to the grid of the network's input.
    pub(crate) fn label_scan(&self, numbers: Tensor, image: &Scan) -> Result<Tensor> {
        let label = Scan { values: numbers.unsqueeze(0)?, spacing: image.spacing.clone(), affine: image.affine };
        self.resampled(&self.turned(label)?, Interpolation::Nearest)?.values.squeeze(0)
    }

    /// Checks channels and voxels of a scan, and converts it to f32.
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

    /// The scan, reoriented to the network's orientation.
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
            // A single plane has no depth, so it is accepted only if the network was trained on single planes.
            (_, sizes) if sizes.contains(&1) && !self.patch.contains(&1) => {
                fail("a volume of a single plane for a network of three axes", "at least 2 voxels along each axis")
            }
            _ => Ok(turned),
        }
    }

    /// The network's input for a scan that has been checked and reoriented.
    pub(super) fn input(&self, turned: &Scan) -> Result<Scan> {
        let mut scan = self.resampled(turned, self.interpolation)?;
        let channel: usize = scan.values.shape().iter().skip(1).product();
        let values = scan.values.as_mut_slice::<f32>()?.chunks_exact_mut(channel.max(1));
        for (values, channel) in values.zip(&self.channels) {
            channel.intensity.apply(values).map_err(|error| error.within(format!("channel {}", channel.name)))?;
        }
        Ok(scan)
    }

    /// A reoriented scan resampled to the network's spacing; a single plane loses its third axis.
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

    /// The spacing along x, y and z to resample to, if it differs from `own`, which is in the order of the shape. An axis
    /// with an equal spacing keeps its exact value.
    pub(super) fn target(&self, own: &[f64]) -> Option<[f64; 3]> {
        let wanted = self.spacing?;
        let mut target = [1.0; 3];
        let mut differs = false;
        for (axis, (target, wanted)) in target.iter_mut().zip(wanted).enumerate() {
            let own = own.iter().rev().nth(axis).copied().unwrap_or(wanted);
            // The distance between planes is irrelevant if they are processed one by one.
            let other = axis < self.patch.len() && (own - wanted).abs() > SAME_SPACING * wanted;
            *target = if other { wanted } else { own };
            differs |= other;
        }
        differs.then_some(target)
    }
}
