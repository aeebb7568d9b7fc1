//! What the registry refuses.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tomograd_core::{Device, ErrorKind, Seed};
use tomograd_models::{Model, registry};

/// The configuration of the model that `config` describes, or the error's kind and text.
fn made(config: &Value) -> Result<Value, (ErrorKind, String)> {
    match Model::new(config, Device::Meta, Seed::new(0)) {
        Ok(model) => Ok(model.config().clone()),
        Err(error) => Err((error.kind(), error.to_string())),
    }
}

#[test]
fn every_family_has_a_name_a_card_and_presets_that_build() {
    let mut names = BTreeSet::new();
    for family in registry::families() {
        let card = family.card();
        assert!(!family.name().is_empty() && names.insert(family.name()), "{family:?}");
        assert!(card.ranks.iter().all(|rank| (1..=3).contains(rank)) && !card.ranks.is_empty(), "{family:?}");
        assert!(card.source.contains("arXiv:") || card.source.contains("doi:"), "{family:?}");
        assert!(!card.about.is_empty() && !card.task.to_string().is_empty());
        assert_eq!(registry::family(family.name()).unwrap().name(), family.name());
        let mut presets = BTreeSet::new();
        for preset in family.presets().unwrap() {
            assert!(presets.insert(preset.name), "{family:?} {}", preset.name);
            assert_eq!(preset.config["network"], family.name());
            assert_eq!(made(&preset.config).unwrap(), preset.config, "a preset lacks a field that it has as JSON");
            assert_eq!(family.preset(preset.name).unwrap(), preset);
            if let Some(channels) = preset.channels {
                let number = preset.config["in_channels"].as_u64().unwrap() as usize;
                assert_eq!((channels.mean.len(), channels.deviation.len()), (number, number));
            }
        }
        let error = family.preset("no such preset").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Name);
    }
}

#[test]
fn a_wrong_configuration_is_explained() {
    let config = json!({"network": "unet2d", "in_channels": 1, "classes": 2, "widths": [2, 4]});
    assert_eq!(made(&config).unwrap(), config);
    let with = |field: &str, value: Value| {
        let mut config = config.clone();
        config[field] = value;
        made(&config).unwrap_err()
    };
    let without = |field: &str, instead: &str| {
        let mut config = config.clone();
        let value = config.as_object_mut().unwrap().remove(field).unwrap();
        config[instead] = value;
        made(&config).unwrap_err()
    };
    for ((kind, text), expected_kind, expected) in [
        (with("width", json!([2])), ErrorKind::Name, "no field is called width, did you mean widths?"),
        (without("widths", "width"), ErrorKind::Name, "no field is called width, did you mean widths?"),
        (with("classes", json!("two")), ErrorKind::Argument, "classes: invalid type: string \"two\""),
        (with("widths", json!([2, -4])), ErrorKind::Argument, "widths[1]: invalid value: integer `-4`"),
        (with("widths", json!([2, 0])), ErrorKind::Argument, "widths[1] is 0; expected a number from 1"),
        (with("widths", json!([])), ErrorKind::Argument, "widths has 0 entries; expected 1 to 24"),
        (with("in_channels", json!(0)), ErrorKind::Argument, "in_channels is 0; expected"),
        (with("network", json!("unet2")), ErrorKind::Name, "no network is called unet2, did you mean unet2d?"),
        (with("network", json!("perceptron")), ErrorKind::Name, "unet3d, unet2d"),
        (with("network", json!(3)), ErrorKind::Argument, "doesn't say which network"),
        (made(&json!({"classes": 2})).unwrap_err(), ErrorKind::Argument, "doesn't say which network"),
        (made(&json!({"network": "unet3d"})).unwrap_err(), ErrorKind::Argument, "missing field `in_channels`"),
    ] {
        assert!(kind == expected_kind && text.contains(expected), "{kind:?}: {text}, not {expected}");
    }
}

#[test]
fn sizes_that_make_no_sense_are_refused_and_leave_no_parameters() {
    use tomograd_models::{UNet2d, UNet2dConfig, UNet3d, UNet3dConfig};
    use tomograd_nn::Params;
    let widths: [&[usize]; 6] = [&[], &[0], &[4, 0], &[4; 70], &[1 << 60, 2], &[4, usize::MAX]];
    let cases = widths.map(|widths| (1, 2, widths)).into_iter();
    let others: [(usize, usize, &[usize]); 4] = [(0, 2, &[4]), (1, 0, &[4]), (usize::MAX, 2, &[4]), (1, 1 << 40, &[4])];
    for (in_channels, classes, widths) in cases.chain(others) {
        let widths = widths.to_vec();
        let mut params = Params::new(Device::Cpu, Seed::new(0));
        let flat = UNet2dConfig { in_channels, classes, widths: widths.clone() };
        let deep = UNet3dConfig { in_channels, classes, widths };
        let errors = [UNet2d::new(params.root(), &flat).err(), UNet3d::new(params.root(), &deep).err()];
        for error in errors {
            let error = error.unwrap_or_else(|| panic!("{deep:?} is taken")).to_string();
            assert!(error.contains("expected"), "{error}");
        }
        assert_eq!(params.state().count(), 0);
    }
    // A name that is taken is met half way.
    let mut params = Params::new(Device::Cpu, Seed::new(0));
    params.root().constant_buffer("head.bias", &[1], 0.0).unwrap();
    let config = UNet3dConfig { in_channels: 1, classes: 2, widths: vec![2, 4] };
    assert!(UNet3d::new(params.root(), &config).is_err());
    assert_eq!(params.state().count(), 1);
    UNet3d::new(params.root().at("other"), &config).unwrap();
}
