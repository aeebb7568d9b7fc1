//! What modalities have of their own: Siemens' mosaics, diffusion weighting, uptake values. nibabel and dcm2niix are compared in
//! `tests/golden/dicom_diffusion_check.py`.
#![cfg(feature = "dicom")]

#[path = "common/dicom.rs"]
mod common;

use std::fs;

use common::{Folder, Slice, csa, element, file, sequence, short, text};
use tomograd_io::{
    Volume,
    dicom::{self, Listing},
};

/// A mosaic of 2 × 2 tiles of 2 rows and 3 columns, three of which are slices, with the values of the picture in its order.
fn mosaic(instance: &str, fields: &[(&str, &[&str])]) -> Vec<u8> {
    let pixels: Vec<u8> = (0..24u16).flat_map(u16::to_le_bytes).collect();
    file(&[
        text((8, 8), b"CS", "ORIGINAL\\PRIMARY\\DIFFUSION\\MOSAIC"),
        text((8, 0x16), b"UI", "1.2.840.10008.5.1.4.1.1.4"),
        text((8, 0x18), b"UI", instance),
        text((8, 0x60), b"CS", "MR"),
        text((0x18, 0x88), b"DS", "3"),
        text((0x20, 0xD), b"UI", "1.2"),
        text((0x20, 0xE), b"UI", "1.2.3"),
        text((0x20, 0x13), b"IS", instance.rsplit('.').next().unwrap()),
        text((0x20, 0x32), b"DS", "10\\20\\30"),
        text((0x20, 0x37), b"DS", "1\\0\\0\\0\\1\\0"),
        short((0x28, 2), 1),
        text((0x28, 4), b"CS", "MONOCHROME2"),
        short((0x28, 0x10), 4),
        short((0x28, 0x11), 6),
        text((0x28, 0x30), b"DS", "2\\1"),
        short((0x28, 0x100), 16),
        short((0x28, 0x101), 16),
        short((0x28, 0x102), 15),
        short((0x28, 0x103), 0),
        text((0x29, 0x10), b"LO", "SIEMENS CSA HEADER"),
        element((0x29, 0x1010), b"OB", &csa(fields)),
        element((0x7FE0, 0x10), b"OW", &pixels),
    ])
}

const COUNT: (&str, &[&str]) = ("NumberOfImagesInMosaic", &["3       ", ""]);

#[test]
fn a_mosaic_is_cut_into_slices() {
    let volume = dicom::read_bytes(&mosaic("1.1", &[COUNT, ("SliceNormalVector", &["0", "0", "1"])])).unwrap();
    assert_eq!(volume.voxels().shape(), [3, 2, 3]);
    let values = volume.voxels().to_vec_f64().unwrap();
    assert_eq!(values, [0, 1, 2, 6, 7, 8, 3, 4, 5, 9, 10, 11, 12, 13, 14, 18, 19, 20].map(f64::from));
    // The first tile's corner: half of what the picture is larger than a tile, in millimetres.
    assert_eq!(volume.affine().map(|row| row[3]), [-11.5, -22.0, 30.0, 1.0]);
    assert_eq!(volume.spacing(), [1.0, 2.0, 3.0]);
    // Slices against the normal of the plane: the last is the first along it.
    let turned = dicom::read_bytes(&mosaic("1.1", &[COUNT, ("SliceNormalVector", &["0", "0", "-1"])])).unwrap();
    assert_eq!(turned.affine()[2], [0.0, 0.0, 3.0, 24.0]);
    assert_eq!(turned.voxels().to_vec_f64().unwrap()[..6], values[12..]);
    for (fields, wanted) in [
        (&[][..], "doesn't say how many slices"),
        (&[("NumberOfImagesInMosaic", &["0"][..])], "doesn't say how many slices"),
        (&[("NumberOfImagesInMosaic", &["20"][..])], "multiples of 5, for 20 tiles"),
        (&[COUNT, ("SliceNormalVector", &["1", "0", "0"])], "slices along"),
    ] {
        let error = dicom::read_bytes(&mosaic("1.1", fields)).unwrap_err().to_string();
        assert!(error.contains(wanted), "{error}");
    }
    // Siemens' files may begin as NIfTI files do.
    let folder = Folder::new("mosaic");
    let mut bytes = mosaic("1.1", &[COUNT]);
    bytes[..4].copy_from_slice(&348u32.to_le_bytes());
    folder.add("file", &bytes);
    let read = Volume::read(folder.0.join("file")).unwrap();
    assert!(
        read.notes().iter().any(|note| note.contains("in which direction its slices follow")),
        "{:?}",
        read.notes()
    );
}

