//! Free ranges of memory: taken by fit, merged with their neighbours when they are freed.

use std::{
    collections::{BTreeMap, BTreeSet},
    ptr::NonNull,
};

/// The address of a byte, on the host or on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Address(pub(crate) NonNull<u8>);

// SAFETY: an address isn't tied to a thread; who may use the memory is up to its owner.
unsafe impl Send for Address {}
// SAFETY: as above.
unsafe impl Sync for Address {}

/// Memory from a device: ranges are cut out of it, and free ranges merge within it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Segment {
    pub(crate) start: Address,
    pub(crate) size: usize,
    /// Whether the system provides its memory page by page, when a page is first written.
    pub(crate) lazy: bool,
}

/// A free range.
#[derive(Debug, Clone, Copy)]
struct Range {
    size: usize,
    /// The bytes at its end for which the system hasn't provided memory yet.
    fresh: usize,
}

/// The segments of a device and their free ranges. Which range is taken depends on the order of requests alone, so that the
/// same steps get the same addresses each time, and a step needs no more memory than the one before it.
#[derive(Debug)]
pub(super) struct Ranges {
    segments: BTreeMap<usize, Segment>,
    free: BTreeMap<usize, Range>,
    /// The free ranges as (size, address).
    sizes: BTreeSet<(usize, usize)>,
    cached: usize,
}

impl Segment {
    /// The byte at `address`, which lies in this segment.
    fn at(&self, address: usize) -> Address {
        // SAFETY: the caller looked up the segment that contains the address.
        Address(unsafe { self.start.0.add(address - self.start.value()) })
    }
}

impl Address {
    fn value(self) -> usize {
        self.0.as_ptr() as usize
    }
}

impl Ranges {
    pub(super) const fn new() -> Self {
        Self { segments: BTreeMap::new(), free: BTreeMap::new(), sizes: BTreeSet::new(), cached: 0 }
    }

    /// The bytes of free ranges for which the system has provided memory, at most.
    pub(super) fn cached(&self) -> usize {
        self.cached
    }

    fn insert(&mut self, address: usize, range: Range) {
        self.free.insert(address, range);
        self.sizes.insert((range.size, address));
        self.cached += range.size - range.fresh;
    }

    fn remove(&mut self, address: usize) -> Option<Range> {
        let range = self.free.remove(&address)?;
        self.sizes.remove(&(range.size, address));
        self.cached -= range.size - range.fresh;
        Some(range)
    }

    /// Adds a segment as a free range.
    pub(super) fn add(&mut self, segment: Segment) {
        let address = segment.start.value();
        self.segments.insert(address, segment);
        self.insert(address, Range { size: segment.size, fresh: if segment.lazy { segment.size } else { 0 } });
    }

    /// The best range for `size` bytes, and how many of them the system has to provide: first the fewest of those, then the
    /// smallest range.
    fn best(&self, size: usize) -> Option<(usize, usize)> {
        let mut best: Option<(usize, usize)> = None;
        for &(_, address) in self.sizes.range((size, 0)..) {
            let range = self.free[&address];
            let growth = size.saturating_sub(range.size - range.fresh);
            if best.is_none_or(|(_, least)| growth < least) {
                best = Some((address, growth));
            }
            if growth == 0 {
                break;
            }
        }
        best
    }

    /// How many bytes the system has to provide for the next request of `size` bytes; `None` if no range is large enough.
    pub(super) fn growth(&self, size: usize) -> Option<usize> {
        self.best(size).map(|(_, growth)| growth)
    }

    /// The start of the best free range of at least `size` bytes, which aren't free any more.
    pub(super) fn take(&mut self, size: usize) -> Option<Address> {
        let (address, _) = self.best(size)?;
        let range = self.remove(address)?;
        if range.size > size {
            let left = range.size - size;
            self.insert(address + size, Range { size: left, fresh: range.fresh.min(left) });
        }
        let (_, segment) = self.segments.range(..=address).next_back()?;
        Some(segment.at(address))
    }

    /// Frees what [`take`](Self::take) gave for `size`.
    pub(super) fn give(&mut self, start: Address, size: usize) {
        let mut address = start.value();
        let mut range = Range { size, fresh: 0 };
        // Neighbours in another segment aren't merged, even if the segments happen to be adjacent.
        let end = address + size;
        if !self.segments.contains_key(&end)
            && let Some(next) = self.remove(end)
        {
            range = Range { size: range.size + next.size, fresh: next.fresh };
        }
        if !self.segments.contains_key(&address)
            && let Some((&before, &previous)) = self.free.range(..address).next_back()
            && before + previous.size == address
        {
            self.remove(before);
            // Fresh memory of the previous range is now in the middle, and counts as cached unless all of this is fresh.
            let fresh = if range.fresh == range.size { previous.fresh + range.fresh } else { range.fresh };
            range = Range { size: previous.size + range.size, fresh };
            address = before;
        }
        self.insert(address, range);
    }

