//! How the files of a folder become series and stacks: order, geometry, and what is told apart.
#![cfg(feature = "dicom")]

#[path = "common/dicom.rs"]
mod common;

use std::fs;

use common::{Folder, Slice, element, file, sequence, short, text};
use tomograd_core::{DType, Device, Tensor};
use tomograd_io::{
    Format, Volume,
    dicom::{self, Gaps, Listing, Segment},
    geometry,
};

impl Folder {
    /// Adds slices, named and numbered against the order of their places.
    fn slices(&self, slices: impl IntoIterator<Item = Slice>) {
        for (i, slice) in slices.into_iter().enumerate() {
            let instance = format!("1.2.3.4.{}.{i}", slice.series);
            let number = if slice.number == 1 { 100 - i as i32 } else { slice.number };
            self.add(&format!("{:02}", 99 - i), &Slice { instance, number, ..slice }.bytes());
        }
    }

    fn listing(&self) -> Listing {
        Listing::open(&self.0).unwrap()
    }
}

/// Slices at these places along z, whose values begin with ten times their number.
fn at(places: &[f64]) -> Vec<Slice> {
    let slice =
        |(i, &z): (usize, &f64)| Slice { position: Some([-10.0, -20.0, z]), value: 10 * i as i16, ..Slice::default() };
    places.iter().enumerate().map(slice).collect()
}

fn notes(stack: &dicom::Stack) -> String {
    stack.notes().join("\n")
}

#[test]
fn slices_are_in_the_order_of_their_places_and_the_affine_says_where() {
    let folder = Folder::new("order");
    folder.slices(at(&[5.0, 7.5, 10.0]));
    let volume = dicom::read_file(&folder.0).unwrap();
    assert_eq!(volume.voxels().shape(), [3, 3, 4]);
    assert_eq!(volume.voxels().dtype(), DType::I32);
    let values = volume.voxels().to_vec::<i32>().unwrap();
    assert_eq!([values[0], values[11], values[12], values[24]], [0, 11, 10, 20]);
    // Pixels are 2 mm apart down the rows and 0.5 along them; DICOM's x and y are to the left and back.
    let expected = [[-0.5, 0.0, 0.0, 10.0], [0.0, -2.0, 0.0, 20.0], [0.0, 0.0, 2.5, 5.0], [0.0, 0.0, 0.0, 1.0]];
    assert_eq!(*volume.affine(), expected);
    assert_eq!((&volume.orientation()[..], volume.spacing()), ("LPS", [0.5, 2.0, 2.5]));
    // One file alone, with its preamble and without.
    let bytes = at(&[5.0])[0].bytes();
    for (name, bytes) in [("with", &bytes[..]), ("without", &bytes[132..])] {
        let other = Folder::new(name);
        other.add("file", bytes);
        let volume = Volume::read(other.0.join("file")).unwrap();
        assert_eq!((volume.format(), volume.voxels().shape()), (Some(Format::Dicom), &[1, 3, 4][..]), "{name}");
    }
    assert_eq!(Volume::read(&folder.0).unwrap().affine(), volume.affine());
    let listing = folder.listing();
    let series = listing.only().unwrap();
    assert_eq!((series.files(), series.modality(), series.number(), series.uid()), (3, "CT", Some(7.0), "1.2.3"));
    assert_eq!(series.stack().unwrap().notes(), [] as [&str; 0]);
}

#[test]
fn an_oblique_series_is_in_the_order_along_its_normal() {
    let folder = Folder::new("oblique");
    // Sagittal: rows to the back, columns down; the normal is to the right, so that the rightmost slice comes last.
    let slice = |i: i16| Slice {
        orientation: [0.0, 1.0, 0.0, 0.0, 0.0, -1.0],
        position: Some([30.0 - 3.0 * f64::from(i), 1.0, 2.0]),
        value: 10 * i,
        ..Slice::default()
    };
    folder.slices([2, 0, 1].map(slice));
    let volume = dicom::read_file(&folder.0).unwrap();
    assert_eq!((&volume.orientation()[..], volume.spacing()), ("PIR", [0.5, 2.0, 3.0]));
    let values = volume.voxels().to_vec::<i32>().unwrap();
    assert_eq!([values[0], values[12], values[24]], [0, 10, 20]);
    assert_eq!(volume.affine().map(|row| row[3]), [-30.0, -1.0, 2.0, 1.0]);
}

