//! `tomograd dicom masks OBJECT --series FOLDER --out FILE`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::Args;
use serde_json::json;
use tomograd::{
    io::dicom::{Segmentation, Stack, StructureSet},
    prelude::*,
};

use super::Places;
use crate::{Failure, convert::refuse_existing, plain, print::print_line};

/// The masks of an object.
#[derive(Args)]
pub(crate) struct Masks {
    /// A DICOM segmentation or structure set
    object: PathBuf,
    #[command(flatten)]
    places: Places,
    /// The names of the structures; all, if none is given
    #[arg(long, value_name = "NAME")]
    name: Vec<String>,
    /// Writes a mask for each structure, into a folder; else one file with the numbers of the structures
    #[arg(long)]
    each: bool,
    /// Prints what was written as JSON
    #[arg(long)]
    json: bool,
}

/// An object with masks.
enum Object {
    Segmentation(Segmentation),
    Structures(StructureSet),
}

impl Object {
    fn open(path: &Path) -> Result<Self> {
        let first = match Segmentation::open(path) {
            Ok(segmentation) => return Ok(Self::Segmentation(segmentation)),
            Err(error) => error,
        };
        match StructureSet::open(path) {
            Ok(structures) => Ok(Self::Structures(structures)),
            Err(second) => Err(if first.to_string().contains("an object of class") { second } else { first }),
        }
    }

    fn series(&self) -> &[String] {
        match self {
            Self::Segmentation(segmentation) => segmentation.series(),
            Self::Structures(structures) => structures.series(),
        }
    }

    /// Number and name of each structure.
    fn structures(&self) -> Vec<(i64, String)> {
        match self {
            Self::Segmentation(segmentation) => segmentation
                .segments()
                .iter()
                .map(|(number, segment)| (i64::from(*number), segment.label.clone()))
                .collect(),
            Self::Structures(structures) => structures
                .structures()
                .iter()
                .map(|structure| (structure.number(), structure.name().to_owned()))
                .collect(),
        }
    }

    fn mask(&self, number: i64, stack: &Stack) -> Result<(Volume, Vec<String>)> {
        match self {
            Self::Segmentation(segmentation) => Ok((segmentation.mask(number as u16, stack)?, Vec::new())),
            Self::Structures(set) => {
                let structure = set.structures().iter().find(|structure| structure.number() == number);
                let structure = structure.ok_or_else(|| Error::argument("dicom", format!("structure {number}")))?;
                set.mask(structure, stack)
            }
        }
    }
}

impl Masks {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        if !self.each {
            let files = Volume::files(&self.places.out, Default::default()).map_err(Failure::CommandLine)?;
            refuse_existing(&files, self.places.force).map_err(Failure::CommandLine)?;
        }
        let object = Object::open(&self.object)?;
        let stack = self.places.stack(object.series())?;
        let chosen = self.chosen(&object)?;
        let mut labels: Option<(Volume, Vec<i32>)> = None;
        let mut written = Vec::new();
        for (number, name) in &chosen {
            let (mask, notes) = object.mask(*number, &stack)?;
            for note in notes {
                eprintln!("tomograd: {name}: {}", plain(&note));
            }
            let values = mask.voxels().to_vec_f64()?;
            let voxels = values.iter().filter(|value| **value != 0.0).count();
            let mut file = self.places.out.clone();
            if self.each {
                file = file.join(format!("{number}_{}.nii.gz", file_name(name)));
                refuse_existing(std::slice::from_ref(&file), self.places.force)?;
                fs::create_dir_all(&self.places.out)
                    .map_err(|error| Error::io("create", self.places.out.display(), error))?;
                mask.write(&file)?;
            } else {
                let (_, all) = labels.get_or_insert_with(|| (mask.clone(), vec![0; values.len()]));
                add(all, &values, *number, name)?;
            }
            written.push(json!({
                "number": number, "name": name, "voxels": voxels, "file": file.display().to_string(),
            }));
            if !self.json {
                print_line!("{}  {number} {}, {voxels} voxels", file.display(), plain(name));
            }
        }
        if let Some((grid, labels)) = labels {
            let labels = Tensor::from_slice(&labels, grid.voxels().shape(), Device::Cpu)?;
            grid.with_voxels(labels)?.write(&self.places.out)?;
        }
        if self.json {
            print_line!("{}", json!({ "series": stack_uid(&object), "structures": written }));
        }
        Ok(())
    }

    fn chosen(&self, object: &Object) -> Result<Vec<(i64, String)>> {
        let all = object.structures();
        let names: Vec<&str> = all.iter().map(|(_, name)| &**name).collect();
        if let Some(name) = self.name.iter().find(|name| !names.contains(&name.as_str())) {
            return Err(Error::argument("dicom", format!("no structure {name:?}"))
                .expected(format!("one of {}", names.join(", "))));
        }
        let chosen = |(_, name): &(i64, String)| self.name.is_empty() || self.name.contains(name);
        let chosen: Vec<(i64, String)> = all.into_iter().filter(chosen).collect();
        if chosen.is_empty() {
            return Err(Error::argument("dicom", "an object without structures"));
        }
        Ok(chosen)
    }
}

fn stack_uid(object: &Object) -> Option<&String> {
    object.series().first()
}

/// Adds a mask to labels, which it may not overlap.
fn add(labels: &mut [i32], mask: &[f64], number: i64, name: &str) -> Result<()> {
    let label = i32::try_from(number).map_err(|_| Error::argument("dicom", format!("structure number {number}")))?;
    for (to, &value) in labels.iter_mut().zip(mask) {
        if value == 0.0 {
            continue;
        }
        if value != 1.0 || *to != 0 {
            let what = if value != 1.0 { "holds fractions".to_owned() } else { format!("overlaps structure {to}") };
            return Err(Error::argument("dicom", format!("structure {number} ({name:?}) {what}"))
                .expected("--each, for a file of each structure"));
        }
        *to = label;
    }
    Ok(())
}

/// A name as part of a file's name.
fn file_name(name: &str) -> String {
    let plain = |letter: char| if letter.is_alphanumeric() || "-_+".contains(letter) { letter } else { '_' };
    name.chars().take(60).map(plain).collect()
}
