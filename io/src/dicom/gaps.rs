//! Slices at differing distances.

use tomograd_core::{DType, Device, Error, Result, Tensor};

use super::{OPERATION, fail};

/// The most frequent distance of neighbours: the median.
pub(super) fn usual_gap(places: &[f64]) -> f64 {
    let mut gaps: Vec<f64> = places.iter().zip(places.iter().skip(1)).map(|(a, b)| b - a).collect();
    gaps.sort_by(f64::total_cmp);
    gaps.get(gaps.len() / 2).copied().filter(|gap| *gap > 0.0).unwrap_or(1.0)
}

/// Says where distances differ from the usual one.
pub(super) fn describe_gaps(places: &[f64]) -> String {
    let usual = usual_gap(places);
    let gaps = places.iter().zip(places.iter().skip(1)).map(|(a, b)| b - a);
    let odd: Vec<(usize, f64)> =
        gaps.enumerate().filter(|(_, gap)| (gap - usual).abs() > 0.01 * usual + 0.01).collect();
    let missing = odd.iter().all(|(_, gap)| {
        let times = gap / usual;
        times > 1.5 && (times - times.round()).abs() < 0.05
    });
    if odd.is_empty() {
        return "slices are displaced against each other, though their distances are even".to_owned();
    }
    let shown: Vec<String> = odd.iter().take(5).map(|(i, gap)| format!("{gap:.3} mm behind slice {}", i + 1)).collect();
    let more = if odd.len() > 5 { format!(" and {} more", odd.len() - 5) } else { String::new() };
    let what = if missing {
        let count: f64 = odd.iter().map(|(_, gap)| (gap / usual).round() - 1.0).sum();
        format!("{count} slices are missing")
    } else {
        "slices are at differing distances".to_owned()
    };
    format!("{what}: {}{more}, where {usual:.3} mm is usual", shown.join(", "))
}

/// Slices at even distances, by linear interpolation between the two nearest.
pub(super) fn interpolated(values: &Tensor, places: &[f64]) -> Result<Tensor> {
    let &[depth, height, width] = values.shape() else {
        return Err(Error::shape(OPERATION, "slices to interpolate").shapes([values.shape()]));
    };
    let gap = usual_gap(places);
    let extent = places.last().copied().unwrap_or(0.0);
    let count = (extent / gap + 1e-3).floor() + 1.0;
    // A few slices far away from each other would otherwise become any number.
    if !(count >= 1.0 && count <= 64.0 * depth as f64) {
        return Err(fail(format!("{depth} slices over {extent:.1} mm would become {count}"))
            .expected("at most 64 times as many"));
    }
    let (count, plane) = (count as usize, height.saturating_mul(width));
    let mut even = Tensor::zeros(&[count, height, width], DType::F32, Device::Cpu)?;
    let values = values.as_slice::<f32>()?;
    let slice =
        |k: usize| values.get(k.saturating_mul(plane)..(k.saturating_add(1)).saturating_mul(plane)).unwrap_or_default();
    let mut k = 0;
    for (i, part) in even.as_mut_slice::<f32>()?.chunks_exact_mut(plane.max(1)).enumerate() {
        let place = i as f64 * gap;
        while places.get(k + 1).is_some_and(|&next| next <= place) {
            k += 1;
        }
        let (Some(&before), after) = (places.get(k), places.get(k + 1)) else { continue };
        let share = after.map_or(0.0, |after| ((place - before) / (after - before)).clamp(0.0, 1.0)) as f32;
        let next = if after.is_some() { slice(k + 1) } else { slice(k) };
        for ((to, &a), &b) in part.iter_mut().zip(slice(k)).zip(next) {
            *to = if share == 0.0 { a } else { a + (b - a) * share };
        }
    }
    Ok(even)
}
