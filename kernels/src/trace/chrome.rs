//! Events in Chrome's trace format (JSON), for `chrome://tracing`, <https://ui.perfetto.dev> and `tomograd profile`.

use std::{
    fs::File,
    io::Write,
    path::Path,
    sync::{Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use tomograd_core::shape_text;

use super::{Event, Peaks};

/// A trace file that grows by one line for each event. The format allows an unclosed array, so the file of a killed process
/// is readable.
pub(super) struct Writer {
    file: Mutex<File>,
    begin: Instant,
    peaks: Option<Peaks>,
}

impl Writer {
    /// The writer of the file that `TOMOGRAD_TRACE` names, if it names one. If the file can't be created, this is reported
    /// once.
    pub fn of_process() -> Option<&'static Writer> {
        static WRITER: OnceLock<Option<Writer>> = OnceLock::new();
        let make = || {
            let path = std::env::var_os("TOMOGRAD_TRACE").filter(|value| !value.is_empty() && *value != *"1")?;
            Writer::create(Path::new(&path))
                .map_err(|error| eprintln!("TOMOGRAD_TRACE: {}: {error}", Path::new(&path).display()))
                .ok()
        };
        WRITER.get_or_init(make).as_ref()
    }

    fn create(path: &Path) -> std::io::Result<Self> {
        let mut file = File::create(path)?;
        let peaks = Peaks::of_this_machine();
        let process = |name: &str| {
            format!("{{\"name\":\"process_name\",\"ph\":\"M\",\"pid\":1,\"tid\":1,\"args\":{{\"name\":\"{name}\"}}}}")
        };
        let name = match peaks {
            Some(Peaks { gflops, gbytes }) => process(&format!("tomograd, peaks {gflops:.0} GFLOP/s {gbytes:.0} GB/s")),
            None => process("tomograd"),
        };
        writeln!(file, "[\n{name},")?;
        Ok(Self { file: Mutex::new(file), begin: Instant::now(), peaks })
    }

    /// Writes one event that ends now. Write errors (a full disk) are ignored, so that they don't stop the program.
    pub fn write(&self, event: &Event) {
        let end = self.begin.elapsed();
        let line = line(event, end.saturating_sub(event.time), self.peaks);
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = file.write_all(line.as_bytes());
    }
}

/// One line of the file. Only names of user-defined operations can contain characters that JSON must escape.
fn line(event: &Event, start: Duration, peaks: Option<Peaks>) -> String {
    let shapes: Vec<String> = event.shapes.iter().map(|shape| shape_text(shape)).collect();
    let share = peaks.map_or(0.0, |peaks| peaks.seconds(event.cost) / event.time.as_secs_f64().max(1e-9));
    format!(
        "{{\"name\":\"{}\",\"cat\":\"{}\",\"ph\":\"X\",\"ts\":{:.3},\"dur\":{:.3},\"pid\":1,\"tid\":{},\"args\":\
         {{\"path\":\"{}\",\"shapes\":\"{}\",\"flops\":{:.0},\"bytes\":{:.0},\"share_of_peak\":{:.4}}}}},\n",
        escape(event.operation),
        format!("{:?}", event.direction).to_lowercase(),
        start.as_secs_f64() * 1e6,
        event.time.as_secs_f64() * 1e6,
        thread_number(),
        escape(&event.paths.join("+")),
        shapes.join(" "),
        event.cost.flops,
        event.cost.bytes,
        share,
    )
}

/// Escapes text for a JSON string.
fn escape(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '"' | '\\' => format!("\\{c}"),
            c if c.is_control() => format!("\\u{:04x}", c as u32),
            c => c.to_string(),
        })
        .collect()
}

/// A number for the calling thread, counted from 1 in the order in which threads are first traced.
fn thread_number() -> u32 {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(1);
    thread_local!(static NUMBER: u32 = NEXT.fetch_add(1, Ordering::Relaxed));
    NUMBER.with(|number| *number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cost, trace::Direction};

    #[test]
    fn a_line_is_an_event_of_the_format() {
        let event = Event {
            operation: "my \"op\"\n",
            device: tomograd_core::Device::Cpu,
            direction: Direction::Backward,
            paths: vec!["dense", "winograd"],
            estimates: vec![("dense", 1.0), ("winograd", 0.5)],
            shapes: vec![vec![2, 3], vec![]],
            time: Duration::from_micros(500),
            cost: Cost { flops: 1e6, multiply_adds: 0.0, bytes: 100.0 },
        };
        let peaks = Some(Peaks { gflops: 4.0, gbytes: 1.0 });
        assert_eq!(
            line(&event, Duration::from_micros(20), peaks),
            "{\"name\":\"my \\\"op\\\"\\u000a\",\"cat\":\"backward\",\"ph\":\"X\",\"ts\":20.000,\"dur\":500.000,\"pid\":1,\
             \"tid\":1,\"args\":{\"path\":\"dense+winograd\",\"shapes\":\"(2, 3) ()\",\"flops\":1000000,\"bytes\":100,\
             \"share_of_peak\":0.5000}},\n"
        );
    }
}
