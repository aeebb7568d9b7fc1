//! What the registry refuses.

use serde_json::json;
use tomograd_core::{Device, ErrorKind, Seed};
use tomograd_models::{Model, registry};

#[test]
fn presets_build_and_wrong_configurations_do_not() {
    for family in registry::families() {
        let preset = family.preset().unwrap();
        assert_eq!(preset["network"], family.name);
    }
    let new = |config| match Model::new(&config, Device::Cpu, Seed::new(0)) {
        Ok(model) => Ok(model.config().clone()),
        Err(error) => Err((error.kind(), error.to_string())),
    };
    let config = json!({"network": "unet2d", "in_channels": 1, "classes": 2, "widths": [2, 4]});
    assert_eq!(new(config.clone()).unwrap(), config);
    let mut misspelt = config.clone();
    misspelt["width"] = json!([2]);
    let (kind, text) = new(misspelt).unwrap_err();
    assert!(kind == ErrorKind::Argument && text.contains("\"width\""), "{text}");
    let (kind, text) = new(json!({"network": "resnet"})).unwrap_err();
    assert!(kind == ErrorKind::Name && text.contains("unet3d, unet2d"), "{text}");
    assert_eq!(new(json!({"classes": 2})).unwrap_err().0, ErrorKind::Argument);
    assert_eq!(
        new(json!({"network": "unet3d", "in_channels": 1, "classes": 2, "widths": []})).unwrap_err().0,
        ErrorKind::Argument
    );
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
