//! What densely connected networks cost.

use tomograd_core::{Device, Result, Seed};
use tomograd_models::{DenseNetConfig, Model, ResNetConfig, profile, registry::Config};

#[test]
fn numbers() -> Result<()> {
    for name in ["densenet121", "densenet201"] {
        let config = DenseNetConfig::preset(name)?;
        let cost = profile(&config, &[&[8, 3, 224, 224]])?;
        println!("{name}: {cost:?}");
    }
    for name in ["resnet50", "seresnet50", "cbam_resnet50"] {
        let cost = profile(&ResNetConfig::preset(name)?, &[&[8, 3, 224, 224]])?;
        println!("{name}: {cost:?}");
    }
    for name in ["monai_densenet121_3d"] {
        let cost = profile(&DenseNetConfig::preset(name)?, &[&[2, 1, 96, 96, 96]])?;
        println!("{name}: {cost:?}");
    }
    Ok(())
}
