//! `tomograd predict CHECKPOINT INPUT... --out DIR [--ensemble CHECKPOINT] [--overwrite] [--patch ...]`.

use std::{
    fs,
    path::PathBuf,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
    time::Instant,
};

use clap::Args;
use serde_json::{Map, Value, json};
use tomograd::{
    io::{Format, Slabs, dicom},
    pipeline::{
        Ensemble,
        progress::{self, ProgressBar},
    },
    prelude::*,
};

use crate::{
    Failure,
    inputs::{Job, Results},
    overrides::Overrides,
    print::print_line,
};

/// Masks from a network. While one volume is in the network, the next is read and the one before is written.
#[derive(Args)]
#[command(after_help = "Examples:
  tomograd predict liver.safetensors scan.nii.gz --out masks
  tomograd predict liver.safetensors scans/ --out masks --json > predicted.json
  tomograd predict fold0.safetensors --ensemble fold1.safetensors,fold2.safetensors scans/ --out masks
  tomograd predict liver.safetensors dicom_folder --out masks --dicom-seg
  tomograd predict liver.safetensors huge.nii --out masks --slabs")]
pub(crate) struct Predict {
    /// A checkpoint that contains the network's configuration and preparation
    checkpoint: PathBuf,
    /// Volumes of any format that `info` reads, folders of them, folders with a `dataset.json` (its test images), or DICOM
    /// folders
    #[arg(required = true)]
    inputs: Vec<PathBuf>,
    /// The folder of the masks, which get the names of the inputs
    #[arg(long)]
    out: PathBuf,
    /// More checkpoints of the same task, whose probabilities are averaged with those of the first
    #[arg(long, value_name = "CHECKPOINT,...", value_delimiter = ',')]
    ensemble: Vec<PathBuf>,
    /// Replaces existing masks, but never an input
    #[arg(long)]
    overwrite: bool,
    /// Reads DICOM series and writes DICOM segmentations (.dcm), a segment for each class but the background
    #[arg(long)]
    dicom_seg: bool,
    /// Reads uncompressed files (.nii, raw NRRD and MetaImage) slab by slab, for volumes larger than memory
    #[arg(long, conflicts_with = "dicom_seg")]
    slabs: bool,
    /// Prints the masks with the volumes of their classes, failures and times as JSON in place of the paths
    #[arg(long)]
    json: bool,
    /// cpu or cuda:N
    #[arg(long, default_value = "cpu", value_parser = Device::usable)]
    device: Device,
    #[command(flatten)]
    overrides: Overrides,
}

/// How masks are written.
#[derive(Clone, Copy)]
struct Output {
    /// As DICOM segmentations.
    dicom: bool,
    slabs: bool,
}

/// A volume that was read.
enum Read {
    Volume(Volume),
    /// One that is read while it is segmented.
    Slabs(Box<Slabs>),
    /// A DICOM series that becomes a DICOM segmentation, with its stack.
    Series {
        volume: Volume,
        listing: Box<dicom::Listing>,
    },
}

/// A mask before it is written.
struct Mask {
    mask: Volume,
    listing: Option<Box<dicom::Listing>>,
}

/// The seconds that the three stages took; they run side by side.
#[derive(Default)]
struct Seconds {
    reading: f64,
    network: f64,
    writing: f64,
}

