//! Datasets in the layouts of others: the Medical Segmentation Decathlon, BIDS, DICOM trees.

mod common;
#[cfg(feature = "dicom")]
#[path = "../../io/tests/common/dicom.rs"]
mod dicom;

use common::Folder;
use tomograd_core::Result;
use tomograd_pipeline::{Bids, Cases, Dataset, Field};

fn error<T>(result: Result<T>) -> String {
    result.err().unwrap().to_string()
}

#[test]
fn the_decathlon_names_its_files_and_classes() -> Result<()> {
    let folder = Folder::new("msd");
    for case in ["liver_2", "liver_1"] {
        folder.volume(&format!("imagesTr/{case}.nii.gz"), 3, 1.5);
        folder.voxels(&format!("labelsTr/{case}.nii.gz"), &[2; 24], [2, 3, 4], 1.5);
    }
    folder.volume("imagesTs/liver_3.nii.gz", 3, 1.5);
    let json = r#"{"labels": {"0": "background", "2": "tumour"}, "test": ["./imagesTs/liver_3.nii.gz"], "training": [
        {"image": "./imagesTr/liver_2.nii.gz", "label": "./labelsTr/liver_2.nii.gz"},
        {"image": "imagesTr/liver_1.nii.gz", "label": "labelsTr/liver_1.nii.gz"}]}"#;
    folder.write("dataset.json", json);
    let cases = Dataset::msd(&folder)?;
    assert_eq!((cases.names(), cases.classes()), (vec!["liver_2".to_owned(), "liver_1".to_owned()], 3));
    assert_eq!(cases.class_names(), ["background", "class 1", "tumour"]);
    assert_eq!(cases.sample(0)?.label()?.to_vec::<u8>()?, [2; 24]);
    assert_eq!(
        (Dataset::msd_test(&folder)?.names(), Dataset::msd_test(&folder)?.classes()),
        (vec!["liver_3".into()], 0)
    );

    let other = Folder::new("msd-outside");
    other.volume("secret.nii.gz", 3, 1.5);
    let outside = other.0.join("secret.nii.gz");
    std::os::unix::fs::symlink(&outside, folder.0.join("imagesTr/link.nii.gz")).unwrap();
    for (from, to, part) in [
        ("imagesTr/liver_1.nii.gz", "../msd-outside/secret.nii.gz", "in the folder or below it"),
        ("imagesTr/liver_1.nii.gz", outside.to_str().unwrap(), "in the folder or below it"),
        ("imagesTr/liver_1.nii.gz", "imagesTr/link.nii.gz", "in the folder or below it"),
        ("imagesTr/liver_1.nii.gz", "imagesTr/liver_9.nii.gz", "liver_9"),
        ("imagesTr/liver_1.nii.gz", "imagesTr/liver_2.nii.gz", "two cases are called"),
        ("\"training\"", "\"train\"", "no cases under `training`"),
        ("\"labels\"", "\"classes\"", "no `labels`"),
        ("\"2\"", "\"256\"", "other `labels`"),
        ("\"2\"", "\"-1\"", "other `labels`"),
        ("{\"0\"", "[\"0\"", "dataset.json"),
    ] {
        folder.write("dataset.json", json.replace(from, to));
        let error = error(Dataset::msd(&folder));
        assert!(error.contains(part) && error.contains("dataset.json"), "{to}: {error}");
    }
    Ok(())
}

