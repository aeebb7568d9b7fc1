//! Weights of other files into a network's parameters.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use tomograd_core::{DType, Device, ErrorKind, Seed, Tensor};
use tomograd_io::{Weights, safetensors};
use tomograd_nn::{
    Checkpoint, Conv, ConvNormActivation, Import, Kernel, Linear, Module, Norm, NormKind, Params, Pass, Sgd, init::Init,
};

/// A file of these tensors; it is removed in the end.
struct File {
    path: PathBuf,
    weights: Weights,
}

impl File {
    fn new(tensors: &[(&str, Tensor)]) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("tomograd-import-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        let tensors: Vec<_> = tensors.iter().map(|(name, tensor)| ((*name).to_owned(), tensor.clone())).collect();
        safetensors::save(&path, &tensors, &BTreeMap::new()).unwrap();
        Self { weights: Weights::open(&path).unwrap(), path }
    }

    fn import(&self) -> Import<'_> {
        Import::of(&self.weights).unwrap()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        std::fs::remove_file(&self.path).ok();
    }
}

fn store() -> Params {
    Params::new(Device::Cpu, Seed::new(1))
}

fn normal(shape: &[usize], dtype: DType) -> Tensor {
    Tensor::normal(shape, 0.0, 1.0, Seed::new(shape.len() as u64), dtype, Device::Cpu).unwrap()
}

fn values(params: &Params, name: &str) -> Vec<f64> {
    params.get(name).unwrap().to_vec_f64().unwrap()
}

fn all_bits(params: &Params) -> Vec<Vec<f64>> {
    params.state().map(|(_, value)| value.to_vec_f64().unwrap()).collect()
}

/// The network of `io/tests/pytorch/optimizer.pt`.
fn trained() -> Params {
    let mut params = store();
    Conv::new(params.root().at(0), 1, 2, [3, 3]).unwrap();
    Norm::new(params.root().at(1), 2, NormKind::Batch).unwrap();
    Linear::new(params.root().at(2), 2, 3).unwrap();
    params
}

fn pytorch(name: &str) -> Weights {
    Weights::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("../io/tests/pytorch").join(name)).unwrap()
}

#[test]
fn checkpoints_of_pytorch_are_imported() {
    let mut first = trained();
    let file = pytorch("optimizer.pt");
    let report = first.import(&Import::of(&file).unwrap().part("model")).unwrap();
    assert_eq!((report.loaded.len(), report.missing.len(), report.unexpected.len()), (9, 0, 0));
    assert_eq!(report.loaded[0].from, "model.0.weight");
    assert_eq!(values(&first, "1.num_batches_tracked"), [1.0]);
    for (name, part, prefix) in [
        ("nnunet.pth", "network_weights", ""),
        ("nnunet_legacy.pth", "network_weights", ""),
        ("lightning.ckpt", "state_dict", "model."),
    ] {
        let mut params = trained();
        let file = pytorch(name);
        params.import(&Import::of(&file).unwrap().part(part).strip_prefix(prefix)).unwrap();
        assert_eq!(all_bits(&params), all_bits(&first), "{name}");
    }
    // The module that was saved whole has the names of its state dict.
    let (mut whole, file) = (trained(), pytorch("module.pt"));
    whole.import(&Import::of(&file).unwrap()).unwrap();
    assert_eq!(all_bits(&whole), all_bits(&first));

    let error = trained().import(&Import::of(&file).unwrap().part("network")).unwrap_err();
    assert!(error.to_string().contains("no part network; its parts are: 0, 1, 2"), "{error}");
}

