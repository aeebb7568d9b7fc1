//! Files that PyTorch has written (`pytorch/generate.py`), compared with what it says of them.

use std::path::{Path, PathBuf};

use tomograd_core::ErrorKind;
use tomograd_io::{
    StoredDType, Weights,
    pytorch::{self, Contents, Kind},
};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pytorch")
}

fn load(name: &str) -> Contents {
    pytorch::load(folder().join(name)).unwrap()
}

fn number(value: &serde_json::Value) -> f64 {
    value.as_f64().or_else(|| value.as_str()?.parse().ok()).unwrap()
}

#[test]
fn every_tensor_is_what_pytorch_says() {
    let expected = std::fs::read_to_string(folder().join("expected.json")).unwrap();
    let expected: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&expected).unwrap();
    let (mut compared, mut unreadable) = (0, Vec::new());
    for (file, tensors) in &expected {
        let weights = Weights::open(folder().join(file)).unwrap();
        let tensors = tensors.as_object().unwrap();
        let found: Vec<&str> = weights.tensors().iter().map(|tensor| tensor.name()).collect();
        // Nothing is found that PyTorch doesn't have.
        if !file.ends_with("safetensors") {
            let readable = tensors.keys().filter(|name| found.contains(&&name[..]));
            let mut order: Vec<&str> = readable.map(String::as_str).collect();
            order.sort_unstable();
            // The parts of a sparse tensor are arguments of a function that isn't called.
            let mut sorted: Vec<&str> = found.iter().copied().filter(|name| !name.starts_with("sparse.args")).collect();
            sorted.sort_unstable();
            assert_eq!(sorted, order, "{file}");
        }
        for (name, about) in tensors {
            let place = format!("{file}: {name}");
            let Ok(tensor) = weights.get(name) else {
                let skipped = weights.skipped().iter().find(|skipped| skipped.name == *name);
                unreadable.push(skipped.unwrap_or_else(|| panic!("{place} isn't listed")).name.clone());
                continue;
            };
            let shape: Vec<u64> = tensor.shape().iter().map(|&size| size as u64).collect();
            let expected: Vec<u64> = about["shape"].as_array().unwrap().iter().map(|x| x.as_u64().unwrap()).collect();
            assert_eq!(shape, expected, "{place}");
            let read = tensor.read().unwrap_or_else(|error| panic!("{place}: {error}"));
            assert_eq!((read.shape(), read.dtype()), (tensor.shape(), tensor.dtype()), "{place}");
            let values = about["values"].as_array().unwrap().iter().map(number);
            for (value, expected) in read.to_vec_f64().unwrap().into_iter().zip(values) {
                assert!(value == expected || value.is_nan() && expected.is_nan(), "{place}: {value}, not {expected}");
                compared += 1;
            }
        }
    }
    unreadable.sort();
    unreadable.dedup();
    assert_eq!(unreadable, ["by_channel", "complex", "complex128", "complex64", "quantised", "windows"]);
    assert!(compared > 1500 && expected.len() > 25, "{compared} values of {} files", expected.len());
}

#[test]
fn values_are_those_of_python() {
    for name in ["values_2.pt", "values_4.pt", "values_5.pt"] {
        let contents = load(name);
        let root = contents.root();
        let at = |key: &str| root.get(key).unwrap_or_else(|| panic!("{name} has no {key}"));
        assert_eq!((root.kind(), at("none").kind()), (Kind::Dict, Kind::None));
        assert_eq!((at("true").as_bool(), at("false").as_bool()), (Some(true), Some(false)));
        assert_eq!((at("int").as_i64(), at("long").as_i64()), (Some(-7), Some(1 << 40)));
        assert_eq!(
            (at("longer").kind(), at("longer").as_bytes()),
            (Kind::BigInt, Some(&[0, 0, 0, 0, 0, 0, 0, 0, 64][..]))
        );
        assert_eq!((at("float").as_f64(), at("text").as_text()), (Some(0.1), Some("tëxt")));
        let bytes = ["bytes", "bytearray", "empty_bytes"].map(|key| at(key).as_bytes().unwrap().to_vec());
        assert_eq!(bytes, [vec![0, 255], b"ab".to_vec(), vec![]]);
        assert_eq!(
            (at("tuple").kind(), at("tuple").get("1").unwrap().get("0").unwrap().as_i64()),
            (Kind::Tuple, Some(2))
        );
        for (key, member) in [("set", 3), ("frozenset", 4)] {
            assert_eq!((at(key).kind(), at(key).members().next().unwrap().as_i64()), (Kind::Set, Some(member)));
        }
        assert_eq!(at("dict").get("1").unwrap().as_text(), Some("one"));
        assert_eq!(root.path(["ordered", "a"]).unwrap().as_i64(), Some(1));
        assert_eq!(root.path(["default", "k", "0"]).unwrap().as_i64(), Some(1));
        assert_eq!(at("dtype").as_global(), Some("torch.float16"));
        let complex = at("complex").as_object().unwrap();
        assert_eq!(complex.args().unwrap().get("1").unwrap().as_f64(), Some(2.0));
        // The list that holds itself.
        let list = at("list");
        assert_eq!(list.path(["2", "2", "2", "0"]).unwrap().as_i64(), Some(1));
        assert!(list.to_string().len() < 250 && list.to_string().starts_with("[1, [2, []], [1, "), "{list}");
        assert!(contents.tensors().unwrap().is_empty());
        contents.strict().unwrap();
    }
}

