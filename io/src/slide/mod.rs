//! Whole-slide images: TIFF files with a pyramid of tiled levels, OME-TIFF and Aperio's SVS among them, of which parts are read.
//!
//! Of a file only directories, and the tiles that a part needs, are read. What a region takes is bounded by 16384 bytes for each byte of
//! the file, or 64 MiB if that is more, beside a few tiles of at most 256 MiB.
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

mod describe;
mod directory;
mod tile;

use std::{
    collections::HashSet,
    ops::Range,
    path::{Path, PathBuf},
};

use tomograd_core::{Error, Result, pieces, room_for};

use self::{
    describe::Kind,
    directory::{Directory, Tiff},
    tile::Tiles,
};
use crate::{
    Volume, picture,
    volume::Format,
    voxels::{self, Coding, Stored},
};

const OPERATION: &str = "slide";
/// The most directories that are looked at.
const MOST_PAGES: usize = 10_000;
/// The most bytes of a region for each byte of the file, and those that any file may have.
const MOST_RATIO: u64 = 1 << 14;
const ANYWAY: u64 = 1 << 26;
/// How many tiles are decoded before they are put together, at most, and how many bytes of them.
const AT_ONCE: usize = 64;
const BYTES_AT_ONCE: usize = 1 << 26;

fn fail(what: impl Into<String>) -> Error {
    Error::format(OPERATION, what)
}

/// A whole-slide image. Its levels are the same picture at smaller and smaller sizes.
///
/// ```no_run
/// use tomograd_io::Slide;
/// let slide = Slide::open("biopsy.svs")?;
/// println!("{} {:?} µm", slide.kind(), slide.micrometres());
/// for level in slide.levels() {
///     println!("{:?}, 1:{}", level.size(), level.downsample()[0]);
/// }
/// let part = slide.read(1, Some([2000, 3000, 512, 512]))?; // level 1; x, y, width, height in its pixels
/// part.write("part.png")?;
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Slide {
    path: PathBuf,
    length: u64,
    kind: Kind,
    levels: Vec<Level>,
    micrometres: Option<[f64; 2]>,
    others: usize,
}

/// A level of a [`Slide`].
#[derive(Debug, Clone)]
pub struct Level {
    size: [usize; 2],
    downsample: [f64; 2],
    tiles: Tiles,
}

impl Level {
    /// Width and height in pixels.
    pub fn size(&self) -> [usize; 2] {
        self.size
    }

    /// Width and height of a tile in pixels.
    pub fn tile(&self) -> [usize; 2] {
        [self.tiles.width, self.tiles.height]
    }

    /// How many pixels of the first level one of this level is, along x and y.
    pub fn downsample(&self) -> [f64; 2] {
        self.downsample
    }

    /// The compression of its tiles, such as `JPEG`.
    pub fn compression(&self) -> &'static str {
        self.tiles.compression.name()
    }
}

