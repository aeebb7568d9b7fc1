//! The exact Euclidean distance transform (Felzenszwalb and Huttenlocher, *Distance Transforms of Sampled Functions*, 2012):
//! the lower envelope of one parabola per voxel, along one axis after the other.

/// The squared distance (mm²) of each voxel to the nearest voxel of `sites`; infinite if there is none.
pub(super) fn squared_distances(sites: &[bool], shape: [usize; 3], spacing: [f64; 3]) -> Vec<f64> {
    let mut distances: Vec<f64> = sites.iter().map(|&site| if site { 0.0 } else { f64::INFINITY }).collect();
    let longest = shape.into_iter().max().unwrap_or(0);
    let mut line = vec![0.0; longest];
    let mut envelope = Vec::with_capacity(longest);
    for axis in 0..3 {
        let stride: usize = shape[axis + 1..].iter().product();
        let length = shape[axis];
        if length < 2 || stride == 0 {
            continue;
        }
        for block in distances.chunks_exact_mut(length * stride) {
            for first in 0..stride {
                let values = &mut line[..length];
                values.iter_mut().zip(block[first..].iter().step_by(stride)).for_each(|(to, from)| *to = *from);
                lower_envelope(values, spacing[axis], &mut envelope);
                let places = block[first..].iter_mut().step_by(stride);
                sample_envelope(&envelope, spacing[axis], places);
            }
        }
    }
    distances
}

/// A parabola of the lower envelope: its vertex and height, and the position from which on it is the lowest.
struct Parabola {
    centre: f64,
    height: f64,
    from: f64,
}

fn lower_envelope(heights: &[f64], spacing: f64, envelope: &mut Vec<Parabola>) {
    envelope.clear();
    for (i, &height) in heights.iter().enumerate().filter(|(_, height)| height.is_finite()) {
        let centre = i as f64 * spacing;
        let mut from = f64::NEG_INFINITY;
        while let Some(last) = envelope.last() {
            // The position from which on the new parabola is below the last one.
            let rise = (height + centre * centre) - (last.height + last.centre * last.centre);
            from = rise / (2.0 * (centre - last.centre));
            if from > last.from {
                break;
            }
            envelope.pop();
            from = f64::NEG_INFINITY;
        }
        envelope.push(Parabola { centre, height, from });
    }
}

fn sample_envelope<'a>(envelope: &[Parabola], spacing: f64, places: impl Iterator<Item = &'a mut f64>) {
    let mut current = 0;
    for (i, place) in places.enumerate() {
        let at = i as f64 * spacing;
        while envelope.get(current + 1).is_some_and(|next| next.from <= at) {
            current += 1;
        }
        if let Some(parabola) = envelope.get(current) {
            *place = (at - parabola.centre).powi(2) + parabola.height;
        }
    }
}
