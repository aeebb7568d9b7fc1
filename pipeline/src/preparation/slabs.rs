//! Segmentation of volumes that aren't in memory.

use tomograd_core::{DType, Device, Error, Result, Tensor};
use tomograd_io::{Slabs, Volume, geometry};

use super::{Activation, OPERATION, Preparation, intensity::Moments};
use crate::{
    grid,
    sample::check_finite,
    sliding_window::{Streamed, check_logits, decide},
};

/// The planes that a pass over a file reads at once.
const AT_ONCE: usize = 8;

/// The way from planes of a file to planes of the network's image.
struct Turn {
    /// The sizes of the network's image: D, H, W.
    shape: [usize; 3],
    /// Whether the planes of the file are in the opposite order.
    backwards: bool,
    codes: String,
}

impl Turn {
    /// The planes `from..to` of the network's image, f32 `(n, H, W)`.
    fn planes(&self, slabs: &mut Slabs, from: usize, to: usize) -> Result<Tensor> {
        let [depth, ..] = self.shape;
        let (from, to) = if self.backwards { (depth - to, depth - from) } else { (from, to) };
        let values = slabs.planes(from, to)?.converted(DType::F32)?.contiguous()?;
        check_finite(OPERATION, &values).map_err(|error| error.within(format!("planes {from} to {to} along z")))?;
        let turned = Volume::new(values, *slabs.affine())?.reorient(&self.codes)?;
        turned.voxels().contiguous()
    }
}

impl Preparation {
    /// As [`Preparation::segment`], of a file whose planes are read when they are needed, to the same bits. Memory is that of the
    /// mask (two bytes a voxel while it is turned back, one before), of as many planes as a patch is deep, and of the logits
    /// of these ([`SlidingWindow::memory_bound`](crate::SlidingWindow::memory_bound)); the image is never held as a whole.
    ///
    /// ```
    /// use tomograd_autodiff::methods::*;
    /// use tomograd_core::{DType, Device, Seed, Tensor};
    /// use tomograd_io::{Slabs, Volume, geometry};
    /// use tomograd_pipeline::Preparation;
    /// # let path = std::env::temp_dir().join(format!("tomograd-slabs-doc-{}.nii", std::process::id()));
    /// let voxels = Tensor::normal(&[20, 9, 8], 0.0, 1.0, Seed::new(1), DType::F32, Device::Cpu)?;
    /// Volume::new(voxels, geometry::from_spacing([1.0; 3])?)?.write(&path)?;
    /// let preparation = Preparation::new([8, 8, 8], ["background", "bright"])?;
    /// let bright = |patches: &Tensor| Tensor::concat(&[&patches.mul_scalar(0.0)?, patches], 1);
    /// let mask = preparation.segment_slabs(&mut Slabs::open(&path)?, bright)?;
    /// assert_eq!(mask.voxels().to_vec::<u8>()?, preparation.segment(&Volume::read(&path)?, bright)?.voxels().to_vec::<u8>()?);
    /// # std::fs::remove_file(&path).ok();
    /// # Ok::<(), tomograd_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Preparation::segment`], and when the preparation needs the whole image: to resample it, to exchange its planes for
    /// rows or columns, or to find percentiles.
    pub fn segment_slabs(
        &self,
        slabs: &mut Slabs,
        mut predict: impl FnMut(&Tensor) -> Result<Tensor>,
    ) -> Result<Volume> {
        self.check()?;
        let turn = self.turn(slabs)?;
        let ([depth, height, width], plane) = (turn.shape, turn.shape[1] * turn.shape[2]);
        let intensity = match &self.channels[..] {
            [channel] => channel.intensity,
            channels => return Err(whole(&format!("an image of {} channels", channels.len()))),
        };
        // The sums go through the voxels in the order in which they would be in memory.
        let moments = intensity.moments(|visit| {
            for from in (0..depth).step_by(AT_ONCE) {
                let planes = turn.planes(slabs, from, (from + AT_ONCE).min(depth))?;
                planes.as_slice::<f32>()?.iter().for_each(|value| visit(*value));
            }
            Ok(())
        });
        let moments: Option<Moments> = moments?.ok_or_else(|| whole("clipping at percentiles"))?;

        let mut result = Tensor::zeros(&turn.shape, DType::U8, Device::Cpu)?;
        let labels = result.as_mut_slice::<u8>()?;
        let independent = self.activation == Activation::Sigmoid;
        let channel = &self.channels[0].name;
        let mut planes = Streamed::new(plane, |from, to, values: &mut Vec<f32>| {
            let start = values.len();
            for from in (from..to).step_by(AT_ONCE) {
                let planes = turn.planes(slabs, from, (from + AT_ONCE).min(to))?;
                values.extend_from_slice(planes.as_slice::<f32>()?);
            }
            let new = &mut values[start..];
            intensity.apply_with(new, moments).map_err(|error| error.within(format!("channel {channel}")))
        });
        let predict = |patches: &Tensor| self.fitting(predict(patches)?);
        self.window()?.run_planes(1, &[depth, height, width], &mut planes, predict, |depth, logits| {
            check_logits(logits, depth, &turn.shape)?;
            decide(logits, &mut labels[depth * plane..(depth + 1) * plane], independent);
            Ok(())
        })?;
        drop(planes);
        for step in &self.postprocessing {
            step.apply(labels, turn.shape, false);
        }
        let values = self.values(&result)?;
        drop(result);
        let mask = Volume::new(values, geometry::from_orientation(&turn.codes)?)?.reorient(&slabs.orientation())?;
        slabs.with_voxels(mask.voxels().clone())
    }

