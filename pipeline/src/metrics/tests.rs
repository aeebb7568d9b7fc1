use proptest::prelude::*;
use tomograd_core::Device;

use super::*;

proptest! {
    #[test]
    fn distances_are_those_of_brute_force(
        shape in [1usize..7, 1usize..7, 1usize..7],
        spacing in [0.3f64..3.0, 0.3f64..3.0, 0.3f64..3.0],
        density in 0u32..=8,
        seed: u64,
    ) {
        let mut random = tomograd_core::Seed::new(seed).random();
        let [mut from, mut sites]: [Surface; 2] = std::array::from_fn(|_| Surface {
            size: shape,
            planes: vec![Vec::new(); shape[0]],
        });
        for (z, y, x) in (0..shape[0]).flat_map(|z| (0..shape[1]).flat_map(move |y| (0..shape[2]).map(move |x| (z, y, x)))) {
            for (surface, density) in [(&mut from, 8), (&mut sites, density)] {
                if random.bernoulli(f64::from(density) / 16.0) {
                    surface.planes[z].push([y as u32, x as u32]);
                }
            }
        }
        let places = |surface: &Surface| -> Vec<[f64; 3]> {
            let planes = (0u32..).zip(&surface.planes);
            let mut places: Vec<[u32; 3]> =
                planes.flat_map(|(z, plane)| plane.iter().map(move |&[y, x]| [x, z, y])).collect();
            places.sort_unstable();
            places.into_iter().map(|[x, z, y]| [z, y, x].map(f64::from)).collect()
        };
        let distances = |threads| {
            tomograd_core::pieces::with_threads(threads, || squared_distances(&from, &sites, spacing)).unwrap()
        };
        let found = distances(1);
        // The same bits, whatever the threads.
        prop_assert!(found.iter().map(|x| x.to_bits()).eq(distances(3).iter().map(|x| x.to_bits())));
        let (from, sites) = (places(&from), places(&sites));
        prop_assert_eq!(found.len(), from.len());
        for (a, distance) in from.iter().zip(found) {
            let between = |b: &[f64; 3]| (0..3).map(|i| ((a[i] - b[i]) * spacing[i]).powi(2)).sum::<f64>();
            let expected = sites.iter().map(between).fold(f64::INFINITY, f64::min);
            prop_assert!(distance == expected || (distance - expected).abs() <= 1e-9 * (1.0 + expected));
        }
    }
}

/// The comparison of class 1, computed from the definitions by brute force; volumes are left out.
fn by_definition(masks: [&[u8]; 2], shape: &[usize], spacing: &[f64], tolerance: f64) -> Comparison {
    let place = |mut index: usize| {
        let mut place = vec![0i64; shape.len()];
        for axis in (0..shape.len()).rev() {
            place[axis] = (index % shape[axis]) as i64;
            index /= shape[axis];
        }
        place
    };
    let set = |mask: &[u8], place: &[i64]| {
        let inside = place.iter().zip(shape).all(|(&p, &n)| (0..n as i64).contains(&p));
        inside && mask[place.iter().zip(shape).fold(0, |index, (&p, &n)| index * n + p as usize)] == 1
    };
    let surface = |mask: &[u8]| -> Vec<Vec<i64>> {
        let on_surface = |at: &Vec<i64>| {
            let neighbour = |axis: usize, step: i64| {
                let mut at = at.clone();
                at[axis] += step;
                set(mask, &at)
            };
            set(mask, at) && (0..shape.len()).any(|axis| !neighbour(axis, 1) || !neighbour(axis, -1))
        };
        (0..mask.len()).map(place).filter(on_surface).collect()
    };
    let distances = |from: &[Vec<i64>], to: &[Vec<i64>]| -> Vec<f64> {
        let between = |a: &[i64], b: &[i64]| {
            a.iter().zip(b).zip(spacing).map(|((a, b), s)| ((a - b) as f64 * s).powi(2)).sum::<f64>().sqrt()
        };
        from.iter().map(|a| to.iter().map(|b| between(a, b)).fold(f64::INFINITY, f64::min)).collect()
    };
    let [first, second] = masks.map(surface);
    let (mut there, mut back) = (distances(&first, &second), distances(&second, &first));
    let count =
        |hit: &dyn Fn(u8, u8) -> bool| masks[0].iter().zip(masks[1]).filter(|(a, b)| hit(**a, **b)).count() as f64;
    let (both, any) = (count(&|a, b| a == 1 && b == 1), count(&|a, b| a == 1 || b == 1));
    let empty = first.is_empty() || second.is_empty();
    let all = (there.len() + back.len()) as f64;
    let assd = there.iter().chain(&back).sum::<f64>() / all;
    let surface_dice = there.iter().chain(&back).filter(|distance| **distance <= tolerance).count() as f64 / all;
    Comparison {
        metrics: ClassMetrics {
            dice: 2.0 * both / (both + any),
            iou: both / any,
            hd95: if empty { f64::NAN } else { percentile(&mut there, 0.95).max(percentile(&mut back, 0.95)) },
            assd: if empty { f64::NAN } else { assd },
        },
        surface_dice,
        predicted_ml: 0.0,
        true_ml: 0.0,
    }
}