    /// Takes back from the free ranges what the system can have: `release` gets whole segments, `discard` parts of lazy ones.
    pub(super) fn trim(&mut self, mut release: impl FnMut(Segment), mut discard: impl FnMut(Address, usize)) {
        for address in self.free.keys().copied().collect::<Vec<_>>() {
            let Some((&start, &segment)) = self.segments.range(..=address).next_back() else { continue };
            let range = self.free[&address];
            if segment.lazy && range.fresh < range.size {
                self.remove(address);
                discard(segment.at(address), range.size - range.fresh);
                self.insert(address, Range { size: range.size, fresh: range.size });
            } else if !segment.lazy && range.size == segment.size {
                self.remove(address);
                self.segments.remove(&start);
                release(segment);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Seed;

    fn segment(address: usize, size: usize, lazy: bool) -> Segment {
        Segment { start: Address(NonNull::new(std::ptr::without_provenance_mut(address)).unwrap()), size, lazy }
    }

    /// Random requests against a table that says who owns each unit of 64 bytes, and which were ever taken.
    #[test]
    fn ranges_are_disjoint_inside_their_segments_and_merge() {
        for seed in 0..30 {
            let mut random = Seed::new(seed).random();
            let mut ranges = Ranges::new();
            // The first two segments are adjacent.
            let segments = [segment(640, 6400, seed % 2 == 0), segment(7040, 3200, false), segment(64_000, 640, false)];
            for segment in segments {
                ranges.add(segment);
            }
            let mut owner = [0usize; 2000];
            let mut taken: Vec<(Address, usize)> = Vec::new();
            for step in 1..2000 {
                if random.bernoulli(0.55) {
                    let size = 64 * (1 + random.below(12) as usize);
                    let free = |run: &[usize]| run.iter().all(|&owner| owner == 0);
                    let fits = segments.iter().any(|segment| {
                        let first = segment.start.value() / 64;
                        owner[first..first + segment.size / 64].windows(size / 64).any(free)
                    });
                    assert_eq!(ranges.growth(size).is_some(), fits);
                    let Some(start) = ranges.take(size) else { continue };
                    let first = start.value() / 64;
                    assert!(free(&owner[first..first + size / 64]), "a range was given twice");
                    let inside = |segment: &Segment| {
                        let at = segment.start.value();
                        (at..=at + segment.size - size).contains(&(first * 64))
                    };
                    assert!(segments.iter().any(inside), "a range lies across segments");
                    owner[first..first + size / 64].fill(step);
                    taken.push((start, size));
                } else if !taken.is_empty() {
                    let (start, size) = taken.swap_remove(random.below(taken.len() as u64) as usize);
                    let first = start.value() / 64;
                    owner[first..first + size / 64].fill(0);
                    ranges.give(start, size);
                }
                assert_eq!(ranges.cached, ranges.free.values().map(|range| range.size - range.fresh).sum());
                assert_eq!(ranges.free.len(), ranges.sizes.len());
            }
            for (start, size) in taken {
                ranges.give(start, size);
            }
            assert_eq!(ranges.free.len(), 3, "everything merges again");
            let (mut released, mut discarded) = (0, 0);
            ranges.trim(|_| released += 1, |_, size| discarded += size);
            assert_eq!((released, discarded > 0), if seed % 2 == 0 { (2, true) } else { (3, false) });
            assert_eq!(ranges.cached(), 0);
        }
    }

    #[test]
    fn the_smallest_range_is_taken_and_growth_is_counted() {
        let mut ranges = Ranges::new();
        ranges.add(segment(4096, 1 << 20, true));
        assert_eq!(ranges.growth(640), Some(640));
        let blocks: Vec<_> = [640, 128, 320, 128].map(|size| (ranges.take(size).unwrap(), size)).into();
        ranges.give(blocks[0].0, blocks[0].1);
        ranges.give(blocks[2].0, blocks[2].1);
        assert_eq!((ranges.cached(), ranges.growth(256)), (960, Some(0)));
        assert_eq!(ranges.take(256).unwrap(), blocks[2].0, "the hole of 320 bytes fits better than that of 640");
        // A hole whose memory the system took back comes after one that still has it.
        let mut trimmed = Ranges::new();
        trimmed.add(segment(4096, 1 << 20, true));
        let [first, _, third, _] = [256, 128, 384, 128].map(|size| trimmed.take(size).unwrap());
        trimmed.give(first, 256);
        trimmed.trim(|_| (), |_, _| ());
        trimmed.give(third, 384);
        assert_eq!((trimmed.growth(256), trimmed.take(256)), (Some(0), Some(third)));
        assert_eq!((trimmed.growth(256), trimmed.take(256)), (Some(256), Some(first)));
        // What is larger than the holes grows from the end of what was used.
        assert_eq!(ranges.growth(1024), Some(1024));
        ranges.give(blocks[3].0, blocks[3].1);
        assert_eq!(ranges.growth(1024), Some(1024 - 128 - 64));
    }
}
