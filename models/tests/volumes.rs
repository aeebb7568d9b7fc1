//! Networks for volumes: nnU-Net's from plans, the names of shared weights, deep supervision, refused sizes, random
//! numbers.

mod common;

use std::path::PathBuf;

use common::{assert_close, sampled, sizes};
use serde_json::{Value, json};
use tomograd_core::{DType, Device, Result, Seed, Tensor};
use tomograd_io::Weights;
use tomograd_models::{
    DynUNetConfig, Model, NnUNetArchitecture, NnUNetConfig, SegResNetConfig, SegResNetVae, VNetConfig,
    blocks::{ActivationChoice, NormChoice},
    formula,
    registry::Config,
};
use tomograd_nn::{Import, Named, Pass};

const PLANS: &str = include_str!("data/plans.json");

fn model(config: &impl Config) -> Model {
    Model::new(config, Device::Cpu, Seed::new(1)).unwrap()
}

fn image(shape: &[usize]) -> Tensor {
    formula::signed("input", shape, DType::F32).unwrap()
}

/// The names and shapes of the outputs.
fn outputs(model: &Model, shape: &[usize], training: bool, seed: u64) -> Result<Named<Tensor>> {
    let pass = Pass::eval(model.params())?.training(training).seed(Seed::new(seed));
    let outputs = model.network().run(&[("image", pass.input(&image(shape)))].into(), &pass)?;
    outputs.try_map(|output| Ok(output.into_value()))
}

fn shapes(outputs: &Named<Tensor>) -> Vec<(&str, &[usize])> {
    outputs.iter().map(|(name, output)| (name, output.shape())).collect()
}

/// The text of the error for an input of this shape.
fn refused(model: &Model, shape: &[usize]) -> String {
    outputs(model, shape, false, 0).map(|outputs| format!("{:?}", shapes(&outputs))).unwrap_err().to_string()
}

#[test]
fn plans_describe_the_networks_of_the_presets() {
    let volume = NnUNetConfig::preset("nnunet_3d_fullres_hippocampus").unwrap();
    for configuration in ["3d_fullres", "3d_fullres_bs4", "3d_fullres_old"] {
        assert_eq!(NnUNetConfig::from_plans(PLANS, configuration, 1, 3).unwrap(), volume, "{configuration}");
    }
    let plane = NnUNetConfig::preset("nnunet_2d_hippocampus").unwrap();
    assert_eq!(NnUNetConfig::from_plans(PLANS, "2d", 1, 3).unwrap(), plane);
    let wide = NnUNetConfig::from_plans(PLANS, "2d", 4, 7).unwrap();
    assert_eq!(wide, NnUNetConfig { in_channels: 4, classes: 7, ..plane });
}

/// The example's plans with `value` at the JSON pointer `place` of the 3D architecture.
fn with(place: &str, value: Value) -> Value {
    let mut plans: Value = serde_json::from_str(PLANS).unwrap();
    let architecture = plans.pointer_mut("/configurations/3d_fullres/architecture").unwrap();
    let (parent, field) = place.rsplit_once('/').unwrap();
    architecture.pointer_mut(parent).unwrap()[field] = value;
    plans
}

fn planned(plans: &Value) -> Result<NnUNetConfig> {
    NnUNetConfig::from_plans(&plans.to_string(), "3d_fullres", 1, 3)
}