#[test]
fn each_slice_is_rescaled_by_its_own_numbers() {
    let folder = Folder::new("rescale");
    let slices = at(&[0.0, 1.0]).into_iter().zip([1.0, 0.5]);
    folder.slices(slices.map(|(slice, slope)| Slice { slope, intercept: -1024.0, ..slice }));
    let volume = dicom::read_file(&folder.0).unwrap();
    assert_eq!(volume.voxels().dtype(), DType::F32);
    let values = volume.voxels().to_vec::<f32>().unwrap();
    assert_eq!([values[0], values[1], values[12], values[13]], [-1024.0, -1023.0, -1019.0, -1018.5]);
}

#[test]
fn gantry_tilt_shears_the_affine() {
    let folder = Folder::new("tilt");
    let tilt = 20f64.to_radians().tan();
    let slices = at(&[0.0, 4.0, 8.0]).into_iter();
    folder.slices(slices.map(|slice| {
        let [x, y, z] = slice.position.unwrap();
        Slice { position: Some([x, y + z * tilt, z]), ..slice }
    }));
    let listing = folder.listing();
    let stack = listing.only().unwrap().stack().unwrap();
    assert!(notes(stack).contains("displaced by 20.00° (gantry tilt)"), "{}", notes(stack));
    let volume = stack.read().unwrap();
    let [_, row, ..] = *volume.affine();
    assert!((row[2] + 4.0 * tilt).abs() < 1e-9, "{row:?}");
}

#[test]
fn missing_slices_are_refused_or_interpolated() {
    let folder = Folder::new("missing");
    folder.slices(at(&[0.0, 2.0, 4.0, 8.0, 10.0]));
    let listing = folder.listing();
    let stack = listing.only().unwrap().stack().unwrap();
    assert!(stack.is_uneven());
    let error = stack.read().unwrap_err().to_string();
    assert!(error.contains("1 slices are missing: 4.000 mm behind slice 3, where 2.000 mm is usual"), "{error}");
    let volume = stack.read_with(Gaps::Interpolate).unwrap();
    assert_eq!((volume.voxels().shape(), volume.spacing()), (&[6, 3, 4][..], [0.5, 2.0, 2.0]));
    let values = volume.voxels().to_vec::<f32>().unwrap();
    let firsts: Vec<f32> = values.iter().step_by(12).copied().collect();
    assert_eq!(firsts, [0.0, 10.0, 20.0, 25.0, 30.0, 40.0]);

    let folder = Folder::new("uneven");
    folder.slices(at(&[0.0, 2.0, 4.0, 5.0, 7.0]));
    let error = dicom::read_file(&folder.0).unwrap_err().to_string();
    assert!(error.contains("slices are at differing distances: 1.000 mm behind slice 3"), "{error}");
}

#[test]
fn what_is_at_one_place_is_told_apart() {
    // Two echoes, told apart by their number; phases, by their trigger time; directions; and nothing at all.
    let echo = |number: u16| text((0x18, 0x86), b"IS", &number.to_string());
    let trigger = |time: u16| text((0x18, 0x1060), b"DS", &time.to_string());
    let direction = |x: f64| element((0x18, 0x9089), b"FD", &[x, 0.0, 0.0].map(f64::to_le_bytes).concat());
    type Kind<'a> = (&'a str, Box<dyn Fn(u16) -> Vec<u8> + 'a>, &'a str);
    let kinds: [Kind<'_>; 3] = [
        ("echo", Box::new(echo), "echo 2"),
        ("trigger", Box::new(trigger), "trigger time 2"),
        ("direction", Box::new(|i| direction(f64::from(i))), "gradient direction [2.0, 0.0, 0.0]"),
    ];
    for (name, mark, label) in kinds {
        let folder = Folder::new(name);
        let slices = [1, 2].into_iter().flat_map(|i| {
            let more = vec![mark(i)];
            at(&[0.0, 2.0, 4.0]).into_iter().map(move |slice| Slice {
                value: slice.value + 100 * i as i16,
                more: more.clone(),
                ..slice
            })
        });
        folder.slices(slices);
        let listing = folder.listing();
        let series = listing.only().unwrap();
        assert_eq!(series.stacks().len(), 2, "{name}");
        let error = dicom::read_file(&folder.0).unwrap_err().to_string();
        assert!(error.contains("2 stacks") && error.contains(label), "{error}");
        let stack = series.stacks().iter().find(|stack| stack.label().contains(label)).unwrap();
        let values = stack.read().unwrap().voxels().to_vec::<i32>().unwrap();
        assert_eq!([values[0], values[12], values[24]], [200, 210, 220], "{name}");
    }

    let folder = Folder::new("layers");
    let numbered = |i: i32| at(&[0.0, 2.0]).into_iter().map(move |slice| Slice { number: i, value: i as i16, ..slice });
    folder.slices(numbered(5).chain(numbered(3)));
    let listing = folder.listing();
    let stacks = listing.only().unwrap().stacks();
    assert_eq!(stacks.len(), 2);
    assert!(notes(&stacks[0]).contains("nothing but their instance numbers"), "{}", notes(&stacks[0]));
    let first = stacks[0].read().unwrap().voxels().to_vec::<i32>().unwrap();
    assert_eq!([first[0], first[12]], [3, 3]);
}

