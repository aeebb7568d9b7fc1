use crate::Volume;

/// A header of (4, 3, 2) shorts with these lines in place of those of the same field, and its data.
fn file(lines: &[&str], data: &[u8]) -> Vec<u8> {
    let mut fields: Vec<String> = [
        "type: short",
        "dimension: 3",
        "space: left-posterior-superior",
        "sizes: 4 3 2",
        "space directions: (1,0,0) (0,2,0) (0,0,3)",
        "endian: little",
        "encoding: raw",
        "space origin: (10,20,30)",
    ]
    .map(str::to_owned)
    .to_vec();
    for line in lines {
        let name = line.split(':').next().unwrap();
        fields.retain(|field| field.split(':').next() != Some(name));
        // `-FIELD` takes it away.
        if let Some(name) = line.strip_prefix('-') {
            fields.retain(|field| field.split(':').next() != Some(name));
        } else {
            fields.push((*line).to_owned());
        }
    }
    [format!("NRRD0005\n# a comment\n{}\nkey:=value: with anything\n\n", fields.join("\n")).as_bytes(), data].concat()
}

fn data() -> Vec<u8> {
    (0..24i16).flat_map(i16::to_le_bytes).collect()
}

fn read(lines: &[&str]) -> tomograd_core::Result<Volume> {
    Volume::from_bytes(&file(lines, &data()))
}

fn affine(lines: &[&str]) -> [[f64; 4]; 3] {
    let [a, b, c, _] = *read(lines).unwrap().affine();
    [a, b, c]
}

#[test]
fn spaces_units_and_axes_become_ras_millimetres() {
    let lps = [[-1.0, 0.0, 0.0, -10.0], [0.0, -2.0, 0.0, -20.0], [0.0, 0.0, 3.0, 30.0]];
    assert_eq!(affine(&[]), lps);
    let ras = [[1.0, 0.0, 0.0, 10.0], [0.0, 2.0, 0.0, 20.0], [0.0, 0.0, 3.0, 30.0]];
    assert_eq!(affine(&["space: RAS"]), ras);
    assert_eq!(affine(&["space: right-anterior-superior", "space units: \"cm\" \"mm\" \"um\""])[0][0], 10.0);
    assert_eq!(affine(&["space: RAS", "space units: \"cm\" \"mm\" \"um\""])[2][3], 0.03);
    // A space with time, whose axis is the last.
    let timed = ["dimension: 4", "sizes: 2 3 2 2", "space: LPST"];
    let directions = "space directions: (1,0,0,0) (0,2,0,0) (0,0,3,0) (0,0,0,0.5)";
    let volume = read(&[timed[0], timed[1], timed[2], directions, "space origin: (10,20,30,0)"]).unwrap();
    assert_eq!((volume.voxels().shape(), volume.geometry().pixdim[4]), (&[2, 2, 3, 2][..], 0.5));
    assert_eq!(volume.affine()[..3], lps);
    // Orientation that isn't said is LPS, and there is a note of it.
    assert!(read(&[]).unwrap().notes().is_empty());
    for lines in [&["space: 3D-right-handed"][..], &["-space", "space dimension: 3"]] {
        assert_eq!(affine(lines), lps);
        assert!(read(lines).unwrap().notes()[0].contains("taken as LPS"));
    }
    let none = ["-space", "-space directions", "-space origin"];
    let volume = read(&none).unwrap();
    assert_eq!((volume.spacing(), volume.notes().len()), ([1.0; 3], 4));
    // The least coordinate is the border of the first voxel, or its centre.
    let mins = [none[0], none[1], none[2], "spacings: 1 2 3", "axis mins: 10 20 30"];
    assert_eq!(affine(&mins)[2], [0.0, 0.0, 3.0, 31.5]);
    let nodes = [mins[0], mins[1], mins[2], mins[3], mins[4], "centers: node node node"];
    assert_eq!(affine(&nodes)[2], [0.0, 0.0, 3.0, 30.0]);
    assert!(read(&["space units: \"furlong\" \"mm\" \"mm\""]).unwrap().notes()[0].contains("furlong"));
}

#[test]
fn axes_that_arent_spatial_come_in_front() {
    let shape = |lines: &[&str]| {
        let volume = read(lines).unwrap();
        (volume.voxels().shape().to_vec(), volume.voxels().to_vec_f64().unwrap()[..4].to_vec())
    };
    let first = ["sizes: 2 4 3", "space directions: none (1,0,0) (0,2,0)", "kinds: vector domain domain"];
    assert_eq!(shape(&first), (vec![2, 1, 3, 4], vec![0.0, 2.0, 4.0, 6.0]));
    let middle = ["sizes: 4 2 3", "space directions: (1,0,0) none (0,2,0)"];
    assert_eq!(shape(&middle), (vec![2, 1, 3, 4], vec![0.0, 1.0, 2.0, 3.0]));
    let by_kind = ["-space", "-space directions", "-space origin", "kinds: list space space", "sizes: 2 4 3"];
    assert_eq!(shape(&by_kind).0, [2, 1, 3, 4]);
    // A row.
    let row = ["dimension: 1", "sizes: 24", "space directions: (0,0,2)"];
    assert_eq!(shape(&row), (vec![1, 1, 24], vec![0.0, 1.0, 2.0, 3.0]));
}

