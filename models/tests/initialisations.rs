//! How networks start: as their originals, by the statistics of the numbers drawn.

mod common;

use common::json;
use serde_json::Value;
use tomograd_core::{Device, Seed};
use tomograd_models::{Model, ResNetConfig, SegResNetConfig, SegResNetUpsampling, registry::Config};

/// Count (of those that differ), mean, standard deviation and kurtosis of numbers; the last two of a constant are 0.
#[derive(Debug, Clone, Copy)]
struct Statistics {
    count: f64,
    mean: f64,
    deviation: f64,
    kurtosis: f64,
}

impl Statistics {
    fn of(values: &[f64]) -> Self {
        let mut distinct: Vec<u64> = values.iter().map(|value| value.to_bits()).collect();
        distinct.sort_unstable();
        distinct.dedup();
        let count = distinct.len() as f64;
        if values.iter().all(|value| *value == values[0]) {
            return Self { count, mean: values[0], deviation: 0.0, kurtosis: 0.0 };
        }
        let all = values.len() as f64;
        let mean = values.iter().sum::<f64>() / all;
        let moment = |power: i32| values.iter().map(|value| (value - mean).powi(power)).sum::<f64>() / all;
        Self { count, mean, deviation: moment(2).sqrt(), kurtosis: moment(4) / moment(2).powi(2) }
    }

    fn read(row: &Value) -> Self {
        let number = |at: usize| row.get(at).and_then(Value::as_f64);
        let (count, mean) = (number(0).unwrap(), number(1).unwrap());
        Self { count, mean, deviation: number(2).unwrap_or(0.0), kurtosis: number(3).unwrap_or(0.0) }
    }

    /// What of two samples of one distribution can't be chance: six standard errors of the difference.
    fn differs(self, other: Self) -> Option<&'static str> {
        let constant = |of: Self| of.deviation == 0.0;
        match (constant(self), constant(other)) {
            (true, true) => return ((self.mean - other.mean).abs() > 1e-5 * other.mean.abs()).then_some("constant"),
            (false, false) => {}
            _ => return Some("one is constant"),
        }
        let error = 6.0 * (1.0 / self.count + 1.0 / other.count).sqrt();
        let deviation = self.deviation.max(other.deviation);
        // The variance of the estimate of a deviation, times the count and divided by the variance, is (kurtosis − 1) / 4; that of a
        // kurtosis of normal numbers, times the count, is 24.
        let spread = ((self.kurtosis.max(other.kurtosis) - 1.0) / 4.0).sqrt();
        if (self.mean - other.mean).abs() > error * deviation {
            return Some("mean");
        }
        if (self.deviation - other.deviation).abs() > error * spread * deviation {
            return Some("standard deviation");
        }
        ((self.kurtosis - other.kurtosis).abs() > error * 24f64.sqrt()).then_some("kurtosis")
    }
}

/// As many numbers of each parameter as the original's statistics are of, from seeds 0, 1, ….
fn drawn(config: &Value, originals: &[Statistics]) -> Vec<(String, Statistics)> {
    let mut values: Vec<(String, Vec<f64>)> = Vec::new();
    let enough = |(values, of): (&(String, Vec<f64>), &Statistics)| values.1.len() as f64 >= of.count;
    for seed in 0.. {
        let model = Model::new(config, Device::Cpu, Seed::new(seed)).unwrap();
        let params = model.params();
        if values.is_empty() {
            values = params.parameters().map(|info| (info.name.to_owned(), Vec::new())).collect();
            assert_eq!(values.len(), originals.len());
        }
        for (values, of) in values.iter_mut().zip(originals) {
            if !enough((values, of)) {
                values.1.extend(params.get(&values.0).unwrap().to_vec_f64().unwrap());
            }
        }
        if values.iter().zip(originals).all(enough) {
            break;
        }
    }
    values.into_iter().map(|(name, values)| (name, Statistics::of(&values))).collect()
}

#[test]
fn parameters_start_as_those_of_the_originals() {
    let rows = json("initialisations");
    let mut wrong = Vec::new();
    for (name, row) in rows.as_object().unwrap() {
        let originals: Vec<Statistics> = row.as_array().unwrap().iter().map(Statistics::read).collect();
        let config = &json(&format!("zoo/{name}"))["config"];
        for ((parameter, found), original) in drawn(config, &originals).into_iter().zip(originals) {
            if let Some(what) = found.differs(original) {
                wrong.push(format!("{name} {parameter}: {what}: {found:?}, not {original:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} parameters start otherwise:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn a_pixel_shuffle_starts_as_nearest_upsampling() {
    for rank in [2, 3] {
        let config =
            SegResNetConfig { rank, upsampling: SegResNetUpsampling::PixelShuffle, ..SegResNetConfig::new(1, 2) };
        let model = Model::new(&config, Device::Cpu, Seed::new(3)).unwrap();
        let mut seen = 0;
        for info in model.params().parameters().filter(|info| info.name.ends_with("conv_block.weight")) {
            let weight = model.params().get(info.name).unwrap();
            let (values, copies) = (weight.to_vec_f64().unwrap(), 1usize << rank);
            let row = values.len() / weight.shape()[0];
            for group in values.chunks(copies * row) {
                assert!(group.chunks(row).all(|copy| copy == &group[..row]), "{}", info.name);
            }
            // Different channels differ.
            assert_ne!(values[..row], values[copies * row..][..row], "{}", info.name);
            let fan: usize = weight.shape()[1..].iter().product();
            let statistics = Statistics::of(&values);
            let expected = (2.0 / fan as f64).sqrt();
            assert!(
                (statistics.deviation / expected - 1.0).abs() < 0.1,
                "{}: {statistics:?}, not {expected}",
                info.name
            );
            seen += 1;
        }
        assert!(seen > 0);
    }
}

#[test]
fn the_head_of_monais_residual_networks_starts_without_bias() {
    let bias = |preset: &str| {
        let config = ResNetConfig { width: 4, layers: vec![1], ..ResNetConfig::preset(preset).unwrap() };
        let model = Model::new(&config, Device::Cpu, Seed::new(1)).unwrap();
        model.params().get("fc.bias").unwrap().to_vec_f64().unwrap()
    };
    assert_eq!(bias("monai_resnet10_3d"), [0.0, 0.0]);
    assert!(bias("r3d10").iter().all(|value| *value != 0.0));
}