#[test]
fn classes_are_names_and_a_strict_reader_refuses_them() {
    let contents = load("nnunet.pth");
    let root = contents.root();
    assert_eq!(root.get("current_epoch").unwrap().as_i64(), Some(1000));
    assert_eq!(root.get("_best_ema").unwrap().as_f64(), Some(0.875));
    assert_eq!(root.path(["logging", "mean_fg_dice", "0"]).unwrap().as_f64(), Some(0.5));
    assert_eq!(root.path(["init_args", "device"]).unwrap().as_text(), Some("cuda:0"));
    assert_eq!(root.path(["init_args", "shape", "1"]).unwrap().as_i64(), Some(3));
    let custom = root.get("custom").unwrap();
    assert_eq!(custom.as_object().unwrap().global(), "__main__.Custom");
    assert_eq!(custom.get("rate").unwrap().as_f64(), Some(0.5));
    assert_eq!(contents.globals().collect::<Vec<_>>(), ["__main__.Custom"]);
    let refused = contents.strict().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Format);
    assert!(refused.to_string().contains("__main__.Custom"), "{refused}");

    let contents = load("lightning.ckpt");
    let parameters = contents.root().get("hyper_parameters").unwrap();
    assert_eq!(parameters.as_object().unwrap().global(), "argparse.Namespace");
    assert_eq!(parameters.get("width").unwrap().as_i64(), Some(8));
    let path = parameters.get("path").unwrap().as_object().unwrap();
    assert!(path.global().ends_with("PosixPath"), "{}", path.global());
    let names: Vec<&str> = contents.globals().collect();
    assert!(names.contains(&"argparse.Namespace") && names.contains(&"__main__.Colour"), "{names:?}");

    let weights = Weights::open(folder().join("lightning.ckpt")).unwrap();
    assert_eq!(weights.metadata()["epoch"], "9");
    assert!(weights.objects().contains(&("hyper_parameters".to_owned(), "argparse.Namespace".to_owned())));
    assert!(weights.strict().unwrap_err().to_string().contains("argparse.Namespace"));
    Weights::open(folder().join("optimizer.pt")).unwrap().strict().unwrap();
}

#[test]
fn numbers_of_numpy_are_numbers() {
    for name in ["arrays_2.pth", "arrays_5.pth"] {
        let contents = load(name);
        let scalars = contents.root().get("scalars").unwrap();
        assert_eq!(scalars.get("0").unwrap().as_i64(), Some(-3));
        assert_eq!(scalars.get("1").unwrap().as_bytes(), Some(&[0, 0, 0, 0, 0, 0, 0, 128, 0][..]));
        assert_eq!(scalars.get("2").unwrap().as_bool(), Some(true));
        assert_eq!(scalars.get("3").unwrap().as_f64(), Some(0.5));
        let stored = contents.root().get("big_endian").unwrap().tensor("x").unwrap();
        assert_eq!(stored.stored(), StoredDType::I32);
        assert_eq!(stored.read().unwrap().to_vec::<i32>().unwrap(), [0, 1, 2, 3]);
    }
}