#[test]
fn names_are_mapped_and_dtypes_converted() {
    let half = normal(&[2, 3], DType::F16);
    let bias = Tensor::from_slice(&[1.5f64, 0.1], &[1, 2], Device::Cpu).unwrap();
    let file = File::new(&[
        ("module.fc.weight", half.clone()),
        ("module.fc.bias", bias),
        ("module.extra", normal(&[4], DType::F32)),
    ]);
    let mut params = store();
    Linear::new(params.root().at("head"), 3, 2).unwrap();
    let import =
        file.import().strip_prefix("module.").skip(|name| name == "extra").rename(|name| name.replace("fc", "head"));
    let report = params.import(&import).unwrap();
    assert_eq!(values(&params, "head.weight"), half.to_vec_f64().unwrap());
    assert_eq!(values(&params, "head.bias"), [1.5, f64::from(0.1f32)]);
    assert_eq!(report.reshaped, ["head.bias"]);
    assert_eq!(report.skipped, [("extra".to_owned(), "left out".to_owned())]);
    assert_eq!(report.loaded[0].changes, ["f16 to f32"]);
    assert_eq!(report.loaded[1].changes, ["(1, 2) to (2,)", "f64 to f32"]);
    let table = report.to_string();
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[1], ["head.weight", "module.fc.weight", "f16", "to", "f32"], "{table}");
    assert!(table.ends_with("2 loaded, 0 missing, 0 unexpected, 1 reshaped, 0 kept, 1 skipped, 0 aliases"), "{table}");
}

#[test]
fn a_strict_import_names_what_differs_and_changes_nothing() {
    let file = File::new(&[
        ("net.conv.weight", normal(&[2, 1, 3, 3], DType::F32)),
        ("net.conv.bias", normal(&[2], DType::F32)),
        ("head.weigth", normal(&[3, 2], DType::F32)),
    ]);
    let mut params = store();
    Conv::new(params.root().at("conv"), 1, 2, [3, 3]).unwrap();
    Linear::new(params.root().at("head"), 2, 3).unwrap();
    let before = all_bits(&params);
    let error = params.import(&file.import()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Name);
    for part in [
        "conv.weight (the file has net.conv.weight)",
        "head.weight (the file has head.weigth)",
        "unexpected: net.conv.weight (the network has conv.weight)",
        "strip_prefix",
    ] {
        assert!(error.to_string().contains(part), "{error}");
    }
    assert_eq!(all_bits(&params), before);
    // Partial: what fits is taken, and the rest is reported.
    let report = params.import(&file.import().strip_prefix("net.").partial()).unwrap();
    assert_eq!(
        (&report.missing[..], &report.unexpected[..]),
        (&["head.weight".into(), "head.bias".into()][..], &["head.weigth".into()][..])
    );
    assert_eq!(report.loaded.len(), 2);
    assert_ne!(all_bits(&params)[..2], before[..2]);
    assert_eq!(all_bits(&params)[2..], before[2..]);
    let error = params.import(&file.import().rename(|name| format!("x.{name}")).partial()).unwrap_err();
    assert!(error.to_string().contains("nothing fits"), "{error}");
    let error = params.import(&file.import().rename(|_| "conv.weight".to_owned())).unwrap_err();
    assert!(error.to_string().contains("net.conv.weight and net.conv.bias are both conv.weight"), "{error}");
}

#[test]
fn one_tensor_that_does_not_fit_keeps_all_others_out() {
    for wrong in [
        normal(&[2, 3], DType::F32),
        Tensor::full(&[3, 2], f64::from(f32::MAX) * 4.0, DType::F64, Device::Cpu).unwrap(),
    ] {
        let file = File::new(&[("head.bias", normal(&[3], DType::F32)), ("head.weight", wrong)]);
        let mut params = store();
        Linear::new(params.root().at("head"), 2, 3).unwrap();
        let before = all_bits(&params);
        let error = params.import(&file.import().partial()).unwrap_err();
        assert!(error.to_string().starts_with("head.weight: import: "), "{error}");
        assert_eq!(all_bits(&params), before);
    }
    // Integers stay what they are.
    let mut params = store();
    params.root().buffer("steps", Tensor::zeros(&[], DType::I64, Device::Cpu).unwrap()).unwrap();
    let error =
        params.import(&File::new(&[("steps", Tensor::scalar(0.5f32, Device::Cpu).unwrap())]).import()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DType);
    params
        .import(&File::new(&[("steps", Tensor::full(&[1], 7.0, DType::I32, Device::Cpu).unwrap())]).import())
        .unwrap();
    assert_eq!(values(&params, "steps"), [7.0]);
}

