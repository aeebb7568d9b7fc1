//! Standardized uptake values of PET, by body weight.

use dicom_core::Tag;
use dicom_dictionary_std::tags;
use tomograd_core::{DType, Result, Tensor};

use super::{
    fail,
    file::Header,
    frame::ACQUISITION_TIME,
    stack::{Slice, Stack},
    view::View,
};
use crate::Volume;

/// Seconds of a day.
const DAY: f64 = 86400.0;

/// What turns the voxels of a PET series into SUV.
#[derive(Debug, Clone, PartialEq)]
pub struct SuvFactor {
    /// SUV (g/ml) = factor · voxel.
    pub factor: f64,
    /// How it was found, and what was assumed.
    pub notes: Vec<String>,
}

impl Stack {
    /// The factor from the voxels of a PET stack to standardized uptake values by body weight (SUVbw, g/ml): of Bq/ml, the weight
    /// in g over the dose in Bq, decayed to the time to which the image is corrected; of Philips' counts, its own factor; of g/ml, 1.
    ///
    /// # Errors
    /// When it isn't PET, or something that the factor needs isn't there or contradicts: units, weight, dose, half-life, times, correction
    /// of attenuation and decay. Nothing is assumed in its place.
    pub fn suv_factor(&self) -> Result<SuvFactor> {
        let first = self.slices().first().ok_or_else(|| fail("a stack without slices"))?;
        let header = Header::read(&first.image.source)?;
        let marks =
            |slice: &Slice| slice.detail().and_then(|detail| detail.marks.get(ACQUISITION_TIME).cloned().flatten());
        let times: Vec<f64> = self.slices().iter().filter_map(marks).filter_map(|text| time(&text)).collect();
        let earliest = times.iter().copied().reduce(f64::min);
        factor(header.view(), earliest).map_err(|error| first.image.source.name(error))
    }

    /// The standardized uptake values by body weight, f32, with the notes of [`SuvFactor`].
    ///
    /// # Errors
    /// As [`Stack::suv_factor`] and [`Stack::read`].
    pub fn read_suv(&self) -> Result<(Volume, Vec<String>)> {
        let SuvFactor { factor, notes } = self.suv_factor()?;
        let volume = self.read()?;
        let values: Vec<f32> = volume.voxels().to_vec_f64()?.into_iter().map(|value| (factor * value) as f32).collect();
        let voxels = Tensor::from_slice(&values, volume.voxels().shape(), volume.voxels().device())?;
        debug_assert_eq!(voxels.dtype(), DType::F32);
        Ok((volume.with_voxels(voxels)?, notes))
    }
}

fn factor(view: View<'_>, earliest: Option<f64>) -> Result<SuvFactor> {
    let text = |tag| view.text(tag).unwrap_or_default();
    if text(tags::MODALITY) != "PT" {
        return Err(fail(format!("modality {:?}", text(tags::MODALITY))).expected("PT, for uptake values"));
    }
    let known = |factor: f64, how: &str| Ok(SuvFactor { factor, notes: vec![how.to_owned()] });
    let corrected = view.texts(tags::CORRECTED_IMAGE);
    for needed in ["ATTN", "DECY"] {
        if !corrected.iter().any(|correction| correction == needed) {
            return Err(fail(format!("CorrectedImage is {corrected:?}")).expected("ATTN and DECY among them"));
        }
    }
    match &*text(tags::UNITS) {
        "BQML" => {}
        "GML" if matches!(&*text(tags::SUV_TYPE), "" | "BW") => return known(1.0, "voxels are SUV by body weight"),
        "CNTS"
            if view
                .raw(Tag(0x7053, 0x10))
                .is_some_and(|(creator, ..)| creator.starts_with(b"Philips PET Private Group")) =>
        {
            let own = view.text(Tag(0x7053, 0x1000)).and_then(|text| text.parse::<f64>().ok());
            let own = own.filter(|factor| factor.is_finite() && *factor > 0.0);
            let own = own.ok_or_else(|| fail("counts without Philips' SUV factor").expected("(7053,1000)"))?;
            return known(own, "counts times Philips' SUV factor (7053,1000)");
        }
        other => {
            return Err(fail(format!("units {other:?} and SUV type {:?}", text(tags::SUV_TYPE)))
                .expected("BQML, or GML of type BW"));
        }
    }
    let positive = |view: View<'_>, tag| -> Result<f64> {
        let number = view.number(tag)?.filter(|number| *number > 0.0);
        number.ok_or_else(|| fail(format!("{} is missing or 0", super::dataset::name(tag))))
    };
    let weight = positive(view, tags::PATIENT_WEIGHT)?;
    let drug = view.first(tags::RADIOPHARMACEUTICAL_INFORMATION_SEQUENCE);
    let drug = drug.ok_or_else(|| fail("no RadiopharmaceuticalInformationSequence"))?;
    let (dose, half_life) =
        (positive(drug, tags::RADIONUCLIDE_TOTAL_DOSE)?, positive(drug, tags::RADIONUCLIDE_HALF_LIFE)?);
    let mut notes = Vec::new();
    let decayed = match &*text(tags::DECAY_CORRECTION) {
        "ADMIN" => {
            notes.push("corrected to the time of injection".to_owned());
            dose
        }
        "START" => {
            let passed = passed(view, drug, earliest, &mut notes)?;
            notes.push(format!(
                "{:.1} minutes from injection to scan, a half-life of {:.2} minutes",
                passed / 60.0,
                half_life / 60.0
            ));
            dose * (-passed / half_life).exp2()
        }
        other => return Err(fail(format!("DecayCorrection is {other:?}")).expected("START or ADMIN")),
    };
    let factor = weight * 1000.0 / decayed;
    if !factor.is_finite() {
        return Err(fail(format!("a weight of {weight} kg and a dose of {decayed} Bq")).expected("a finite factor"));
    }
    notes.push(format!("{weight} kg, {:.2} MBq at the time of reference", decayed / 1e6));
    Ok(SuvFactor { factor, notes })
}