#[test]
fn localizers_and_other_orientations_are_stacks_of_their_own_and_doubles_are_left_out() {
    let folder = Folder::new("mixed");
    folder.slices(at(&[0.0, 2.0, 4.0]));
    let localizer =
        Slice { image_type: "ORIGINAL\\PRIMARY\\LOCALIZER", instance: "9.1".to_owned(), ..Slice::default() };
    folder.add("localizer", &localizer.bytes());
    let coronal =
        Slice { orientation: [1.0, 0.0, 0.0, 0.0, 0.0, -1.0], instance: "9.2".to_owned(), ..Slice::default() };
    folder.add("coronal", &coronal.bytes());
    folder.add("again/coronal", &coronal.bytes());
    folder.add("readme.txt", b"not DICOM");
    folder.add("damaged", &coronal.bytes()[..200]);
    let listing = folder.listing();
    let series = listing.only().unwrap();
    assert_eq!((series.files(), listing.others(), listing.skipped().len()), (6, 1, 1));
    assert!(series.notes()[0].contains("1 files hold an image that another file holds too"), "{:?}", series.notes());
    let sizes: Vec<_> = series.stacks().iter().map(|stack| stack.size()).collect();
    assert_eq!(sizes, [[4, 3, 3], [4, 3, 1], [4, 3, 1]]);
    assert!(series.stacks().iter().any(|stack| stack.label().contains("LOCALIZER")));
    // One slice has no distance to another: its thickness, or 1 mm, which is said.
    assert!(notes(&series.stacks()[1]).contains("1 mm is assumed"), "{}", notes(&series.stacks()[1]));
}

#[test]
fn several_series_are_listed_and_found() {
    let folder = Folder::new("several");
    folder.slices(at(&[0.0, 2.0]));
    let other = Slice { series: "1.2.4", instance: "5".to_owned(), position: None, ..Slice::default() };
    folder.add("other", &other.bytes());
    let listing = folder.listing();
    let error = listing.only().unwrap_err().to_string();
    assert!(error.contains("2 series; expected one of 1.2.3 (CT \"\"), 1.2.4"), "{error}");
    assert_eq!(listing.find("1.2.3").unwrap().files(), 2);
    assert!(listing.find("1.2").is_err() && listing.find("1.3").is_err());
    let stack = listing.find("1.2.4").unwrap().stack().unwrap();
    assert!(notes(stack).contains("no orientation") && notes(stack).contains("no position"));
    assert_eq!(stack.read().unwrap().orientation(), "LPS");
}

/// Elements before the pixels that end around where a first look at a file does.
#[test]
fn long_headers_are_read_to_their_end() {
    let folder = Folder::new("long");
    let short = Slice::default().bytes().len();
    for length in (1 << 15) - short - 60..(1 << 15) + 60 {
        if length % 2 == 0 {
            let more = vec![element((0x20, 0x4000), b"UT", &vec![b'x'; length])];
            folder.add("file", &Slice { more, value: 7, ..Slice::default() }.bytes());
            let volume = dicom::read_file(folder.0.join("file")).unwrap();
            assert_eq!(volume.voxels().to_vec::<i32>().unwrap()[0], 7, "{length}");
        }
    }
}