#[test]
fn bids_sessions_are_cases() -> Result<()> {
    let folder = Folder::new("bids");
    for (session, below) in [("sub-01_ses-1", "sub-01/ses-1"), ("sub-01_ses-2", "sub-01/ses-2"), ("sub-02", "sub-02")] {
        folder.volume(&format!("{below}/anat/{session}_acq-mprage_run-1_T1w.nii.gz"), 3, 1.5);
        folder.volume(&format!("{below}/anat/{session}_FLAIR.nii.gz"), 100, 1.5);
        folder.write(&format!("{below}/anat/{session}_FLAIR.json"), "{}");
        folder.voxels(
            &format!("derivatives/manual/{below}/anat/{session}_desc-lesion_mask.nii.gz"),
            &[1; 24],
            [2, 3, 4],
            1.5,
        );
        folder.voxels(
            &format!("derivatives/manual/{below}/anat/{session}_desc-brain_mask.nii.gz"),
            &[0; 24],
            [2, 3, 4],
            1.5,
        );
    }
    folder.write("participants.tsv", "participant_id\tage\tsex\nsub-01\t34\tF\nsub-02\tn/a\tM\n");
    let bids = Bids::new(["T1w", "FLAIR"]).label("derivatives/manual", "mask", 2).label_entity("desc", "lesion");
    let cases = Dataset::bids(&folder, &bids.clone().class("sex", ["F", "M"]))?;
    assert_eq!(cases.names(), ["sub-01_ses-1", "sub-01_ses-2", "sub-02"]);
    let sample = cases.sample(2)?;
    assert_eq!((sample.image()?.shape(), sample.label()?.to_vec::<u8>()?), (&[2, 2, 3, 4][..], vec![1; 24]));
    assert!(matches!(sample.get("sex")?, Field::Class(1)));

    assert!(error(Dataset::bids(&folder, &bids.clone().number("age"))).contains("age \"n/a\" of sub-02"));
    assert!(error(Dataset::bids(&folder, &bids.clone().number("agee"))).contains("nearest: age"));
    assert!(error(Dataset::bids(&folder, &Bids::new(["T2w"]))).contains("no sub-01_ses-1…_T2w.nii.gz"));
    let both = Bids::new(["T1w"]).label("derivatives/manual", "mask", 2);
    assert!(error(Dataset::bids(&folder, &both)).contains("are both"));
    for outside in ["../x", "/tmp", "derivatives/../.."] {
        assert!(
            error(Dataset::bids(&folder, &Bids::new(["T1w"]).label(outside, "mask", 2))).contains("leads elsewhere")
        );
    }
    folder.volume("sub-02/anat/sub-02_acq-mprage_run-2_T1w.nii.gz", 3, 1.5);
    assert!(error(Dataset::bids(&folder, &bids)).contains("run-2_T1w.nii.gz are both sub-02…_T1w.nii.gz"));
    let one = bids.clone().entity("run", "2").skip_incomplete();
    // FLAIR has no run: an entity is that of all images.
    assert!(error(Dataset::bids(&folder, &one)).contains("no sessions in"));
    let runs = Bids::new(["T1w"]).entity("run", "2").skip_incomplete();
    assert_eq!(Dataset::bids(&folder, &runs)?.names(), ["sub-02"]);
    assert!(error(Dataset::bids(&folder, &Bids::new(Vec::<String>::new()))).contains("no suffix"));
    folder.write("participants.tsv", "participant_id\tsex\nsub-01\tF\n");
    assert!(error(Dataset::bids(&folder, &runs.class("sex", ["F"]))).contains("no row of \"sub-02\""));
    Ok(())
}

#[cfg(feature = "dicom")]
#[test]
fn dicom_trees_have_a_folder_a_patient() -> Result<()> {
    use dicom::Slice;
    let folder = Folder::new("dicom-tree");
    let add = |path: &str, slice: Slice| {
        let path = folder.0.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, slice.bytes()).unwrap();
    };
    for (patient, series) in [("anna", "1.2.7"), ("berta", "1.2.8"), ("berta", "1.2.9")] {
        for z in 0..2 {
            let instance = format!("{series}.{z}");
            let position = Some([0.0, 0.0, 3.0 * f64::from(z)]);
            let slice = Slice { series, instance, position, value: 7 + z as i16, ..Slice::default() };
            add(&format!("scans/{patient}/{series}/{z}.dcm"), slice);
        }
    }
    let scans = folder.0.join("scans");
    let none: Option<(&str, usize)> = None;
    let cases = Dataset::dicom(&scans, none)?;
    assert_eq!(cases.names(), ["anna", "berta/1.2.8", "berta/1.2.9"]);
    let image = cases.sample(1)?.image()?.to_vec_f64()?;
    // The pixels of a slice count up from its value.
    assert_eq!((image.len(), image[0], image[12], image[23]), (24, 7.0, 8.0, 19.0));
    // A mask on the grid of the scan.
    let volume = tomograd_io::Volume::read(scans.join("anna"))?;
    let ones =
        tomograd_core::Tensor::ones(volume.voxels().shape(), tomograd_core::DType::U8, tomograd_core::Device::Cpu)?;
    let masks = folder.0.join("masks");
    std::fs::create_dir_all(&masks).unwrap();
    volume.with_voxels(ones)?.write(masks.join("anna.nii.gz"))?;
    let cases = Dataset::dicom(&scans, Some((&masks, 2)))?;
    assert_eq!((cases.names(), cases.sample(0)?.label()?.count()), (vec!["anna".to_owned()], 24));
    folder.write("masks/carla.nii.gz", "");
    assert!(error(Dataset::dicom(&scans, Some((&masks, 2)))).contains("carla.nii.gz has no volume"));
    assert!(error(Dataset::dicom(&scans, Some((&masks, 0)))).contains("1 to 256"));
    // A damaged slice isn't missing in silence.
    let bytes = std::fs::read(scans.join("anna/1.2.7/1.dcm")).unwrap();
    std::fs::write(scans.join("anna/1.2.7/2.dcm"), &bytes[..200]).unwrap();
    assert!(error(Dataset::dicom(&scans, none)).contains("2.dcm"));
    assert!(error(Dataset::dicom(&masks, none)).contains("no DICOM volumes"));
    Ok(())
}
