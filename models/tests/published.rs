//! Files of weights as other programs write them: `tests/golden/zoo/published` (made by `published_cases.py`) has
//! files, the steps by which they are imported, and the outputs of the originals. A new case needs no new code here.

mod common;

use std::path::PathBuf;

use common::{assert_close, json, sizes, tensors};
use serde_json::Value;
use tomograd_core::{DType, Device, Seed};
use tomograd_io::Weights;
use tomograd_models::{Model, formula};
use tomograd_nn::{Import, ImportReport};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/zoo/published")
}

fn cases() -> Vec<String> {
    let names = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter_map(|name| Some(name.strip_suffix(".json")?.to_owned())).collect();
    names.sort();
    assert!(names.len() >= 10, "{names:?}");
    names
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

/// The steps of an import that a case names.
fn planned<'a>(weights: &'a Weights, steps: &Value) -> Import<'a> {
    steps.as_object().unwrap().iter().fold(Import::of(weights).unwrap(), |import, (step, value)| match &step[..] {
        "part" => import.part(text(value)),
        "strip_prefix" => import.strip_prefix(text(value)),
        "skip" => import.skip(|name| name.starts_with(text(value))),
        "channels" => import.channels(text(&value[0]), value[1].as_u64().unwrap() as usize),
        "head" => import.head(text(value)),
        "head_rows" => {
            let rows: Vec<Option<usize>> =
                value[1].as_array().unwrap().iter().map(|row| row.as_u64().map(|row| row as usize)).collect();
            import.head_rows(text(&value[0]), &rows)
        }
        other => panic!("no step is called {other}"),
    })
}

fn imported(name: &str, case: &Value, dtype: DType) -> (Model, ImportReport) {
    let weights = Weights::open(folder().join(text(&case["file"]))).unwrap().strict().unwrap();
    let mut model = Model::with_dtype(case["config"].clone(), Device::Cpu, Seed::new(0), dtype).unwrap();
    let import = planned(&weights, &case["steps"]);
    let report = model.params_mut().import(&import).unwrap_or_else(|error| panic!("{name}: {error}"));
    (model, report)
}

#[test]
fn files_of_other_programs_give_the_outputs_of_the_originals() {
    for name in cases() {
        let case = json(&format!("zoo/published/{name}"));
        let expected = tensors(&format!("zoo/published/{name}.output"));
        for (dtype, tolerance) in [(DType::F64, 1e-12), (DType::F32, 1e-5)] {
            let (model, _) = imported(&name, &case, dtype);
            let image = formula::signed("input", &sizes(&case["input"]), dtype).unwrap();
            let outputs = match case["stage"].as_str() {
                Some(stage) => model.features(&image, &[stage]).unwrap(),
                None => model.run(&[(model.network().inputs()[0], image)].into()).unwrap(),
            };
            assert_eq!(outputs.len(), expected.len(), "{name}");
            for (k, (_, output)) in outputs.iter().enumerate() {
                let expected = &expected[&format!("output.{k}")];
                assert_close(&format!("{name} in {dtype}"), &output.to_vec_f64().unwrap(), expected, tolerance);
            }
        }
    }
}

#[test]
fn the_report_says_what_was_changed_kept_and_left_out() {
    let report = |name: &str| imported(name, &json(&format!("zoo/published/{name}")), DType::F32).1;
    let all = report("by_name");
    assert!(all.kept.is_empty() && all.skipped.is_empty() && all.missing.is_empty() && all.unexpected.is_empty());
    assert!(all.loaded.iter().all(|row| row.name == row.from && row.changes.is_empty()));

    let half = report("half_precision");
    let floats = half.loaded.iter().filter(|row| row.changes == ["f16 to f32"]).count();
    assert_eq!(
        floats + half.loaded.iter().filter(|row| row.name.ends_with("num_batches_tracked")).count(),
        all.loaded.len()
    );

    let checkpoint = report("training_checkpoint");
    assert_eq!(checkpoint.loaded.len(), all.loaded.len());
    assert_eq!(checkpoint.loaded[0].from, "state_dict.module.conv1.weight");

    let auxiliary = report("auxiliary_head_left_out");
    assert!(auxiliary.skipped.iter().all(|(name, _)| name.starts_with("aux_classifier.")));
    assert_eq!(auxiliary.skipped.len(), 4);

    assert_eq!(report("one_channel").loaded[0].changes, ["3 channels to 1"]);
    assert_eq!(report("six_channels").loaded[0].changes, ["3 channels to 6"]);
    assert_eq!(report("other_classes").loaded.last().unwrap().changes, ["2 of 2 rows"]);
    let dropped = report("head_dropped");
    assert_eq!(dropped.kept, ["fc.weight", "fc.bias"]);
    assert_eq!(dropped.loaded.len(), all.loaded.len() - 2);
}

/// Without the steps, each of these files is refused with what is wrong, and nothing is changed.
#[test]
fn a_file_that_fits_only_with_steps_is_refused_without_them() {
    for (name, expected) in [
        ("training_checkpoint", "missing: conv1.weight"),
        ("auxiliary_head_left_out", "unexpected: aux_classifier.0.weight"),
        ("one_channel", "conv1.weight: "),
        ("other_classes", "fc.weight: "),
        ("head_dropped", "fc.weight: "),
    ] {
        let case = json(&format!("zoo/published/{name}"));
        let weights = Weights::open(folder().join(text(&case["file"]))).unwrap();
        let mut model = Model::new(&case["config"], Device::Cpu, Seed::new(0)).unwrap();
        let before: Vec<_> = model.params().state().map(|(_, value)| value.to_vec_f64().unwrap()).collect();
        let error = model.params_mut().import(&Import::of(&weights).unwrap()).unwrap_err().to_string();
        assert!(error.contains(expected), "{name}: {error}");
        let after: Vec<_> = model.params().state().map(|(_, value)| value.to_vec_f64().unwrap()).collect();
        assert_eq!(before, after, "{name}");
    }
}