impl Predict {
    /// Segments all inputs, and names those that failed at the end. If the names alone show that a file would be overwritten,
    /// fails before anything is read or written.
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let output = Output { dicom: self.dicom_seg, slabs: self.slabs };
        let checkpoints: Vec<PathBuf> = std::iter::once(&self.checkpoint).chain(&self.ensemble).cloned().collect();
        let name = |name: &str| mask_name(name, self.dicom_seg);
        let results = Results {
            command: "predict",
            option: "--out",
            folder: &self.out,
            name: &name,
            replace: ("--overwrite", self.overwrite),
            series: self.dicom_seg,
        };
        let jobs = results.plan(&self.inputs, &checkpoints).map_err(Failure::CommandLine)?;
        let models = checkpoints
            .iter()
            .map(|path| self.overrides.apply(Model::load(path, self.device)?, path))
            .collect::<Result<Vec<_>, Failure>>()?;
        let ensemble = Ensemble::new(models)?;
        fs::create_dir_all(&self.out).map_err(|error| Error::io("create", self.out.display(), error))?;
        let begun = Instant::now();
        let preparation = ensemble.preparation()?;
        let bar = if self.json { ProgressBar::hidden() } else { progress::bar(jobs.len() as u64, "predict") };
        // One volume waits before the network and one behind it.
        let (to_network, read) = sync_channel(1);
        let (to_writer, segmented) = sync_channel::<Result<Mask>>(1);
        let mut seconds = Seconds::default();
        let mut done = Vec::new();
        let mut failed = Vec::new();
        thread::scope(|scope| {
            let reader = scope.spawn(|| read_all(&jobs, output, to_network));
            let writer = scope.spawn(|| {
                let (mut done, mut failed, mut seconds) = (Vec::new(), Vec::new(), 0.0);
                for (job, mask) in jobs.iter().zip(segmented) {
                    let begun = Instant::now();
                    let written = mask.and_then(|mask| {
                        // It may have been created after the plan was made.
                        results.check(&job.output)?;
                        write(job, &mask, &preparation, output).map(|()| mask.mask)
                    });
                    seconds += begun.elapsed().as_secs_f64();
                    bar.suspend(|| match &written {
                        Ok(_) if self.json => {}
                        Ok(_) => print_line!("{}", job.output.display()),
                        Err(error) => eprintln!("tomograd: {error}"),
                    });
                    match written.and_then(|mask| self.described(job, &mask, &preparation)) {
                        Ok(said) => done.push(said),
                        Err(_) => failed.push(job.input.display().to_string()),
                    }
                    bar.inc(1);
                }
                (done, failed, seconds)
            });
            seconds.network = segment_all(&jobs, &ensemble, &read, &to_writer);
            drop((read, to_writer));
            // A thread that panicked ends the program with its message when the scope ends.
            seconds.reading = reader.join().unwrap_or_default();
            (done, failed, seconds.writing) = writer.join().unwrap_or_default();
        });
        bar.finish_and_clear();
        if self.json {
            let Seconds { reading, network, writing } = seconds;
            let total = begun.elapsed().as_secs_f64();
            let seconds = json!({"total": total, "reading": reading, "network": network, "writing": writing});
            print_line!("{}", json!({"masks": done, "failed": failed, "seconds": seconds}));
        }
        if failed.is_empty() { Ok(()) } else { Err(Failure::Files { failed, of: jobs.len() }) }
    }

    /// What JSON says of a mask: the volume of each class in millilitres. Nothing is counted for people.
    fn described(&self, job: &Job, mask: &Volume, preparation: &Preparation) -> Result<Value> {
        if !self.json {
            return Ok(Value::Null);
        }
        let mut counts = vec![0u64; usize::from(u16::MAX) + 1];
        let planes = mask.voxels().shape().first().copied().unwrap_or(0);
        for plane in 0..planes {
            for value in mask.voxels().narrow(0, plane, 1)?.to_vec_f64()? {
                if let Some(count) = counts.get_mut(value as usize) {
                    *count += 1;
                }
            }
        }
        let millilitres = mask.spacing().iter().product::<f64>() / 1000.0;
        let volumes = preparation.classes.iter().skip(1).map(|class| {
            let count = counts.get(usize::from(class.value)).copied().unwrap_or(0);
            (class.name.clone(), json!(count as f64 * millilitres))
        });
        Ok(json!({
            "input": job.input.display().to_string(), "mask": job.output.display().to_string(),
            "volumes_ml": volumes.collect::<Map<_, _>>(),
        }))
    }
}

/// Reads all volumes in order; the seconds that it took.
fn read_all(jobs: &[Job], output: Output, to_network: SyncSender<Result<Read>>) -> f64 {
    let mut seconds = 0.0;
    for job in jobs {
        let begun = Instant::now();
        let read = read(job, output);
        seconds += begun.elapsed().as_secs_f64();
        // The others have stopped.
        if to_network.send(read).is_err() {
            break;
        }
    }
    seconds
}