impl Slide {
    /// Opens a tiled TIFF file and reads its directories. Levels are the sub-directories of the first picture (OME-TIFF), or all tiled
    /// pictures of its shape that are smaller and smaller (SVS).
    ///
    /// # Errors
    /// When the file can't be read, isn't TIFF, or its first picture isn't tiled or of a kind that isn't read.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Self::of(path).map_err(|error| error.within(path.display().to_string()))
    }

    fn of(path: &Path) -> Result<Self> {
        let mut tiff = Tiff::open(path)?;
        let at = tiff.first;
        let first = tiff.directory(at)?;
        let (size, tiles) = page(&mut tiff, &first)?
            .ok_or_else(|| fail("a TIFF file whose first picture isn't tiled").expected("a whole-slide image"))?;
        let description = tiff.text(&first, 270)?;
        let kind = Kind::of(&description);
        let micrometres = match kind.micrometres(&description) {
            Some(said) => Some(said),
            None => resolution(&mut tiff, &first)?,
        };
        let mut slide = Self {
            path: path.to_owned(),
            length: tiff.length,
            kind,
            levels: vec![Level { size, downsample: [1.0; 2], tiles }],
            micrometres,
            others: 0,
        };
        let below = tiff.numbers(&first, 330)?.unwrap_or_default();
        let mut seen = HashSet::from([at]);
        for at in below.iter().copied().take(MOST_PAGES) {
            if seen.insert(at) {
                let directory = tiff.directory(at)?;
                slide.add(&mut tiff, &directory);
            }
        }
        let mut next = first.next;
        while next != 0 && seen.insert(next) && seen.len() < MOST_PAGES {
            let directory = tiff.directory(next)?;
            // Where the first picture has levels of its own, others are other pictures.
            if below.is_empty() {
                slide.add(&mut tiff, &directory);
            } else {
                slide.others = slide.others.saturating_add(1);
            }
            next = directory.next;
        }
        Ok(slide)
    }

    /// Adds a picture as a level, if it is one. Thumbnails and labels aren't tiled, or have another shape.
    fn add(&mut self, tiff: &mut Tiff, directory: &Directory) {
        let level = page(tiff, directory).ok().flatten().and_then(|(size, tiles)| {
            let [first, last] = [self.levels.first()?, self.levels.last()?];
            let smaller = size.iter().zip(last.size).all(|(size, last)| *size < last);
            let ratio = |axis: fn([usize; 2]) -> usize| axis(first.size) as f64 / axis(size) as f64;
            let downsample = [ratio(|[x, _]| x), ratio(|[_, y]| y)];
            // Of sides that were cut to whole pixels.
            let slack = downsample.iter().zip(size).map(|(ratio, side)| ratio / side as f64).fold(0.0, f64::max);
            let alike = (downsample[0] - downsample[1]).abs() <= slack.max(0.01 * downsample[0]);
            (smaller && alike && tiles.samples == first.tiles.samples && tiles.bytes == first.tiles.bytes)
                .then_some(Level { size, downsample, tiles })
        });
        match level {
            Some(level) => self.levels.push(level),
            None => self.others = self.others.saturating_add(1),
        }
    }

    /// What it is: `Aperio SVS`, `OME-TIFF` or `tiled TIFF`.
    pub fn kind(&self) -> &'static str {
        self.kind.name()
    }

    /// The levels, the largest first.
    pub fn levels(&self) -> &[Level] {
        &self.levels
    }

    /// The size of a pixel of the first level along x and y in micrometres, if the file says it.
    pub fn micrometres(&self) -> Option<[f64; 2]> {
        self.micrometres
    }

    /// The number of other pictures in the file: thumbnails, labels, other planes.
    pub fn others(&self) -> usize {
        self.others
    }

    /// Reads a region of a level, `[x, y, width, height]` in its pixels, or all of it: a volume of one plane, grey (1, H, W) or RGB (3, 1, H,
    /// W), with the size of its pixels where the file says it.
    ///
    /// # Errors
    /// When there is no such level, the region isn't in it, it takes more memory than there is, or a tile can't be read.
    pub fn read(&self, level: usize, region: Option<[usize; 4]>) -> Result<Volume> {
        self.region(level, region).map_err(|error| error.within(self.path.display().to_string()))
    }

    fn region(&self, number: usize, region: Option<[usize; 4]>) -> Result<Volume> {
        let level = self.levels.get(number).ok_or_else(|| {
            Error::argument(OPERATION, format!("level {number}"))
                .expected(format!("0 to {}", self.levels.len().saturating_sub(1)))
        })?;
        let [x, y, width, height] = region.unwrap_or([0, 0, level.size[0], level.size[1]]);
        let inside = |start: usize, length: usize, size: usize| {
            length > 0 && start.checked_add(length).is_some_and(|end| end <= size)
        };
        if !inside(x, width, level.size[0]) || !inside(y, height, level.size[1]) {
            return Err(Error::argument(OPERATION, format!("{width} × {height} pixels at {x}, {y}"))
                .expected(format!("a part of {} × {}", level.size[0], level.size[1])));
        }
        let pixels =
            level.pixels([x..x.saturating_add(width), y..y.saturating_add(height)], &self.path, self.length)?;
        let tiles = &level.tiles;
        let stored = if tiles.bytes == 1 { Stored::U8 } else { Stored::U16 };
        let coding = Coding::several(stored, tiles.samples);
        let planes = voxels::decode(&mut &pixels[..], coding, &[1, height, width], false)?;
        let planes = planes.reshape(&[tiles.samples, 1, height, width])?;
        let [sx, sy] = level.downsample;
        let spacing = self.micrometres.map(|[x, y]| [x * sx / 1000.0, y * sy / 1000.0, 1.0]);
        picture::volume(planes, stored, spacing, Format::Tiff, Vec::new())
    }
}