#[test]
fn skips_lead_to_the_data() {
    let with = |lines: &[&str], front: &[u8]| Volume::from_bytes(&file(lines, &[front, &data()].concat()));
    let values: Vec<i32> = (0..24).collect();
    for (lines, front) in [
        (&["line skip: 2"][..], &b"one\ntwo\n"[..]),
        (&["byte skip: 3"], b"abc"),
        (&["byte skip: -1"], b"anything"),
        (&["lineskip: 1", "byteskip: 2"], b"one\nab"),
    ] {
        assert_eq!(with(lines, front).unwrap().voxels().to_vec::<i32>().unwrap(), values, "{lines:?}");
    }
    for lines in [&["byte skip: 1"][..], &["line skip: 99999999999"], &["byte skip: -2"], &["line skip: -1"]] {
        assert!(with(lines, b"").is_err(), "{lines:?}");
    }
}

#[test]
fn lies_are_errors_that_say_so() {
    for (lines, says) in [
        (&["type: block"][..], "the type \"block\""),
        (&["-type"], "without the field \"type\""),
        (&["dimension: 17"], "dimension"),
        (&["dimension: 4"], "4 numbers"),
        (&["sizes: 4 3 0"], "sizes"),
        (&["sizes: 4 3 -2"], "sizes"),
        (&["sizes: 4 3 3"], "bytes of voxels"),
        (&["sizes: 4294967296 4294967296 4294967296"], ""),
        (&["sizes: 9223372036854775807 1 1"], ""),
        (&["encoding: bzip2"], "the encoding \"bzip2\""),
        (&["encoding: gzip"], ""),
        (&["encoding: ascii"], ""),
        (&["encoding: hex"], ""),
        (&["-endian"], "endian"),
        (&["endian: middle"], "endian"),
        (&["space: mars"], "the space \"mars\""),
        (&["space dimension: 3"], "space dimension"),
        (&["-space"], "without a space"),
        (&["space directions: (1,0,0) (0,2,0)"], "one for each axis"),
        (&["space directions: (1,0) (0,2) (0,0)"], "finite numbers"),
        (&["space directions: (1,0,0) (2,0,0) (0,0,3)"], "singular"),
        (&["space directions: (1,0,0) (0,nan,0) (0,0,3)"], "finite numbers"),
        (&["space directions: none none none"], "0 spatial axes"),
        (&["space directions: (1,0,0) (0,2,0 (0,0,3)"], "vectors as"),
        (&["space origin: (1,2)"], "space origin"),
        (&["space origin: (1,2,inf)"], "space origin"),
        (&["kinds: domain domain"], "kinds"),
        (&["data file: other.raw"], "the path of the header"),
        (&["data file: LIST"], "1 data files"),
        (&["data file: LIST 0"], "files of 1 to 3 axes"),
        (&["data file: a%d.raw 1 9 1"], "file names numbered"),
    ] {
        let error = read(lines).unwrap_err().to_string();
        assert!(error.contains(says) && error.lines().count() == 1, "{lines:?}: {error}");
    }
    let twice = [&b"NRRD0004\ntype: short\ntype: short\n\n"[..], &data()].concat();
    assert!(Volume::from_bytes(&twice).unwrap_err().to_string().contains("twice"));
    for first in ["NRRD0009\n", "NRRD\n", "NRRD0004 \nnonsense\n\n", "NRRD0004\n"] {
        assert!(Volume::from_bytes(first.as_bytes()).is_err(), "{first}");
    }
}

#[test]
fn text_holds_what_the_type_holds() {
    let with = |kind: &str, text: &str| {
        let lines = [kind, "dimension: 1", "sizes: 3", "space directions: (1,0,0)", "encoding: text"];
        Volume::from_bytes(&file(&lines, text.as_bytes())).map(|volume| volume.voxels().to_vec_f64().unwrap())
    };
    assert_eq!(with("type: uchar", " 0,255\n7").unwrap(), [0.0, 255.0, 7.0]);
    assert_eq!(with("type: double", "1e300 -0.5 inf\n").unwrap(), [1e300, -0.5, f64::INFINITY]);
    assert!(with("type: float", "nan 1 2").unwrap()[0].is_nan());
    for (kind, text) in [
        ("type: uchar", "0 256 7"),
        ("type: short", "1 2"),
        ("type: int", "1 2.5 3"),
        ("type: int", "a b c"),
        ("type: int", ""),
    ] {
        assert!(with(kind, text).is_err(), "{kind} {text}");
    }
    let long = format!("1 2 {}", "3".repeat(1000));
    assert!(with("type: double", &long).unwrap_err().to_string().contains("without an end"));
}

#[test]
fn a_header_leads_to_no_other_folder() {
    let folder = std::env::temp_dir().join(format!("tomograd-nrrd-{}", std::process::id()));
    std::fs::create_dir_all(folder.join("own")).unwrap();
    std::fs::write(folder.join("secret.raw"), data()).unwrap();
    std::fs::write(folder.join("own/a.raw"), data()).unwrap();
    let path = folder.join("own/a.nhdr");
    let read = |name: &str| {
        std::fs::write(&path, file(&[&format!("data file: {name}")], b"")).unwrap();
        Volume::read(&path)
    };
    assert_eq!(read("a.raw").unwrap().voxels().to_vec::<i32>().unwrap()[23], 23);
    let absolute = folder.join("secret.raw");
    for name in ["../secret.raw", absolute.to_str().unwrap(), "/dev/zero", "absent.raw", "."] {
        let error = read(name).unwrap_err().to_string();
        assert!(error.contains("a.nhdr") && error.lines().count() == 1, "{error}");
    }
    std::fs::remove_dir_all(folder).unwrap();
}
