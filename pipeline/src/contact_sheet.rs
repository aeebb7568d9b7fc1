//! An overview image of many cases: greyscale slices with the outlines of truth and prediction.

use tomograd_core::{Device, Error, Result, Tensor};

use crate::{
    Sample,
    sample::{check_classes, check_finite},
};

type Colour = [u8; 3];

/// Outline colours by class: truth is green and blue, prediction is red and yellow. Where both outlines of a class coincide,
/// they are white.
const TRUTH: [Colour; 4] = [[0, 210, 60], [40, 140, 255], [0, 220, 220], [150, 110, 255]];
const PREDICTION: [Colour; 4] = [[255, 60, 40], [255, 200, 0], [255, 80, 190], [255, 140, 60]];
const BOTH: Colour = [255; 3];
/// Pixels between tiles, and the side of a legend square.
const GAP: usize = 4;
const SQUARE: usize = 14;
/// Tiles are magnified by an integer factor while their longer side stays below this.
const TILE: usize = 192;

/// An image with one row of slices per case and a legend below: for each class the colours of truth and prediction, and
/// white for coinciding outlines.
///
/// Slices are perpendicular to the first spatial axis, evenly spaced over the planes with foreground, and shown as stored
/// (the first row of voxels at the top). The grey range is from the 1st to the 99th percentile of the first channel.
///
/// ```
/// use tomograd_core::{DType, Device, Seed, Tensor};
/// use tomograd_pipeline::{ContactSheet, Sample};
/// let image = Tensor::uniform(&[1, 4, 8, 8], 0.0, 1.0, Seed::new(1), DType::F32, Device::Cpu)?;
/// let [truth, prediction] = [0.0, 1.0].map(|class| Tensor::full(&[4, 8, 8], class, DType::U8, Device::Cpu));
/// let mut sheet = ContactSheet::new(3, 2)?;
/// sheet.add(&Sample::new("case", &image, Some(&truth?))?, &prediction?)?;
/// let pixels = sheet.pixels()?; // or sheet.write("contact_sheet.png")
/// assert_eq!(pixels.shape()[2], 3);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
pub struct ContactSheet {
    slices: usize,
    classes: usize,
    rows: Vec<Vec<Picture>>,
}

/// RGB pixels, with the top row first.
struct Picture {
    width: usize,
    height: usize,
    pixels: Vec<Colour>,
}

impl ContactSheet {
    /// An empty sheet with up to `slices` slices per case, for labels with `classes` classes (1 to 256, including the
    /// background).
    ///
    /// # Errors
    /// When `slices` is 0, or `classes` is out of range.
    pub fn new(slices: usize, classes: usize) -> Result<Self> {
        if slices == 0 {
            return Err(Error::argument("contact_sheet", "0 slices a case").expected("at least 1"));
        }
        check_classes("contact_sheet", classes)?;
        Ok(Self { slices, classes, rows: Vec::new() })
    }

    /// Adds a case: its image, its label (if any), and the predicted class numbers, `(D, H, W)` or `(H, W)`.
    ///
    /// # Errors
    /// When the prediction doesn't have the spatial shape of the image, or a voxel isn't finite, since there are no
    /// percentiles then.
    pub fn add(&mut self, sample: &Sample, prediction: &Tensor) -> Result<()> {
        let (shape, _) = sample.dims("contact_sheet")?;
        let whole = sample.image()?;
        // Making a sample of the prediction checks its shape and values.
        let predicted = Sample::new(sample.name.clone(), whole, Some(prediction))?;
        let numbers = |sample: &Sample| sample.first_label().map_or(Ok(Vec::new()), |label| label.to_vec::<u8>());
        let [truth, prediction] = [numbers(sample)?, numbers(&predicted)?];
        let first = whole.narrow(0, 0, 1)?;
        check_finite("contact_sheet", &first).map_err(|error| error.within(format!("case {}", sample.name)))?;
        let image = first.to_vec::<f32>()?;
        let (low, high) = grey_range(&image);
        let size = shape[1] * shape[2];
        let plane = |values: &[u8], z: usize| values.get(z * size..(z + 1) * size).unwrap_or_default().to_vec();
        let pictures = self.planes(shape, [&truth, &prediction]).into_iter().map(|z| {
            let grey = image[z * size..(z + 1) * size].iter().map(|value| {
                // Computed in f64, where the difference of two f32 values can't overflow.
                let [value, low, high] = [*value, low, high].map(f64::from);
                let level = ((value - low) / (high - low).max(f64::MIN_POSITIVE) * 255.0) as u8;
                [level; 3]
            });
            let base = Picture { width: shape[2], height: shape[1], pixels: grey.collect() };
            base.outlined(&plane(&truth, z), &plane(&prediction, z))
        });
        self.rows.push(pictures.collect());
        Ok(())
    }

