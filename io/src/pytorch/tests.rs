//! Pickles that no ordinary program writes: deep, repetitive, cyclic, inconsistent.

use super::*;

/// A file in the format before PyTorch 1.6 with this pickle of an object, these storage keys and trailing bytes.
fn container(object: &[u8], keys: &[u8], behind: &[u8]) -> Vec<u8> {
    let magic = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
    [&magic[..], b"\x80\x02M\xe9\x03.", b"\x80\x02}.", object, keys, behind].concat()
}

fn read(object: &[u8]) -> Result<Contents> {
    from_bytes(container(object, b"\x80\x02].", b""))
}

#[test]
fn depth_takes_no_stack() {
    // Nested lists.
    let lists = [b"]".repeat(300_000), b"a".repeat(299_999), b".".to_vec()].concat();
    let contents = read(&lists).unwrap();
    assert!(contents.tensors().unwrap().is_empty());
    let text = contents.root().to_string();
    assert!(text.starts_with("[[[[[") && text.len() < 250, "{text}");
    // Nested tuples, and objects that are each other's state.
    let tuples = [b")".to_vec(), b"\x85".repeat(300_000), b".".to_vec()].concat();
    assert_eq!(read(&tuples).unwrap().root().kind(), Kind::Tuple);
    let objects =
        [b"ca\nb\nq\x00)\x81".to_vec(), b"h\x00)\x81".repeat(100_000), b"b".repeat(100_000), b".".to_vec()].concat();
    let contents = read(&objects).unwrap();
    assert!(contents.tensors().unwrap().is_empty() && contents.root().get("x").is_none());
    assert!(read(&b"(".repeat(300_000)).is_err());
}

#[test]
fn repetition_takes_no_memory() {
    // Each list contains the previous one twice: 2^60 paths.
    let mut laughs = b"]q\x00".to_vec();
    (0..60u8).for_each(|i| laughs.extend([b']', b'q', i + 1, b'(', b'h', i, b'h', i, b'e']));
    laughs.push(b'.');
    let contents = read(&laughs).unwrap();
    assert!(contents.tensors().unwrap().is_empty());
    assert!(contents.root().to_string().len() < 250);
    // A string of 64 KiB that is encoded a hundred thousand times.
    let text = [b"X\0\0\x01\0".to_vec(), b"a".repeat(1 << 16)].concat();
    let one = b"c_codecs\nencode\nq\x01h\x00X\x06\0\0\0latin1\x86q\x02R";
    let encoded = [text, b"q\x000".to_vec(), one.to_vec(), b"0h\x01h\x02R".repeat(100_000), b".".to_vec()].concat();
    let error = read(&encoded).unwrap_err();
    assert!(error.to_string().contains("unfold"), "{error}");
    // A long key in every one of many dicts: the names would be far longer than the pickle.
    let key = [b"X\0\x04\0\0".to_vec(), b"k".repeat(1 << 10)].concat();
    let dicts = [key, b"q\x000]q\x01(".to_vec(), b"}h\x00Ns".repeat(10_000), b"e.".to_vec()].concat();
    let error = read(&dicts).unwrap().tensors().unwrap_err().to_string();
    assert!(error.contains("far more memory"), "{error}");
}

