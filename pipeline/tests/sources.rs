//! Datasets of every layout: folders of classes, channels in files of their own, CSV files, arrays of NumPy.

mod common;

use std::{path::Path, sync::Arc};

use common::Folder;
use tomograd_core::{DType, Device, Result, Seed, Tensor};
use tomograd_pipeline::{
    Cases, Columns, Dataset, Field, Loader, Preparation, Sample,
    preparation::{Channel, Intensity},
};

fn numbers(sample: &Sample, name: &str) -> Vec<f64> {
    match sample.get(name).unwrap() {
        Field::Image(tensor) | Field::Label(tensor) => tensor.to_vec_f64().unwrap(),
        Field::Class(class) => vec![*class as f64],
        Field::Labels(labels) => labels.iter().map(|&holds| f64::from(u8::from(holds))).collect(),
        Field::Numbers(numbers) => numbers.clone(),
        other => panic!("{other:?}"),
    }
}

fn error<T>(result: Result<T>) -> String {
    result.err().unwrap().to_string()
}

#[test]
fn a_folder_a_class() -> Result<()> {
    let folder = Folder::new("classes");
    for (path, first) in [("pneumonia/b.nii.gz", 7), ("normal/a.nii", 1), ("normal/c.nii", 3)] {
        folder.volume(path, first, 1.0);
    }
    folder.write(".hidden/x", "");
    folder.write("README.txt", "a file beside the classes is passed over");
    let cases = Dataset::class_folders(&folder)?;
    assert_eq!(cases.names(), ["normal/a", "normal/c", "pneumonia/b"]);
    assert_eq!((cases.class_names(), cases.classes()), (&["normal".to_owned(), "pneumonia".to_owned()][..], 2));
    let loader = Loader::new(Arc::new(cases.clone()), 3, Seed::new(0))?.in_order();
    let batch = loader.epoch(0).next().unwrap()?;
    assert_eq!((batch.image()?.shape(), batch.class()?.to_vec::<i64>()?), (&[3, 1, 2, 3, 4][..], vec![0, 0, 1]));
    assert!(cases.image_file("pneumonia/b")?.ends_with("pneumonia/b.nii.gz"));
    assert!(error(cases.label_file("pneumonia/b")).contains("has no label in a file"));
    assert!(error(cases.subset(&["normal/b".into()])).contains("nearest: normal/a"));

    std::fs::create_dir(folder.0.join("empty")).unwrap();
    assert!(error(Dataset::class_folders(&folder)).contains("no files in"));
    assert!(error(Dataset::class_folders(folder.0.join("normal"))).contains("no folders in"));
    Ok(())
}

#[test]
fn channels_in_files_of_their_own() -> Result<()> {
    let folder = Folder::new("channels");
    for (case, first) in [("a", 0), ("b", 1)] {
        folder.volume(&format!("imagesTr/{case}_0000.nii.gz"), first, 1.5);
        folder.volume(&format!("imagesTr/{case}_0001.nii.gz"), 100 + first, 1.5);
        folder.voxels(&format!("labelsTr/{case}.nii.gz"), &[1; 24], [2, 3, 4], 1.5);
    }
    let cases = Dataset::open_channels(&folder, &[], 2)?;
    assert_eq!(cases.names(), ["a", "b"]);
    let sample = cases.sample(1)?;
    assert_eq!((sample.image()?.shape(), sample.label()?.shape()), (&[2, 2, 3, 4][..], &[2, 3, 4][..]));
    let counted = |first: u8| (0..24).map(move |i| f64::from(first + i));
    assert_eq!(numbers(&sample, "image"), counted(1).chain(counted(101)).collect::<Vec<_>>());
    assert_eq!(sample.spacing(), [1.0, 1.0, 1.5]);
    // The same by a list of suffixes, in its order.
    let turned = Dataset::open_channels(&folder, &["_0001", "_0000"], 2)?;
    assert_eq!(numbers(&turned.sample(0)?, "image"), counted(100).chain(counted(0)).collect::<Vec<_>>());
    // A preparation takes the channels as one image.
    let plain = |name: &str| Channel::new(name, "MR").intensity(Intensity::default());
    let preparation = Preparation::new([2, 3, 4], ["background", "organ"])?.channels([plain("t1"), plain("t2")])?;
    let prepared = Dataset::open_channels(&folder, &[], 2)?.preparation(&preparation)?;
    assert_eq!(numbers(&prepared.sample(1)?, "image"), numbers(&sample, "image"));

    folder.volume("imagesTr/b_0002.nii.gz", 0, 1.5);
    assert!(error(Dataset::open_channels(&folder, &[], 2)).contains("case \"a\" has no channel 0002"));
    folder.volume("imagesTr/a_0002.nii.gz", 0, 1.25);
    let other = error(Dataset::open_channels(&folder, &[], 2)?.sample(0));
    assert!(other.contains("a_0002.nii.gz: alignment: a corner lies") && other.contains("first channel"), "{other}");
    folder.voxels("imagesTr/a_0002.nii.gz", &[0; 12], [1, 3, 4], 1.5);
    let other = error(Dataset::open_channels(&folder, &[], 2)?.sample(0));
    assert!(other.contains("(1, 2, 3, 4), (1, 1, 3, 4)"), "{other}");
    assert!(
        error(Dataset::open_channels(&folder, &["_0000"], 2))
            .contains("is of no channel; expected the name of a case and one of _0000")
    );
    folder.volume("imagesTr/a.nii.gz", 0, 1.5);
    assert!(error(Dataset::open_channels(&folder, &[], 2)).contains("a.nii.gz is of no channel"));
    Ok(())
}

