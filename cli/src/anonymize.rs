//! `tomograd anonymize IN OUT [--keep ...] [--key-file FILE]`.

use std::{
    fs,
    hash::{BuildHasher, RandomState},
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};
use serde_json::json;
use tomograd::{
    io::{
        dicom::{self, Anonymized, Anonymizer, BurnedIn},
        write_atomically,
    },
    pipeline::progress::{self, ProgressBar},
    prelude::*,
};

use crate::{
    Failure,
    convert::{refuse_existing, same},
    plain,
    print::print_line,
};

/// De-identifies a DICOM file, or all of a folder, by the basic profile of the standard (PS3.15, annex E)
#[derive(Args)]
#[command(after_help = "Examples:
  tomograd anonymize scan.dcm anonymous.dcm
  tomograd anonymize study out --keep shifted-dates,device --key-file secret
  tomograd anonymize study out --keep patient,descriptions --keep-private \"SIEMENS MR HEADER\"

Of a folder, files get new names: OUT/PATIENT/STUDY/SERIES/INSTANCE.dcm, all of them made from the key. Pixels stay as they are: files \
                  that say that text is burned in are refused without --burned-in, and others where it is likely are named. With \
                  `descriptions`, texts lose what stands elsewhere in the file as a name, identifier or address, dates and long \
                  numbers: look at what is left.")]
pub(crate) struct Anonymize {
    /// A DICOM file, or a folder with any number of them
    input: PathBuf,
    /// The file, or the folder, of the result
    output: PathBuf,
    /// What is kept beyond the basic profile
    #[arg(long, value_enum, value_delimiter = ',', value_name = "WHAT,...")]
    keep: Vec<Keep>,
    /// Keeps the private attributes of this creator
    #[arg(long, value_name = "CREATOR")]
    keep_private: Vec<String>,
    /// A file of at least 16 bytes that nobody else has: the same key gives the same UIDs, names and days. Without it, every run has
    /// a key of its own
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Writes files that say that their pixels show text, too
    #[arg(long)]
    burned_in: bool,
    /// Replaces existing files, but never the input
    #[arg(long)]
    force: bool,
    /// Prints what was done as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Keep {
    /// UIDs
    Uids,
    /// The device's identity
    Device,
    /// The institution's identity
    Institution,
    /// Age, sex, size, weight and the like
    Patient,
    /// Dates and times
    Dates,
    /// Dates, moved by a number of days that is the same for all files of a patient, and times
    ShiftedDates,
    /// Descriptions, cleaned as far as a program can
    Descriptions,
    /// The content of structured reports, cleaned
    StructuredContent,
}

impl From<Keep> for dicom::Keep {
    fn from(keep: Keep) -> Self {
        match keep {
            Keep::Uids => Self::Uids,
            Keep::Device => Self::Device,
            Keep::Institution => Self::Institution,
            Keep::Patient => Self::PatientCharacteristics,
            Keep::Dates => Self::Dates,
            Keep::ShiftedDates => Self::ShiftedDates,
            Keep::Descriptions => Self::Descriptions,
            Keep::StructuredContent => Self::StructuredContent,
        }
    }
}

/// What became of the files.
#[derive(Default)]
struct Done {
    written: Vec<PathBuf>,
    failed: Vec<String>,
    /// Files that aren't DICOM, and DICOMDIRs.
    others: Vec<String>,
    looked_at: Vec<String>,
}