#[test]
fn plans_with_residual_blocks_and_other_layers() {
    let mut plans = with("/network_class_name", json!("somewhere.unet.ResidualEncoderUNet"));
    let arguments = plans.pointer_mut("/configurations/3d_fullres/architecture/arch_kwargs").unwrap();
    arguments["n_blocks_per_stage"] = json!([1, 3, 4, 6]);
    arguments["n_conv_per_stage_decoder"] = json!(1);
    arguments["kernel_sizes"] = json!(3);
    arguments["strides"] = json!([1, 2, [2, 2, 2], 2]);
    arguments["norm_op"] = json!("torch.nn.BatchNorm3d");
    arguments["norm_op_kwargs"] = json!({"eps": 0.001});
    arguments["dropout_op"] = json!("torch.nn.modules.dropout.Dropout3d");
    arguments["dropout_op_kwargs"] = json!({"p": 0.2, "inplace": true});
    arguments["nonlin"] = json!("torch.nn.ReLU");
    arguments["block"] = json!("dynamic_network_architectures.building_blocks.residual.BottleneckD");
    arguments["bottleneck_channels"] = json!([8, 16, 32, 64]);
    arguments["stem_channels"] = json!(16);
    let removed = ["conv_bias", "n_conv_per_stage"].map(|field| arguments.as_object_mut().unwrap().remove(field));
    assert!(removed.iter().all(Option::is_some));
    let expected = NnUNetConfig {
        architecture: NnUNetArchitecture::ResidualEncoder,
        blocks: vec![1, 3, 4, 6],
        decoder_blocks: vec![1; 3],
        conv_bias: false,
        norm: NormChoice::Batch,
        norm_epsilon: 1e-3,
        activation: ActivationChoice::Relu,
        dropout: Some(0.2),
        bottleneck_channels: Some(vec![8, 16, 32, 64]),
        stem_channels: Some(16),
        ..NnUNetConfig::new(1, 3, [32, 64, 128, 256])
    };
    assert_eq!(planned(&plans).unwrap(), expected);
    assert_eq!(model(&expected).params().get("encoder.stem.convs.0.conv.weight").unwrap().shape(), [16, 1, 3, 3, 3]);
}

