use tomograd_core::{DType, Device, Result, Tensor};

use super::*;
use crate::Batch;

fn zeros(shape: &[usize]) -> Tensor {
    Tensor::zeros(shape, DType::F32, Device::Cpu).unwrap()
}

fn whole(name: &str) -> Result<Sample> {
    Sample::new(name, &zeros(&[1, 4, 5]), Some(&zeros(&[4, 5])))?
        .with("t2", Field::Image(zeros(&[2, 4, 5])))?
        .with("diagnosis", Field::Class(-3))?
        .with("findings", Field::Labels(vec![true, false]))?
        .with("vitals", Field::Numbers(vec![0.5, 60.0]))?
        .with("lesions", Field::Boxes(Boxes::new(&[([0.0, 1.0], [2.0, 3.0])], &[7])?))?
        .with("landmarks", Field::Points(Points::new(&[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])?))
}

#[test]
fn fields_are_put_together_by_kind() -> Result<()> {
    let none = whole("b")?.with("lesions", Field::Boxes(Boxes::new::<2>(&[], &[])?))?;
    let batch = Batch::collate(&[whole("a")?, none])?;
    assert_eq!(batch.names, ["a", "b"]);
    assert_eq!((batch.image()?.shape(), batch.tensor("t2")?.shape()), (&[2, 1, 4, 5][..], &[2, 2, 4, 5][..]));
    assert_eq!((batch.label()?.shape(), batch.label()?.dtype()), (&[2, 4, 5][..], DType::I64));
    assert_eq!(batch.class()?.to_vec::<i64>()?, [-3, -3]);
    assert_eq!(batch.tensor("findings")?.to_vec::<f32>()?, [1.0, 0.0, 1.0, 0.0]);
    assert_eq!(batch.tensor("vitals")?.shape(), [2, 2]);
    let boxes = batch.boxes("lesions")?;
    assert_eq!((boxes[0].0.to_vec::<f32>()?, boxes[0].1.to_vec::<i64>()?), (vec![0.0, 1.0, 2.0, 3.0], vec![7]));
    assert_eq!((boxes[1].0.shape(), boxes[1].1.shape()), (&[0, 4][..], &[0][..]));
    assert_eq!(batch.points("landmarks")?[1].to_vec::<f32>()?, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let order: Vec<&str> = batch.fields().map(|(name, _)| name).collect();
    assert_eq!(order, ["image", "label", "t2", "diagnosis", "findings", "vitals", "lesions", "landmarks"]);

    let error = batch.tensor("vitels").unwrap_err().to_string();
    assert!(error.contains("no field is called \"vitels\"") && error.contains("(nearest: vitals)"), "{error}");
    let error = batch.tensor("lesions").unwrap_err().to_string();
    assert!(error.contains("the field lesions holds boxes"), "{error}");
    assert!(batch.points("lesions").is_err() && batch.boxes("t2").is_err());
    Ok(())
}

#[test]
fn samples_without_an_image_make_a_batch() -> Result<()> {
    let batch = Batch::collate(&[Sample::empty("a").with("x", Field::Numbers(vec![1.0]))?])?;
    assert_eq!(batch.tensor("x")?.shape(), [1, 1]);
    let error = batch.image().unwrap_err().to_string();
    assert!(error.contains("no image") && error.contains("the fields are x"), "{error}");
    assert!(Batch::collate(&[Sample::empty("a")])?.fields().next().is_none());
    Ok(())
}

#[test]
fn samples_that_do_not_fit_are_named() -> Result<()> {
    let error =
        |second: Result<Sample>| Batch::collate(&[whole("a").unwrap(), second.unwrap()]).unwrap_err().to_string();
    let found = error(whole("b")?.with("findings", Field::Labels(vec![true])));
    assert!(found.starts_with("case b: batch: another shape of findings than that of case a"), "{found}");
    let found = error(whole("b")?.with("diagnosis", Field::Numbers(vec![1.0])));
    assert!(found.contains("diagnosis (numbers)") && found.contains("diagnosis (class)"), "{found}");
    let found = error(Sample::new("b", &zeros(&[1, 4, 5]), None));
    assert!(found.starts_with("case b: batch: a sample with image (image); expected"), "{found}");
    Ok(())
}

#[test]
fn a_sample_has_one_grid() {
    let error = |name: &str, field: Field| whole("case").unwrap().with(name, field).unwrap_err().to_string();
    let found = error("t3", Field::Image(zeros(&[1, 4, 6])));
    assert!(found.starts_with("case: t3: sample: image and t3 have different spatial shapes"), "{found}");
    assert!(found.contains("(1, 4, 5), (1, 4, 6)"), "{found}");
    assert!(error("mask", Field::Label(zeros(&[5, 4]))).contains("different spatial shapes"));
    let flat = error("p", Field::Points(Points::new(&[[1.0, 2.0, 3.0]]).unwrap()));
    assert!(flat.contains("image has 2 spatial axes, p 3"), "{flat}");
    assert!(error("n", Field::Numbers(vec![f64::NAN])).contains("the number NaN"));
    assert!(error("l", Field::Label(Tensor::full(&[4, 5], 0.5, DType::F32, Device::Cpu).unwrap())).contains("0.5"));
    // All fields may be replaced at once; with another number of axes the spacing is reset.
    let sample = whole("case").unwrap().with_spacing(&[2.0, 3.0]).unwrap();
    let image = |shape: &[usize]| [("image".to_owned(), Field::Image(zeros(shape)))];
    assert_eq!(sample.clone().with_fields(image(&[1, 9, 9])).unwrap().spacing(), [2.0, 3.0]);
    assert_eq!(sample.with_fields(image(&[1, 2, 9, 9])).unwrap().spacing(), [1.0; 3]);
    assert!(Sample::empty("none").with_spacing(&[1.0]).is_err());
}

#[test]
fn the_only_one_of_a_kind_needs_no_name() -> Result<()> {
    let image = |name: &str, shape: &[usize]| Sample::empty("case").with(name, Field::Image(zeros(shape)));
    let one = image("t1", &[1, 4, 5])?;
    assert_eq!(one.image()?.shape(), [1, 4, 5]);
    let error = one.label().unwrap_err().to_string();
    assert_eq!(error, "case: sample: no label; expected a field of that kind; the fields are t1");
    let two = one.with("t2", Field::Image(zeros(&[2, 4, 5])))?;
    let error = two.image().unwrap_err().to_string();
    assert!(error.contains("2 fields of kind image: t1, t2"), "{error}");
    let three = two.with("image", Field::Image(zeros(&[3, 4, 5])))?;
    assert_eq!(three.image()?.shape(), [3, 4, 5]);
    assert_eq!(three.bytes(), 4 * 20 * 6 + "case".len() + "t1t2image".len());
    Ok(())
}

#[test]
fn boxes_and_points_are_checked() {
    let refused = |edges, classes: &[i64]| Boxes::new(&[edges], classes).unwrap_err().to_string();
    assert!(refused(([0.0, 0.0], [1.0, 0.0]), &[1]).contains("upper edges above the lower ones"));
    assert!(refused(([0.0, 0.0], [1.0, 1.0]), &[]).contains("1, one a box"));
    assert!(refused(([f64::NEG_INFINITY, 0.0], [1.0, 1.0]), &[1]).contains("finite"));
    assert!(refused(([0.0, 0.0], [1.0, f64::NAN]), &[1]).contains("finite"));
    assert!(Boxes::new::<1>(&[], &[]).is_err() && Points::new::<4>(&[[0.0; 4]]).is_err());
    assert!(Points::new(&[[0.0, f64::INFINITY]]).is_err());
    assert!(Points::new::<3>(&[]).unwrap().is_empty() && Boxes::new::<3>(&[], &[]).unwrap().is_empty());
}