impl Anonymize {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let anonymizer = self.check().map_err(Failure::CommandLine)?;
        let mut done = Done::default();
        if self.input.is_dir() {
            let files = dicom::files(&self.input)?;
            let bar = if self.json { ProgressBar::hidden() } else { progress::bar(files.len() as u64, "anonymize") };
            for file in files {
                bar.inc(1);
                if !dicom::looks_like_dicom(&file) || is_directory(&file) {
                    done.others.push(file.display().to_string());
                    continue;
                }
                if let Err(error) = self.one(&anonymizer, &file, None, &mut done, &bar) {
                    bar.suspend(|| eprintln!("tomograd: {}", plain(&error.to_string())));
                    done.failed.push(file.display().to_string());
                }
            }
            bar.finish_and_clear();
        } else {
            self.one(&anonymizer, &self.input, Some(&self.output), &mut done, &ProgressBar::hidden())?;
        }
        self.report(&done);
        let of = done.written.len() + done.failed.len();
        if done.failed.is_empty() { Ok(()) } else { Err(Failure::Files { failed: done.failed, of }) }
    }

    /// Checks what can be checked before anything is read.
    fn check(&self) -> Result<Anonymizer> {
        let invalid =
            |what: String, expected: &str| Err(Error::argument("anonymize", what).expected(expected.to_owned()));
        let about = fs::metadata(&self.input).map_err(|error| Error::io("read", self.input.display(), error))?;
        if about.is_dir() {
            if self.output.exists() && !self.output.is_dir() {
                return invalid(format!("{} isn't a folder", self.output.display()), "a folder, as the input is one");
            }
            // What is written would be read, now or next time.
            let real = |path: &Path| path.ancestors().find_map(|path| fs::canonicalize(path).ok());
            if let (Some(input), Some(output)) =
                (real(&self.input), real(&std::path::absolute(&self.output).unwrap_or_default()))
                && output.starts_with(input)
            {
                return invalid(format!("{} is inside of the input", self.output.display()), "another folder");
            }
        } else if self.output.is_dir() {
            return invalid(
                format!("{} is a folder", self.output.display()),
                "the name of a file, as the input is one",
            );
        } else if same(&self.input, &self.output) {
            return invalid(format!("{} is the input", self.output.display()), "another name for the output");
        } else {
            refuse_existing(std::slice::from_ref(&self.output), self.force)?;
        }
        let key = match &self.key_file {
            Some(path) => fs::read(path).map_err(|error| Error::io("read", path.display(), error))?,
            // The operating system's random numbers are the seed of each state.
            None => (0..4).flat_map(|i| RandomState::new().hash_one(i).to_le_bytes()).collect(),
        };
        let mut anonymizer = Anonymizer::new(&key)?;
        for &keep in &self.keep {
            anonymizer = anonymizer.keep(keep.into());
        }
        Ok(self.keep_private.iter().fold(anonymizer, |anonymizer, creator| anonymizer.keep_private(creator)))
    }

    /// De-identifies a file; without a name it gets one from its new UIDs. What is said makes room in the bar.
    fn one(
        &self,
        anonymizer: &Anonymizer,
        input: &Path,
        output: Option<&Path>,
        done: &mut Done,
        bar: &ProgressBar,
    ) -> Result<()> {
        let within = |error: Error| error.within(input.display().to_string());
        let result = anonymizer.read(input)?;
        for note in &result.notes {
            bar.suspend(|| eprintln!("tomograd: {}: {}", input.display(), plain(note)));
        }
        match &result.burned_in {
            BurnedIn::Yes if !self.burned_in => {
                return Err(within(
                    Error::argument("anonymize", "the file says that its pixels show text (BurnedInAnnotation is YES)")
                        .expected("pixels without, or --burned-in to write it as it is"),
                ));
            }
            BurnedIn::Yes => done.looked_at.push(format!("{}: BurnedInAnnotation is YES", input.display())),
            BurnedIn::Perhaps(why) => done.looked_at.push(format!("{}: {why}", input.display())),
            BurnedIn::No => {}
        }
        let output = output.map_or_else(|| self.output.join(name(&result)), Path::to_owned);
        refuse_existing(std::slice::from_ref(&output), self.force).map_err(within)?;
        if let Some(folder) = output.parent() {
            fs::create_dir_all(folder).map_err(|error| Error::io("create", folder.display(), error))?;
        }
        write_atomically(&output, |writer| {
            writer.write_all(&result.bytes).map_err(|error| Error::io("write", output.display(), error))
        })?;
        if !self.json {
            bar.suspend(|| print_line!("{}", output.display()));
        }
        done.written.push(output);
        Ok(())
    }

    fn report(&self, done: &Done) {
        if self.json {
            let written: Vec<String> = done.written.iter().map(|path| path.display().to_string()).collect();
            let report = json!({
                "written": written, "failed": done.failed, "others": done.others, "look_at": done.looked_at,
            });
            print_line!("{report}");
            return;
        }
        if !done.looked_at.is_empty() {
            eprintln!(
                "tomograd: the pixels of {} files may show who the patient is; look at them:",
                done.looked_at.len()
            );
            done.looked_at.iter().for_each(|file| eprintln!("  {}", plain(file)));
        }
        if !done.others.is_empty() {
            eprintln!("tomograd: {} files aren't DICOM images or objects and were left out", done.others.len());
        }
    }
}

fn is_directory(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.eq_ignore_ascii_case("DICOMDIR"))
}

/// The name of a result in the folder of the results, from what the key made alone.
fn name(result: &Anonymized) -> PathBuf {
    // UIDs that were kept come from the file.
    let part = |text: &str, otherwise: &str| {
        let plain = text.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '.');
        let named = plain && text.chars().any(|letter| letter != '.') && text.len() <= 64;
        if named { text.to_owned() } else { otherwise.to_owned() }
    };
    let instance = part(&result.instance, "instance");
    [part(&result.patient, "unnamed"), part(&result.study, "study"), part(&result.series, "series")]
        .iter()
        .collect::<PathBuf>()
        .join(format!("{instance}.dcm"))
}
