//! `tomograd profile TRACE`.

use std::{collections::BTreeMap, fs::File, io::BufRead, io::BufReader, path::Path};

use serde::Deserialize;
use tomograd::{Error, Result};

use crate::print::print_line;

/// The fields of a trace event that the table needs. Events other than runs of operations have no duration.
#[derive(Deserialize)]
struct Event {
    name: String,
    #[serde(default)]
    cat: String,
    dur: Option<f64>,
    #[serde(default)]
    args: Details,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Details {
    path: String,
    shapes: String,
    flops: f64,
    bytes: f64,
    share_of_peak: f64,
}

/// The total of the runs of one kind.
#[derive(Default)]
struct Row {
    calls: usize,
    microseconds: f64,
    flops: f64,
    bytes: f64,
    /// The time at peak performance of the machine.
    least: f64,
}

/// Prints the kinds of operations with the largest total time.
pub(crate) fn run(trace: &Path, top: usize, by_shape: bool) -> Result<()> {
    let fail = |what: String| Error::argument("profile", format!("{}: {what}", trace.display()));
    let file = File::open(trace).map_err(|error| fail(error.to_string()))?;
    let mut rows: BTreeMap<[String; 4], Row> = BTreeMap::new();
    for (number, line) in BufReader::new(file).lines().enumerate() {
        let line = line.map_err(|error| fail(error.to_string()))?;
        let line = line.trim().trim_end_matches(',');
        if matches!(line, "" | "[" | "]") {
            continue;
        }
        let event: Event = serde_json::from_str(line).map_err(|error| {
            fail(format!("line {} is no event: {error}", number + 1)).expected("a file that TOMOGRAD_TRACE=FILE wrote")
        })?;
        let Some(duration) = event.dur else { continue };
        let shapes = if by_shape { event.args.shapes } else { String::new() };
        let row = rows.entry([event.name, event.cat, event.args.path, shapes]).or_default();
        row.calls += 1;
        row.microseconds += duration;
        row.flops += event.args.flops;
        row.bytes += event.args.bytes;
        row.least += event.args.share_of_peak * duration;
    }
    let total: f64 = rows.values().map(|row| row.microseconds).sum();
    let mut rows: Vec<_> = rows.into_iter().collect();
    rows.sort_by(|(_, a), (_, b)| b.microseconds.total_cmp(&a.microseconds));
    print_line!(
        "{:<22} {:<9} {:<20} {:>6} {:>11} {:>6} {:>9} {:>7} {:>8}",
        "operation",
        "direction",
        "path",
        "calls",
        "total ms",
        "time",
        "GFLOP/s",
        "GB/s",
        "of peak"
    );
    for ([name, direction, path, shapes], row) in rows.iter().take(top) {
        let seconds = row.microseconds.max(1e-3) * 1e-6;
        print_line!(
            "{name:<22} {direction:<9} {path:<20} {:>6} {:>11.3} {:>5.1}% {:>9.1} {:>7.1} {:>7.0}%{}{shapes}",
            row.calls,
            row.microseconds * 1e-3,
            100.0 * row.microseconds / total.max(1e-9),
            row.flops / seconds * 1e-9,
            row.bytes / seconds * 1e-9,
            100.0 * row.least / row.microseconds.max(1e-3),
            if by_shape { "  " } else { "" },
        );
    }
    print_line!(
        "{:<22} {:<9} {:<20} {:>6} {:>11.3}",
        "all",
        "",
        "",
        rows.iter().map(|(_, r)| r.calls).sum::<usize>(),
        total * 1e-3
    );
    Ok(())
}
