use crate::Volume;

/// A header of (4, 3, 2) shorts with these lines in place of those of the same key, and its data.
fn file(lines: &[&str], data: &[u8]) -> Vec<u8> {
    let key = |line: &str| line.split('=').next().unwrap().trim().to_owned();
    let mut fields: Vec<String> = [
        "ObjectType = Image",
        "NDims = 3",
        "TransformMatrix = 1 0 0 0 1 0 0 0 1",
        "Offset = 10 20 30",
        "ElementSpacing = 1 2 3",
        "DimSize = 4 3 2",
        "ElementType = MET_SHORT",
    ]
    .map(str::to_owned)
    .to_vec();
    let mut place = "ElementDataFile = LOCAL";
    for line in lines {
        fields.retain(|field| key(field) != key(line.trim_start_matches('-')));
        if key(line) == "ElementDataFile" {
            place = line;
        } else if !line.starts_with('-') {
            fields.push((*line).to_owned());
        }
    }
    [format!("{}\n{place}\n", fields.join("\n")).as_bytes(), data].concat()
}

fn data() -> Vec<u8> {
    (0..24i16).flat_map(i16::to_le_bytes).collect()
}

fn read(lines: &[&str]) -> tomograd_core::Result<Volume> {
    Volume::from_bytes(&file(lines, &data()))
}

#[test]
fn rows_of_the_matrix_are_the_directions_of_axes() {
    let affine = |lines: &[&str]| {
        let [a, b, c, _] = *read(lines).unwrap().affine();
        [a, b, c]
    };
    assert_eq!(affine(&[]), [[-1.0, 0.0, 0.0, -10.0], [0.0, -2.0, 0.0, -20.0], [0.0, 0.0, 3.0, 30.0]]);
    let turned = affine(&["TransformMatrix = 0 1 0 0 0 1 1 0 0"]);
    assert_eq!(turned, [[0.0, 0.0, -3.0, -10.0], [-1.0, 0.0, 0.0, -20.0], [0.0, 2.0, 0.0, 30.0]]);
    // ElementSize counts where there is no ElementSpacing, and what isn't said has a note.
    assert_eq!(read(&["-ElementSpacing", "ElementSize = 2 2 2"]).unwrap().spacing(), [2.0; 3]);
    assert!(read(&[]).unwrap().notes().is_empty());
    assert_eq!(read(&["-ElementSpacing", "-TransformMatrix"]).unwrap().notes().len(), 2);
    let notes = read(&["ElementToIntensityFunctionSlope = 2", "ElementToIntensityFunctionOffset = 0"]).unwrap();
    assert!(notes.notes().len() == 1 && notes.notes()[0].contains("isn't applied"));
    // Time behind space.
    let matrix = "TransformMatrix = 1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1";
    let timed = ["NDims = 4", "DimSize = 2 3 2 2", matrix, "Offset = 1 2 3 4", "ElementSpacing = 1 2 3 0.5"];
    let volume = read(&timed).unwrap();
    assert_eq!((volume.voxels().shape(), volume.geometry().pixdim[4]), (&[2, 2, 3, 2][..], 0.5));
    let mixed = matrix.replace("0 0 0 0 1 0 0", "0 0 0 0 1 0 1");
    assert!(read(&[timed[0], timed[1], &mixed, timed[3], timed[4]]).is_err());
}

#[test]
fn lies_are_errors_that_say_so() {
    for (lines, says) in [
        (&["ObjectType = Tube"][..], "Tube"),
        (&["-NDims"], "without NDims"),
        (&["NDims = 8"], "1 to 7"),
        (&["DimSize = 4 3"], "DimSize"),
        (&["DimSize = 4 3 0"], "DimSize"),
        (&["DimSize = 4 3 3"], "bytes of voxels"),
        (&["DimSize = 9223372036854775807 1 1"], ""),
        (&["DimSize = 4294967296 4294967296 4294967296"], ""),
        (&["ElementType = MET_OTHER"], "MET_OTHER"),
        (&["ElementNumberOfChannels = 0"], "ElementNumberOfChannels"),
        (&["ElementNumberOfChannels = 18446744073709551615"], ""),
        (&["ElementSpacing = 1 2"], "3 numbers"),
        (&["ElementSpacing = 1 2 nan"], "3 numbers"),
        (&["ElementSpacing = 1 2 0"], "singular"),
        (&["TransformMatrix = 1 0 0 0 1 0"], "9 numbers"),
        (&["TransformMatrix = 1 0 0 1 0 0 0 0 1"], "singular"),
        (&["CompressedData = maybe"], "True or False"),
        (&["CompressedData = True"], ""),
        (&["CompressedData = True", "CompressedDataSize = -5"], "CompressedDataSize"),
        (&["HeaderSize = -2"], "HeaderSize"),
        (&["HeaderSize = 1"], "bytes of voxels"),
        (&["HeaderSize = 99999999999"], "ends within"),
        (&["HeaderSizePerSlice = 4"], "HeaderSizePerSlice"),
        (&["BinaryData = False"], ""),
        (&["ElementDataFile = other.raw"], "the path of the header"),
        (&["ElementDataFile = LIST 1"], "data files"),
        (&["ElementDataFile ="], "without a name"),
        (&["nonsense"], "KEY = VALUE"),
    ] {
        let error = read(lines).unwrap_err().to_string();
        assert!(error.contains(says) && error.lines().count() == 1, "{lines:?}: {error}");
    }
    let twice = "NDims = 3\nNDims = 3\n";
    assert!(Volume::from_bytes(twice.as_bytes()).unwrap_err().to_string().contains("twice"));
    assert!(Volume::from_bytes(b"NDims = 3\n").is_err());
}

#[test]
fn every_flipped_bit_of_compressed_data_is_told() {
    let volume = read(&[]).unwrap();
    let path = std::env::temp_dir().join(format!("tomograd-metaimage-{}.mha", std::process::id()));
    volume.write(&path).unwrap();
    let good = std::fs::read(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    let start = good.windows(6).position(|part| part == b"LOCAL\n").unwrap() + 6;
    let expected = volume.voxels().to_vec_f64().unwrap();
    let mut same = 0;
    for bit in 8 * start..8 * good.len() {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        if let Ok(read) = Volume::from_bytes(&bytes) {
            assert_eq!(read.voxels().to_vec_f64().unwrap(), expected, "bit {bit}");
            same += 1;
        }
    }
    // The size of the window, and padding.
    assert!(same < 16, "{same}");
    for end in start..good.len() {
        assert!(Volume::from_bytes(&good[..end]).is_err(), "{end}");
    }
}