proptest! {
    #[test]
    fn metrics_are_those_of_their_definitions(
        axes in proptest::collection::vec((1usize..7, 0.3f64..3.0), 2..=3),
        density in 0.0f64..1.0,
        tolerance in 0.0f64..4.0,
        seed: u64,
    ) {
        let (shape, spacing): (Vec<usize>, Vec<f64>) = axes.into_iter().unzip();
        let mut random = tomograd_core::Seed::new(seed).random();
        let count = shape.iter().product();
        let [first, second]: [Vec<u8>; 2] =
            std::array::from_fn(|_| (0..count).map(|_| u8::from(random.bernoulli(density))).collect());
        let evaluated = evaluate(&tensor(&first, &shape), &tensor(&second, &shape), &spacing, 2).unwrap()[0];
        let (dims, steps) = (grid::dims("test", &shape).unwrap(), grid::spacings("test", &spacing, shape.len()).unwrap());
        let compared = classes_of([&first, &second], dims, steps, shape.len(), 2, tolerance).unwrap()[0];
        let expected = by_definition([&first, &second], &shape, &spacing, tolerance);
        let (found, metrics) = (compared.metrics, expected.metrics);
        prop_assert_eq!(format!("{:?}", evaluated), format!("{:?}", found));
        let pairs = [
            (found.dice, metrics.dice), (found.iou, metrics.iou), (found.hd95, metrics.hd95), (found.assd, metrics.assd),
            (compared.surface_dice, expected.surface_dice),
        ];
        for (found, expected) in pairs {
            prop_assert!((found - expected).abs() < 1e-9 || (found.is_nan() && expected.is_nan()), "{} {}", found, expected);
        }
    }
}

fn tensor(values: &[u8], shape: &[usize]) -> Tensor {
    Tensor::from_slice(values, shape, Device::Cpu).unwrap()
}

#[test]
fn a_shifted_square() {
    // 2×2 squares, offset by one voxel along the last axis.
    let truth = tensor(&[1, 1, 0, 0, 1, 1, 0, 0], &[2, 4]);
    let prediction = tensor(&[0, 1, 1, 0, 0, 1, 1, 0], &[2, 4]);
    let metrics = evaluate(&prediction, &truth, &[1.0, 2.0], 3).unwrap();
    assert_eq!(metrics[0].dice, 0.5);
    assert!((metrics[0].iou - 1.0 / 3.0).abs() < 1e-15);
    assert_eq!(metrics[0].hd95, 2.0);
    assert_eq!(metrics[0].assd, 1.0);
    assert!(
        metrics[1].dice.is_nan() && metrics[1].iou.is_nan() && metrics[1].hd95.is_nan() && metrics[1].assd.is_nan()
    );
}

#[test]
fn one_empty_mask_has_no_distance() {
    let metrics = evaluate(&tensor(&[0; 4], &[1, 2, 2]), &tensor(&[0, 1, 1, 0], &[1, 2, 2]), &[1.0; 3], 2).unwrap();
    assert_eq!((metrics[0].dice, metrics[0].iou), (0.0, 0.0));
    assert!(metrics[0].hd95.is_nan() && metrics[0].assd.is_nan());
}

#[test]
fn percentiles_are_linear_between_values() {
    assert!((percentile(&mut [4.0, 1.0, 3.0, 2.0], 0.95) - 3.85).abs() < 1e-12);
    assert_eq!(percentile(&mut [7.0], 0.95), 7.0);
}

#[test]
fn bad_values_and_shapes_are_errors() {
    let truth = tensor(&[0, 1, 2, 0], &[2, 2]);
    let error = evaluate(&truth, &truth, &[1.0; 2], 2).unwrap_err().to_string();
    assert!(error.contains("value 2 at voxel [1, 0]"), "{error}");
    assert!(evaluate(&truth, &tensor(&[0; 4], &[4]), &[1.0; 2], 3).is_err());
    assert!(evaluate(&truth, &truth, &[1.0], 3).is_err());
    assert!(evaluate(&truth, &truth, &[1.0, 0.0], 3).is_err());
}

#[test]
fn volumes_are_millilitres_and_one_empty_mask_has_a_surface_dice_of_0() {
    let volume = |values: &[u8]| {
        let affine = tomograd_io::geometry::from_spacing([2.0, 5.0, 10.0]).unwrap();
        Volume::new(tensor(values, &[1, 2, 3]), affine).unwrap()
    };
    let compared = compare_volumes(&volume(&[0, 1, 1, 0, 0, 0]), &volume(&[0; 6]), 3, 0.5, 1.0).unwrap();
    assert_eq!((compared[0].predicted_ml, compared[0].true_ml, compared[0].surface_dice), (0.2, 0.0, 0.0));
    assert!(compared[1].surface_dice.is_nan() && compared[1].predicted_ml == 0.0);
    for wrong in [-1.0, f64::NAN, f64::INFINITY] {
        assert!(compare_volumes(&volume(&[0; 6]), &volume(&[0; 6]), 3, 0.5, wrong).is_err());
    }
}

#[test]
fn bootstrap_intervals_are_those_of_the_normal_distribution_for_many_cases() {
    // 400 values with mean 0.5 and deviation 0.289: the mean's deviation is 0.0144, and 1.96 of it to either side is 95 %.
    let values: Vec<f64> = (0..400).map(|i| (f64::from(i) + 0.5) / 400.0).collect();
    let interval = |seed| bootstrap_interval(&values, 4000, 0.95, tomograd_core::Seed::new(seed)).unwrap();
    let [low, high] = interval(1);
    let half = 1.96 * (1.0f64 / 12.0 / 400.0).sqrt();
    assert!((low - (0.5 - half)).abs() < 0.0015 && (high - (0.5 + half)).abs() < 0.0015, "{low} {high}");
    assert_eq!(interval(1), [low, high]);
    assert_ne!(interval(2), [low, high]);
    assert_eq!(bootstrap_interval(&[0.25], 10, 0.5, tomograd_core::Seed::new(0)).unwrap(), [0.25; 2]);
}
