//! Masks into DICOM segmentations and structure sets, and back. Other programs read what is written in
//! `tests/golden/dicom_masks_check.py`.
#![cfg(feature = "dicom")]

#[path = "common/dicom.rs"]
mod common;

use std::{fs, path::PathBuf};

use common::{Folder, Slice, file, sequence, text};
use tomograd_core::{DType, Device, Seed, Tensor};
use tomograd_io::dicom::{self, Code, Holes, Listing, Segment, Segmentation, SegmentationType, Stack, StructureSet};

impl Folder {
    fn at(&self, name: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    /// Oblique slices of 4 × 3 pixels, written in the order from the last to the first.
    fn stack(&self, frame: &str, count: usize) -> Stack {
        let (s, c) = 0.3f64.sin_cos();
        for k in 0..count {
            let at = 2.5 * k as f64;
            let slice = Slice {
                instance: format!("1.2.3.4.{k}"),
                orientation: [c, s, 0.0, -s, c, 0.0],
                position: Some([-10.0, 5.0, at]),
                more: vec![text((0x20, 0x52), b"UI", frame)],
                ..Slice::default()
            };
            fs::write(self.at(&format!("series/{}", 99 - k)), slice.bytes()).unwrap();
        }
        Listing::open(self.at("series")).unwrap().only().unwrap().stack().unwrap().clone()
    }
}

const SHAPE: [usize; 3] = [5, 3, 4];

fn mask(seed: u64) -> Tensor {
    let mut random = Seed::new(seed).random();
    let values: Vec<u8> = (0..60).map(|_| u8::from(random.below(3) == 0)).collect();
    Tensor::from_slice(&values, &SHAPE, Device::Cpu).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.to_vec_f64().unwrap()
}

#[test]
fn structures_come_back_to_the_voxel() {
    let folder = Folder::new("structures");
    let stack = folder.stack("1.2.9", 5);
    let masks: Vec<Tensor> = (0..3).map(mask).collect();
    let empty = Tensor::zeros(&SHAPE, DType::U8, Device::Cpu).unwrap();
    let path = folder.at("set.dcm");
    for holes in [Holes::Keyhole, Holes::Xor] {
        let structures = [("first", &masks[0]), ("second", &masks[1]), ("Zunge", &masks[2]), ("empty", &empty)];
        stack.write_structures(&path, &structures, holes).unwrap();
        let set = StructureSet::open(&path).unwrap();
        assert_eq!((set.series(), set.label()), (&["1.2.3".to_owned()][..], "tomograd"));
        assert_eq!(set.structures().len(), 4);
        for (name, expected) in structures {
            let structure = set.find(name).unwrap();
            let (found, notes) = set.mask(structure, &stack).unwrap();
            assert_eq!(values(found.voxels()), values(expected), "{name} {holes:?}");
            assert_eq!((found.affine(), structure.interpreted_type()), (stack.affine(), None));
            assert!(notes.iter().all(|note| note.contains("have no contour")), "{notes:?}");
        }
        assert!(set.find("third").unwrap_err().to_string().contains("first, second, Zunge, empty"));
    }
    // Other slices than the contours', and another frame of reference.
    let set = StructureSet::open(&path).unwrap();
    let fewer = Folder::new("structures-fewer");
    let (found, notes) = set.mask(set.find("first").unwrap(), &fewer.stack("1.2.9", 3)).unwrap();
    assert_eq!(values(found.voxels()), values(&masks[0])[..36]);
    assert!(notes[0].contains("contours lie outside of the series"), "{notes:?}");
    let error = set.mask(set.find("first").unwrap(), &Folder::new("structures-other").stack("1.2.8", 5)).unwrap_err();
    assert!(error.to_string().contains("frame of reference 1.2.9; expected 1.2.8"), "{error}");
    // What can't be written.
    let small = Tensor::zeros(&[1, 3, 4], DType::U8, Device::Cpu).unwrap();
    for structures in [&[][..], &[("a", &small)], &[("a", &empty), ("a", &empty)], &[("", &empty)], &[("a\\b", &empty)]]
    {
        stack.write_structures(&path, structures, Holes::Keyhole).unwrap_err();
    }
    assert_eq!(StructureSet::open(&path).unwrap().structures().len(), 4);
}

/// A structure set of one contour of these points.
fn contour(kind: &str, points: &str) -> Vec<u8> {
    let count = points.split('\\').count() / 3;
    let contour = [
        text((0x3006, 0x42), b"CS", kind),
        text((0x3006, 0x46), b"IS", &count.to_string()),
        text((0x3006, 0x50), b"DS", points),
    ];
    file(&[
        text((8, 0x16), b"UI", "1.2.840.10008.5.1.4.1.1.481.3"),
        sequence((0x3006, 0x20), &[[text((0x3006, 0x22), b"IS", "7"), text((0x3006, 0x26), b"LO", "a")].concat()]),
        sequence(
            (0x3006, 0x39),
            &[[sequence((0x3006, 0x40), &[contour.concat()]), text((0x3006, 0x84), b"IS", "7")].concat()],
        ),
    ])
}

#[test]
fn contours_that_are_no_outlines_are_said() {
    let folder = Folder::new("contours");
    for k in 0..3 {
        let slice =
            Slice { instance: format!("1.2.3.4.{k}"), position: Some([0.0, 0.0, f64::from(k)]), ..Slice::default() };
        fs::write(folder.at(&format!("series/{k}")), slice.bytes()).unwrap();
    }
    let stack = Listing::open(folder.at("series")).unwrap().only().unwrap().stack().unwrap().clone();
    let read = |kind: &str, points: &str| {
        let set = StructureSet::from_bytes(&contour(kind, points))?;
        set.mask(&set.structures()[0], &stack)
    };
    // Around the centres of columns 1 and 2 of row 1; pixels are 0.5 mm wide and 2 mm high.
    let (mask, notes) = read("CLOSED_PLANAR", "0.4\\1.5\\1\\1.1\\1.5\\1\\1.1\\2.5\\1\\0.4\\2.5\\1").unwrap();
    assert_eq!(values(mask.voxels())[12..24], [0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    assert!(notes.iter().any(|note| note.contains("frame of reference isn't said")), "{notes:?}");
    let (mask, notes) = read("CLOSED_PLANAR", "0.4\\1.5\\1.3\\1.1\\1.5\\1.3\\1.1\\2.5\\1.3").unwrap();
    assert!(
        values(mask.voxels()).contains(&1.0) && notes.iter().any(|note| note.contains("between slices")),
        "{notes:?}"
    );
    let (mask, notes) = read("OPEN_PLANAR", "0.4\\1.5\\1\\1.1\\1.5\\1\\1.1\\2.5\\1").unwrap();
    assert!(!values(mask.voxels()).contains(&1.0) && notes.iter().any(|note| note.contains("aren't closed")));
    // Far away, and in no plane.
    let (_, notes) = read("CLOSED_PLANAR", "-1e9\\-1e9\\1\\1e9\\-1e9\\1\\1e9\\1e9\\1\\-1e9\\1e9\\1").unwrap();
    assert!(notes.len() < 3, "{notes:?}");
    let error = read("CLOSED_PLANAR", "0\\0\\0\\1\\0\\1\\1\\1\\2").unwrap_err();
    assert!(error.to_string().contains("structure \"a\": dicom: a contour of 3 points across slices"), "{error}");
    assert!(read("CLOSED_PLANAR", "0\\0").unwrap_err().to_string().contains("three for each point"));
    assert!(read("CLOSED_PLANAR", "0\\0\\x").unwrap_err().to_string().contains("expected numbers"));
}

#[test]
fn segments_come_back_to_the_voxel() {
    let folder = Folder::new("segments");
    let stack = folder.stack("1.2.9", 5);
    let (a, b) = (mask(1), mask(2));
    let liver = Segment {
        category: Code::new("123037004", "SCT", "Anatomical Structure"),
        kind: Code::new("10200004", "SCT", "Liver"),
        ..Segment::new("Leber", "by hand")
    };
    let path = folder.at("seg.dcm");
    let both = [(liver.clone(), &a), (Segment::new("other", "tomograd"), &b)];
    stack.write_segments(&path, &both, SegmentationType::Binary).unwrap();
    let read = Segmentation::open(&path).unwrap();
    assert_eq!(
        (read.kind(), read.series(), &read.segments()[0]),
        (SegmentationType::Binary, &["1.2.3".to_owned()][..], &(1, liver))
    );
    assert_eq!(values(read.mask(1, &stack).unwrap().voxels()), values(&a));
    assert_eq!(values(read.mask(2, &stack).unwrap().voxels()), values(&b));
    let error = read.labels(&stack).unwrap_err();
    assert!(error.to_string().contains("overlap"), "{error}");
    assert!(read.mask(3, &stack).unwrap_err().to_string().contains("expected one of 1, 2"));
    // A label map, of segments that don't overlap.
    let error = stack.write_segments(&path, &both, SegmentationType::LabelMap).unwrap_err();
    assert!(error.to_string().contains("two segments have voxel"), "{error}");
    let rest: Vec<u8> = values(&a).iter().zip(values(&b)).map(|(a, b)| u8::from(*a == 0.0 && b != 0.0)).collect();
    let rest = Tensor::from_slice(&rest, &SHAPE, Device::Cpu).unwrap();
    let apart = [(Segment::new("a", "x"), &a), (Segment::new("b", "x"), &rest)];
    let expected: Vec<f64> = values(&a).iter().zip(values(&rest)).map(|(a, b)| a + 2.0 * b).collect();
    for kind in [SegmentationType::LabelMap, SegmentationType::Binary] {
        stack.write_segments(&path, &apart, kind).unwrap();
        let read = Segmentation::open(&path).unwrap();
        assert_eq!((read.kind(), read.segments().len()), (kind, 2));
        assert_eq!(values(read.labels(&stack).unwrap().voxels()), expected, "{kind:?}");
        assert_eq!(values(read.mask(2, &stack).unwrap().voxels()), values(&rest), "{kind:?}");
    }
    // Fractions.
    let fractions: Vec<f32> = (0..60).map(|i| i as f32 * 4.0 / 255.0).collect();
    let fractions = Tensor::from_slice(&fractions, &SHAPE, Device::Cpu).unwrap();
    for kind in [SegmentationType::Probability, SegmentationType::Occupancy] {
        stack.write_segments(&path, &[(Segment::new("a", "x"), &fractions)], kind).unwrap();
        let read = Segmentation::open(&path).unwrap();
        let found = read.mask(1, &stack).unwrap();
        assert_eq!((found.voxels().dtype(), read.kind()), (DType::F32, kind));
        assert!(values(found.voxels()).iter().zip(values(&fractions)).all(|(a, b)| (a - b).abs() < 1e-6));
        read.labels(&stack).unwrap_err();
    }
    let doubled: Vec<f32> = values(&fractions).iter().map(|value| 2.0 * *value as f32).collect();
    let doubled = Tensor::from_slice(&doubled, &SHAPE, Device::Cpu).unwrap();
    let error =
        stack.write_segments(&path, &[(Segment::new("a", "x"), &doubled)], SegmentationType::Occupancy).unwrap_err();
    assert!(error.to_string().contains("fractions from 0 to 1"), "{error}");
    // More than 255 segments take 16 bits a voxel.
    let many: Vec<Tensor> = (0..300u16)
        .map(|i| {
            Tensor::from_slice(
                &(0..60).map(|j| u8::from(i % 60 == j && i < 60 || i == 299 && j == 59)).collect::<Vec<u8>>(),
                &SHAPE,
                Device::Cpu,
            )
            .unwrap()
        })
        .collect();
    let last = |i: usize| if i == 59 { &many[100] } else { &many[i] };
    let segments: Vec<(Segment, &Tensor)> = (0..300).map(|i| (Segment::new(format!("s{i}"), "x"), last(i))).collect();
    stack.write_segments(&path, &segments, SegmentationType::LabelMap).unwrap();
    let labels = values(Segmentation::open(&path).unwrap().labels(&stack).unwrap().voxels());
    assert_eq!((labels[0], labels[58], labels[59]), (1.0, 59.0, 300.0));
}

#[test]
fn a_segmentation_of_another_grid_is_refused() {
    let folder = Folder::new("segments-grid");
    let stack = folder.stack("1.2.9", 5);
    let path = folder.at("seg.dcm");
    stack.write_segmentation(&path, &mask(1), &[Segment::new("a", "x")]).unwrap();
    let read = Segmentation::open(&path).unwrap();
    let other = Folder::new("segments-frame").stack("1.2.8", 5);
    assert!(read.mask(1, &other).unwrap_err().to_string().contains("frame of reference 1.2.9; expected 1.2.8"));
    // Slices that are missing.
    let fewer = Folder::new("segments-fewer").stack("1.2.9", 2);
    let error = read.mask(1, &fewer).unwrap_err();
    assert!(error.to_string().contains("the nearest is"), "{error}");
    Segmentation::open(folder.at("series/99")).unwrap_err();
    StructureSet::open(&path).unwrap_err();
}

#[test]
fn a_report_measures_and_a_capture_is_the_picture() {
    let folder = Folder::new("report");
    let stack = folder.stack("1.2.9", 5);
    let (a, seg, path) = (mask(1), folder.at("seg.dcm"), folder.at("object.dcm"));
    let empty = Tensor::zeros(&SHAPE, DType::U8, Device::Cpu).unwrap();
    let segments = [(Segment::new("nothing", "x"), &empty), (Segment::new("Leber", "x"), &a)];
    stack.write_segments(&seg, &segments, SegmentationType::Binary).unwrap();
    let found = stack.write_report(&path, &Segmentation::open(&seg).unwrap()).unwrap();
    // Values are 0 to 11 in each slice; voxels are 0.5 × 2 × 2.5 mm.
    let inside: Vec<f64> =
        values(&a).iter().enumerate().filter(|(_, v)| **v != 0.0).map(|(i, _)| (i % 12) as f64).collect();
    let [(name, measured)] = &found[..] else { panic!("{found:?}") };
    assert_eq!((&name[..], measured.voxels), ("Leber", inside.len()));
    assert!((measured.volume - 2.5 * inside.len() as f64).abs() < 1e-6 * measured.volume);
    assert!((measured.mean - inside.iter().sum::<f64>() / inside.len() as f64).abs() < 1e-9);
    let bytes = fs::read(&path).unwrap();
    for part in ["Imaging Measurement Report", "Leber", "[hnsf'U]", "118565006", "1.2.3.4.0"] {
        assert!(bytes.windows(part.len()).any(|bytes| bytes == part.as_bytes()), "{part}");
    }
    let error = dicom::read_file(&path).unwrap_err().to_string();
    assert!(error.contains("no pixels, in an object of modality SR"), "{error}");
    // The same measurements are the same object.
    stack.write_report(&path, &Segmentation::open(&seg).unwrap()).unwrap();
    assert_eq!(fs::read(&path).unwrap(), bytes);
    stack.write_segments(&seg, &[(Segment::new("nothing", "x"), &empty)], SegmentationType::Binary).unwrap();
    let error = stack.write_report(&path, &Segmentation::open(&seg).unwrap()).unwrap_err();
    assert!(error.to_string().contains("a segmentation without voxels"), "{error}");
    stack.write_segments(&seg, &[(Segment::new("a", "x"), &a)], SegmentationType::Occupancy).unwrap();
    stack.write_report(&path, &Segmentation::open(&seg).unwrap()).unwrap_err();

    let picture: Vec<u8> = (0..105).collect();
    for shape in [[3, 5, 7], [1, 15, 7]] {
        let picture = Tensor::from_slice(&picture, &shape, Device::Cpu).unwrap();
        stack.write_capture(&path, &picture, "A sheet").unwrap();
        let read = dicom::read_file(&path).unwrap();
        assert_eq!(read.voxels().to_vec::<u8>().unwrap(), picture.to_vec::<u8>().unwrap());
    }
    for (shape, description) in [(&[2, 5, 7][..], "a"), (&[105], "a"), (&[1, 15, 7], ""), (&[1, 15, 7], "a\nb")] {
        let picture = Tensor::zeros(shape, DType::U8, Device::Cpu).unwrap();
        stack.write_capture(&path, &picture, description).unwrap_err();
    }
}