#[test]
fn a_table_of_cases() -> Result<()> {
    let folder = Folder::new("table");
    for name in ["one.nii", "two.nii", "deep/mask.nii"] {
        folder.voxels(name, &[if name.len() > 7 { 1 } else { 9 }; 24], [2, 3, 4], 1.0);
    }
    let text = "id,t1,t2,mask,diagnosis,effusion,nodule,age,weight\r\n\
                a,one.nii,two.nii,deep/mask.nii,malignant,0,1,64.5,1e2\r\n\
                \"b, again\",two.nii,one.nii,deep/mask.nii,\"benign\",1,1,-3,70\r\n";
    folder.write("cases.csv", text);
    let columns = Columns::new()
        .name("id")
        .image("t1")
        .channels("both", ["t1", "t2"])
        .label("mask", 2)
        .class("diagnosis", ["benign", "malignant"])
        .labels("findings", ["effusion", "nodule"])
        .number("age")
        .numbers("vitals", ["weight", "age"]);
    let path = folder.0.join("cases.csv");
    let cases = Dataset::csv(&path, &columns)?;
    assert_eq!((cases.names(), cases.classes()), (vec!["a".to_owned(), "b, again".to_owned()], 2));
    let sample = cases.sample(0)?;
    let names: Vec<&str> = sample.fields().map(|(name, _)| name).collect();
    assert_eq!(names, ["t1", "both", "mask", "diagnosis", "findings", "age", "vitals"]);
    assert_eq!(sample.get("both")?.tensor()?.shape(), [2, 2, 3, 4]);
    assert_eq!(numbers(&sample, "mask"), [1.0; 24]);
    assert_eq!((numbers(&sample, "diagnosis"), numbers(&sample, "findings")), (vec![1.0], vec![0.0, 1.0]));
    assert_eq!(numbers(&cases.sample(1)?, "vitals"), [70.0, -3.0]);
    let batch = Loader::new(Arc::new(cases.clone()), 2, Seed::new(0))?.in_order().epoch(0).next().unwrap()?;
    assert_eq!(batch.tensor("findings")?.to_vec::<f32>()?, [0.0, 1.0, 1.0, 1.0]);
    assert_eq!(Dataset::csv(&path, &Columns::new().number("age"))?.names(), ["row_2", "row_3"]);
    assert!(cases.label_file("a")?.ends_with("deep/mask.nii"));

    let fails = |text: &str, columns: &Columns| {
        folder.write("bad.csv", text);
        let error = error(Dataset::csv(folder.0.join("bad.csv"), columns));
        assert!(error.contains("bad.csv: ") || error.contains("columns: "), "{error}");
        error
    };
    let age = Columns::new().number("age");
    assert!(fails("age\n1\nold", &age).contains("row 3, column age: csv: \"old\"; expected a finite number"));
    assert!(fails("age\ninf", &age).contains("row 2, column age"));
    assert!(fails("age\n\"\"\n", &age).contains("an empty field"));
    assert!(
        fails("agee,x\n1,2", &age).contains("no column is called \"age\"; expected one of agee, x (nearest: agee)")
    );
    assert!(fails("age\n", &age).contains("no rows") && fails("", &age).contains("an empty file"));
    assert!(fails("age\n1\n2,3", &age).contains("row 3: csv: 2 fields"));
    let class = fails("d\nbenin", &Columns::new().class("d", ["benign", "malignant"]));
    assert!(class.contains("row 2, column d: csv: no class is called \"benin\"") && class.contains("nearest: benign"));
    assert!(fails("l\n2", &Columns::new().labels("l", ["l"])).contains("expected 0 or 1"));
    assert!(fails("a\n1", &Columns::new()).contains("no column is declared"));
    assert!(fails("a\n1", &Columns::new().number("a").number("a")).contains("two fields are called \"a\""));
    assert!(fails("a\n1", &Columns::new().label("a", 300)).contains("a: columns: 300 classes"));

    folder.voxels("other.nii", &[0; 24], [4, 3, 2], 1.0);
    folder.write("grids.csv", "a,b\none.nii,other.nii\n");
    let apart = Dataset::csv(folder.0.join("grids.csv"), &Columns::new().image("a").image("b"))?;
    let found = error(apart.sample(0));
    assert!(found.contains("other.nii: alignment: another spatial shape than that of the image of field a"), "{found}");
    Ok(())
}

