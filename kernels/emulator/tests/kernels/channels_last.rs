//! Images with their channels last.

use std::collections::BTreeMap;

use tomograd_emulator::{Emulator, Library};

use crate::{
    Outcome,
    support::{Buffer, Element, Figures, Random, measure, number},
};

/// `Turned` of channels_last.cu.
#[repr(C)]
struct Sizes {
    images: i32,
    groups: i32,
    voxels: i32,
    channels: i32,
    padded: i32,
    first: i32,
    all: i32,
}

#[derive(Debug, Clone, Copy)]
struct Case {
    images: usize,
    groups: usize,
    channels: usize,
    /// Channels of the first of two images.
    first: usize,
    voxels: usize,
}

pub fn run(emulator: &'static Emulator, library: &Library, cases: usize) -> Outcome {
    let mut outcome = BTreeMap::new();
    // Halves are copied, whichever they are.
    outcome.insert("channels_last_16".to_owned(), all::<half::bf16>(emulator, library, "channels_last_16", cases)?);
    outcome.insert("channels_last_tf32".to_owned(), all::<f32>(emulator, library, "channels_last_tf32", cases)?);
    Ok(outcome)
}

fn all<T: Element>(
    emulator: &'static Emulator,
    library: &Library,
    kernel: &str,
    cases: usize,
) -> Result<Figures, String> {
    let (mut random, mut figures) = (Random(3), Figures::default());
    let aligned = Case { images: 1, groups: 1, channels: 32, first: 32, voxels: 256 };
    let mut list = vec![
        aligned,
        Case { images: 3, groups: 2, channels: 45, first: 70, voxels: 130 },
        Case { channels: 1, first: 1, voxels: 1, ..aligned },
    ];
    list.extend((0..cases).map(|_| {
        let (groups, channels) = (random.within(1, 2), random.within(1, 70));
        let first = random.within(1, groups * channels);
        Case { images: random.within(1, 3), groups, channels, first, voxels: random.within(1, 300) }
    }));
    for (index, case) in list.into_iter().enumerate() {
        let Case { images, groups, channels, first, voxels } = case;
        let padded = channels.next_multiple_of(16 / size_of::<T>());
        let sources = [first, groups * channels - first].map(|own| random.elements::<T>(images * own * voxels));
        let sizes = Sizes {
            images: images as i32,
            groups: groups as i32,
            voxels: voxels as i32,
            channels: channels as i32,
            padded: padded as i32,
            first: first as i32,
            all: (groups * channels) as i32,
        };
        let x = [0, 1].map(|i| Buffer::of(emulator, &sources[i]));
        let table = [x[0].address(), x[1].address()];
        let y = Buffer::<T>::new(emulator, images * groups * voxels * padded);
        // The images take turns in as few as two layers of blocks.
        let grid = [voxels.div_ceil(128), groups * padded.div_ceil(32), images.min(2)];
        let arguments = [number(&table), y.argument(), number(&sizes)];
        let report =
            measure(library, kernel, grid, [256, 1, 1], 0, &arguments).map_err(|fault| format!("{case:?}: {fault}"))?;
        if index == 0 {
            figures.costs(&report, grid.iter().product());
        }
        let mut expected = Vec::new();
        for group in 0..groups {
            for (n, voxel) in (0..images).flat_map(|n| (0..voxels).map(move |voxel| (n, voxel))) {
                for channel in 0..padded {
                    let from = group * channels + channel;
                    let value = match channel < channels {
                        false => 0.0,
                        true if from < first => sources[0][(n * first + from) * voxels + voxel].value(),
                        true => {
                            let own = groups * channels - first;
                            sources[1][(n * own + from - first) * voxels + voxel].value()
                        }
                    };
                    // f32 becomes TF32, which has 11 significant bits.
                    let bound = if size_of::<T>() == 4 { value.abs() * 2f64.powi(-11) } else { 0.0 };
                    expected.push((value, bound));
                }
            }
        }
        let found = y.read();
        assert!(found.iter().all(|value| size_of::<T>() == 2 || (value.value() as f32).to_bits() & 0x1fff == 0));
        figures.compare(&format!("{kernel}: {case:?}"), &found, &expected)?;
    }
    Ok(figures)
}
