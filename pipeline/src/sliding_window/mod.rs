//! Sliding-window inference on images larger than the input of a network.
//!
//! Windows of one size form a regular grid over the image. Each is predicted separately, and the logits are blended with a
//! Gaussian weight centred in the window. On a regular grid, the sum of the weights at a voxel is a product of one sum per
//! axis; so weights are normalised beforehand, and no volume of weights is kept.
//!
//! Memory besides input and result: one batch of windows, and the logits of a slab of planes as thick as a window. The planes
//! of a slab are finished once the next row of windows starts after them, so that memory depends on neither the number of
//! windows nor the depth of the volume. [`SlidingWindow::memory_bound`] has the formula.

mod axis;
mod planes;
mod slab;

#[cfg(test)]
mod tests;

use tomograd_core::{DType, Device, Error, Result, Tensor, shape_text};

pub(crate) use self::planes::{Planes, Streamed};
use self::{axis::Axis, planes::Whole, slab::Slab};
use crate::{
    grid,
    sample::{MOST_CLASSES, voxel},
};

/// The settings of sliding-window inference.
///
/// ```
/// use tomograd_core::{DType, Device, Seed, Tensor};
/// use tomograd_pipeline::SlidingWindow;
/// let image = Tensor::uniform(&[1, 20, 30, 25], 0.0, 1.0, Seed::new(1), DType::F32, Device::Cpu)?;
/// let logits = SlidingWindow::new([16; 3])?.overlap(0.5)?.batch(2)?.logits(&image, |patches| Ok(patches.clone()))?;
/// assert_eq!(logits.shape(), [1, 20, 30, 25]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct SlidingWindow {
    patch: Vec<usize>,
    overlap: f64,
    mirroring: bool,
    batch: usize,
}

/// The windows on one image: its three axes, and the number of leading axes that the image doesn't have.
struct WindowGrid {
    axes: [Axis; 3],
    patch: [usize; 3],
    rank: usize,
}

impl SlidingWindow {
    /// Windows of `patch` voxels along the spatial axes, with half overlap, in batches of one, without mirroring.
    ///
    /// # Errors
    /// When the patch doesn't have 1 to 3 axes, or has an axis of size 0.
    pub fn new(patch: impl Into<Vec<usize>>) -> Result<Self> {
        let patch = patch.into();
        grid::dims("sliding_window", &patch)?;
        if patch.contains(&0) {
            return Err(Error::argument("sliding_window", format!("patch {}", shape_text(&patch)))
                .expected("a positive size for each spatial axis"));
        }
        Ok(Self { patch, overlap: 0.5, mirroring: false, batch: 1 })
    }

    /// Sets the minimum overlap of neighbouring windows, a fraction from 0 to less than 1, up to rounding of positions to
    /// voxels.
    ///
    /// # Errors
    /// When it is out of range.
    pub fn overlap(mut self, overlap: f64) -> Result<Self> {
        if !(0.0..1.0).contains(&overlap) {
            return Err(Error::argument("sliding_window", format!("overlap {overlap}")).expected("0 to below 1"));
        }
        self.overlap = overlap;
        Ok(self)
    }

    /// Sets whether predictions are averaged over all mirror images of each window (4 in 2D, 8 in 3D).
    #[must_use]
    pub fn mirroring(mut self, mirroring: bool) -> Self {
        self.mirroring = mirroring;
        self
    }

    /// Sets the number of windows per batch.
    ///
    /// # Errors
    /// When it is 0.
    pub fn batch(mut self, batch: usize) -> Result<Self> {
        if batch == 0 {
            return Err(Error::argument("sliding_window", "windows in batches of 0").expected("at least 1"));
        }
        self.batch = batch;
        Ok(self)
    }

    /// The number of windows for an image with these spatial sizes.
    ///
    /// # Errors
    /// When the sizes don't fit the patch, or the number overflows.
    pub fn windows(&self, spatial: &[usize]) -> Result<usize> {
        let counts = self.counts(spatial)?;
        product(&counts).ok_or_else(|| {
            Error::argument("sliding_window", format!("{counts:?} windows along the axes"))
                .expected("a number of windows that fits the address space")
                .shapes([spatial])
        })
    }

