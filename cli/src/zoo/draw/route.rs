//! Ways of arrows: straight where nothing is between, otherwise along lanes between the rows.

use super::{diagram::Diagram, layout::Placed};

/// The distance of lanes, and of arrows at one side of a block.
const LANE: f64 = 10.0;
/// The distance of rows without lanes.
const ROW_GAP: f64 = 34.0;
/// How far an arrow stays from the corners of a block.
const CORNER: f64 = 10.0;

/// A height before the rows have theirs.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Height {
    Top(usize),
    Middle(usize),
    Bottom(usize),
    /// A lane in the gap above a row (or below the last).
    Lane {
        gap: usize,
        lane: usize,
    },
}

/// The points of an arrow, in order.
pub(super) type Way = Vec<(f64, f64)>;

/// The ways of all arrows, the middle of each row, and the whole height.
pub(super) struct Routes {
    pub(super) ways: Vec<Way>,
    pub(super) middles: Vec<f64>,
    pub(super) height: f64,
}

pub(super) fn route(diagram: &Diagram, placed: &[Placed]) -> Routes {
    let rows = placed.iter().map(|block| block.row + 1).max().unwrap_or(0);
    let mut router =
        Router { placed, lanes: vec![Vec::new(); rows + 1], ports: Vec::new(), verticals: vec![Vec::new(); rows + 1] };
    let mut order: Vec<usize> = (0..diagram.arrows.len()).collect();
    // Short ways first: they are straight, and the long ones go around them.
    let distance = |arrow: usize| {
        let arrow = &diagram.arrows[arrow];
        let (from, to) = (&placed[arrow.from], &placed[arrow.to]);
        (from.row.abs_diff(to.row), (to.centre() - from.centre()).abs() as i64)
    };
    order.sort_by_key(|&arrow| distance(arrow));
    let mut ways = vec![Vec::new(); diagram.arrows.len()];
    for arrow in order {
        ways[arrow] = router.way(diagram.arrows[arrow].from, diagram.arrows[arrow].to);
    }
    let mut y = 0.0;
    let (mut gaps, mut middles, mut heights) = (Vec::new(), Vec::new(), Vec::new());
    for gap in 0..=rows {
        let lanes = router.lanes[gap].len() as f64;
        let outer = gap == 0 || gap == rows;
        let space = if outer { lanes * LANE + if lanes > 0.0 { 6.0 } else { 0.0 } } else { ROW_GAP + lanes * LANE };
        gaps.push((y, space - lanes * LANE));
        y += space;
        if gap < rows {
            let tall = placed.iter().filter(|block| block.row == gap).map(|block| block.height).fold(0.0, f64::max);
            middles.push(y + tall / 2.0);
            heights.push(tall);
            y += tall;
        }
    }
    let at = |height: Height| match height {
        Height::Top(block) => middles[placed[block].row] - placed[block].height / 2.0,
        Height::Middle(block) => middles[placed[block].row],
        Height::Bottom(block) => middles[placed[block].row] + placed[block].height / 2.0,
        Height::Lane { gap, lane } => {
            let (start, margin) = gaps[gap];
            let before = if gap == 0 { 2.0 } else { margin / 2.0 };
            start + before + LANE * (lane as f64 + 0.5)
        }
    };
    let ways = ways
        .into_iter()
        .map(|way| way.into_iter().map(|(x, height)| (x.round(), at(height).round())).collect())
        .collect();
    Routes { ways, middles, height: y }
}

struct Router<'a> {
    placed: &'a [Placed],
    /// The parts of each lane that are taken, for each gap.
    lanes: Vec<Vec<Vec<(f64, f64)>>>,
    /// Where arrows meet the upper and lower sides of blocks: block, whether above, x.
    ports: Vec<(usize, bool, f64)>,
    /// Where arrows go down or up in a gap.
    verticals: Vec<Vec<f64>>,
}