    /// The planes to show: the centres of equal parts of those with foreground.
    fn planes(&self, shape: [usize; 3], labels: [&[u8]; 2]) -> Vec<usize> {
        let size = shape[1] * shape[2];
        let has_foreground =
            |z: &usize| labels.iter().any(|label| label.iter().skip(z * size).take(size).any(|&class| class > 0));
        let first = (0..shape[0]).find(has_foreground).unwrap_or(0);
        let end = (0..shape[0]).rev().find(has_foreground).map_or(shape[0], |last| last + 1);
        let count = self.slices.min(end - first);
        (0..count).map(|i| first + (2 * i + 1) * (end - first) / (2 * count)).collect()
    }

    /// The sheet as u8 `(height, width, 3)`.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn pixels(&self) -> Result<Tensor> {
        let sheet = self.draw();
        let bytes = sheet.pixels.as_flattened();
        Tensor::from_slice(bytes, &[sheet.height, sheet.width, 3], Device::Cpu)
    }

    /// Writes the sheet as a PNG file.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn write(&self, path: impl AsRef<std::path::Path>) -> Result<()> {
        let sheet = self.draw();
        tomograd_io::write_rgb(path.as_ref(), sheet.width as u32, sheet.height as u32, sheet.pixels.as_flattened())
    }

    fn draw(&self) -> Picture {
        let across = |row: &Vec<Picture>| row.iter().map(|picture| picture.width + GAP).sum::<usize>();
        let high = |row: &Vec<Picture>| row.iter().map(|picture| picture.height + GAP).max().unwrap_or(0);
        let legend: Vec<Picture> = (1..self.classes)
            .flat_map(|class| [colour(&TRUTH, class), colour(&PREDICTION, class)])
            .chain([BOTH])
            .map(|colour| Picture { width: SQUARE, height: SQUARE, pixels: vec![colour; SQUARE * SQUARE] })
            .collect();
        let rows = || self.rows.iter().chain([&legend]);
        let mut sheet =
            Picture::black(rows().map(across).max().unwrap_or(0) + GAP, rows().map(high).sum::<usize>() + GAP);
        let mut top = GAP;
        for row in rows() {
            let mut left = GAP;
            for picture in row {
                sheet.paste(picture, left, top);
                left += picture.width + GAP;
            }
            top += high(row);
        }
        sheet
    }
}

fn colour(palette: &[Colour], class: usize) -> Colour {
    palette[class.saturating_sub(1) % palette.len()]
}

/// The 1st and the 99th percentile of the values.
pub(crate) fn grey_range(image: &[f32]) -> (f32, f32) {
    let mut values = image.to_vec();
    values.sort_unstable_by(f32::total_cmp);
    let at = |percent: usize| values.get(values.len().saturating_sub(1) * percent / 100).copied().unwrap_or(0.0);
    (at(1), at(99))
}

impl Picture {
    fn black(width: usize, height: usize) -> Self {
        Self { width, height, pixels: vec![[0; 3]; width * height] }
    }

    fn paste(&mut self, other: &Picture, left: usize, top: usize) {
        for (y, row) in other.pixels.chunks_exact(other.width).enumerate() {
            let start = (top + y) * self.width + left;
            self.pixels[start..start + other.width].copy_from_slice(row);
        }
    }

    /// The magnified image with the outlines of both labels (each of the size of the image, or empty).
    fn outlined(&self, truth: &[u8], prediction: &[u8]) -> Picture {
        let scale = (TILE / self.width.max(self.height)).max(1);
        let mut large = Picture::black(self.width * scale, self.height * scale);
        for y in 0..large.height {
            for x in 0..large.width {
                let outlines = [(truth, &TRUTH), (prediction, &PREDICTION)].map(|(label, palette)| {
                    self.outline(label, x, y, scale).map(|class| (class, colour(palette, class)))
                });
                large.pixels[y * large.width + x] = match outlines {
                    [Some((truth, _)), Some((prediction, _))] if truth == prediction => BOTH,
                    [_, Some((_, colour))] | [Some((_, colour)), None] => colour,
                    [None, None] => self.pixels[y / scale * self.width + x / scale],
                };
            }
        }
        large
    }