    /// The number of windows along each axis.
    fn counts(&self, spatial: &[usize]) -> Result<[usize; 3]> {
        let (shape, patch) = self.sizes(spatial)?;
        Ok(std::array::from_fn(|axis| axis::count(shape[axis], patch[axis], self.overlap)))
    }

    /// The most bytes that [`SlidingWindow::labels`] allocates for a contiguous image `(channels, D, H, W)` with these
    /// spatial sizes and a predictor of `classes` logits, besides the image and the memory that the predictor needs for
    /// itself:
    ///
    /// D H W + 4 K min(d, D) H W + 4 m N (C + K) d h w
    ///
    /// for the labels, the slab of sums, and the current batch: K classes, C channels, patches of d × h × w voxels, N of
    /// them per batch (at most one row of windows), m = 2 with mirroring and 1 without. The memory pool may round
    /// each of these blocks up by a quarter. [`SlidingWindow::logits`] takes 4 K D H W for its result instead of the labels.
    ///
    /// # Errors
    /// When the sizes don't fit the patch, or the number overflows.
    pub fn memory_bound(&self, channels: usize, classes: usize, spatial: &[usize]) -> Result<usize> {
        let ([depth, height, width], [d, h, w]) = self.sizes(spatial)?;
        let [_, rows, columns] = self.counts(spatial)?;
        let in_flight = self.batch.min(rows.saturating_mul(columns));
        let copies = if self.mirroring { 2 } else { 1 };
        let parts = [
            product(&[depth, height, width]),
            product(&[4, classes, d.min(depth), height, width]),
            channels.checked_add(classes).and_then(|maps| product(&[4, in_flight, copies, maps, d, h, w])),
        ];
        parts.into_iter().try_fold(0usize, |sum, part| sum.checked_add(part?)).ok_or_else(|| {
            Error::argument("sliding_window", format!("{channels} channels and {classes} classes"))
                .expected("a number of bytes that fits the address space")
                .shapes([spatial])
        })
    }

    /// The sizes of an image and of the patch along three axes.
    fn sizes(&self, spatial: &[usize]) -> Result<([usize; 3], [usize; 3])> {
        if self.patch.len() != spatial.len() || spatial.contains(&0) {
            let what = format!("patch {} for an image of {}", shape_text(&self.patch), shape_text(spatial));
            return Err(Error::argument("sliding_window", what).expected("a positive size for each spatial axis"));
        }
        Ok((grid::dims("sliding_window", spatial)?, grid::dims("sliding_window", &self.patch)?))
    }

    fn window_grid(&self, spatial: &[usize]) -> Result<WindowGrid> {
        let (shape, patch) = self.sizes(spatial)?;
        let axes = std::array::from_fn(|axis| Axis::new(shape[axis], patch[axis], self.overlap));
        Ok(WindowGrid { axes, patch, rank: spatial.len() })
    }