/// An enhanced image: frames out of order, with their place and scale in sequences of their own.
#[test]
fn frames_of_an_enhanced_image_are_sorted_and_scaled() {
    let orientation = sequence((0x20, 0x9116), &[text((0x20, 0x37), b"DS", "1\\0\\0\\0\\1\\0")]);
    let measures = sequence((0x28, 0x9110), &[text((0x28, 0x30), b"DS", "1\\1")]);
    let frame = |z: i32, slope: i32| {
        [
            sequence((0x20, 0x9113), &[text((0x20, 0x32), b"DS", &format!("0\\0\\{z}"))]),
            sequence(
                (0x28, 0x9145),
                &[[text((0x28, 0x1052), b"DS", "0"), text((0x28, 0x1053), b"DS", &slope.to_string())].concat()],
            ),
        ]
        .concat()
    };
    let bytes = file(&[
        text((8, 0x60), b"CS", "MR"),
        text((0x20, 0xE), b"UI", "1.5"),
        short((0x28, 2), 1),
        text((0x28, 4), b"CS", "MONOCHROME2"),
        text((0x28, 8), b"IS", "3"),
        short((0x28, 0x10), 1),
        short((0x28, 0x11), 2),
        short((0x28, 0x100), 8),
        short((0x28, 0x101), 8),
        short((0x28, 0x102), 7),
        short((0x28, 0x103), 0),
        sequence((0x5200, 0x9229), &[[orientation, measures].concat()]),
        sequence((0x5200, 0x9230), &[frame(6, 1), frame(0, 10), frame(3, 100)]),
        element((0x7FE0, 0x10), b"OB", &[1, 2, 3, 4, 5, 6]),
    ]);
    let volume = dicom::read_bytes(&bytes).unwrap();
    assert_eq!(volume.voxels().to_vec::<i32>().unwrap(), [30, 40, 500, 600, 1, 2]);
    assert_eq!((volume.spacing(), volume.affine()[2][3]), ([1.0, 1.0, 3.0], 0.0));
}

#[test]
fn a_dicomdir_names_files_within_its_folder_only() {
    let folder = Folder::new("dicomdir");
    for (i, slice) in at(&[0.0, 2.0]).into_iter().enumerate() {
        folder.add(&format!("disc/a/im{i}"), &Slice { instance: format!("7.{i}"), ..slice }.bytes());
    }
    folder.add("outside", &Slice::default().bytes());
    let record = |parts: &str| [text((4, 0x1430), b"CS", "IMAGE"), text((4, 0x1500), b"CS", parts)].concat();
    let records = ["A\\IM0", "A\\IM1", "..\\outside", "A\\MISSING", "/etc\\passwd"].map(record);
    let directory = file(&[sequence((4, 0x1220), &records)]);
    folder.add("disc/DICOMDIR", &directory);
    let listing = Listing::open(folder.0.join("disc/DICOMDIR")).unwrap();
    assert_eq!(listing.only().unwrap().files(), 2);
    assert_eq!(listing.skipped().len(), 3);
    for (path, error) in listing.skipped() {
        let said = error.to_string();
        assert!(said.contains("within its own") || path.ends_with("MISSING"), "{}: {said}", path.display());
    }
    // The folder has the same images, and its DICOMDIR isn't one.
    let listing = Listing::open(folder.0.join("disc")).unwrap();
    assert_eq!((listing.only().unwrap().files(), listing.others()), (2, 1));
}