#[test]
fn rows_of_arrays() -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/numpy/medmnist.npz");
    let train = Dataset::npz(&path, "train")?;
    assert_eq!(
        (train.names(), train.classes()),
        (["train_0", "train_1", "train_2", "train_3"].map(str::to_owned).to_vec(), 3)
    );
    let batch = Loader::new(Arc::new(train), 4, Seed::new(0))?.in_order().epoch(0).next().unwrap()?;
    assert_eq!((batch.image()?.shape(), batch.class()?.to_vec::<i64>()?), (&[4, 1, 5, 6][..], vec![0, 2, 1, 2]));
    let test = Dataset::npz(&path, "test")?;
    let sample = test.sample(1)?;
    assert_eq!((sample.image()?.shape(), numbers(&sample, "labels")), (&[3, 5, 6][..], vec![1.0, 0.0, 0.0]));
    let found = error(Dataset::npz(&path, "val"));
    assert!(found.contains("no array is called \"val_images\""), "{found}");

    // Colours come first, their pixels in order.
    let pixels = Tensor::arange(36, DType::I32, Device::Cpu)?.reshape(&[2, 2, 3, 3])?;
    let colour = Dataset::arrays("x", &pixels, None)?.sample(1)?;
    assert_eq!(numbers(&colour, "image")[..6], [18.0, 21.0, 24.0, 27.0, 30.0, 33.0]);
    let volumes = Dataset::arrays("x", &Tensor::zeros(&[12, 2, 3, 4], DType::U8, Device::Cpu)?, None)?;
    assert_eq!((volumes.sample(0)?.image()?.shape(), &volumes.names()[3][..]), (&[1, 2, 3, 4][..], "x_03"));
    let labels = |values: &[f64], shape: &[usize], dtype| -> Result<Sample> {
        let values = Tensor::from_slice(values, shape, Device::Cpu)?.converted(dtype)?;
        Dataset::arrays("x", &Tensor::zeros(&[2, 3, 4], DType::U8, Device::Cpu)?, Some(&values))?.sample(1)
    };
    assert_eq!(numbers(&labels(&[0.0, -1.0], &[2], DType::I64)?, "class"), [-1.0]);
    assert_eq!(numbers(&labels(&[0.0, 1.5], &[2, 1], DType::F32)?, "numbers"), [1.5]);
    assert_eq!(numbers(&labels(&[0.0, 1.0, 7.0, 1.0], &[2, 2], DType::I32)?, "numbers"), [7.0, 1.0]);
    assert!(error(labels(&[0.0; 3], &[3], DType::I32)).contains("(2,), or (2, K), one row an image"));
    assert!(
        error(Dataset::arrays("x", &Tensor::zeros(&[3], DType::U8, Device::Cpu)?, None))
            .contains("isn't one of images")
    );
    assert!(Dataset::arrays("x", &Tensor::zeros(&[0, 3, 3], DType::U8, Device::Cpu)?, None).is_err());
    Ok(())
}
