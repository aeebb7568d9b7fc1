//! An overview picture of heat maps over images.

use std::{fmt::Write, path::Path};

use tomograd_core::{DType, Error, Result, Tensor};
use tomograd_io::{encode_png, write_atomically};

use crate::{contact_sheet::grey_range, sample::check_finite};

const OPERATION: &str = "heat_sheet";
/// Pixels of the picture: the longer side of an image, the space between tiles, and the height of a line of text.
const TILE: usize = 128;
const GAP: usize = 12;
const LINE: usize = 15;
/// The share of the heat's colour where the heat is greatest.
const OPACITY: f64 = 0.65;

/// Images with heat maps over them and captions, as one SVG file: for Grad-CAM (`grad_cam` in `tomograd-models`) and
/// other maps of evidence.
///
/// Each case has its image and, beside it, the image under its heat, from transparent (0) over red to yellow (the
/// greatest heat of the case). Of a volume, the plane perpendicular to the first axis with the most heat is shown. The
/// grey range is from the 1st to the 99th percentile of the first channel.
///
/// ```
/// use tomograd_core::{DType, Device, Seed, Tensor};
/// use tomograd_pipeline::HeatSheet;
/// let image = Tensor::uniform(&[1, 32, 24], 0.0, 1.0, Seed::new(1), DType::F32, Device::Cpu)?;
/// let heat = Tensor::uniform(&[32, 24], 0.0, 2.0, Seed::new(2), DType::F32, Device::Cpu)?;
/// let mut sheet = HeatSheet::new(3)?;
/// sheet.add(&image, &heat, "case 7\ntrue: normal\npredicted: pneumonia")?;
/// assert!(sheet.svg()?.contains("predicted: pneumonia")); // or sheet.write("heat.svg")
/// # Ok::<(), tomograd_core::Error>(())
/// ```
pub struct HeatSheet {
    columns: usize,
    tiles: Vec<Tile>,
}

/// A case: two RGB images of the same size, and the lines of its caption.
struct Tile {
    width: usize,
    height: usize,
    pictures: [Vec<u8>; 2],
    caption: Vec<String>,
}

impl HeatSheet {
    /// An empty sheet with `columns` cases in a row.
    ///
    /// # Errors
    /// When `columns` is 0.
    pub fn new(columns: usize) -> Result<Self> {
        if columns == 0 {
            return Err(Error::argument(OPERATION, "0 columns").expected("at least 1"));
        }
        Ok(Self { columns, tiles: Vec::new() })
    }

    /// Adds a case: its image (C, H, W) or (C, D, H, W), the heat (H, W) or (D, H, W), of which what is below 0 counts
    /// as 0, and a caption of one or several lines.
    ///
    /// # Errors
    /// When the heat doesn't have the spatial shape of the image, or a value isn't finite.
    pub fn add(&mut self, image: &Tensor, heat: &Tensor, caption: &str) -> Result<()> {
        let spatial = image.shape().get(1..).unwrap_or_default();
        if spatial != heat.shape() || !(2..=3).contains(&spatial.len()) || image.count() == 0 {
            return Err(Error::shape(OPERATION, "an image and its heat don't fit together")
                .expected("an image (C, H, W) or (C, D, H, W), and heat of its spatial shape")
                .shapes([image.shape(), heat.shape()]));
        }
        let first = image.narrow(0, 0, 1)?.converted(DType::F32)?;
        check_finite(OPERATION, &first)?;
        check_finite(OPERATION, &heat.unsqueeze(0)?.converted(DType::F32)?).map_err(|error| error.within("heat"))?;
        let [height, width] = [spatial[spatial.len() - 2], spatial[spatial.len() - 1]];
        let (grey, heat) = (first.to_vec::<f32>()?, heat.to_vec_f64()?);
        let (low, high) = grey_range(&grey);
        let total = |plane: &[f64]| plane.iter().map(|heat| heat.max(0.0)).sum::<f64>();
        let sums: Vec<f64> = heat.chunks(height * width).map(total).collect();
        let plane = (0..sums.len()).rev().max_by(|&a, &b| sums[a].total_cmp(&sums[b])).unwrap_or(0);
        let of_plane = plane * height * width..(plane + 1) * height * width;
        let greatest = heat.iter().fold(0.0f64, |greatest, &heat| greatest.max(heat)).max(f64::MIN_POSITIVE);
        let level = |value: f32| {
            let [value, low, high] = [value, low, high].map(f64::from);
            ((value - low) / (high - low).max(f64::MIN_POSITIVE)).clamp(0.0, 1.0)
        };
        let grey: Vec<f64> = grey[of_plane.clone()].iter().map(|&value| level(value)).collect();
        let plain = grey.iter().flat_map(|&grey| [byte(grey); 3]).collect();
        let hot = |(&grey, &heat): (&f64, &f64)| {
            let heat = (heat / greatest).max(0.0);
            let colour = [1.0, (2.0 * heat - 1.0).max(0.0), 0.0];
            let share = OPACITY * (2.0 * heat).min(1.0);
            colour.map(|colour| byte(grey * (1.0 - share) + colour * share))
        };
        let hot = grey.iter().zip(&heat[of_plane]).flat_map(hot).collect();
        let caption = caption.lines().map(escaped).collect();
        self.tiles.push(Tile { width, height, pictures: [plain, hot], caption });
        Ok(())
    }