/// A tensor with these sizes and strides in storage `0`, which has 4 floats.
fn tensor(offset: u8, sizes: &[u8], strides: &[u8]) -> Vec<u8> {
    let numbers =
        |numbers: &[u8]| [&b"("[..], &numbers.iter().flat_map(|&n| [b'K', n]).collect::<Vec<u8>>(), b"t"].concat();
    let storage = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x04NtQ";
    let object = [
        &b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n("[..],
        storage,
        &[b'K', offset],
        &numbers(sizes),
        &numbers(strides),
        b"\x89NtR.",
    ];
    let floats = [4u64.to_le_bytes().to_vec(), (0..4).flat_map(|i| (i as f32).to_le_bytes()).collect()].concat();
    container(&object.concat(), b"\x80\x02]X\x01\0\0\x000a.", &floats)
}

#[test]
fn tensors_stay_in_their_storage() {
    let values = |offset, sizes: &[u8], strides: &[u8]| {
        let contents = from_bytes(tensor(offset, sizes, strides)).unwrap();
        let stored = contents.root().tensor("x")?;
        stored.read()?.to_vec::<f32>()
    };
    assert_eq!(values(0, &[2, 2], &[1, 2]).unwrap(), [0.0, 2.0, 1.0, 3.0]);
    assert_eq!(values(3, &[], &[]).unwrap(), [3.0]);
    assert_eq!(values(2, &[2, 3], &[1, 0]).unwrap(), [2.0, 2.0, 2.0, 3.0, 3.0, 3.0]);
    assert!(values(9, &[0, 3], &[9, 9]).unwrap().is_empty());
    for (offset, sizes, strides) in [(1, [2, 2], [2, 1]), (0, [3, 1], [2, 9]), (4, [1, 1], [0, 0]), (0, [2, 2], [1, 1])]
    {
        assert!(values(offset, &sizes, &strides).is_err(), "{offset} {sizes:?} {strides:?}");
    }
    // 255³² elements from a single one.
    assert!(values(0, &[255; 32], &[0; 32]).is_err());
    // Sizes and strides of different lengths aren't a tensor; the call stays an object.
    let contents = from_bytes(tensor(0, &[2, 2], &[1])).unwrap();
    assert_eq!(contents.root().as_object().unwrap().global(), "torch._utils._rebuild_tensor_v2");
}

#[test]
fn a_storage_can_be_a_view_of_another() {
    let plain = tensor(0, &[2], &[1]);
    let at = plain.windows(6).position(|part| part == b"cpuK\x04N").unwrap() + 5;
    let view = [&plain[..at], b"(X\x01\0\0\x001K\x01K\x03t", &plain[at + 1..]].concat();
    let read = |bytes: Vec<u8>| {
        from_bytes(bytes).unwrap().root().tensor("x").unwrap().read().unwrap().to_vec::<f32>().unwrap()
    };
    assert_eq!((read(plain), read(view)), (vec![0.0, 1.0], vec![1.0, 2.0]));
}

/// An archive with one entry, whose sizes and offsets are only in the zip64 records.
fn zip64(name: &str, content: &[u8]) -> Vec<u8> {
    let long = |numbers: &[u64]| numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>();
    let mut crc = flate2::Crc::new();
    crc.update(content);
    let (size, length) = (content.len() as u64, (name.len() as u16).to_le_bytes());
    let common = [&[45, 0, 0, 0, 0, 0, 0, 0, 0, 0][..], &crc.sum().to_le_bytes(), &[0xFF; 8], &length].concat();
    let local =
        [b"PK\x03\x04", &common[..], &[20, 0], name.as_bytes(), &[1, 0, 16, 0], &long(&[size, size]), content].concat();
    let extra = [&[0x99, 0x99, 2, 0, 7, 7, 1, 0, 24, 0][..], &long(&[size, size, 0])].concat();
    let directory =
        [b"PK\x01\x02\x2d\0", &common[..], &[34, 0], &[0; 10], &[0xFF; 4], name.as_bytes(), &extra].concat();
    let (at, end) = (local.len() as u64, (local.len() + directory.len()) as u64);
    let end64 = [&b"PK\x06\x06"[..], &long(&[44]), &[0; 12], &long(&[1, 1, directory.len() as u64, at])].concat();
    let locator = [&b"PK\x06\x07\0\0\0\0"[..], &long(&[end]), &[1, 0, 0, 0]].concat();
    let end = [&b"PK\x05\x06\0\0\0\0"[..], &[0xFF; 12], &[7, 0], b"comment"].concat();
    [local, directory, end64, locator, end].concat()
}

#[test]
fn large_archives_have_longer_records() {
    let good = zip64("any/data.pkl", b"\x80\x02K\x07.");
    assert_eq!(from_bytes(good.clone()).unwrap().root().as_i64(), Some(7));
    for end in 0..good.len() {
        assert!(from_bytes(good[..end].to_vec()).is_err() || end + 7 >= good.len(), "{end}");
    }
    for place in 0..good.len() {
        for byte in [0, 0x7F, 0xFF] {
            let mut changed = good.clone();
            changed[place] = byte;
            // It is either rejected or read correctly: the checksum protects the pickle.
            if let Ok(contents) = from_bytes(changed) {
                assert_eq!(contents.root().as_i64(), Some(7), "byte {place}");
            }
        }
    }
}

#[test]
fn lying_containers_are_refused() {
    let good = tensor(0, &[4], &[1]);
    for end in 0..good.len() {
        assert!(from_bytes(good[..end].to_vec()).is_err(), "{end}");
    }
    let mut long = good.clone();
    let at = good.len() - 24;
    long[at..at + 8].copy_from_slice(&(1u64 << 61).to_le_bytes());
    assert!(from_bytes(long).unwrap_err().to_string().contains("inside of the file"));
    for (pickle, what) in [
        (&b"\x80\x06N."[..], "protocol 6"),
        (b"h\x07.", "remembered as 7"),
        (b"0.", "taken where there is none"),
        (b"(0.", "taken where there is none"),
        (b"X\xff\xff\xff\xff.", "more"),
        (b"\x8e\xff\xff\xff\xff\xff\xff\xff\xff.", "more"),
        (b"\x97.", "instruction 0x97"),
        (b"]NNs.", "no dict"),
        (b"K\x01K\x02a.", "no list"),
        (b"NQ.", "names no storage"),
    ] {
        let error = read(pickle).unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
    }
}

#[test]
fn nothing_is_called() {
    // os.system("…"), as in an attack: it stays a name with its argument.
    let contents = read(b"\x80\x02cposix\nsystem\nX\x04\0\0\0echo\x85R.").unwrap();
    let object = contents.root().as_object().unwrap();
    assert_eq!((object.global(), object.args().unwrap().to_string()), ("posix.system", "('echo')".to_owned()));
    assert_eq!(contents.strict().unwrap_err().to_string().matches("posix.system").count(), 1);
}
