//! Traces of operations with their time and kernel path: `TOMOGRAD_TRACE=1` prints them, `TOMOGRAD_TRACE=FILE` writes them in
//! Chrome's trace format, [`collect`] returns them.

mod chrome;
mod peaks;

pub use peaks::Peaks;

use std::{
    cell::RefCell,
    sync::{Once, OnceLock},
    time::{Duration, Instant},
};

use tomograd_core::{Device, Work, set_hook, shape_text};

use crate::{Cost, Meta};

/// The function of an operation that ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Direction {
    /// The outputs were computed.
    Forward,
    /// The gradients were computed.
    Backward,
    /// Output 0 was recomputed.
    Recompute,
    /// Tensors were written in place.
    InPlace,
    /// Core filled, copied or converted a tensor. This may happen within an operation, whose time then includes it.
    Memory,
}

/// One run of an operation.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Event {
    /// The operation's name.
    pub operation: &'static str,
    /// Which function of the operation ran.
    pub direction: Direction,
    /// The device that did it.
    pub device: Device,
    /// The kernel paths that were chosen, in order: `dense`, `winograd`.
    pub paths: Vec<&'static str>,
    /// The estimates of the cost model that chose the path: paths and their times in milliseconds.
    pub estimates: Vec<(&'static str, f64)>,
    /// The inputs' shapes.
    pub shapes: Vec<Vec<usize>>,
    /// How long it took.
    pub time: Duration,
    /// The cost computed from the shapes.
    pub cost: Cost,
}

thread_local! {
    static COLLECTED: RefCell<Option<Vec<Event>>> = const { RefCell::new(None) };
    static PATHS: RefCell<Vec<&'static str>> = const { RefCell::new(Vec::new()) };
    static ESTIMATES: RefCell<Vec<(&'static str, f64)>> = const { RefCell::new(Vec::new()) };
}

/// Runs `body` and returns its result, together with an event for every operation that ran on this thread.
pub fn collect<R>(body: impl FnOnce() -> R) -> (R, Vec<Event>) {
    /// Restores the outer collection, also after a panic.
    struct Restore(Option<Vec<Event>>);
    impl Drop for Restore {
        fn drop(&mut self) {
            COLLECTED.set(self.0.take());
        }
    }
    let restore = Restore(COLLECTED.replace(Some(Vec::new())));
    // From the first fill on, before any operation asks.
    is_on();
    let result = body();
    let events = COLLECTED.take().unwrap_or_default();
    drop(restore);
    (result, events)
}

/// Called by a kernel to report the path it chose.
pub fn path(name: &'static str) {
    if is_on() {
        PATHS.with_borrow_mut(|paths| paths.push(name));
    }
}

/// Called by a cost model to report its estimates of several paths, in milliseconds.
pub fn estimates(paths: &[(&'static str, f64)]) {
    if is_on() {
        ESTIMATES.with_borrow_mut(|all| {
            for path in paths {
                if !all.contains(path) {
                    all.push(*path);
                }
            }
        });
    }
}

/// The start time of an operation. The first call may measure the peaks of the machine for the trace file.
pub(crate) fn start() -> Instant {
    is_on();
    Instant::now()
}

fn prints() -> bool {
    static PRINTS: OnceLock<bool> = OnceLock::new();
    *PRINTS.get_or_init(|| std::env::var("TOMOGRAD_TRACE").is_ok_and(|value| value == "1"))
}

fn is_on() -> bool {
    static HOOK: Once = Once::new();
    let on = prints() || chrome::Writer::of_process().is_some() || COLLECTED.with_borrow(Option::is_some);
    if on {
        HOOK.call_once(|| {
            set_hook(memory);
        });
    }
    on
}

/// Records a fill, copy or conversion by core.
fn memory(work: &Work) {
    if is_on() {
        emit(Event {
            operation: work.name,
            direction: Direction::Memory,
            device: work.device,
            paths: Vec::new(),
            estimates: Vec::new(),
            shapes: vec![work.shape.clone()],
            time: work.time,
            cost: Cost { bytes: work.bytes as f64, ..Cost::default() },
        });
    }
}

pub(crate) fn record(
    operation: &'static str,
    direction: Direction,
    start: Instant,
    cost: impl Fn() -> Cost,
    metas: &[Meta],
) {
    let time = start.elapsed();
    if !is_on() {
        return;
    }
    emit(Event {
        operation,
        direction,
        device: metas.first().map_or(Device::Cpu, |meta| meta.device),
        paths: PATHS.with_borrow_mut(std::mem::take),
        estimates: ESTIMATES.with_borrow_mut(std::mem::take),
        shapes: metas.iter().map(|meta| meta.shape.clone()).collect(),
        time,
        cost: cost(),
    });
}

/// Prints, writes and collects an event, as enabled.
fn emit(event: Event) {
    if prints() {
        eprintln!("{}", line(&event));
    }
    if let Some(writer) = chrome::Writer::of_process() {
        writer.write(&event);
    }
    COLLECTED.with_borrow_mut(|collected| {
        if let Some(events) = collected {
            events.push(event);
        }
    });
}

fn line(event: &Event) -> String {
    let seconds = event.time.as_secs_f64().max(1e-9);
    let shapes: Vec<String> = event.shapes.iter().map(|shape| shape_text(shape)).collect();
    let estimates: Vec<String> = event.estimates.iter().map(|(path, ms)| format!("{path} {ms:.3} ms")).collect();
    let estimates =
        if estimates.is_empty() { String::new() } else { format!("  (model of a pass: {})", estimates.join(", ")) };
    format!(
        "{:>9.3} ms  {:<18} {:<9} {:<24} {:>8.1} GFLOP/s {:>7.1} GB/s  {}{estimates}",
        seconds * 1e3,
        event.operation,
        format!("{:?}", event.direction).to_lowercase(),
        event.paths.join("+"),
        event.cost.flops / seconds * 1e-9,
        event.cost.bytes / seconds * 1e-9,
        shapes.join(" ")
    )
}