#[test]
fn a_diffusion_series_has_its_directions() {
    let folder = Folder::new("diffusion");
    let normal = ("SliceNormalVector", &["0", "0", "1"][..]);
    // In the order of acquisition, whatever their names.
    folder.add("b", &mosaic("1.1", &[COUNT, normal, ("B_value", &["0"])]));
    let weighted = [COUNT, normal, ("B_value", &["1000"]), ("DiffusionGradientDirection", &["0.6", "0", "0.8"])];
    folder.add("a", &mosaic("1.2", &weighted));
    let listing = Listing::open(&folder.0).unwrap();
    let series = listing.only().unwrap().diffusion().unwrap();
    assert_eq!(series.volume().voxels().shape(), [2, 3, 2, 3]);
    let weights: Vec<(f64, Option<[f64; 3]>)> =
        series.weights().iter().map(|weight| (weight.b_value, weight.direction)).collect();
    assert_eq!(weights, [(0.0, None), (1000.0, Some([-0.6, 0.0, 0.8]))]);
    // Axes are to the left and back: against the world's; no axis is mirrored, so that the first is reversed.
    assert_eq!(series.fsl_directions()[1], [-0.6, 0.0, 0.8]);
    let out = folder.0.join("dwi.nii.gz");
    series.write(&out).unwrap();
    assert_eq!(Volume::read(&out).unwrap().voxels().shape(), [2, 3, 2, 3]);
    assert_eq!(fs::read_to_string(folder.0.join("dwi.bval")).unwrap(), "0 1000\n");
    assert_eq!(fs::read_to_string(folder.0.join("dwi.bvec")).unwrap(), "0 -0.6\n0 0\n0 0.8\n");
    series.write(folder.0.join("dwi.mha")).unwrap_err();
    // Without a b-value.
    let other = Folder::new("diffusion-none");
    other.add("a", &Slice::default().bytes());
    let error = Listing::open(&other.0).unwrap().only().unwrap().diffusion().unwrap_err();
    assert!(error.to_string().contains("a stack without a b-value"), "{error}");
}

/// A PET slice; `change` takes an element's place.
fn pet(change: Option<((u16, u16), &'static [u8; 2], &str)>) -> Vec<u8> {
    let values: [((u16, u16), &'static [u8; 2], &str); 9] = [
        ((8, 0x31), b"TM", "120000"),
        ((8, 0x32), b"TM", "120500"),
        ((8, 0x60), b"CS", "PT"),
        ((0x10, 0x1030), b"DS", "70"),
        ((0x28, 0x51), b"CS", "DECY\\ATTN"),
        ((0x54, 0x1001), b"CS", "BQML"),
        ((0x54, 0x1102), b"CS", "START"),
        // Within the sequence: start, dose, half-life.
        ((0x18, 0x1072), b"TM", "110000"),
        ((0x18, 0x1074), b"DS", "350000000"),
    ];
    let of = |(tag, vr, value): ((u16, u16), &'static [u8; 2], &str)| {
        let value = change.filter(|(changed, ..)| *changed == tag).map_or(value, |(.., value)| value);
        text(tag, vr, value)
    };
    let (own, drug) = values.split_at(7);
    let drug: Vec<Vec<u8>> = drug.iter().copied().map(of).chain([text((0x18, 0x1075), b"DS", "3600")]).collect();
    let more = own.iter().copied().map(of).chain([sequence((0x54, 0x16), &[drug.concat()])]).collect();
    Slice { more, slope: 2.0, ..Slice::default() }.bytes()
}

#[test]
fn uptake_values_follow_from_dose_weight_and_times() {
    let folder = Folder::new("suv");
    let read = |change: Option<((u16, u16), &'static [u8; 2], &str)>| {
        folder.add("slice", &pet(change));
        Listing::open(&folder.0).unwrap().only().unwrap().stack().unwrap().read_suv()
    };
    let factor = |change| read(change).map(|(volume, _)| volume.voxels().to_vec_f64().unwrap()[1] / 2.0);
    let close = |found: f64, wanted: f64| assert!((found / wanted - 1.0).abs() < 1e-6, "{found} {wanted}");
    // An hour, the half-life: half of the dose is left.
    close(factor(None).unwrap(), 70_000.0 / 175e6);
    close(factor(Some(((0x54, 0x1102), b"CS", "ADMIN"))).unwrap(), 70_000.0 / 350e6);
    // The series was made later than the scan.
    close(factor(Some(((8, 0x31), b"TM", "180000"))).unwrap(), 70_000.0 / (350e6 * (-65.0f64 / 60.0).exp2()));
    assert_eq!(factor(Some(((0x54, 0x1001), b"CS", "GML"))).unwrap(), 1.0);
    for (tag, vr, value, wanted) in [
        ((8, 0x60), b"CS", "MR", "expected PT"),
        ((0x10, 0x1030), b"DS", "0", "PatientWeight is missing or 0"),
        ((0x28, 0x51), b"CS", "DECY", "expected ATTN and DECY"),
        ((0x54, 0x1001), b"CS", "CNTS", "units \"CNTS\""),
        ((0x54, 0x1102), b"CS", "NONE", "DecayCorrection is \"NONE\""),
        ((0x18, 0x1072), b"TM", "130000", "one at most a day before"),
        ((0x18, 0x1072), b"TM", "noon", "no time of injection"),
        ((0x18, 0x1074), b"DS", "", "RadionuclideTotalDose is missing or 0"),
    ] {
        let error = read(Some((tag, vr, value))).unwrap_err().to_string();
        assert!(error.contains(wanted), "{wanted}: {error}");
    }
}