    /// The class on whose outline the pixel `(x, y)` of the magnified image lies, if any.
    fn outline(&self, label: &[u8], x: usize, y: usize, scale: usize) -> Option<usize> {
        let class_at = |x: usize, y: usize| label.get(y / scale * self.width + x / scale).copied();
        let class = class_at(x, y).filter(|&class| class > 0)?;
        let (right, bottom) = (self.width * scale - 1, self.height * scale - 1);
        let differs = |x, y| class_at(x, y) != Some(class);
        let rim = (x > 0 && differs(x - 1, y))
            || (x < right && differs(x + 1, y))
            || (y > 0 && differs(x, y - 1))
            || (y < bottom && differs(x, y + 1));
        rim.then_some(usize::from(class))
    }
}

#[cfg(test)]
mod tests {
    use tomograd_core::DType;

    use super::*;

    fn square(size: usize, first: usize) -> Vec<u8> {
        let inside = |i: usize| (first..first + 4).contains(&(i / size)) && (first..first + 4).contains(&(i % size));
        (0..size * size).map(|i| u8::from(inside(i))).collect()
    }

    #[test]
    fn outlines_have_the_colours_of_the_legend() {
        let image = Tensor::arange(100, DType::F32, Device::Cpu).unwrap().reshape(&[1, 10, 10]).unwrap();
        let label = |first| Tensor::from_slice(&square(10, first), &[10, 10], Device::Cpu).unwrap();
        let sample = Sample::new("case", &image, Some(&label(2))).unwrap();
        let mut sheet = ContactSheet::new(3, 2).unwrap();
        sheet.add(&sample, &label(4)).unwrap();
        sheet.add(&sample, &label(2)).unwrap();
        assert!(sheet.add(&sample, &Tensor::zeros(&[9, 10], DType::U8, Device::Cpu).unwrap()).is_err());
        let pixels = sheet.pixels().unwrap();
        assert_eq!(pixels.shape()[2], 3);
        let drawn = sheet.draw();
        let count = |colour: Colour| drawn.pixels.iter().filter(|pixel| **pixel == colour).count();
        // The outline of a square of 4 voxels, magnified 19 times, has 300 pixels.
        assert!(count(BOTH) >= 300 + SQUARE * SQUARE);
        assert!(count(TRUTH[0]) > SQUARE * SQUARE + 200 && count(PREDICTION[0]) > SQUARE * SQUARE + 200);
    }

    #[test]
    fn slices_lie_where_the_foreground_is() {
        let sheet = ContactSheet::new(3, 2).unwrap();
        let mut label = [0u8; 10];
        label[4..10].fill(1);
        assert_eq!(sheet.planes([10, 1, 1], [&label, &[]]), [5, 7, 9]);
        assert_eq!(sheet.planes([10, 1, 1], [&[], &[]]), [1, 5, 8]);
        assert_eq!(sheet.planes([2, 1, 1], [&[], &[]]), [0, 1]);
    }

    #[test]
    fn what_has_no_percentiles_is_named() {
        assert!(ContactSheet::new(0, 2).is_err());
        assert!(ContactSheet::new(1, 0).is_err());
        assert!(ContactSheet::new(1, 257).is_err());
        let mut sheet = ContactSheet::new(usize::MAX, 2).unwrap();
        let label = Tensor::zeros(&[1, 1, 5], DType::U8, Device::Cpu).unwrap();
        let mut add = |values: &[f32; 5]| {
            let image = Tensor::from_slice(values, &[1, 1, 1, 5], Device::Cpu).unwrap();
            sheet.add(&Sample::new("odd", &image, None).unwrap(), &label)
        };
        for value in [f32::NAN, f32::INFINITY] {
            let error = add(&[0.0, 1.0, value, 2.0, 3.0]).unwrap_err().to_string();
            assert!(error.starts_with("case odd: ") && error.contains("at voxel [0, 0, 2] of channel 0"), "{error}");
        }
        add(&[-3e38, -3e38, 0.0, 3e38, 3e38]).unwrap();
        // The middle between the percentiles, whose difference overflows f32, becomes half of 255.
        assert!(sheet.draw().pixels.contains(&[127; 3]));
    }
}