/// A mask is written as a segmentation and read again: a stack for each segment, its slices where the mask's are.
#[test]
fn a_segmentation_is_the_mask() {
    let folder = Folder::new("segmentation");
    let tilted = [0.6, 0.8, 0.0, 0.0, 0.0, -1.0];
    let slices = at(&[0.0, 3.0, 6.0]).into_iter().map(|slice| {
        let [.., z] = slice.position.unwrap();
        Slice { orientation: tilted, position: Some([-0.8 * z, 0.6 * z, 1.0]), ..slice }
    });
    folder.slices(slices);
    let listing = folder.listing();
    let stack = listing.only().unwrap().stack().unwrap();
    let image = stack.read().unwrap();
    let labels: Vec<u8> =
        (0..36).map(|i| if i < 12 { 0 } else { (i % 5 == 0) as u8 + 2 * (i % 7 == 0 && i % 5 != 0) as u8 }).collect();
    let mask = Tensor::from_slice(&labels, &[3, 3, 4], Device::Cpu).unwrap();
    let segments = [Segment::new("One", "a test"), Segment::new("Zwei (ä)", "a test")];
    let path = folder.0.join("segmentation.dcm");
    stack.write_segmentation(&path, &mask, &segments).unwrap();
    let first = fs::read(&path).unwrap();
    stack.write_segmentation(&path, &mask, &segments).unwrap();
    assert_eq!(fs::read(&path).unwrap(), first);

    let read = Listing::open(&path).unwrap();
    let series = read.only().unwrap();
    assert_eq!((series.modality(), series.study_uid(), series.stacks().len()), ("SEG", "1.2", 2));
    for (number, stack) in (1u8..).zip(series.stacks()) {
        assert!(stack.label().contains(&format!("segment {number}")), "{}", stack.label());
        let volume = stack.read().unwrap();
        // The first slice has no voxel of a segment.
        let expected: Vec<u8> = labels[12..].iter().map(|&label| u8::from(label == number)).collect();
        assert_eq!(volume.voxels().to_vec::<u8>().unwrap(), expected);
        for (place, index) in [([0.0, 0.0, 0.0], [0.0, 0.0, 1.0]), ([3.0, 2.0, 1.0], [3.0, 2.0, 2.0])] {
            let [a, b] = [geometry::apply(volume.affine(), place), geometry::apply(image.affine(), index)];
            assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6), "{a:?} {b:?}");
        }
    }
    // An empty mask is a segmentation too.
    let empty = Tensor::zeros(&[3, 3, 4], DType::U8, Device::Cpu).unwrap();
    stack.write_segmentation(&path, &empty, &segments).unwrap();
    assert_eq!(dicom::read_file(&path).unwrap().voxels().to_vec::<u8>().unwrap(), [0; 12]);

    let refused = |mask: &Tensor, segments: &[Segment]| {
        stack.write_segmentation(folder.0.join("no.dcm"), mask, segments).unwrap_err().to_string()
    };
    assert!(refused(&mask, &segments[..1]).contains("label 2; expected 0 to 1"));
    assert!(refused(&mask, &[]).contains("0 segments"));
    assert!(refused(&Tensor::zeros(&[3, 4, 3], DType::U8, Device::Cpu).unwrap(), &segments).contains("(3, 3, 4)"));
    assert!(refused(&mask, &[Segment::new("a\\b", "c"), Segment::new("d", "e")]).contains("a label of"));
    assert!(!folder.0.join("no.dcm").exists());
}

#[test]
fn what_cant_be_read_says_why() {
    let with = |elements: &[Vec<u8>]| dicom::read_bytes(&file(elements)).unwrap_err().to_string();
    assert!(dicom::read_bytes(b"").unwrap_err().to_string().contains("not a DICOM file"));
    assert!(with(&[text((8, 0x60), b"CS", "SR")]).contains("no pixels, in an object of modality SR"));
    let whole = Slice::default().bytes();
    for end in 0..whole.len() {
        assert!(dicom::read_bytes(&whole[..end]).is_err(), "{end}");
    }
    let mut other = whole.clone();
    let at = whole.windows(19).position(|part| part == b"1.2.840.10008.1.2.1").unwrap();
    other.splice(at - 2..at + 20, [&[22, 0][..], b"1.2.840.10008.1.2.4.99"].concat());
    let error = dicom::read_bytes(&other).unwrap_err().to_string();
    assert!(error.contains("transfer syntax \"1.2.840.10008.1.2.4.99\""), "{error}");
    // 65535 × 65535 pixels, in bytes and in a stream of JPEG.
    let big = |pixels: Vec<u8>| {
        with(&[short((0x28, 0x10), 65535), short((0x28, 0x11), 65535), short((0x28, 0x100), 16), pixels])
    };
    let error = big(element((0x7FE0, 0x10), b"OW", &[0; 100]));
    assert!(error.contains("100 bytes of pixels; expected 8589672450"), "{error}");
}
