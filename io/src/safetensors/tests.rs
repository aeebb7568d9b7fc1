use tomograd_core::Device;

use super::*;

fn sample() -> (Vec<(String, Tensor)>, BTreeMap<String, String>) {
    let tensor =
        |dtype| Tensor::arange(6, DType::F32, Device::Cpu).unwrap().converted(dtype).unwrap().reshape(&[2, 3]).unwrap();
    let tensors = DType::ALL.iter().map(|&dtype| (format!("t.{dtype}"), tensor(dtype))).collect();
    (tensors, BTreeMap::from([("format".to_owned(), "1".to_owned())]))
}

fn bytes() -> Vec<u8> {
    let (tensors, metadata) = sample();
    let mut bytes = Vec::new();
    write(&mut bytes, &tensors, &metadata).unwrap();
    bytes
}

#[test]
fn reads_what_it_writes() {
    let (tensors, metadata) = sample();
    let bytes = bytes();
    let contents = read(&mut &bytes[..], bytes.len() as u64).unwrap();
    assert_eq!(contents.metadata, metadata);
    for ((name, tensor), (expected_name, expected)) in contents.tensors.iter().zip(&tensors) {
        assert_eq!((name, tensor.dtype(), tensor.shape()), (expected_name, expected.dtype(), expected.shape()));
        assert_eq!(tensor.to_vec_f64().unwrap(), expected.to_vec_f64().unwrap());
    }
}

#[test]
fn what_the_reference_implementation_takes_is_read() {
    let read = |header: &str, body: &[u8]| {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(body);
        super::read(&mut &bytes[..], bytes.len() as u64)
    };
    let entry = r#""a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}"#;
    for header in [
        format!(r#"{{"__metadata__":null,{entry}}}"#),
        format!(r#"{{"__metadata__":{{}},{entry}}}"#),
        // Unaligned, with white space and an unknown field.
        format!(" \n{{{entry} }} \t"),
        r#"{"a":{"shape":[2],"more":[{}],"dtype":"U8","data_offsets":[0,2]}}"#.to_owned(),
        // Empty tensors may be anywhere between the others.
        format!(r#"{{"e":{{"dtype":"F64","shape":[3,0],"data_offsets":[2,2]}},{entry}}}"#),
    ] {
        let contents = read(&header, &[7, 8]).unwrap();
        let tensor = contents.tensors.iter().find(|(name, _)| name == "a").unwrap();
        assert_eq!(tensor.1.to_vec::<u8>().unwrap(), [7, 8], "{header}");
        assert!(contents.metadata.is_empty());
    }
    assert!(read("{}", &[]).unwrap().tensors.is_empty());
    for header in [
        r#"{"__metadata__":{"a":null}}"#,
        r#"{"__metadata__":[]}"#,
        r#"{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2],"shape":[2]}}"#,
        r#"{"a":null}"#,
        "[]",
        "null",
    ] {
        assert!(read(header, if header.contains("U8") { &[7, 8] } else { &[] }).is_err(), "{header}");
    }
}

#[test]
fn a_length_that_nobody_holds_takes_no_memory() {
    let header = r#"{"a":{"dtype":"U8","shape":[1125899906842624],"data_offsets":[0,1125899906842624]}}"#;
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    for length in [8 + header.len() as u64 + (1 << 50), u64::MAX] {
        assert!(read(&mut &bytes[..], length).is_err());
    }
}

#[test]
fn truncated_and_lying_files_are_errors() {
    let bytes = bytes();
    for end in 0..bytes.len() {
        assert!(read(&mut &bytes[..end], end as u64).is_err(), "{end}");
    }
    for (from, to) in [("[2,3]", "[2,9]"), ("[0,", "[8,"), ("F32", "F16"), ("[2,3]", "[-1]"), ("BOOL", "F64")] {
        let text = String::from_utf8_lossy(&bytes[8..]).replacen(from, to, 1);
        let mut changed = bytes[..8].to_vec();
        changed.extend_from_slice(text.as_bytes());
        assert!(read(&mut &changed[..], changed.len() as u64).is_err(), "{from}");
    }
    let mut huge = bytes.clone();
    huge[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(read(&mut &huge[..], huge.len() as u64).is_err());
}

#[test]
fn what_no_dtype_holds_is_named_and_the_rest_is_read() {
    let header = r#"{"a":{"dtype":"U64","shape":[1],"data_offsets":[0,8]},"b":{"dtype":"U64","shape":[1],"data_offsets":[8,16]},
        "c":{"dtype":"F4","shape":[2,2],"data_offsets":[16,18]},"d":{"dtype":"NEW","shape":[7],"data_offsets":[18,21]},
        "e":{"dtype":"I8","shape":[2],"data_offsets":[21,23]}}"#;
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend([u64::MAX.to_le_bytes(), 5u64.to_le_bytes()].concat());
    bytes.extend([1, 2, 3, 4, 5, 0x80, 0x7F]);
    let contents = read(&mut &bytes[..], bytes.len() as u64).unwrap();
    let skipped: Vec<&str> = contents.skipped.iter().map(|skipped| &skipped.name[..]).collect();
    assert_eq!(skipped, ["a", "c", "d"]);
    assert!(contents.skipped[2].why.contains("NEW"));
    let values: Vec<Vec<f64>> = contents.tensors.iter().map(|(_, tensor)| tensor.to_vec_f64().unwrap()).collect();
    assert_eq!(values, [vec![5.0], vec![-128.0, 127.0]]);
    // Three 4-bit elements aren't a whole number of bytes.
    let at = bytes.windows(5).position(|part| part == b"[2,2]").unwrap();
    let mut odd = bytes;
    odd[at..at + 5].copy_from_slice(b"[1,3]");
    let error = read(&mut &odd[..], odd.len() as u64).unwrap_err();
    assert!(error.to_string().contains("c lies at 16..18"), "{error}");
}
