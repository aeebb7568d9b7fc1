//! Cropping and padding to a fixed size.

use tomograd_core::{Device, Element, Error, Random, Result, Tensor, shape_text};

use super::{Effect, Transform, check_probability, debug_key, spatial::Map, spatial_effect};
use crate::{Field, Kind, Sample, grid};

/// Crops or pads each spatial axis to a size. Padding is symmetric (an odd voxel goes to the end), with 0 in images and class
/// 0 in labels. Boxes and points move along; boxes are clipped to the window.
///
/// ```
/// use tomograd_core::{DType, Device, Seed, Tensor};
/// use tomograd_pipeline::{Sample, transforms::{Compose, CropOrPad}};
/// let image = Tensor::ones(&[1, 10, 3], DType::F32, Device::Cpu)?;
/// let label = Tensor::zeros(&[10, 3], DType::U8, Device::Cpu)?;
/// let patches = Compose::new().then(CropOrPad::random([4, 4]).foreground(0.5))?;
/// let patch = patches.apply(Sample::new("case", &image, Some(&label))?, Seed::new(1))?;
/// assert_eq!((patch.image()?.shape(), patch.label()?.shape()), (&[1, 4, 4][..], &[4, 4][..]));
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct CropOrPad {
    size: Vec<usize>,
    random: bool,
    foreground: f64,
}

impl CropOrPad {
    /// Crops or pads to `size` voxels along the spatial axes, centred.
    pub fn centred(size: impl Into<Vec<usize>>) -> Self {
        Self { size: size.into(), random: false, foreground: 0.0 }
    }

    /// Crops to `size` voxels along the spatial axes at a random position where the sample is larger; pads where it is
    /// smaller.
    pub fn random(size: impl Into<Vec<usize>>) -> Self {
        Self { random: true, ..Self::centred(size) }
    }

    /// With this probability, the random window contains a foreground voxel: one of the classes of the (first) label is
    /// chosen with equal probability, then one of its voxels. So small structures are sampled often enough.
    #[must_use]
    pub fn foreground(mut self, probability: f64) -> Self {
        self.foreground = probability;
        self
    }

    fn start(&self, sample: &Sample, shape: [usize; 3], size: [usize; 3], random: &mut Random) -> Result<[isize; 3]> {
        let centre = match sample.first_label() {
            Some(label) if self.random && random.bernoulli(self.foreground) => {
                foreground_voxel(label.as_slice::<u8>()?, shape, random)
            }
            _ => None,
        };
        Ok(std::array::from_fn(|axis| {
            let Some(room) = shape[axis].checked_sub(size[axis]) else {
                return -(((size[axis] - shape[axis]) / 2) as isize);
            };
            let place = match centre {
                Some(voxel) => voxel[axis].saturating_sub(size[axis] / 2).min(room),
                None if self.random => random.below(room as u64 + 1) as usize,
                None => room / 2,
            };
            place as isize
        }))
    }
}

/// A random voxel of a random foreground class; `None` without foreground.
fn foreground_voxel(label: &[u8], shape: [usize; 3], random: &mut Random) -> Option<[usize; 3]> {
    let mut counts = [0usize; 256];
    label.iter().for_each(|&class| counts[usize::from(class)] += 1);
    let present: Vec<usize> = (1..256).filter(|&class| counts[class] > 0).collect();
    let class = *present.get(random.below(present.len() as u64) as usize)?;
    let number = random.below(counts[class] as u64) as usize;
    let (index, _) = label.iter().enumerate().filter(|(_, c)| usize::from(**c) == class).nth(number)?;
    Some([index / (shape[1] * shape[2]), index / shape[2] % shape[1], index % shape[2]])
}

/// The window of each channel of `tensor`, with zeros outside.
fn window<T: Element>(
    tensor: &Tensor,
    shape: [usize; 3],
    start: [isize; 3],
    size: [usize; 3],
    result: &[usize],
) -> Result<Tensor> {
    let mut target = Tensor::zeros(result, T::DTYPE, Device::Cpu)?;
    let grids = tensor.as_slice::<T>()?.chunks_exact(shape.iter().product::<usize>());
    for (to, from) in target.as_mut_slice::<T>()?.chunks_exact_mut(size.iter().product::<usize>()).zip(grids) {
        grid::copy_window(from, shape, start, to, size);
    }
    Ok(target)
}

impl Transform for CropOrPad {
    fn name(&self) -> &str {
        "crop_or_pad"
    }

    fn check(&self) -> Result<()> {
        check_probability(self.foreground)?;
        if !(1..=3).contains(&self.size.len()) || self.size.contains(&0) {
            return Err(Error::argument("crop_or_pad", format!("size {}", shape_text(&self.size)))
                .expected("a positive size for each of 1 to 3 spatial axes"));
        }
        Ok(())
    }

    fn effect(&self, kind: Kind) -> Effect {
        spatial_effect(kind, Effect::Moved, Effect::Moved)
    }

    fn key(&self) -> Option<String> {
        debug_key(self)
    }

    fn apply(&self, mut sample: Sample, random: &mut Random) -> Result<Sample> {
        self.check()?;
        let (shape, rank) = sample.dims("crop_or_pad")?;
        if self.size.len() != rank {
            return Err(Error::argument("crop_or_pad", format!("size {}", shape_text(&self.size)))
                .expected(format!("a size for each of the {rank} spatial axes of the sample")));
        }
        let size = grid::dims("crop_or_pad", &self.size)?;
        if size == shape {
            Map::window([0; 3]).move_shapes(&mut sample, size)?;
            return Ok(sample);
        }
        let start = self.start(&sample, shape, size, random)?;
        for (_, field) in sample.fields_mut() {
            match field {
                Field::Image(image) => {
                    let result = [&image.shape()[..1], &self.size[..]].concat();
                    *image = window::<f32>(image, shape, start, size, &result)?;
                }
                Field::Label(label) => *label = window::<u8>(label, shape, start, size, &self.size)?,
                _ => {}
            }
        }
        Map::window(start).move_shapes(&mut sample, size)?;
        Ok(sample)
    }
}