fn read(job: &Job, output: Output) -> Result<Read> {
    let within = |error: Error| error.within(job.input.display().to_string());
    if let Some(stack) = job.stack() {
        return stack.read().map(Read::Volume).map_err(within);
    }
    if output.slabs {
        return Slabs::open(&job.input).map(|slabs| Read::Slabs(Box::new(slabs)));
    }
    if !output.dicom {
        return Volume::read(&job.input).map(Read::Volume);
    }
    let listing = Box::new(dicom::Listing::open(&job.input)?);
    let volume = listing.only().and_then(dicom::Series::stack).and_then(dicom::Stack::read).map_err(within)?;
    Ok(Read::Series { volume, listing })
}

/// Segments the volumes that arrive; the seconds that it took.
fn segment_all(
    jobs: &[Job],
    ensemble: &Ensemble,
    read: &Receiver<Result<Read>>,
    to_writer: &SyncSender<Result<Mask>>,
) -> f64 {
    let mut seconds = 0.0;
    for (job, read) in jobs.iter().zip(read) {
        let begun = Instant::now();
        let within = |error: Error| error.within(job.input.display().to_string());
        let mask = read.and_then(|read| {
            let (mask, listing) = match read {
                Read::Volume(volume) => (ensemble.segment(&volume), None),
                Read::Series { volume, listing } => (ensemble.segment(&volume), Some(listing)),
                Read::Slabs(mut slabs) => {
                    (ensemble.preparation()?.segment_slabs(&mut slabs, |patches| ensemble.predict(patches)), None)
                }
            };
            Ok(Mask { mask: mask.map_err(within)?, listing })
        });
        seconds += begun.elapsed().as_secs_f64();
        if to_writer.send(mask).is_err() {
            break;
        }
    }
    seconds
}

fn write(job: &Job, mask: &Mask, preparation: &Preparation, output: Output) -> Result<()> {
    let stack = match (&mask.listing, job.stack()) {
        _ if !output.dicom => None,
        (_, Some(stack)) => Some(stack),
        (Some(listing), None) => Some(listing.only()?.stack()?),
        (None, None) => None,
    };
    match stack {
        Some(stack) => write_segmentation(stack, &mask.mask, preparation, &job.output),
        None => mask.mask.write(&job.output),
    }
}

/// Writes a mask as a DICOM segmentation, a segment for each class but the background.
fn write_segmentation(
    stack: &dicom::Stack,
    mask: &Volume,
    preparation: &Preparation,
    path: &std::path::Path,
) -> Result<()> {
    let classes = preparation.classes.get(1..).unwrap_or_default();
    let number = |value: f64| {
        let class = classes.iter().position(|class| f64::from(class.value) == value);
        class.map_or(0, |class| class as i32 + 1)
    };
    let labels: Vec<i32> = mask.voxels().to_vec_f64()?.into_iter().map(number).collect();
    let labels = Tensor::from_slice(&labels, mask.voxels().shape(), Device::Cpu)?;
    let segments: Vec<dicom::Segment> =
        classes.iter().map(|class| dicom::Segment::new(class.name.as_str(), "tomograd")).collect();
    stack.write_segmentation(path, &labels, &segments)
}

/// The name of the mask of a file: the same name, with the extension of NIfTI or DICOM.
fn mask_name(name: &str, dicom: bool) -> String {
    if !dicom && Format::of_path(name).ok() == Some(Format::Nifti) {
        return name.to_owned();
    }
    format!("{}.{}", Format::stem(name), if dicom { "dcm" } else { "nii.gz" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_nifti_files() {
        for (name, mask) in [
            ("a.nii", "a.nii"),
            ("A.NII.GZ", "A.NII.GZ"),
            ("a.hdr", "a.nii.gz"),
            ("a.img.gz", "a.nii.gz"),
            ("a.DCM", "a.nii.gz"),
            ("a.NRRD", "a.nii.gz"),
            ("a.b.mhd", "a.b.nii.gz"),
            ("a", "a.nii.gz"),
            ("a.png", "a.nii.gz"),
            ("ä.b", "ä.b.nii.gz"),
            (".nii", ".nii.nii.gz"),
        ] {
            assert_eq!(mask_name(name, false), mask);
        }
        assert_eq!((&mask_name("series", true)[..], &mask_name("a.DCM", true)[..]), ("series.dcm", "a.dcm"));
    }
}