    /// The sheet as the text of an SVG file, which holds its images.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn svg(&self) -> Result<String> {
        let lines = self.tiles.iter().map(|tile| tile.caption.len()).max().unwrap_or(0);
        let [across, down] = [2 * TILE + 2 + GAP, TILE + lines * LINE + GAP + 4];
        let (columns, rows) = (self.columns.min(self.tiles.len()), self.tiles.len().div_ceil(self.columns));
        let [width, height] = [columns * across + GAP, rows * down + GAP];
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" font-family=\"Helvetica, Arial, sans-serif\" font-size=\"12\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
        );
        for (number, tile) in self.tiles.iter().enumerate() {
            let left = GAP + number % self.columns * across;
            let top = GAP + number / self.columns * down;
            for (place, pixels) in tile.pictures.iter().enumerate() {
                let png = encode_png(tile.width as u32, tile.height as u32, 3, pixels)?;
                // Writing to a string can't fail.
                _ = writeln!(
                    svg,
                    "<image x=\"{}\" y=\"{top}\" width=\"{TILE}\" height=\"{TILE}\" href=\"data:image/png;base64,{}\"/>",
                    left + place * (TILE + 2),
                    base64(&png)
                );
            }
            for (line, text) in tile.caption.iter().enumerate() {
                let y = top + TILE + (line + 1) * LINE;
                _ = writeln!(svg, "<text x=\"{left}\" y=\"{y}\">{text}</text>");
            }
        }
        svg.push_str("</svg>\n");
        Ok(svg)
    }

    /// Writes the sheet as an SVG file.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        let (path, svg) = (path.as_ref(), self.svg()?);
        write_atomically(path, |writer| {
            writer.write_all(svg.as_bytes()).map_err(|error| Error::io("write", path.display(), error))
        })
    }
}

/// A level from 0 to 1 as a byte.
fn byte(level: f64) -> u8 {
    (level * 255.0).round() as u8
}

/// The text as XML, without control characters, which XML doesn't allow.
fn escaped(text: &str) -> String {
    let text = text.replace(char::is_control, "\u{FFFD}");
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let bits = (0..3).fold(0, |bits, at| bits << 8 | three.get(at).map_or(0, |&byte| u32::from(byte)));
        for digit in 0..4 {
            let value = (bits >> (18 - 6 * digit)) as usize % 64;
            text.push(if digit <= three.len() { DIGITS[value].into() } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use tomograd_core::Device;

    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        for (plain, coded) in [("", ""), ("a", "YQ=="), ("ab", "YWI="), ("abc", "YWJj"), ("abcd", "YWJjZA==")] {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
        assert_eq!(base64(&[0xFB, 0xFF, 0xFE]), "+//+");
    }

    #[test]
    fn the_plane_with_the_most_heat_is_shown_and_its_hottest_voxel_is_yellow() {
        let image = Tensor::zeros(&[1, 3, 2, 2], DType::U8, Device::Cpu).unwrap();
        let heat = [0.0, 0.0, 0.0, 1.0, 0.0, 4.0, -9.0, 2.0, 3.0, 0.0, 0.0, 0.0f32];
        let heat = Tensor::from_slice(&heat, &[3, 2, 2], Device::Cpu).unwrap();
        let mut sheet = HeatSheet::new(2).unwrap();
        sheet.add(&image, &heat, "a < b & c\nsecond").unwrap();
        let share = byte(OPACITY);
        let [black, red, yellow] = [[0, 0, 0], [share, 0, 0], [share, share, 0]];
        assert_eq!(sheet.tiles[0].pictures[1], [black, yellow, black, red].concat());
        assert_eq!(sheet.tiles[0].pictures[0], [0; 12]);
        let svg = sheet.svg().unwrap();
        assert!(svg.contains(">a &lt; b &amp; c</text>") && svg.contains(">second</text>"));
        assert_eq!(svg.matches("<image ").count(), 2);
    }

    #[test]
    fn what_doesnt_fit_is_refused() {
        assert!(HeatSheet::new(0).is_err());
        let of = |shape: &[usize]| Tensor::zeros(shape, DType::F32, Device::Cpu).unwrap();
        let mut sheet = HeatSheet::new(1).unwrap();
        for (image, heat) in
            [(&[1, 4, 4][..], &[4, 5][..]), (&[1, 4], &[4]), (&[0, 4, 4], &[4, 4]), (&[1, 0, 4], &[0, 4])]
        {
            assert!(sheet.add(&of(image), &of(heat), "").is_err(), "{image:?} {heat:?}");
        }
        let nan = Tensor::full(&[4, 4], f64::NAN, DType::F32, Device::Cpu).unwrap();
        assert!(sheet.add(&of(&[1, 4, 4]), &nan, "").is_err());
        assert!(sheet.svg().unwrap().contains("</svg>"));
    }
}
