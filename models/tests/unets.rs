//! U-Nets: sizes that they refuse, order of outputs, parts that aren't used, memory.

use serde_json::{Value, json};
use tomograd_autodiff::methods::*;
use tomograd_core::{DType, Device, Seed, Tensor};
use tomograd_models::{Model, profile};
use tomograd_nn::{AdamW, DiceCe, Optimizer, Pass};

fn model(config: &Value) -> Model {
    Model::new(config, Device::Meta, Seed::new(0)).unwrap_or_else(|error| panic!("{config}: {error}"))
}

/// The shape of the logits, or the error.
fn logits(config: &Value, shape: &[usize]) -> Result<Vec<usize>, String> {
    let image = Tensor::zeros(shape, DType::F32, Device::Meta).unwrap();
    model(config).predict(&image).map(|logits| logits.shape().to_vec()).map_err(|error| error.to_string())
}

#[test]
fn sizes_that_do_not_fit_are_refused_with_those_that_do() {
    let with = |network: &str, more: Value| {
        let mut config = json!({"network": network, "rank": 2, "in_channels": 1, "classes": 2});
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        config
    };
    let unpadded = with("unet", json!({"padded": false, "norm": "none"}));
    assert_eq!(logits(&unpadded, &[1, 1, 572, 188]).unwrap(), [1, 2, 388, 4]);
    let unet = with("unet", json!({"widths": [4, 8, 16]}));
    let monai = with("monai_unet", json!({"channels": [4, 8, 8], "strides": [[2, 1], 3]}));
    let basic = with("basic_unet", json!({"features": [4, 4, 4, 4, 4, 4]}));
    let basic_plus = with("basic_unet_plus_plus", json!({"features": [4, 4, 4, 4, 4, 4]}));
    let nested = with("nested_unet", json!({"widths": [4, 4, 4]}));
    let attention = with("attention_unet", json!({"channels": [4, 8, 8], "strides": [2, [4, 2]]}));
    let gated = with("attention_gated_unet", json!({"widths": [4, 4, 4, 4]}));
    for (config, wrong, right, expected) in [
        (&unpadded, vec![1, 1, 572, 571], vec![1, 1, 572, 572], "axes of 556 or 572, not 571"),
        (&unpadded, vec![1, 1, 187, 572], vec![1, 1, 188, 572], "axes of at least 188, not 187"),
        (&unpadded, vec![1, 1, 572, 572, 572], vec![1, 1, 204, 572], "with 2 spatial axes"),
        (&unet, vec![1, 1, 3, 9], vec![1, 1, 4, 9], "at least 4"),
        (&unet, vec![1, 1, 9], vec![1, 1, 9, 9], "with 2 spatial axes"),
        (&monai, vec![1, 1, 8, 6], vec![1, 1, 5, 6], "multiples of [6, 3]"),
        (&basic, vec![1, 1, 15, 40], vec![1, 1, 16, 41], "at least 16"),
        (&basic_plus, vec![1, 1, 15, 40], vec![1, 1, 16, 41], "at least 16"),
        (&nested, vec![1, 1, 10, 8], vec![1, 1, 12, 8], "all multiples of 4"),
        (&attention, vec![1, 1, 12, 8], vec![1, 1, 16, 8], "multiples of [8, 4]"),
        (&gated, vec![1, 1, 12, 8], vec![1, 1, 16, 8], "all multiples of 8"),
    ] {
        let error = logits(config, &wrong).unwrap_err();
        assert!(error.contains(expected), "{config} {wrong:?}: {error}");
        assert!(logits(config, &right).is_ok(), "{config} {right:?}");
    }
}

#[test]
fn the_main_output_comes_first_and_unused_heads_do_not_stop_training() {
    for (config, names) in [
        (json!({"network": "basic_unet_plus_plus", "rank": 1}), vec!["logits"]),
        (
            json!({"network": "basic_unet_plus_plus", "rank": 1, "deep_supervision": true}),
            vec!["logits", "logits_0_1", "logits_0_2", "logits_0_3"],
        ),
        (
            json!({"network": "nested_unet", "rank": 1, "in_channels": 1, "classes": 2, "deep_supervision": true}),
            vec!["logits", "logits_1", "logits_2", "logits_3"],
        ),
    ] {
        let mut model = model(&config);
        let mut optimizer = AdamW::new(model.params(), 1e-3).unwrap();
        let pass = Pass::train(model.params(), Seed::new(1)).unwrap();
        let image = pass.input(&Tensor::zeros(&[2, 1, 32], DType::F32, Device::Meta).unwrap());
        let outputs = model.network().run(&[("image", image)].into(), &pass).unwrap();
        assert_eq!(outputs.names().collect::<Vec<_>>(), names);
        let labels = Tensor::zeros(&[2, 32], DType::I64, Device::Meta).unwrap();
        let terms = outputs.iter().map(|(_, output)| DiceCe::default().forward(output, &labels).unwrap());
        let loss = terms.reduce(|sum, term| sum.add(&term).unwrap()).unwrap();
        optimizer.step(model.params_mut(), pass.backward(loss).unwrap()).unwrap();
    }
}

