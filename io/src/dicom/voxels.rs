//! The voxels of a stack, from the pixels of its frames.

use std::sync::{Arc, Mutex, PoisonError};

use tomograd_core::{DType, Device, Element, Result, Tensor, TensorBuilder};

use super::{
    OPERATION, fail,
    frame::{Detail, Scale},
    image::{Format, Image, Photometric},
    pixels::{Pixels, Values},
    stack::{Slice, Stack},
    syntax::Compression,
};

/// Compressed pixels that claim more samples a byte than this are taken for damage, unless they are few.
const MOST_SAMPLES_PER_BYTE: u64 = 4096;
const SAMPLES_ANYWAY: u64 = 1 << 20;

impl Stack {
    /// The voxels (D, H, W) or (3, D, H, W), slice by slice.
    pub(super) fn voxels(&self) -> Result<Tensor> {
        self.check_claims()?;
        let [width, height, depth] = self.size();
        let format = &self.image()?.format;
        let channels = if format.photometric.coloured() { 3 } else { 1 };
        let shape = [channels, depth, height, width];
        let shape = shape.get(usize::from(channels == 1)..).unwrap_or_default();
        let details: Vec<&Detail> = self.slices().iter().filter_map(Slice::detail).collect();
        match dtype(format, &details) {
            DType::U8 => self.fill::<u8>(shape),
            DType::I64 => self.fill::<i64>(shape),
            DType::F32 => self.fill::<f32>(shape),
            DType::F64 => self.fill::<f64>(shape),
            _ => self.fill::<i32>(shape),
        }
    }

    /// Refuses compressed pixels that claim far more than their bytes can hold, before memory is taken.
    fn check_claims(&self) -> Result<()> {
        let mut last: Option<&Arc<Image>> = None;
        for slice in self.slices() {
            let image = &slice.image;
            if image.syntax.compression == Compression::None || last.is_some_and(|last| Arc::ptr_eq(last, image)) {
                continue;
            }
            last = Some(image);
            let Format { rows, columns, samples, .. } = image.format;
            let claimed =
                [rows, columns, samples, image.frames.len()].iter().fold(1u64, |n, &m| n.saturating_mul(m as u64));
            let bytes = image.source.length()?;
            if claimed > bytes.saturating_mul(MOST_SAMPLES_PER_BYTE).max(SAMPLES_ANYWAY) {
                return Err(image.source.name(
                    fail(format!("{claimed} samples in a file of {bytes} bytes"))
                        .expected(format!("at most {MOST_SAMPLES_PER_BYTE} a byte")),
                ));
            }
        }
        Ok(())
    }

    fn fill<T: Number>(&self, shape: &[usize]) -> Result<Tensor> {
        let [width, height, _] = self.size();
        let plane = width.saturating_mul(height);
        let open = Open::default();
        if self.image()?.format.photometric.coloured() {
            return self.colours::<T>(shape, plane, &open);
        }
        TensorBuilder::<T>::new(OPERATION, shape, Device::Cpu)?.fill_pieces(plane, |k, part| {
            let slice = self.slices().get(k).ok_or_else(|| fail("a slice that isn't there"))?;
            let detail = slice.detail().ok_or_else(|| fail("a frame that isn't there"))?;
            scaled(part, &open.values(slice)?, &slice.image.format, &detail.scale);
            Ok(())
        })
    }

    /// The voxels of slices with colours. Slice by slice, since the channels of one are far apart.
    fn colours<T: Number>(&self, shape: &[usize], plane: usize, open: &Open) -> Result<Tensor> {
        let mut voxels = Tensor::zeros(shape, T::DTYPE, Device::Cpu)?;
        let volume = plane.saturating_mul(self.slices().len());
        let all = voxels.as_mut_slice::<T>()?;
        for (k, slice) in self.slices().iter().enumerate() {
            let Values::Whole(values) = open.values(slice)? else { return Err(fail("colours that aren't integers")) };
            for (channel, part) in all.chunks_exact_mut(volume.max(1)).enumerate() {
                let part = part.get_mut(k.saturating_mul(plane)..).unwrap_or_default();
                let of_channel = values.iter().skip(channel).step_by(3);
                let pairs = part.iter_mut().zip(of_channel).take(plane);
                pairs.for_each(|(to, &value)| *to = T::whole(stored(value, &slice.image.format)));
            }
        }
        Ok(voxels)
    }
}

/// The file of several frames that was opened last: the next slices are mostly in it, too.
#[derive(Default)]
struct Open(Mutex<Option<(Arc<Image>, Arc<Pixels>)>>);

impl Open {
    /// The values of a slice.
    fn values(&self, slice: &Slice) -> Result<Values> {
        self.read(slice).map_err(|error| slice.image.source.name(error))
    }

