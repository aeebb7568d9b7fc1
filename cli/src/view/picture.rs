//! Pictures of RGB pixels.

use std::path::Path;

use tomograd::{
    Error, Result,
    io::{self, Format},
};

/// Pixels between the tiles of a sheet.
pub(crate) const GAP: usize = 2;
/// The most pixels of a sheet.
const MOST: usize = 1 << 28;

/// RGB pixels, the top row first.
#[derive(Clone)]
pub(crate) struct Picture {
    pub(crate) width: usize,
    pub(crate) height: usize,
    pixels: Vec<[u8; 3]>,
}

impl Picture {
    pub(crate) fn black(width: usize, height: usize) -> Self {
        Self { width, height, pixels: vec![[0; 3]; width * height] }
    }

    /// A pixel outside is left out.
    pub(crate) fn set(&mut self, column: usize, row: usize, colour: [u8; 3]) {
        if column < self.width
            && let Some(pixel) = self.pixels.get_mut(row * self.width + column)
        {
            *pixel = colour;
        }
    }

    /// Black outside.
    pub(crate) fn get(&self, column: usize, row: usize) -> [u8; 3] {
        let pixel = self.pixels.get(row * self.width + column).filter(|_| column < self.width);
        pixel.copied().unwrap_or_default()
    }

    /// The tiles in rows of `across`, each row as high as its highest.
    pub(crate) fn sheet(tiles: &[Picture], across: usize) -> Result<Self> {
        let rows: Vec<&[Picture]> = tiles.chunks(across.max(1)).collect();
        let width = rows.iter().map(|row| row.iter().map(|tile| tile.width + GAP).sum::<usize>()).max().unwrap_or(0);
        let high = |row: &&[Picture]| row.iter().map(|tile| tile.height + GAP).max().unwrap_or(0);
        let height: usize = rows.iter().map(high).sum();
        if width.saturating_mul(height) > MOST {
            return Err(Error::argument("view", format!("a sheet of {width} × {height} pixels"))
                .expected("fewer slices, or a smaller --width"));
        }
        let mut sheet = Self::black(width.saturating_sub(GAP).max(1), height.saturating_sub(GAP).max(1));
        let mut top = 0;
        for row in &rows {
            let mut left = 0;
            for tile in *row {
                for (y, x) in (0..tile.height).flat_map(|y| (0..tile.width).map(move |x| (y, x))) {
                    sheet.set(left + x, top + y, tile.get(x, y));
                }
                left += tile.width + GAP;
            }
            top += high(row);
        }
        Ok(sheet)
    }

    /// The bytes of a PNG file.
    pub(crate) fn png(&self) -> Result<Vec<u8>> {
        io::encode_png(self.width as u32, self.height as u32, 3, self.pixels.as_flattened())
    }

    /// Writes a JPEG or a PNG file, as its name says.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let (width, height, pixels) = (self.width as u32, self.height as u32, self.pixels.as_flattened());
        if Format::of_path(path).ok() != Some(Format::Jpeg) {
            return io::write_rgb(path, width, height, pixels);
        }
        let bytes = io::encode_jpeg(width, height, 3, pixels)?;
        io::write_atomically(path, |writer| {
            writer.write_all(&bytes).map_err(|error| Error::io("write", path.display(), error))
        })
    }
}