    /// How the planes of a file become those of the network's image.
    fn turn(&self, slabs: &Slabs) -> Result<Turn> {
        let own = slabs.orientation();
        let codes = self.orientation.clone().unwrap_or_else(|| own.clone());
        let [x, y, z] = axes_of(&own)?;
        let wanted = axes_of(&codes)?;
        if wanted[2].0 != z.0 {
            return Err(whole(&format!("the orientation {codes} of a file in {own}")));
        }
        let [depth, rows, columns] = slabs.shape();
        let [height, width] = if wanted[0].0 == x.0 && wanted[1].0 == y.0 { [rows, columns] } else { [columns, rows] };
        if self.patch.len() != 3 || ([depth, height, width].contains(&1) && !self.patch.contains(&1)) {
            return Err(Error::shape(OPERATION, "a volume of a single plane, or a network of two axes")
                .expected("at least 2 voxels along each of three axes")
                .shapes([&[depth, height, width][..], &self.patch]));
        }
        // The spacing after the turn, in the order of the shape.
        let one = Volume::new(Tensor::zeros(&[1, 1, 1], DType::U8, Device::Cpu)?, *slabs.affine())?.reorient(&codes)?;
        let [x, y, z] = one.spacing();
        grid::spacings(OPERATION, &[z, y, x], 3)?;
        if self.target(&[z, y, x]).is_some() {
            return Err(whole(&format!("resampling a spacing of {x} × {y} × {z} mm")));
        }
        let backwards = wanted[2].1 != axes_of(&own)?[2].1;
        Ok(Turn { shape: [depth, height, width], backwards, codes })
    }
}

/// The world axis of each letter of an orientation code, and whether it points up it.
fn axes_of(codes: &str) -> Result<[(usize, bool); 3]> {
    let axis = |letter: char| match letter.to_ascii_uppercase() {
        'R' => (0, true),
        'L' => (0, false),
        'A' => (1, true),
        'P' => (1, false),
        'S' => (2, true),
        _ => (2, false),
    };
    let axes: Vec<_> = codes.chars().map(axis).collect();
    <[_; 3]>::try_from(axes).map_err(|_| Error::argument(OPERATION, format!("the orientation {codes:?}")))
}

fn whole(what: &str) -> Error {
    Error::argument(OPERATION, format!("{what} by slabs"))
        .expected("a preparation that takes planes as they come; another needs the whole image (without --slabs)")
}