#[test]
fn hostile_plans_are_refused() {
    let numbers = [json!(0), json!(-1), json!(1u64 << 40), json!(u64::MAX), json!(1.5), json!("3"), json!(null)];
    for place in ["n_stages", "features_per_stage", "kernel_sizes", "strides", "n_conv_per_stage"] {
        for number in numbers.clone() {
            let plans = with(&format!("/arch_kwargs/{place}"), number.clone());
            let error = planned(&plans).expect_err(&format!("{place} = {number}")).to_string();
            assert!(error.starts_with("configuration 3d_fullres: "), "{error}");
        }
    }
    for (place, value, expected) in [
        ("/network_class_name", json!("nnunetv2.nets.Primus"), "a class called PlainConvUNet or"),
        ("/arch_kwargs", json!([]), "arch_kwargs"),
        ("/arch_kwargs/conv_op", json!("torch.nn.Linear"), "conv_op is torch.nn.Linear"),
        ("/arch_kwargs/norm_op", json!("torch.nn.InstanceNorm2d"), "a class called InstanceNorm3d or BatchNorm3d"),
        ("/arch_kwargs/norm_op_kwargs", json!({"momentum": 0.5}), "unknown field `momentum`"),
        ("/arch_kwargs/norm_op_kwargs", json!({"eps": -1.0, "affine": true}), "norm_epsilon is -1.0"),
        ("/arch_kwargs/dropout_op", json!("torch.nn.Dropout2d"), "a class called Dropout or Dropout3d"),
        ("/arch_kwargs/nonlin", json!(null), "nonlin is "),
        ("/arch_kwargs/nonlin_kwargs", json!({"negative_slope": 1e300}), "activation: LeakyRelu(1e300)"),
        ("/arch_kwargs/kernel_sizes", json!([[3, 3, 3], [3, 3], 3, 3]), "kernel_sizes[1] has 2 entries, and rank is 3"),
        ("/arch_kwargs/kernel_sizes", json!([3, 3, [2, 3, 3], 3]), "kernel_sizes[2] is [2, 3, 3]; expected odd"),
        ("/arch_kwargs/strides", json!([1, 2, 2]), "kernel_sizes has 4 entries; expected 3"),
        ("/arch_kwargs/squeeze", json!(true), "unknown field `squeeze`"),
        ("/arch_kwargs/stem_channels", json!(8), "stem_channels is given"),
        (
            "/arch_kwargs/n_blocks_per_stage",
            json!(2),
            "n_blocks_per_stage is given, and the network is a PlainConvUNet",
        ),
    ] {
        let error = planned(&with(place, value)).unwrap_err().to_string();
        assert!(error.contains(expected), "{place}: {error}, not {expected}");
    }
    for (plans, expected) in [
        ("", "not JSON"),
        ("{", "not JSON"),
        (&"[".repeat(100_000), "not JSON"),
        ("[]", "there are no configurations"),
        (r#"{"configurations": 3}"#, "there are no configurations"),
        (r#"{"configurations": {"3d_fulres": {}}}"#, "did you mean 3d_fulres?"),
        (r#"{"configurations": {"3d_fullres": 1}}"#, "the configuration 3d_fullres is 1"),
        (r#"{"configurations": {"3d_fullres": {}}}"#, "neither architecture nor UNet_class_name"),
        (r#"{"configurations": {"3d_fullres": {"inherits_from": "3d_fullres"}}}"#, "inherits from itself"),
        (
            r#"{"configurations": {"3d_fullres": {"inherits_from": "a"}, "a": {"inherits_from": "3d_fullres"}}}"#,
            "itself",
        ),
        (r#"{"configurations": {"3d_fullres": {"inherits_from": 7}}}"#, "inherits_from is 7"),
        (r#"{"configurations": {"3d_fullres": {"UNet_class_name": "PlainConvUNet"}}}"#, "missing field"),
    ] {
        let error = NnUNetConfig::from_plans(plans, "3d_fullres", 1, 3).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}, not {expected}");
    }
}

#[test]
fn weights_load_under_each_of_their_names() {
    let config = NnUNetConfig::new(1, 2, [2, 4]);
    let source = model(&config);
    let names: Vec<(String, String)> =
        source.params().names().map(|(name, first)| (name.to_owned(), first.to_owned())).collect();
    assert!(names.len() > 2 * source.params().state().count());
    let value = |name: &str| source.params().get(name).unwrap().clone();
    // As in a file of the original: everything under all its names.
    let all = names.iter().map(|(name, _)| (name.clone(), value(name)));
    // By the last names alone.
    let last = source.params().state().map(|(first, tensor)| {
        let (name, _) = names.iter().rev().find(|(_, of)| of == first).unwrap();
        (name.clone(), tensor.clone())
    });
    let last: Vec<(String, Tensor)> = last.collect();
    assert!(last.iter().any(|(name, _)| name == "decoder.encoder.stages.0.0.convs.0.all_modules.0.weight"));
    for state in [all.collect(), last] {
        let mut target = Model::new(&config, Device::Cpu, Seed::new(2)).unwrap();
        target.params_mut().load(state).unwrap();
        for ((name, a), (_, b)) in source.params().state().zip(target.params().state()) {
            assert_eq!(a.to_vec::<f32>().unwrap(), b.to_vec::<f32>().unwrap(), "{name}");
        }
    }
    // Two names of one parameter with different values.
    let mut target = model(&config);
    let wrong = names.iter().map(|(name, first)| {
        let changed = name != first && name.ends_with("all_modules.0.bias");
        let tensor = value(name);
        (name.clone(), if changed { Tensor::ones(tensor.shape(), DType::F32, Device::Cpu).unwrap() } else { tensor })
    });
    let error = target.params_mut().load(wrong.collect::<Vec<_>>()).unwrap_err().to_string();
    assert!(error.contains("have different values"), "{error}");
}

#[test]
fn a_checkpoint_of_nnunet_gives_what_it_gave_there() {
    let expected = common::json("zoo/nnunet_checkpoint.output");
    let config = NnUNetConfig::from_plans(&expected["plans"].to_string(), "2d", 1, 3).unwrap();
    let mut made = model(&config);
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/zoo/nnunet_checkpoint.pth");
    let weights = Weights::open(file).unwrap();
    let report = made.params_mut().import(&Import::of(&weights).unwrap().part("network_weights")).unwrap();
    assert_eq!(report.loaded.len(), made.params().state().count());
    assert!(report.aliases.len() > report.loaded.len(), "{report:?}");
    let found = outputs(&made, &sizes(&expected["input"]), false, 0).unwrap();
    for ((name, output), expected) in found.iter().zip(expected["outputs"].as_array().unwrap()) {
        let expected: Vec<f64> = expected.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect();
        assert_close(name, &sampled(output, 48), &expected, 1e-5);
    }
}

#[test]
fn residual_networks_begin_as_their_shortcuts() {
    let config = NnUNetConfig { architecture: NnUNetArchitecture::Residual, ..NnUNetConfig::new(1, 2, [8, 16]) };
    let made = model(&config);
    for (name, value) in made.params().state() {
        let values = value.to_vec::<f32>().unwrap();
        let constant = |expected: f32| values.iter().all(|&value| value == expected);
        if name.ends_with("bias") {
            assert!(constant(0.0), "{name}");
        } else if name.ends_with("norm.weight") {
            assert!(constant(if name.contains("conv2") { 0.0 } else { 1.0 }), "{name}");
        } else if values.len() > 2000 {
            let fan: usize = value.shape()[1..].iter().product();
            let variance = values.iter().map(|value| value * value).sum::<f32>() / values.len() as f32;
            let expected = 2.0 / (1.0001 * fan as f32);
            assert!((variance / expected - 1.0).abs() < 0.1, "{name}: {variance}, not {expected}");
        }
    }
}

#[test]
fn deep_supervision_gives_logits_of_coarser_levels() {
    let config = NnUNetConfig::new(1, 3, [2, 3, 4]);
    let nnunet = model(&config);
    let expected: [(&str, &[usize]); 2] = [("logits", &[1, 3, 8, 16, 12]), ("logits_1", &[1, 3, 4, 8, 6])];
    for training in [false, true] {
        let found = outputs(&nnunet, &[1, 1, 8, 16, 12], training, 0).unwrap();
        assert_eq!(shapes(&found), expected);
    }
    let alone = model(&NnUNetConfig { deep_supervision: false, ..config });
    let found = outputs(&alone, &[1, 1, 8, 16, 12], true, 0).unwrap();
    assert_eq!(shapes(&found), expected[..1]);
    let frozen: Vec<&str> = alone.params().parameters().filter(|info| info.frozen).map(|info| info.name).collect();
    assert_eq!(frozen, ["decoder.seg_layers.0.weight", "decoder.seg_layers.0.bias"]);
    // MONAI's are as large as the logits, and only there in training.
    let config = DynUNetConfig { filters: Some(vec![2, 3, 4, 4]), deep_supervision: 2, ..DynUNetConfig::new(1, 3, 4) };
    let dynunet = model(&config);
    let shape: &[usize] = &[1, 3, 8, 16, 8];
    let found = outputs(&dynunet, &[1, 1, 8, 16, 8], true, 0).unwrap();
    assert_eq!(shapes(&found), [("logits", shape), ("logits_1", shape), ("logits_2", shape)]);
    assert_eq!(shapes(&outputs(&dynunet, &[1, 1, 8, 16, 8], false, 0).unwrap()), [("logits", shape)]);
}

#[test]
fn sizes_that_do_not_fit_are_refused_with_those_that_do() {
    let anisotropic = NnUNetConfig {
        strides: vec![vec![1, 1, 1], vec![1, 2, 2], vec![2, 2, 2]],
        ..NnUNetConfig::new(1, 2, [2, 2, 2])
    };
    let nnunet = model(&anisotropic);
    let text = refused(&nnunet, &[1, 1, 3, 8, 8]);
    assert!(text.contains("3 spatial axes, multiples of [2, 4, 4]"), "{text}");
    let text = refused(&nnunet, &[1, 1, 2, 4, 4]);
    assert!(text.contains("more than one voxel at the coarsest level"), "{text}");
    assert!(refused(&nnunet, &[1, 1, 8, 8]).contains("3 spatial axes"));
    assert!(refused(&nnunet, &[1, 1, 0, 8, 8]).contains("multiples"));
    assert!(outputs(&nnunet, &[1, 1, 2, 4, 8], false, 0).is_ok());
    let dynunet = model(&DynUNetConfig { filters: Some(vec![2, 2, 2]), ..DynUNetConfig::new(1, 2, 3) });
    assert!(refused(&dynunet, &[1, 1, 8, 8, 6]).contains("multiples of [4, 4, 4]"));
    let vnet = model(&VNetConfig { width: 2, rank: 2, ..VNetConfig::new(1, 2) });
    assert!(refused(&vnet, &[1, 1, 16, 24]).contains("2 spatial axes, all multiples of 16"));
    let segresnet = model(&SegResNetConfig { init_filters: 8, ..SegResNetConfig::new(1, 2) });
    assert!(refused(&segresnet, &[1, 1, 8, 8, 12]).contains("all multiples of 8"));
}

#[test]
fn wrong_fields_are_explained() {
    let error = |config: Value| Model::new(&config, Device::Meta, Seed::new(0)).map(drop).unwrap_err().to_string();
    for (config, expected) in [
        (json!({"network": "vnet", "in_channels": 3, "classes": 2}), "in_channels is 3, and width 16; expected"),
        (
            json!({"network": "segresnet", "in_channels": 1, "classes": 2, "init_filters": 12}),
            "norm has 8 groups, and init_filters",
        ),
        (
            json!({"network": "segresnet", "in_channels": 1, "classes": 2, "vae": {"image_size": [16, 16, 24]}}),
            "vae.image_size is [16, 16, 24]; expected multiples of 16",
        ),
        (
            json!({"network": "dynunet", "in_channels": 1, "classes": 2, "rank": 1, "residual": true,
                "kernel_size": [[3], [5], [3]], "strides": [[1], [3], [1]]}),
            "kernel_size[1] is [5], and strides[1] [3]; expected strides of",
        ),
        (
            json!({"network": "nnunet", "in_channels": 1, "classes": 2, "rank": 1, "features": [2, 2], "blocks": [1, 1],
                "kernel_sizes": [[3], [3]], "strides": [[1], [2]], "decoder_blocks": [1], "activation": "prelu"}),
            "activation is Prelu",
        ),
    ] {
        let text = error(config);
        assert!(text.contains(expected), "{text}, not {expected}");
    }
}

#[test]
fn the_autoencoder_has_a_loss_in_training_alone() {
    let vae =
        |estimate_deviation| SegResNetVae { image_size: vec![8, 16], latent: 6, estimate_deviation, deviation: 0.3 };
    let config = |estimate_deviation| SegResNetConfig {
        rank: 2,
        init_filters: 8,
        blocks_down: vec![1, 1],
        blocks_up: vec![1],
        vae: Some(vae(estimate_deviation)),
        ..SegResNetConfig::new(1, 2)
    };
    for estimate_deviation in [false, true] {
        let segresnet = model(&config(estimate_deviation));
        assert_eq!(outputs(&segresnet, &[1, 1, 8, 16], false, 0).unwrap().names().collect::<Vec<_>>(), ["logits"]);
        let loss = |seed| {
            let found = outputs(&segresnet, &[2, 1, 8, 16], true, seed).unwrap();
            found.get("vae_loss").unwrap().to_scalar().unwrap()
        };
        let (one, other) = (loss(1), loss(2));
        assert!(one.is_finite() && one > 0.0 && one == loss(1) && one != other, "{one} {other}");
        let frozen = segresnet.params().parameters().filter(|info| info.frozen).count();
        assert_eq!(frozen, if estimate_deviation { 0 } else { 2 });
        // Other sizes can be predicted, but not trained.
        assert!(outputs(&segresnet, &[1, 1, 4, 6], false, 0).is_ok());
        let error = outputs(&segresnet, &[1, 1, 4, 6], true, 0).unwrap_err().to_string();
        assert!(error.contains("vae.image_size in training: [8, 16]"), "{error}");
    }
}