#[test]
fn shared_parameters_take_one_value() {
    let make = || {
        let mut params = store();
        let slot = params.root().parameter("embed.weight", &[2], Init::Constant(1.0)).unwrap();
        params.root().at("head").alias("weight", slot).unwrap();
        params
    };
    let (one, other) = (normal(&[2], DType::F32), Tensor::zeros(&[2], DType::F32, Device::Cpu).unwrap());
    let mut params = make();
    let report =
        params.import(&File::new(&[("embed.weight", one.clone()), ("head.weight", one.clone())]).import()).unwrap();
    assert_eq!(report.aliases, [("head.weight".to_owned(), "embed.weight".to_owned())]);
    assert_eq!(values(&params, "embed.weight"), one.to_vec_f64().unwrap());
    make().import(&File::new(&[("head.weight", one.clone())]).import()).unwrap();
    let error = make().import(&File::new(&[("embed.weight", one), ("head.weight", other)]).import()).unwrap_err();
    assert!(error.to_string().contains("different values"), "{error}");
}

#[test]
fn a_first_convolution_takes_other_channels() {
    let weight = normal(&[4, 3, 3, 3], DType::F32);
    let file = File::new(&[("conv1.weight", weight.clone())]);
    let run = |weight: Tensor, channels: usize| {
        let mut params = store();
        let conv = Conv::new(params.root().at("conv1"), channels, 4, Kernel::d2(3).bias(false)).unwrap();
        params.set("conv1.weight", weight).unwrap();
        let pass = Pass::eval(&params).unwrap();
        let gray = normal(&[1, 1, 6, 7], DType::F32).expand(&[1, channels, 6, 7]).unwrap();
        conv.forward(&pass.input(&gray), &pass).unwrap().into_value().to_vec_f64().unwrap()
    };
    let expected = run(weight, 3);
    for channels in [1, 2, 3, 6] {
        let mut params = store();
        Conv::new(params.root().at("conv1"), channels, 4, Kernel::d2(3).bias(false)).unwrap();
        let report = params.import(&file.import().channels("conv1.weight", channels)).unwrap();
        let text = if channels == 3 { vec![] } else { vec![format!("3 channels to {channels}")] };
        assert!(report.loaded[0].changes.starts_with(&text) && report.reshaped.is_empty());
        if channels != 2 {
            // A gray image in all channels gives what it gave before.
            let found = run(params.get("conv1.weight").unwrap().clone(), channels);
            assert!(found.iter().zip(&expected).all(|(x, y)| (x - y).abs() < 1e-5), "{channels}");
        }
    }
    // The formula itself, for two of three channels.
    let mut params = store();
    Conv::new(params.root().at("conv1"), 2, 4, Kernel::d2(3).bias(false)).unwrap();
    params.import(&file.import().channels("conv1.weight", 2)).unwrap();
    let given = file.weights.tensors()[0].read().unwrap().narrow(1, 0, 2).unwrap().to_vec_f64().unwrap();
    assert!(values(&params, "conv1.weight").iter().zip(given).all(|(x, y)| (x - 1.5 * y).abs() < 1e-6));
    let error = params.import(&file.import()).unwrap_err();
    assert!(error.to_string().contains("the file has (4, 3, 3, 3); expected (4, 2, 3, 3)"), "{error}");
    for (name, channels) in [("conv1.weight", 5), ("conv1.weight", 0), ("conv", 2)] {
        assert!(params.import(&file.import().channels(name, channels)).is_err());
    }
}

