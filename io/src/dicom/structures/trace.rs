//! Outlines of masks along the edges of pixels.

/// A corner of pixels: corner (x, y) is the upper left one of pixel (x, y).
pub(super) type Corner = [i32; 2];

const NONE: u32 = u32::MAX;

/// Rings around the pixels of a plane, and where rings go on: nodes with the number of the next.
struct Rings {
    corners: Vec<Corner>,
    next: Vec<u32>,
}

impl Rings {
    fn next(&self, node: u32) -> u32 {
        self.next.get(node as usize).copied().unwrap_or(NONE)
    }

    fn link(&mut self, node: u32, to: u32) {
        if let Some(next) = self.next.get_mut(node as usize) {
            *next = to;
        }
    }

    fn push(&mut self, corner: Corner, next: u32) -> u32 {
        let node = self.corners.len() as u32;
        self.corners.push(corner);
        self.next.push(next);
        node
    }

    fn corner(&self, node: u32) -> Corner {
        self.corners.get(node as usize).copied().unwrap_or_default()
    }

    /// The nodes of a ring, once around.
    fn ring(&self, first: u32) -> Vec<u32> {
        let mut nodes = vec![first];
        let mut node = self.next(first);
        while node != first && node != NONE {
            nodes.push(node);
            node = self.next(node);
        }
        nodes
    }
}

/// The rings around the pixels that are set, along their edges: the pixels are those with their centre in an odd number of rings.
/// Pixels that touch at a corner alone are apart. With `keyhole`, a ring with holes is one that goes to each of them and back by
/// the same way.
pub(super) fn rings(pixels: &[bool], width: usize, height: usize, keyhole: bool) -> Vec<Vec<Corner>> {
    let set = |x: i32, y: i32| {
        let inside = x >= 0 && y >= 0 && (x as usize) < width && (y as usize) < height;
        inside && pixels.get(y as usize * width + x as usize).copied().unwrap_or(false)
    };
    let mut rings = Rings { corners: Vec::new(), next: Vec::new() };
    // The node that leaves a corner to the right, down, left and up; set pixels are on the right hand of each.
    let corners = (width + 1) * (height + 1);
    let mut leaving = vec![[NONE; 4]; corners];
    let at = |[x, y]: Corner| y as usize * (width + 1) + x as usize;
    for y in 0..height as i32 {
        for x in 0..width as i32 {
            if !set(x, y) {
                continue;
            }
            let edges = [
                (set(x, y - 1), [x, y], 0),
                (set(x + 1, y), [x + 1, y], 1),
                (set(x, y + 1), [x + 1, y + 1], 2),
                (set(x - 1, y), [x, y + 1], 3),
            ];
            for (neighbour, corner, direction) in edges {
                if !neighbour {
                    let node = rings.push(corner, NONE);
                    if let Some(slot) = leaving.get_mut(at(corner)).and_then(|slots| slots.get_mut(direction)) {
                        *slot = node;
                    }
                }
            }
        }
    }
    const STEPS: [Corner; 4] = [[1, 0], [0, 1], [-1, 0], [0, -1]];
    for slots in 0..corners {
        for direction in 0..4 {
            let node = leaving.get(slots).and_then(|slots| slots.get(direction)).copied().unwrap_or(NONE);
            if node == NONE {
                continue;
            }
            let ([x, y], [dx, dy]) = (rings.corner(node), STEPS.get(direction).copied().unwrap_or_default());
            let there = leaving.get(at([x + dx, y + dy])).copied().unwrap_or([NONE; 4]);
            // To the right first: around the same pixel, so that pixels that touch at a corner are apart.
            let turns = [(direction + 1) % 4, direction, (direction + 3) % 4];
            let next = turns.iter().filter_map(|&turn| there.get(turn).copied()).find(|&next| next != NONE);
            rings.link(node, next.unwrap_or(NONE));
        }
    }
    let mut seen = vec![false; rings.corners.len()];
    let (mut outer, mut holes) = (Vec::new(), Vec::new());
    for node in 0..rings.corners.len() as u32 {
        if seen.get(node as usize).copied().unwrap_or(true) {
            continue;
        }
        let ring = rings.ring(node);
        for &member in &ring {
            if let Some(seen) = seen.get_mut(member as usize) {
                *seen = true;
            }
        }
        if area(&rings, &ring) > 0 { outer.push(node) } else { holes.push(ring) }
    }
    if keyhole {
        join(&mut rings, holes, &leaving, at);
    } else {
        outer.extend(holes.iter().filter_map(|hole| hole.first()));
    }
    outer.into_iter().map(|first| straightened(&rings, &rings.ring(first))).collect()
}

