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