#[test]
fn a_head_keeps_its_values_or_takes_rows() {
    let (weight, bias) = (normal(&[5, 2], DType::F32), normal(&[5], DType::F32));
    let file =
        File::new(&[("body", normal(&[1], DType::F32)), ("fc.weight", weight.clone()), ("fc.bias", bias.clone())]);
    let make = || {
        let mut params = store();
        params.root().parameter("body", &[1], Init::Constant(0.0)).unwrap();
        Linear::new(params.root().at("fc"), 2, 3).unwrap();
        params
    };
    let initial = make();
    let mut params = make();
    let report = params.import(&file.import().head("fc")).unwrap();
    assert_eq!(report.kept, ["fc.weight", "fc.bias"]);
    assert_eq!((report.loaded.len(), report.skipped.len()), (1, 2));
    assert_eq!(all_bits(&params)[1..], all_bits(&initial)[1..]);

    let report = params.import(&file.import().head_rows("fc", &[Some(4), None, Some(0)])).unwrap();
    assert_eq!(report.loaded[1].changes, ["2 of 3 rows"]);
    let (weight, bias) = (weight.to_vec_f64().unwrap(), bias.to_vec_f64().unwrap());
    let own = values(&initial, "fc.weight");
    assert_eq!(values(&params, "fc.weight"), [weight[8], weight[9], own[2], own[3], weight[0], weight[1]]);
    assert_eq!(values(&params, "fc.bias"), [bias[4], values(&initial, "fc.bias")[1], bias[0]]);
    for (rows, what) in
        [(&[Some(5), None, None][..], "row 5 of the file's 5"), (&[None, None], "2 rows for a parameter")]
    {
        let error = make().import(&file.import().head_rows("fc", rows)).unwrap_err();
        assert!(error.to_string().contains(what), "{error}");
    }
    let error = make().import(&file.import().head("classifier")).unwrap_err();
    assert!(error.to_string().contains("the network has no classifier"), "{error}");
}

#[test]
fn a_checkpoint_of_ones_own_gives_its_weights() {
    let trained = trained();
    let optimizer = Sgd::new(&trained, 0.1).unwrap().momentum(0.9).unwrap();
    let path = std::env::temp_dir().join(format!("tomograd-import-own-{}", std::process::id()));
    Checkpoint::new(&trained).optimizer(&optimizer).average(&trained).save(&path).unwrap();
    let weights = Weights::open(&path).unwrap();
    let mut params = self::trained();
    let report = params.import(&Import::of(&weights).unwrap()).unwrap();
    std::fs::remove_file(path).unwrap();
    assert_eq!((report.loaded.len(), all_bits(&params)), (9, all_bits(&trained)));
}

#[test]
fn an_import_undoes_folding() {
    let network = |seed: u64| {
        let mut params = Params::new(Device::Cpu, Seed::new(seed));
        let conv = Conv::new(params.root().at(0), 1, 2, [3, 3]).unwrap();
        let norm = Norm::new(params.root().at(1), 2, NormKind::Batch).unwrap();
        let net = ConvNormActivation::new(conv, norm).unwrap();
        (params, net)
    };
    let output = |(params, net): &(Params, ConvNormActivation)| {
        let pass = Pass::eval(params).unwrap();
        net.forward(&pass.input(&normal(&[1, 1, 4, 5], DType::F32)), &pass).unwrap().value().to_vec::<f32>().unwrap()
    };
    let (other, mut own) = (network(2), network(1));
    let tensors: Vec<_> = other.0.state().map(|(name, value)| (name, value.clone())).collect();
    let file = File::new(&tensors);
    own.0.fold_batch_norm().unwrap();
    assert_ne!(output(&own), output(&other));
    own.0.import(&file.import()).unwrap();
    // Folded weights of before would give other numbers.
    assert_eq!(output(&own), output(&other));
}

#[test]
fn a_whole_number_that_rounds_is_refused() {
    let mut params = store();
    params.root().parameter("w", &[1], Init::Constant(0.0)).unwrap();
    let whole = |number: i64| File::new(&[("w", Tensor::from_slice(&[number], &[1], Device::Cpu).unwrap())]);
    params.import(&whole(1 << 24).import()).unwrap();
    assert_eq!(values(&params, "w"), [16_777_216.0]);
    assert!(params.import(&whole((1 << 24) + 1).import()).unwrap_err().to_string().contains("can hold"));
}

#[test]
fn a_report_prints_names_of_any_length() {
    let mut params = store();
    params.root().parameter("w", &[1], Init::Constant(0.0)).unwrap();
    let one = || Tensor::ones(&[1], DType::F32, Device::Cpu).unwrap();
    let file = File::new(&[("w", one()), (&"x".repeat(70_000), one())]);
    let report = params.import(&file.import().partial()).unwrap();
    assert!(report.to_string().contains("unexpected, not taken"));
}