impl Router<'_> {
    fn way(&mut self, from: usize, to: usize) -> Vec<(f64, Height)> {
        let (a, b) = (&self.placed[from], &self.placed[to]);
        if a.row == b.row {
            let between = |block: &Placed| block.row == a.row && block.x >= a.right() && block.right() <= b.x;
            if b.x > a.right() && !self.placed.iter().any(between) {
                return vec![(a.right(), Height::Middle(from)), (b.x, Height::Middle(to))];
            }
            return self.around(from, to, a.row);
        }
        let down = b.row > a.row;
        // A straight way up or down.
        let (left, right) = (a.x.max(b.x) + CORNER, a.right().min(b.right()) - CORNER);
        let leaves = |down| if down { Height::Bottom(from) } else { Height::Top(from) };
        let arrives = |down| if down { Height::Top(to) } else { Height::Bottom(to) };
        if left <= right
            && let Some(x) = self.free(left, right, (left + right) / 2.0, &self.between(a.row, b.row), from, to, down)
        {
            self.take(from, !down, x, a.row, b.row);
            self.ports.push((to, down, x));
            return vec![(x, leaves(down)), (x, arrives(down))];
        }
        let first = if down { a.row + 1 } else { a.row };
        let last = if down { b.row } else { b.row + 1 };
        let start = self.port(from, !down, b.centre());
        let goal = self.port(to, down, a.centre());
        if first == last {
            let lane = self.lane(first, start, goal, down);
            self.verticals[first].extend([start, goal]);
            return vec![(start, leaves(down)), (start, lane), (goal, lane), (goal, arrives(down))];
        }
        // Over several rows: through a place where all rows between are free.
        let rows = self.between(a.row, b.row);
        let far = self.placed.iter().map(Placed::right).fold(0.0, f64::max) + 40.0;
        let x = self.free(-40.0, far, goal, &rows, from, to, down).unwrap_or(far);
        let one = self.lane(first, start, x, down);
        let other = self.lane(last, x, goal, down);
        for gap in first.min(last)..=first.max(last) {
            self.verticals[gap].push(x);
        }
        vec![(start, leaves(down)), (start, one), (x, one), (x, other), (goal, other), (goal, arrives(down))]
    }

    /// From the upper side of a block to that of another one, in the gap above their row.
    fn around(&mut self, from: usize, to: usize, row: usize) -> Vec<(f64, Height)> {
        let (a, b) = (&self.placed[from], &self.placed[to]);
        let start = self.port(from, true, a.right());
        let goal = self.port(to, true, b.x);
        let lane = self.lane(row, start, goal, false);
        self.verticals[row].extend([start, goal]);
        vec![(start, Height::Top(from)), (start, lane), (goal, lane), (goal, Height::Top(to))]
    }

    /// The rows between two.
    fn between(&self, a: usize, b: usize) -> Vec<usize> {
        (a.min(b) + 1..a.max(b)).collect()
    }

    /// The x nearest to `wish` at which no block of `rows` and no other arrow is in the way.
    #[expect(clippy::too_many_arguments, reason = "the ends of the arrow and what it must avoid")]
    fn free(
        &self,
        left: f64,
        right: f64,
        wish: f64,
        rows: &[usize],
        from: usize,
        to: usize,
        down: bool,
    ) -> Option<f64> {
        let blocked = |x: f64| {
            let hits = |block: &&Placed| rows.contains(&block.row) && x > block.x - 8.0 && x < block.right() + 8.0;
            let (a, b) = (self.placed[from].row, self.placed[to].row);
            let near = |other: &f64| (other - x).abs() < LANE - 1.0;
            let gaps = a.min(b) + 1..=a.max(b);
            self.placed.iter().any(|block| hits(&block))
                || gaps.into_iter().any(|gap| self.verticals[gap].iter().any(near))
                || self.ports.iter().any(|(block, above, port)| {
                    ((*block == from && *above != down) || (*block == to && *above == down)) && near(port)
                })
        };
        let steps = ((right - left) / 4.0) as usize;
        let candidates = (0..=steps).map(|step| left + 4.0 * step as f64).chain([wish]);
        let distance = |x: &f64| ((x - wish).abs() * 16.0) as i64;
        candidates.filter(|&x| (left..=right).contains(&x) && !blocked(x)).min_by_key(distance).map(f64::round)
    }

    fn take(&mut self, block: usize, above: bool, x: f64, a: usize, b: usize) {
        self.ports.push((block, above, x));
        for gap in a.min(b) + 1..=a.max(b) {
            self.verticals[gap].push(x);
        }
    }

    /// A place on the upper or lower side of a block, near `wish`.
    fn port(&mut self, block: usize, above: bool, wish: f64) -> f64 {
        let placed = &self.placed[block];
        let (left, right) = (placed.x + CORNER, placed.right() - CORNER);
        let wish = wish.clamp(left, right);
        let gap = if above { placed.row } else { placed.row + 1 };
        let near = |x: f64, other: f64| (other - x).abs() < LANE - 1.0;
        let taken = |x: f64| self.ports.iter().any(|&(of, side, port)| of == block && side == above && near(x, port));
        let crossed = |x: f64| self.verticals[gap].iter().any(|&other| near(x, other));
        let steps = ((right - left) / 5.0) as usize;
        let all: Vec<f64> = (0..=steps).map(|step| left + 5.0 * step as f64).chain([wish]).collect();
        let nearest = |fits: &dyn Fn(f64) -> bool| {
            let distance = |x: &f64| ((x - wish).abs() * 16.0) as i64;
            all.iter().copied().filter(|&x| fits(x)).min_by_key(distance)
        };
        let x = nearest(&|x| !taken(x) && !crossed(x)).or_else(|| nearest(&|x| !taken(x))).unwrap_or(wish).round();
        self.ports.push((block, above, x));
        x
    }

    /// A free lane from `a` to `b` in a gap: the one nearest to the block where the arrow starts.
    fn lane(&mut self, gap: usize, a: f64, b: f64, down: bool) -> Height {
        let (left, right) = (a.min(b) - 6.0, a.max(b) + 6.0);
        let lanes = &mut self.lanes[gap];
        let free = |lane: &Vec<(f64, f64)>| lane.iter().all(|&(from, to)| to < left || from > right);
        let found = if down { lanes.iter().position(free) } else { lanes.iter().rposition(free) };
        let lane = found.unwrap_or_else(|| {
            lanes.push(Vec::new());
            lanes.len() - 1
        });
        lanes[lane].push((left, right));
        Height::Lane { gap, lane }
    }
}