#[test]
fn configurations_that_make_no_sense_name_the_field() {
    let monai = json!({"network": "monai_unet", "in_channels": 1, "classes": 2, "channels": [4, 8], "strides": [2]});
    let attention =
        json!({"network": "attention_unet", "in_channels": 1, "classes": 2, "channels": [4, 8], "strides": [2]});
    let basic = json!({"network": "basic_unet"});
    let unet = json!({"network": "unet", "in_channels": 1, "classes": 2});
    let gated = json!({"network": "attention_gated_unet", "in_channels": 1, "classes": 2});
    let nested = json!({"network": "nested_unet", "in_channels": 1, "classes": 2});
    for (config, field, value, expected) in [
        (&monai, "strides", json!([2, 2]), "strides has 2 entries; expected 1"),
        (&monai, "strides", json!([[2, 2]]), "strides[0] [2, 2] for 3 spatial axes"),
        (&monai, "strides", json!([0]), "strides[0] is 0"),
        (&monai, "strides", json!([-1]), "strides[0]"),
        (&monai, "kernel", json!(4), "kernel [4, 4, 4]; expected odd numbers"),
        (&monai, "channels", json!([4]), "channels has 1 entries; expected 2 to 24"),
        (
            &monai,
            "residual_units",
            json!(1u64 << 40),
            "residual_units is 1099511627776; expected a number from 0 to 64",
        ),
        (&monai, "ordering", json!("NAN"), "the ordering \"NAN\""),
        (&monai, "ordering", json!("NX"), "the letters A, D and N"),
        (&monai, "norm", json!({"group": 3}), "norm: 3 groups"),
        (&monai, "norm", json!("layer"), "norm: unknown variant `layer`"),
        (&monai, "activation", json!({"leaky_relu": 1e300}), "LeakyRelu(1e300)"),
        (&monai, "dropout", json!(1.0), "dropout is 1; expected a number from 0 to below 1"),
        (&attention, "channels", json!([1, 8]), "channels[0] is 1; expected 2 at least"),
        (&basic, "features", json!([4, 4, 4, 4, 4]), "features has 5 entries; expected 6"),
        (&basic, "features", json!([4, 4, 1, 4, 4, 4]), "features[2] is 1; expected 2 at least"),
        (&unet, "widths", json!([4, 7]), "widths[1] is 7; expected an even number"),
        (&unet, "rank", json!(4), "rank is 4; expected a number from 1 to 3"),
        (&unet, "upsampling", json!("bicubic"), "upsampling: unknown variant `bicubic`"),
        (&gated, "gates", json!(0), "gates is 0"),
        (&gated, "widths", json!([4, 8]), "widths has 2 entries; expected 3 to 24"),
        (&nested, "widths", json!(vec![4; 13]), "widths has 13 entries; expected 2 to 12"),
    ] {
        let mut wrong = config.clone();
        wrong[field] = value;
        let error = Model::new(&wrong, Device::Meta, Seed::new(0)).err().unwrap_or_else(|| panic!("{wrong} is taken"));
        assert!(error.to_string().contains(expected), "{wrong}: {error}");
    }
}

/// In units of the map of the finest level, with its channels.
#[test]
fn inference_holds_no_more_maps_than_the_networks_need() {
    let channels = 8;
    for (config, most) in [
        // Two maps in a block; in the decoder the skip connection and the upsampled map as well.
        (json!({"network": "unet", "in_channels": 1, "classes": 1, "widths": [8, 16, 32], "norm": "batch"}), 3.3),
        (json!({"network": "basic_unet", "rank": 2, "classes": 1, "features": [8, 8, 8, 8, 8, 8]}), 3.3),
        // Maps have half the image's size along each axis; PReLU takes four of them, with the skip connection.
        (
            json!({"network": "monai_unet", "rank": 2, "in_channels": 1, "classes": 1, "channels": [8, 8, 8], "strides": [2, 2]}),
            1.4,
        ),
        // The encoder's map, the upsampled one, the gated one, and the output.
        (
            json!({"network": "attention_unet", "rank": 2, "in_channels": 1, "classes": 1, "channels": [8, 8, 8], "strides": [2, 2]}),
            4.4,
        ),
        // Two nodes of the finest level, their concatenation, the upsampled map and the output; two levels below.
        (json!({"network": "nested_unet", "in_channels": 1, "classes": 1, "widths": [8, 8, 8, 8]}), 6.8),
    ] {
        let size = 1024;
        let profile = profile(&config, &[&[1, 1, size, size]]).unwrap();
        let maps = profile.inference.peak as f64 / (size * size * channels * 4) as f64;
        println!("{}: {maps:.2} maps", config["network"]);
        assert!(maps <= most, "{}: {maps:.2} maps", config["network"]);
    }
}
