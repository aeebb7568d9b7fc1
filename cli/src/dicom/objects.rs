//! `tomograd dicom seg|rtstruct MASK... --series FOLDER --out FILE`.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};
use serde::Deserialize;
use tomograd::{
    io::dicom::{Code, Holes, Segment, SegmentationType, Stack},
    prelude::*,
};

use super::{Places, on_grid};
use crate::{Failure, convert::refuse_existing, print::print_line};

/// Masks, and what their labels are.
#[derive(Args)]
struct Inputs {
    /// Masks in the grid of the series: every label but 0 is a structure, in the order of files and labels
    #[arg(required = true)]
    masks: Vec<PathBuf>,
    #[command(flatten)]
    places: Places,
    /// Names and codes of the structures
    #[arg(long, value_name = "FILE.json")]
    segments: Option<PathBuf>,
}

/// Masks into a segmentation.
#[derive(Args)]
pub(crate) struct Seg {
    #[command(flatten)]
    inputs: Inputs,
    /// How voxels are held; of fractions, each mask is a structure with values from 0 to 1
    #[arg(long = "type", value_enum, default_value_t = Kind::Binary)]
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// A bit a voxel and structure, which may overlap
    Binary,
    /// Probabilities
    Probability,
    /// Shares of voxels
    Occupancy,
    /// Numbers of structures, which older programs don't read
    LabelMap,
}

/// Masks into a structure set.
#[derive(Args)]
pub(crate) struct Rtstruct {
    #[command(flatten)]
    inputs: Inputs,
    /// How holes are written
    #[arg(long, value_enum, default_value_t = Written::Keyhole)]
    holes: Written,
}

#[derive(Clone, Copy, ValueEnum)]
enum Written {
    /// As a part of the contour around, which every program reads
    Keyhole,
    /// As contours of their own
    Xor,
}

/// A structure, as the file of segments says it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Described {
    value: i64,
    label: String,
    category: Option<[String; 3]>,
    #[serde(rename = "type")]
    kind: Option<[String; 3]>,
    algorithm: Option<String>,
}

/// A structure with its voxels.
pub(super) struct Part {
    pub(super) segment: Segment,
    pub(super) mask: Tensor,
}

impl Seg {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let kind = match self.kind {
            Kind::Binary => SegmentationType::Binary,
            Kind::Probability => SegmentationType::Probability,
            Kind::Occupancy => SegmentationType::Occupancy,
            Kind::LabelMap => SegmentationType::LabelMap,
        };
        let fractional = matches!(self.kind, Kind::Probability | Kind::Occupancy);
        let (stack, parts) = self.inputs.read(fractional)?;
        let segments: Vec<(Segment, &Tensor)> = parts.iter().map(|part| (part.segment.clone(), &part.mask)).collect();
        self.inputs.write(&parts, |out| stack.write_segments(out, &segments, kind))
    }
}

impl Rtstruct {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let holes = match self.holes {
            Written::Keyhole => Holes::Keyhole,
            Written::Xor => Holes::Xor,
        };
        let (stack, parts) = self.inputs.read(false)?;
        let structures: Vec<(&str, &Tensor)> = parts.iter().map(|part| (&*part.segment.label, &part.mask)).collect();
        self.inputs.write(&parts, |out| stack.write_structures(out, &structures, holes))
    }
}

impl Inputs {
    fn read(&self, fractional: bool) -> Result<(Stack, Vec<Part>), Failure> {
        let out = std::slice::from_ref(&self.places.out);
        refuse_existing(out, self.places.force).map_err(Failure::CommandLine)?;
        let described = described(self.segments.as_deref()).map_err(Failure::CommandLine)?;
        let stack = self.places.stack(&[])?;
        Ok((stack.clone(), parts(&self.masks, &stack, &described, fractional)?))
    }

    fn write(&self, parts: &[Part], write: impl FnOnce(&Path) -> Result<()>) -> Result<(), Failure> {
        write(&self.places.out)?;
        let names: Vec<&str> = parts.iter().map(|part| &*part.segment.label).collect();
        print_line!("{}  {}", self.places.out.display(), names.join(", "));
        Ok(())
    }
}

/// What a file of segments says, by label.
fn described(path: Option<&Path>) -> Result<Vec<Described>> {
    let Some(path) = path else { return Ok(Vec::new()) };
    let text = fs::read_to_string(path).map_err(|error| Error::io("read", path.display(), error))?;
    serde_json::from_str(&text).map_err(|error| {
        Error::format("dicom", format!("segments: {error}"))
            .expected(r#"[{"value": 1, "label": "Liver", "type": ["10200004", "SCT", "Liver"]}, …]"#)
            .within(path.display().to_string())
    })
}

/// The structures of masks: of each label, or, of fractions, of each file.
fn parts(masks: &[PathBuf], stack: &Stack, described: &[Described], fractional: bool) -> Result<Vec<Part>> {
    let mut parts = Vec::new();
    for path in masks {
        let voxels = on_grid(path, stack)?.voxels().clone();
        let name = path.file_name().map_or(String::new(), |name| name.to_string_lossy().into_owned());
        let name = name.split('.').next().unwrap_or_default().to_owned();
        if fractional {
            let number = parts.len() as i64 + 1;
            parts.push(Part { segment: segment(number, &name, described), mask: voxels });
            continue;
        }
        let values = voxels.to_vec_f64()?;
        let labels: BTreeSet<i64> = values.iter().map(|&value| value as i64).filter(|&label| label != 0).collect();
        if let Some(value) = values.iter().find(|value| value.fract() != 0.0 || value.abs() > 65535.0) {
            return Err(
                Error::argument("dicom", format!("{value} in {}", path.display())).expected("labels from 1 to 65535")
            );
        }
        if labels.len() > 1000 {
            return Err(Error::argument("dicom", format!("{} labels in {}", labels.len(), path.display()))
                .expected("at most 1000"));
        }
        let several = masks.len() > 1;
        for &label in &labels {
            let own = match (several, labels.len()) {
                (true, 1) => name.clone(),
                (true, _) => format!("{name} {label}"),
                (false, _) => format!("label {label}"),
            };
            let inside: Vec<u8> = values.iter().map(|&value| u8::from(value == label as f64)).collect();
            let number = if several { parts.len() as i64 + 1 } else { label };
            let mask = Tensor::from_slice(&inside, voxels.shape(), Device::Cpu)?;
            parts.push(Part { segment: segment(number, &own, described), mask });
        }
    }
    if parts.is_empty() {
        return Err(Error::argument("dicom", "masks without a voxel").expected("labels other than 0"));
    }
    Ok(parts)
}

/// The segment of a label: as described, or of the category *Tissue* with this name.
fn segment(number: i64, name: &str, described: &[Described]) -> Segment {
    let Some(said) = described.iter().find(|said| said.value == number) else {
        return Segment::new(name, "tomograd");
    };
    let plain = Segment::new(&*said.label, said.algorithm.as_deref().unwrap_or("tomograd"));
    let code = |parts: &Option<[String; 3]>, otherwise: &Code| match parts {
        Some([value, scheme, meaning]) => Code::new(value, scheme, meaning),
        None => otherwise.clone(),
    };
    Segment { category: code(&said.category, &plain.category), kind: code(&said.kind, &plain.kind), ..plain }
}