/// Twice the area, positive for rings around pixels, negative for those around holes.
fn area(rings: &Rings, ring: &[u32]) -> i64 {
    let term = |&node: &u32| {
        let ([x, y], [next_x, next_y]) = (rings.corner(node), rings.corner(rings.next(node)));
        i64::from(x) * i64::from(next_y) - i64::from(next_x) * i64::from(y)
    };
    ring.iter().map(term).sum()
}

/// Joins each hole with the ring on its left, by a way from its leftmost corner and back.
fn join(rings: &mut Rings, holes: Vec<Vec<u32>>, leaving: &[[u32; 4]], at: impl Fn(Corner) -> usize) {
    let mut starts: Vec<(Corner, u32)> =
        holes.iter().filter_map(|hole| hole.iter().map(|&node| (rings.corner(node), node)).min()).collect();
    // A hole on the left of another is joined first.
    starts.sort_unstable();
    for ([left, y], start) in starts {
        // The first ring to the left: between two rows of set pixels there is nothing else.
        let mut x = left - 1;
        let found = loop {
            let slots = if x < 0 { None } else { leaving.get(at([x, y])) };
            match slots {
                None => break None,
                Some(slots) => match slots.iter().find(|&&node| node != NONE) {
                    Some(&node) => break Some(node),
                    None => x -= 1,
                },
            }
        };
        let Some(node) = found else { continue };
        // node → start … around the hole … start again → node again → what was behind node.
        let behind = rings.next(node);
        let last = {
            let ring = rings.ring(start);
            ring.last().copied().unwrap_or(start)
        };
        let back = rings.push(rings.corner(node), behind);
        let again = rings.push(rings.corner(start), back);
        rings.link(last, again);
        rings.link(node, start);
    }
}

/// A ring without the corners that lie on a straight line.
fn straightened(rings: &Rings, ring: &[u32]) -> Vec<Corner> {
    let corners: Vec<Corner> = ring.iter().map(|&node| rings.corner(node)).collect();
    let count = corners.len();
    let corner = |i: usize| corners.get(i % count.max(1)).copied().unwrap_or_default();
    let turns = |i: usize| {
        let ([ax, ay], [bx, by], [cx, cy]) = (corner(i + count - 1), corner(i), corner(i + 1));
        let cross = (bx - ax) * (cy - by) - (by - ay) * (cx - bx);
        // A way back is a turn too.
        cross != 0 || (bx - ax) * (cx - bx) + (by - ay) * (cy - by) < 0
    };
    (0..count).filter(|&i| turns(i)).map(corner).collect()
}

#[cfg(test)]
mod tests {
    use tomograd_core::Seed;

    use super::*;

    /// Pixels with their centre in an odd number of rings.
    fn filled(rings: &[Vec<Corner>], width: usize, height: usize) -> Vec<bool> {
        let inside = |x: usize, y: usize| {
            let mut odd = false;
            for ring in rings {
                for i in 0..ring.len() {
                    let ([ax, ay], [bx, by]) = (ring[i], ring[(i + 1) % ring.len()]);
                    // Edges are along axes: a vertical one on the left of the centre is crossed.
                    let (low, high) = (ay.min(by), ay.max(by));
                    odd ^= ax == bx && ax <= x as i32 && (low..high).contains(&(y as i32));
                }
            }
            odd
        };
        (0..height).flat_map(|y| (0..width).map(move |x| (x, y))).map(|(x, y)| inside(x, y)).collect()
    }

    #[test]
    fn rings_hold_exactly_the_pixels() {
        let mut random = Seed::new(1).random();
        for case in 0..600u64 {
            let (width, height) = (1 + random.below(12) as usize, 1 + random.below(12) as usize);
            let density = 1 + case % 9;
            let pixels: Vec<bool> = (0..width * height).map(|_| random.below(10) < density).collect();
            for keyhole in [false, true] {
                let rings = rings(&pixels, width, height, keyhole);
                assert_eq!(filled(&rings, width, height), pixels, "{width} × {height} {keyhole} {rings:?}");
                assert!(rings.iter().all(|ring| ring.len() >= 4));
            }
        }
    }

    #[test]
    fn a_keyhole_makes_one_ring_of_a_ring() {
        // Two holes side by side, the second behind the first, and a square in a hole.
        let picture = ["#########", "#...#...#", "#.#.#...#", "#...#...#", "#########"];
        let pixels: Vec<bool> = picture.iter().flat_map(|row| row.bytes().map(|letter| letter == b'#')).collect();
        assert_eq!(rings(&pixels, 9, 5, false).len(), 4);
        let joined = rings(&pixels, 9, 5, true);
        assert_eq!(joined.len(), 2);
        assert_eq!(joined.iter().map(Vec::len).max(), Some(14));
        assert_eq!(rings(&[true, true, true, true], 2, 2, true), [[[0, 0], [2, 0], [2, 2], [0, 2]]]);
        // Pixels that touch at a corner are apart.
        assert_eq!(rings(&[true, false, false, true], 2, 2, true).len(), 2);
    }
}
