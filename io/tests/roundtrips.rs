//! Any tensors and any volumes come back as they were written.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tomograd_core::{DType, Device, Seed, Tensor};
use tomograd_io::{Volume, safetensors};

fn tensor(shape: &[usize], dtype: DType, seed: u64) -> Tensor {
    let values = Tensor::uniform(shape, 0.0, 250.0, Seed::new(seed), DType::F32, Device::Cpu).unwrap();
    values.converted(dtype).unwrap()
}

fn same(a: &Tensor, b: &Tensor) -> bool {
    a.shape() == b.shape() && a.dtype() == b.dtype() && a.to_vec_f64().unwrap() == b.to_vec_f64().unwrap()
}

fn dtype() -> impl Strategy<Value = DType> {
    prop::sample::select(DType::ALL.to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn tensors(
        parts in prop::collection::vec((any::<String>(), prop::collection::vec(0usize..4, 0..5), dtype()), 0..6),
        metadata in prop::collection::btree_map(any::<String>(), any::<String>(), 0..3),
        seed: u64,
    ) {
        let mut tensors = Vec::new();
        for (i, (name, shape, dtype)) in parts.into_iter().enumerate() {
            // A number makes the names differ; what is in front of it is anything.
            tensors.push((format!("{name}{i}"), tensor(&shape, dtype, seed.wrapping_add(i as u64))));
        }
        let mut bytes = Vec::new();
        safetensors::write(&mut bytes, &tensors, &metadata).unwrap();
        let mut again = Vec::new();
        safetensors::write(&mut again, &tensors, &metadata).unwrap();
        prop_assert_eq!(&bytes, &again);
        prop_assert_eq!(u64::from_le_bytes(bytes[..8].try_into().unwrap()) % 8, 0);
        let back = safetensors::read(&mut &bytes[..], bytes.len() as u64).unwrap();
        prop_assert_eq!(&back.metadata, &metadata);
        prop_assert_eq!(back.tensors.len(), tensors.len());
        for ((name, tensor), (expected_name, expected)) in back.tensors.iter().zip(&tensors) {
            prop_assert_eq!(name, expected_name);
            prop_assert!(same(tensor, expected), "{}", name);
        }
    }

    #[test]
    fn volumes(
        shape in prop::collection::vec(1usize..7, 3..5),
        dtype in dtype(),
        // Headers hold f32: quarters are exact in it.
        entries in prop::array::uniform12(-400i32..400),
        compressed: bool,
        seed: u64,
    ) {
        let entry = |i: usize| f64::from(entries[i]) / 4.0;
        let row = |r: usize| {
            let diagonal = |c: usize| if c == r { 200.0 } else { 0.0 };
            [entry(4 * r) + diagonal(0), entry(4 * r + 1) + diagonal(1), entry(4 * r + 2) + diagonal(2), entry(4 * r + 3)]
        };
        let volume = Volume::new(tensor(&shape, dtype, seed), [row(0), row(1), row(2), [0.0, 0.0, 0.0, 1.0]]).unwrap();
        let folder = std::env::temp_dir().join(format!("tomograd-roundtrips-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join(if compressed { "a.nii.gz" } else { "a.nii" });
        volume.write(&path).unwrap();
        let back = Volume::read(&path).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        back.write(&path).unwrap();
        prop_assert!(bytes == std::fs::read(&path).unwrap(), "read and written again, the file is another");
        std::fs::remove_dir_all(&folder).unwrap();

        // The format has no types for these.
        let held = match dtype {
            DType::Bool => DType::U8,
            DType::F16 | DType::BF16 => DType::F32,
            other => other,
        };
        prop_assert!(same(back.voxels(), &volume.voxels().converted(held).unwrap()));
        prop_assert_eq!(back.voxels().to_vec_f64().unwrap(), volume.voxels().to_vec_f64().unwrap());
        prop_assert_eq!(back.affine(), volume.affine());
        prop_assert_eq!(back.orientation(), volume.orientation());
        prop_assert_eq!((back.geometry().qform_code, back.geometry().sform_code), (0, 2));
    }
}

#[test]
fn a_name_that_is_given_twice_is_an_error() {
    let write = |header: &str| {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend([7, 8]);
        safetensors::read(&mut &bytes[..], bytes.len() as u64)
    };
    let entry = |from: usize| format!(r#""a":{{"dtype":"U8","shape":[1],"data_offsets":[{from},{}]}}"#, from + 1);
    let error = write(&format!("{{{},{}}}", entry(0), entry(1))).unwrap_err();
    assert!(error.to_string().contains("twice"), "{error}");
    let error = write(&format!(r#"{{"__metadata__":{{"k":"1","k":"2"}},{}}}"#, entry(0))).unwrap_err();
    assert!(error.to_string().contains("twice"), "{error}");
    let tensors = vec![("a".to_owned(), tensor(&[1], DType::U8, 1)); 2];
    assert!(safetensors::write(&mut Vec::new(), &tensors, &BTreeMap::new()).is_err());
    let tensors = vec![("__metadata__".to_owned(), tensor(&[1], DType::U8, 1))];
    assert!(safetensors::write(&mut Vec::new(), &tensors, &BTreeMap::new()).is_err(), "the format's own name");
}