/// Seconds from injection to the time to which the image is corrected: that of the series, or of the first acquisition, if the series was
/// made later.
fn passed(view: View<'_>, drug: View<'_>, earliest: Option<f64>, notes: &mut Vec<String>) -> Result<f64> {
    let series = view.text(tags::SERIES_TIME).and_then(|text| time(&text));
    let reference = match (series, earliest) {
        (Some(series), Some(earliest)) if earliest < series => {
            notes.push("the series was made after the scan: the first acquisition is the time of reference".to_owned());
            earliest
        }
        (Some(series), _) => series,
        (None, Some(earliest)) => earliest,
        (None, None) => return Err(fail("neither a time of the series nor of acquisitions")),
    };
    let whole = drug.text(tags::RADIOPHARMACEUTICAL_START_DATE_TIME);
    let injection = match &whole {
        Some(whole) => whole.get(8..).and_then(time),
        None => drug.text(tags::RADIOPHARMACEUTICAL_START_TIME).and_then(|text| time(&text)),
    };
    let injection = injection.ok_or_else(|| fail("no time of injection").expected("RadiopharmaceuticalStartTime"))?;
    let date = [tags::ACQUISITION_DATE, tags::SERIES_DATE].into_iter().find_map(|tag| view.text(tag));
    let same_day = match (whole.as_deref().and_then(|whole| whole.get(..8)), date.as_deref()) {
        (Some(injected), Some(scanned)) => injected == scanned,
        _ => true,
    };
    let passed = match (same_day, reference - injection) {
        (true, passed) if passed >= 0.0 => passed,
        (false, passed) if passed < 0.0 => {
            notes.push("injected on the day before the scan".to_owned());
            passed + DAY
        }
        (_, passed) => {
            return Err(fail(format!("an injection {:.0} minutes before the scan, or on another day", passed / 60.0))
                .expected("one at most a day before"));
        }
    };
    Ok(passed)
}

/// Seconds since midnight of `HHMMSS.FFFFFF`.
fn time(text: &str) -> Option<f64> {
    let text = text.trim();
    let text = text.split(['+', '-']).next()?;
    let part = |from: usize| match text.get(from..from + 2) {
        Some(part) => part.parse::<u32>().ok().map(f64::from),
        None => (text.len() <= from).then_some(0.0),
    };
    let (hours, minutes) = (part(0)?, part(2)?);
    let seconds = match text.get(4..) {
        Some(seconds) if !seconds.is_empty() => seconds.parse::<f64>().ok()?,
        _ => 0.0,
    };
    let valid = !text.is_empty() && hours < 24.0 && minutes < 60.0 && (0.0..61.0).contains(&seconds);
    valid.then_some(hours * 3600.0 + minutes * 60.0 + seconds)
}

#[cfg(test)]
mod tests {
    use super::time;

    #[test]
    fn times_are_seconds() {
        for (text, seconds) in [
            ("000000", Some(0.0)),
            ("235959.5", Some(86399.5)),
            ("1030", Some(37800.0)),
            ("10", Some(36000.0)),
            ("103000.25+0100", Some(37800.25)),
            ("", None),
            ("2460", None),
            ("1", None),
            ("10300x", None),
            ("1é3000", None),
        ] {
            assert_eq!(time(text), seconds, "{text}");
        }
    }
}