#[test]
fn a_repeated_tensor_takes_the_memory_of_its_storage() {
    let weights = Weights::open(folder().join("views.pth")).unwrap();
    let expanded = weights.get("expanded").unwrap().read().unwrap();
    assert_eq!((expanded.shape(), expanded.strides()), (&[2, 5][..], &[1, 0][..]));
}

#[test]
fn what_is_no_plain_tensor_is_named() {
    let weights = Weights::open(folder().join("kinds.pth")).unwrap();
    let skipped: Vec<(&str, &str)> =
        weights.skipped().iter().map(|skipped| (&skipped.name[..], &skipped.why[..])).collect();
    assert!(matches!(skipped[..], [("negated", why)] if why.contains("negated")), "{skipped:?}");
    let objects: Vec<&str> = weights.objects().iter().map(|(name, _)| &name[..]).collect();
    assert_eq!(objects, ["sparse", "sparse.args.0", "meta"]);
    assert!(weights.globals().iter().any(|name| name.ends_with("_rebuild_sparse_tensor")), "{:?}", weights.globals());
}

#[test]
fn damage_is_told() {
    // Also of a tensor whose elements lie in another order than its axes.
    for (file, name, value, other) in
        [("protocol_2.pth", "weight", 1.25f32, "bias"), ("views.pth", "channels_last", 23.0, "parameter")]
    {
        let mut bytes = std::fs::read(folder().join(file)).unwrap();
        let at = bytes.windows(4).rposition(|part| part == value.to_le_bytes()).unwrap();
        bytes[at] ^= 1;
        let tensors = pytorch::from_bytes(bytes).unwrap().tensors().unwrap();
        let get = |name: &str| tensors.iter().find(|tensor| tensor.name() == name).unwrap();
        let error = get(name).read().unwrap_err();
        assert!(error.to_string().contains("checksum"), "{error}");
        assert!(get(other).read().is_ok());
    }

    let bytes = std::fs::read(folder().join("protocol_2.pth")).unwrap();
    let error = pytorch::from_bytes(bytes[..bytes.len() / 2].to_vec()).unwrap_err();
    assert!(error.to_string().contains("no directory"), "{error}");
    let error = pytorch::from_bytes(b"no such thing".to_vec()).unwrap_err();
    assert!(error.to_string().contains("neither"), "{error}");
    // A pickle of protocol 2 of something else: {}.
    let error = pytorch::from_bytes(b"\x80\x02}q\x00.".to_vec()).unwrap_err();
    assert!(error.to_string().contains("magic number"), "{error}");
    let mut tar = vec![0; 512];
    tar[257..262].copy_from_slice(b"ustar");
    assert!(pytorch::from_bytes(tar.clone()).unwrap_err().to_string().contains("0.1.10"));
    let path = std::env::temp_dir().join(format!("tomograd-tar-{}.pth", std::process::id()));
    std::fs::write(&path, tar).unwrap();
    let error = Weights::open(&path).unwrap_err();
    std::fs::remove_file(path).unwrap();
    assert!(error.to_string().contains("0.1.10"), "{error}");
}

#[test]
fn an_index_names_files_of_its_folder_alone() {
    let folder = std::env::temp_dir().join(format!("tomograd-index-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let index = folder.join("model.safetensors.index.json");
    for file in ["../secret", "/etc/passwd", "", "a/../b", "..\\\\b"] {
        std::fs::write(&index, format!(r#"{{"weight_map":{{"a":"{file}"}}}}"#)).unwrap();
        let error = Weights::open(&index).unwrap_err();
        assert!(error.to_string().contains("stays in the index's folder"), "{error}");
    }
    std::fs::copy(self::folder().join("model-00001-of-00002.safetensors"), folder.join("part")).unwrap();
    std::fs::write(&index, r#"{"weight_map":{"a.weight":"part","absent":"part"}}"#).unwrap();
    assert!(Weights::open(&index).unwrap_err().to_string().contains("nothing is called absent"));
    std::fs::write(&index, r#"{"weight_map":{}}"#).unwrap();
    assert!(Weights::open(&index).unwrap().tensors().is_empty());
    std::fs::write(&index, r#"{"weight_map":{"a":"model.safetensors.index.json"}}"#).unwrap();
    assert!(Weights::open(&index).is_err(), "an index in an index");
    std::fs::remove_dir_all(folder).unwrap();
}
