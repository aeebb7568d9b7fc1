//! `tomograd view FILE [--out sheet.png] [--mask FILE] [--window CENTRE,WIDTH] ...`.

mod letters;
pub(crate) mod picture;
pub(crate) mod planes;
mod terminal;

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use tomograd::{
    io::{Format, Interpolation},
    prelude::*,
};

use crate::{
    Failure,
    convert::{refuse_existing, same},
    plain,
    print::print_line,
};
use picture::Picture;
use planes::{Grid, Plane};

/// Slices as a radiologist sees them: the patient's left is on the right, front and head are up.
#[derive(Args)]
#[command(after_help = "Examples:
  tomograd view scan.nii.gz                                  (three planes, in the terminal)
  tomograd view ct.nii.gz --window 40,400 --out ct.png
  tomograd view scan.nii.gz --mask mask.nii.gz --plane axial --slices 12 --out sheet.png")]
pub(crate) struct View {
    /// A volume or a picture
    file: PathBuf,
    /// Writes a PNG or JPEG file in place of drawing in the terminal
    #[arg(long, value_name = "FILE.png")]
    out: Option<PathBuf>,
    /// Labels whose outlines are drawn, a colour for each
    #[arg(long, value_name = "FILE")]
    mask: Option<PathBuf>,
    /// The grey range by its centre and width, in the units of the voxels; the 1st to the 99th percentile unless given
    #[arg(long, value_name = "CENTRE,WIDTH", value_delimiter = ',', allow_hyphen_values = true)]
    window: Option<Vec<f64>>,
    /// The planes to show
    #[arg(long, value_enum, default_value_t = Show::All)]
    plane: Show,
    /// How many slices of each plane, evenly spaced; one is in the middle, or in the middle of the mask
    #[arg(long, default_value_t = 1)]
    slices: usize,
    /// The volume of a series, counted from 0
    #[arg(long, default_value_t = 0)]
    volume: usize,
    /// Pixels (columns in the terminal) across; the longest side of a slice gets 320 pixels unless given
    #[arg(long)]
    width: Option<usize>,
    /// Replaces an existing picture
    #[arg(long)]
    force: bool,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Show {
    /// Axial, coronal and sagittal
    All,
    Axial,
    Coronal,
    Sagittal,
}

/// The most slices and pixels that make sense.
const MOST_SLICES: usize = 1000;
const MOST_WIDTH: usize = 20_000;
/// The longest side of a slice in a picture.
const SIDE: usize = 320;

impl View {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        self.check().map_err(Failure::CommandLine)?;
        let (volume, notes) = self.volume()?;
        let mask = self.mask(&volume)?;
        for note in notes {
            eprintln!("tomograd: {}: {}", self.file.display(), plain(&note));
        }
        let columns = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok()).unwrap_or(80);
        let in_terminal = self.out.is_none();
        let width = self.width.or(in_terminal.then_some(columns)).map(|width| width.clamp(8, MOST_WIDTH));
        let grid = Grid::new(&volume, &mask.iter().collect::<Vec<_>>(), self.window())?;
        let sheet = self.sheet(&grid, width)?;
        match &self.out {
            None => terminal::draw(&sheet),
            Some(out) => {
                sheet.write(out)?;
                print_line!("{}  {} × {} pixels", out.display(), sheet.width, sheet.height);
            }
        }
        Ok(())
    }

    fn window(&self) -> Option<[f64; 2]> {
        self.window.as_ref().and_then(|window| <[f64; 2]>::try_from(&window[..]).ok())
    }

    fn check(&self) -> Result<()> {
        let wrong = |what: String, expected: &str| Err(Error::argument("view", what).expected(expected));
        if let Some(window) = &self.window
            && !matches!(window[..], [centre, width] if centre.is_finite() && width.is_finite() && width > 0.0)
        {
            return wrong(format!("--window {window:?}"), "the centre and a width of more than 0");
        }
        if !(1..=MOST_SLICES).contains(&self.slices) {
            return wrong(format!("{} slices", self.slices), "1 to 1000");
        }
        if let Some(out) = &self.out {
            if !matches!(Format::of_path(out), Ok(Format::Png | Format::Jpeg)) {
                return wrong(format!("--out {}", out.display()), "a name that ends in .png or .jpg");
            }
            if same(out, &self.file) || self.mask.as_ref().is_some_and(|mask| same(out, mask)) {
                return wrong(format!("{} is an input", out.display()), "another name for the picture");
            }
            refuse_existing(std::slice::from_ref(out), self.force)?;
        }
        Ok(())
    }

    /// The volume to show in LPS, (D, H, W) or RGB (3, D, H, W), and what there is to say about it.
    fn volume(&self) -> Result<(Volume, Vec<String>)> {
        let volume = Volume::read(&self.file)?;
        let mut notes = volume.notes().to_vec();
        let voxels = volume.voxels();
        let colours = volume.stored_dtype().starts_with("rgb");
        let outer = voxels.shape().get(..voxels.rank().saturating_sub(3)).unwrap_or_default();
        let count: usize = outer.iter().product();
        if colours || count == 1 {
            let shape: Vec<usize> = voxels.shape().iter().skip(outer.len()).copied().collect();
            let volume =
                if colours || outer.is_empty() { volume } else { volume.with_voxels(voxels.reshape(&shape)?)? };
            return Ok((volume.reorient("LPS")?, notes));
        }
        if self.volume >= count {
            let what = format!("--volume {} of {}", self.volume, self.file.display());
            return Err(Error::argument("view", what).expected(format!("0 to {}", count - 1)));
        }
        if count > 1 {
            notes.push(format!("volume {} of {count} (--volume chooses another)", self.volume));
        }
        let inner: Vec<usize> = voxels.shape().iter().skip(outer.len()).copied().collect();
        let flat = voxels.reshape(&[&[count][..], &inner].concat())?;
        let one = flat.narrow(0, self.volume, 1)?.contiguous()?.reshape(&inner)?;
        Ok((volume.with_voxels(one)?.reorient("LPS")?, notes))
    }

    /// The labels on the grid of the volume.
    fn mask(&self, volume: &Volume) -> Result<Option<Volume>> {
        let Some(path) = &self.mask else { return Ok(None) };
        let mask = Volume::read(path)?;
        if mask.voxels().rank() != 3 {
            return Err(Error::shape("view", "a mask of several volumes")
                .expected("(D, H, W)")
                .shapes([mask.voxels().shape()])
                .within(path.display().to_string()));
        }
        let mask = mask.reorient("LPS")?;
        let spatial = |volume: &Volume| volume.voxels().shape().iter().rev().take(3).copied().collect::<Vec<_>>();
        let near =
            mask.affine().iter().flatten().zip(volume.affine().iter().flatten()).all(|(a, b)| (a - b).abs() < 1e-3);
        if near && spatial(&mask) == spatial(volume) {
            return Ok(Some(mask));
        }
        eprintln!("tomograd: {} is on another grid: resampled to the image's", path.display());
        mask.resample_to(volume, Interpolation::Nearest).map(Some)
    }

    /// All slices beside each other, and below where they don't fit.
    fn sheet(&self, grid: &Grid, width: Option<usize>) -> Result<Picture> {
        let planes: &[Plane] = match self.plane {
            Show::All => &[Plane::Axial, Plane::Coronal, Plane::Sagittal],
            Show::Axial => &[Plane::Axial],
            Show::Coronal => &[Plane::Coronal],
            Show::Sagittal => &[Plane::Sagittal],
        };
        // Each plane has a row of its own, or all slices are in one row; many slices of one plane make a square.
        let chosen: Vec<Vec<usize>> = planes.iter().map(|&plane| grid.slices(plane, self.slices)).collect();
        let across = match (planes.len(), self.slices) {
            (1, _) => (chosen.iter().map(Vec::len).max().unwrap_or(1) as f64).sqrt().ceil() as usize,
            (_, 1) => planes.len(),
            _ => chosen.iter().map(Vec::len).max().unwrap_or(1),
        };
        let side = width.map_or(SIDE, |width| (width / across.max(1)).saturating_sub(picture::GAP).max(1));
        let scale = grid.scale(planes, side);
        let letters = self.out.is_some();
        let mut tiles = Vec::new();
        for (&plane, slices) in planes.iter().zip(&chosen) {
            tiles.extend(slices.iter().map(|&slice| grid.draw(plane, slice, scale, letters)));
        }
        Picture::sheet(&tiles, across)
    }
}