impl Level {
    /// The bytes of the pixels in a region.
    fn pixels(&self, [columns, rows]: [Range<usize>; 2], path: &Path, length: u64) -> Result<Vec<u8>> {
        let tiles = &self.tiles;
        let pixel = tiles.samples.saturating_mul(tiles.bytes);
        let pitch = columns.len().saturating_mul(pixel);
        let size = pitch.saturating_mul(rows.len());
        let most = length.saturating_mul(MOST_RATIO).max(ANYWAY);
        if size as u64 > most {
            return Err(
                fail(format!("a region of {size} bytes in a file of {length}")).expected(format!("at most {most}"))
            );
        }
        let mut pixels = room_for::<u8>(OPERATION, size)?;
        pixels.resize(size, 0);
        let across = self.size[0].div_ceil(tiles.width);
        let range =
            |pixels: &Range<usize>, tile: usize| pixels.start.checked_div(tile).unwrap_or(0)..pixels.end.div_ceil(tile);
        let (first, in_row) = (range(&rows, tiles.height), range(&columns, tiles.width));
        let tile = tiles.pitch().saturating_mul(tiles.height);
        let at_once = BYTES_AT_ONCE.checked_div(tile).unwrap_or(AT_ONCE).clamp(1, AT_ONCE);
        let mut wanted: Vec<(usize, usize, Vec<u8>)> = Vec::new();
        let places = first.flat_map(|row| in_row.clone().map(move |column| (row, column)));
        let mut places = places.peekable();
        while places.peek().is_some() {
            wanted.clear();
            wanted.extend(places.by_ref().take(at_once).map(|(row, column)| (row, column, Vec::new())));
            pieces::each(&mut wanted, 1, |_, wanted| {
                let mut tiff = Tiff::open(path)?;
                for (row, column, pixels) in wanted {
                    let index = row.saturating_mul(across).saturating_add(*column);
                    *pixels =
                        tiles.read(&mut tiff, index).map_err(|error| error.within(format!("tile {column}, {row}")))?;
                }
                Ok(())
            })?;
            for (row, column, tile) in &wanted {
                let (top, left) = (row.saturating_mul(tiles.height), column.saturating_mul(tiles.width));
                // The part of the tile in the region.
                let from = columns.start.max(left)..columns.end.min(left.saturating_add(tiles.width));
                let lines = rows.start.max(top)..rows.end.min(top.saturating_add(tiles.height));
                for line in lines {
                    let source = line
                        .saturating_sub(top)
                        .saturating_mul(tiles.pitch())
                        .saturating_add(from.start.saturating_sub(left).saturating_mul(pixel));
                    let target = line
                        .saturating_sub(rows.start)
                        .saturating_mul(pitch)
                        .saturating_add(from.start.saturating_sub(columns.start).saturating_mul(pixel));
                    let count = from.len().saturating_mul(pixel);
                    let (source, target) = (
                        tile.get(source..source.saturating_add(count)),
                        pixels.get_mut(target..target.saturating_add(count)),
                    );
                    if let (Some(source), Some(target)) = (source, target) {
                        target.copy_from_slice(source);
                    }
                }
            }
        }
        Ok(pixels)
    }
}

/// The sides and the tiles of a directory's picture; `None` if it isn't tiled.
fn page(tiff: &mut Tiff, directory: &Directory) -> Result<Option<([usize; 2], Tiles)>> {
    let side = |side: u64| {
        let fits = usize::try_from(side).ok().filter(|side| (1..=1 << 31).contains(side));
        fits.ok_or_else(|| fail(format!("a side of {side} pixels")))
    };
    let size = [side(tiff.first(directory, 256, 0)?)?, side(tiff.first(directory, 257, 0)?)?];
    Ok(Tiles::of(tiff, directory, size)?.map(|tiles| (size, tiles)))
}

/// The micrometres of a pixel by the tags of resolution.
fn resolution(tiff: &mut Tiff, directory: &Directory) -> Result<Option<[f64; 2]>> {
    let unit = match tiff.first(directory, 296, 2)? {
        2 => 25_400.0,
        3 => 10_000.0,
        _ => return Ok(None),
    };
    let [x, y] = [tiff.ratio(directory, 282)?, tiff.ratio(directory, 283)?];
    let steps = x.zip(y).map(|(x, y)| [unit / x, unit / y]);
    Ok(steps.filter(|steps| steps.iter().all(|step| step.is_finite() && *step > 0.0)))
}