    fn read(&self, slice: &Slice) -> Result<Values> {
        let image = &slice.image;
        if image.frames.len() < 2 {
            return Pixels::open(image)?.frame(slice.frame);
        }
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Others that need it wait until it is open.
        let pixels = match last.take() {
            Some((of, pixels)) if Arc::ptr_eq(&of, image) => pixels,
            _ => Arc::new(Pixels::open(image)?),
        };
        *last = Some((image.clone(), pixels.clone()));
        drop(last);
        pixels.frame(slice.frame)
    }
}

/// A type of voxels.
trait Number: Element {
    /// A whole number, or the nearest that the type holds.
    fn whole(value: i64) -> Self;
}

macro_rules! number {
    ($($type:ty: $value:ident => $number:expr;)*) => {$(
        impl Number for $type {
            #[inline(always)]
            fn whole($value: i64) -> Self {
                $number
            }
        }
    )*};
}
number! {
    u8: value => value.clamp(0, 255) as u8;
    i32: value => value.clamp(i32::MIN.into(), i32::MAX.into()) as i32;
    i64: value => value;
    f32: value => value as f32;
    f64: value => value as f64;
}

/// Whether f32 tells the scaled values of neighbouring integers apart over the range of `bits`.
fn scales_in_f32(bits: usize, slope: f64, intercept: f64) -> bool {
    let largest = slope.abs() * 2f64.powi(bits as i32) + intercept.abs();
    largest <= f64::from(f32::MAX) && largest * f64::from(f32::EPSILON) <= slope.abs()
}

/// The dtype for the values of these frames.
fn dtype(format: &Format, details: &[&Detail]) -> DType {
    if format.photometric == Photometric::Palette {
        return DType::U8;
    }
    if format.photometric.coloured() {
        return if format.stored <= 8 {
            DType::U8
        } else if format.stored < 32 {
            DType::I32
        } else {
            DType::I64
        };
    }
    if format.float {
        return if format.allocated == 64 { DType::F64 } else { DType::F32 };
    }
    let least = if format.signed { -(2f64.powi(format.stored as i32 - 1)) } else { 0.0 };
    let most = 2f64.powi(format.stored as i32 - i32::from(format.signed)) - 1.0;
    let (mut low, mut high, mut whole, mut single) = (f64::INFINITY, f64::NEG_INFINITY, true, true);
    for detail in details {
        let (slope, intercept) = match detail.scale {
            Scale::Linear { slope, intercept } => (slope, intercept),
            Scale::Table(_) => {
                low = low.min(0.0);
                high = high.max(65535.0);
                continue;
            }
        };
        whole &= slope.fract() == 0.0 && intercept.fract() == 0.0;
        single &= scales_in_f32(format.stored, slope, intercept);
        for end in [least * slope + intercept, most * slope + intercept] {
            low = low.min(end);
            high = high.max(end);
        }
    }
    match (whole, single) {
        (true, _) if low >= 0.0 && high <= 255.0 => DType::U8,
        (true, _) if low >= f64::from(i32::MIN) && high <= f64::from(i32::MAX) => DType::I32,
        (true, _) if low > -9e15 && high < 9e15 => DType::I64,
        (_, true) => DType::F32,
        (_, false) => DType::F64,
    }
}

/// The number that the bits of a sample are.
#[inline(always)]
fn stored(value: i32, format: &Format) -> i64 {
    if format.signed { value.into() } else { i64::from(value as u32) }
}

/// Writes the values of a grey frame, scaled.
fn scaled<T: Number>(part: &mut [T], values: &Values, format: &Format, scale: &Scale) {
    let stored = |value: i32| stored(value, format);
    match (values, scale) {
        (Values::Whole(values), Scale::Linear { slope, intercept }) => {
            // 20 bits times 32 and a sum stay below 2⁵³, so that f64 would have the same values.
            if let (Some(slope), Some(intercept)) = (small_whole(*slope), small_whole(*intercept)) {
                let value = |value: i32| T::whole(slope.wrapping_mul(stored(value)).wrapping_add(intercept));
                part.iter_mut().zip(values).for_each(|(to, &raw)| *to = value(raw));
            } else {
                let value = |value: i32| T::from_f64(slope * stored(value) as f64 + intercept);
                part.iter_mut().zip(values).for_each(|(to, &raw)| *to = value(raw));
            }
        }
        (Values::Whole(values), Scale::Table(table)) => {
            let value = |value: i32| T::whole(table.value(stored(value)).into());
            part.iter_mut().zip(values).for_each(|(to, &raw)| *to = value(raw));
        }
        // What is floating point is stored as it is meant.
        (Values::F32(values), _) => part.iter_mut().zip(values).for_each(|(to, &x)| *to = T::from_f64(x.into())),
        (Values::F64(values), _) => part.iter_mut().zip(values).for_each(|(to, &x)| *to = T::from_f64(x)),
    }
}

/// The integer that this number is, if it has no more than 20 bits.
fn small_whole(value: f64) -> Option<i64> {
    (value.fract() == 0.0 && value.abs() < f64::from(1 << 20)).then_some(value as i64)
}