    /// The blended logits `(K, D, H, W)`, f32, of an image `(C, D, H, W)` (or without `D`), f32. `predict` maps
    /// patches `(N, C, patch)`, on the CPU, to logits `(N, K, patch)`, on any device. An image smaller than the patch is padded
    /// with 0 on both sides.
    ///
    /// # Errors
    /// Those of the predictor, and when shapes don't fit.
    pub fn logits(&self, image: &Tensor, predict: impl FnMut(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
        let (_, [depth, height, width]) = grid::image_dims("sliding_window", image.shape())?;
        let (spatial, plane) = (&image.shape()[1..], height * width);
        let voxels = depth * plane;
        let mut result = None;
        self.run(image, predict, |depth, logits| {
            if result.is_none() {
                let shape = [&[logits.len() / plane], spatial].concat();
                result = Some(Tensor::zeros(&shape, DType::F32, Device::Cpu)?);
            }
            let Some(result) = &mut result else { return Ok(()) };
            for (class, values) in logits.chunks_exact(plane).enumerate() {
                let place = class * voxels + depth * plane;
                result.as_mut_slice::<f32>()?[place..place + plane].copy_from_slice(values);
            }
            Ok(())
        })?;
        result.ok_or_else(|| Error::shape("sliding_window", "an image without planes").shapes([image.shape()]))
    }

    /// The class with the largest logit (the first of equal ones) at each voxel, u8, `(D, H, W)` (or without `D`); for a
    /// single logit, whether it is positive. As [`SlidingWindow::logits`], but without the memory of all logits.
    ///
    /// # Errors
    /// As [`SlidingWindow::logits`], when there are more than 256 classes, and when a logit is NaN, which can't be compared;
    /// the error has its class and voxel.
    pub fn labels(&self, image: &Tensor, predict: impl FnMut(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
        let (_, [_, height, width]) = grid::image_dims("sliding_window", image.shape())?;
        let (spatial, plane) = (&image.shape()[1..], height * width);
        let mut result = Tensor::zeros(&image.shape()[1..], DType::U8, Device::Cpu)?;
        let labels = result.as_mut_slice::<u8>()?;
        self.run(image, predict, |depth, logits| {
            check_logits(logits, depth, spatial)?;
            let labels = &mut labels[depth * plane..(depth + 1) * plane];
            decide(logits, labels, logits.len() == plane);
            Ok(())
        })?;
        Ok(result)
    }

    /// Calls `finished` with the index of each plane, in order, and its logits `(K, H, W)`, which it may change.
    pub(crate) fn run(
        &self,
        image: &Tensor,
        predict: impl FnMut(&Tensor) -> Result<Tensor>,
        finished: impl FnMut(usize, &mut [f32]) -> Result<()>,
    ) -> Result<()> {
        let (channels, [depth, ..]) = grid::image_dims("sliding_window", image.shape())?;
        let image = image.contiguous()?;
        let mut planes = Whole { voxels: image.as_slice::<f32>()?, depth };
        self.run_planes(channels, &image.shape()[1..], &mut planes, predict, finished)
    }

    /// As [`SlidingWindow::run`], of an image of these spatial sizes whose planes may be read when they are needed.
    pub(crate) fn run_planes(
        &self,
        channels: usize,
        spatial: &[usize],
        planes: &mut impl Planes,
        mut predict: impl FnMut(&Tensor) -> Result<Tensor>,
        mut finished: impl FnMut(usize, &mut [f32]) -> Result<()>,
    ) -> Result<()> {
        let (shape, grid) = (grid::dims("sliding_window", spatial)?, self.window_grid(spatial)?);
        let [depth, height, width] = &grid.axes;
        let mut slab: Option<Slab> = None;
        for (row, &z) in depth.starts.iter().enumerate() {
            let places: Vec<[usize; 2]> =
                (0..height.starts.len()).flat_map(|y| (0..width.starts.len()).map(move |x| [y, x])).collect();
            let from = z.max(0) as usize;
            let to = shape[0].min(z.saturating_add_unsigned(grid.patch[0]).max(0) as usize);
            let (voxels, first, count) = planes.slab(from, to)?;
            let z = z - first as isize;
            for places in places.chunks(self.batch) {
                let starts: Vec<[isize; 3]> =
                    places.iter().map(|&[y, x]| [z, height.starts[y], width.starts[x]]).collect();
                let patches = grid.extract(voxels, channels, [count, shape[1], shape[2]], &starts, &self.patch)?;
                let logits = self.predict(&patches, &grid, &mut predict)?;
                let classes = logits.shape()[1];
                if slab.is_none() {
                    slab = Some(Slab::new(classes, shape, &grid)?);
                }
                let Some(slab) = &mut slab else { continue };
                slab.check(classes)?;
                let windows = logits.as_slice::<f32>()?.chunks_exact(classes * grid.patch.iter().product::<usize>());
                for (&[y, x], window) in places.iter().zip(windows) {
                    slab.add(window, &grid, [row, y, x])?;
                }
            }
            let next = depth.starts.get(row + 1).map_or(shape[0], |&next| next.max(0) as usize);
            if let Some(slab) = &mut slab {
                slab.finish(next, &mut finished)?;
            }
        }
        Ok(())
    }

    /// The logits of a batch of patches, averaged over all mirror images if requested. Contiguous, with checked shape.
    fn predict(
        &self,
        patches: &Tensor,
        grid: &WindowGrid,
        predict: &mut impl FnMut(&Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let mut checked = |patches: &Tensor| {
            let logits = predict(patches)?;
            let fits = logits.rank() == patches.rank()
                && logits.shape()[0] == patches.shape()[0]
                && logits.shape()[1] > 0
                && logits.shape()[2..] == patches.shape()[2..];
            if !fits {
                return Err(Error::shape("sliding_window", "logits don't fit the patches")
                    .expected("(N, C, patch) and (N, K, patch)")
                    .shapes([patches.shape(), logits.shape()]));
            }
            logits.converted(DType::F32)?.to(Device::Cpu)?.contiguous()
        };
        let mut sum = checked(patches)?;
        if !self.mirroring {
            return Ok(sum);
        }
        let images = 1 << grid.rank;
        let flip = |tensor: &mut Tensor, mirror: usize| -> Result<()> {
            let flipped = (0..grid.rank).filter(|bit| mirror >> bit & 1 == 1);
            let values = tensor.as_mut_slice::<f32>()?;
            flipped.for_each(|bit| grid::flip(values, grid.patch, 2 - bit));
            Ok(())
        };
        for mirror in 1..images {
            let mut mirrored = patches.copy()?;
            flip(&mut mirrored, mirror)?;
            let mut logits = checked(&mirrored)?;
            flip(&mut logits, mirror)?;
            if logits.shape() != sum.shape() {
                return Err(Error::shape("sliding_window", "mirror images give different numbers of classes")
                    .shapes([logits.shape(), sum.shape()]));
            }
            let values = logits.as_slice::<f32>()?;
            sum.as_mut_slice::<f32>()?.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
        }
        let share = 1.0 / images as f32;
        sum.as_mut_slice::<f32>()?.iter_mut().for_each(|value| *value *= share);
        Ok(sum)
    }
}

/// Checks that there are at most 256 maps, and that no logit in `(K, H, W)`, plane `depth` of an image, is NaN.
pub(crate) fn check_logits(logits: &[f32], depth: usize, spatial: &[usize]) -> Result<()> {
    let plane = spatial.iter().rev().take(2).product::<usize>();
    let maps = logits.len() / plane;
    if maps > MOST_CLASSES {
        return Err(
            Error::shape("sliding_window", format!("{maps} classes")).expected(format!("at most {MOST_CLASSES}"))
        );
    }
    let Some(at) = logits.iter().position(|logit| logit.is_nan()) else { return Ok(()) };
    let place = voxel(depth * plane + at % plane, spatial);
    Err(Error::argument("sliding_window", format!("the logit of class {} at voxel {place:?} is NaN", at / plane))
        .expected("numbers, from finite intensities and finite weights"))
}

/// The label of each voxel of a plane from its logits `(K, plane)`, which are changed: the class with the largest logit, the
/// first of equal ones. If the maps are `independent`, map k is for class k + 1, and class 0 is taken where no logit is
/// positive.
pub(crate) fn decide(logits: &mut [f32], labels: &mut [u8], independent: bool) {
    let plane = labels.len();
    labels.fill(0);
    let (first, others) = logits.split_at_mut(plane);
    if independent {
        // The threshold of the first map; afterwards the largest logit so far, or 0.
        for (best, label) in first.iter_mut().zip(labels.iter_mut()) {
            *label = u8::from(*best > 0.0);
            *best = best.max(0.0);
        }
    }
    for (class, values) in (1 + u8::from(independent)..=u8::MAX).zip(others.chunks_exact(plane)) {
        for ((best, label), &value) in first.iter_mut().zip(labels.iter_mut()).zip(values) {
            if value > *best {
                (*best, *label) = (value, class);
            }
        }
    }
}

fn product(factors: &[usize]) -> Option<usize> {
    factors.iter().try_fold(1usize, |product, &factor| product.checked_mul(factor))
}

impl WindowGrid {
    /// The windows at `starts` as `(N, C, patch)`, with zeros outside the image.
    fn extract(
        &self,
        voxels: &[f32],
        channels: usize,
        shape: [usize; 3],
        starts: &[[isize; 3]],
        patch: &[usize],
    ) -> Result<Tensor> {
        let mut patches = Tensor::zeros(&[&[starts.len(), channels], patch].concat(), DType::F32, Device::Cpu)?;
        let mut targets = patches.as_mut_slice::<f32>()?.chunks_exact_mut(self.patch.iter().product());
        for &start in starts {
            for channel in voxels.chunks_exact(shape.iter().product()) {
                if let Some(target) = targets.next() {
                    grid::copy_window(channel, shape, start, target, self.patch);
                }
            }
        }
        Ok(patches)
    }
}
