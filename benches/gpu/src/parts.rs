//! The parts of the work, each run in a process of its own with a limit of time. A process that ends early or hangs costs the job that it
//! was at; the rest of its part goes on in a new one.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tomograd_core::{DType, Error, Result, Tensor};

use crate::{Row, Setup, bits, cases, registry, segmentation};

/// A part of the work.
pub struct Part {
    /// Its name.
    pub name: &'static str,
    /// Its heading in the table.
    pub title: &'static str,
    /// Seconds that it may take.
    pub seconds: u64,
    /// Seconds that a job may take.
    pub patience: u64,
    /// Its jobs.
    pub items: fn(&Setup) -> Result<Vec<String>>,
    /// Does a job.
    pub run: fn(&Setup, &str) -> Result<Row>,
}

/// All parts, in their order. Together with PyTorch's side they take less than six minutes.
pub const PARTS: [Part; 4] = [
    Part {
        name: "registry",
        title: "Operations beside their references, and gradients",
        seconds: 85,
        patience: 25,
        items: |_| Ok(registry::items()),
        run: registry::run,
    },
    Part { name: "bits", title: "Equal bits", seconds: 40, patience: 25, items: |_| Ok(bits::items()), run: bits::run },
    Part {
        name: "segmentation",
        title: "A training with its Dice",
        seconds: 75,
        patience: 75,
        items: |_| Ok(segmentation::items()),
        run: segmentation::run,
    },
    Part {
        name: "cases",
        title: "Times",
        seconds: 60,
        patience: 20,
        items: |setup| Ok(cases::all(setup)?.into_iter().map(|(name, _)| name).collect()),
        run: cases::run,
    },
];

/// Seconds that PyTorch's side may take, and those after which it begins no further case.
pub const TORCH_SECONDS: [u64; 2] = [75, 60];

/// A job and what came of it: its row, or why there is none.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The job.
    pub item: String,
    /// Its row.
    pub row: Result<Row, String>,
}

/// Does the jobs of a part from number `from` on, and prints a line of JSON before and after each. Ends early when the device can't be used
/// any more.
///
/// # Errors
/// When the part's jobs can't be listed.
pub fn work(setup: &Setup, part: &Part, from: usize, mut out: impl Write) -> Result<()> {
    let mut say =
        |line: Value| writeln!(out, "{line}").and_then(|()| out.flush()).map_err(|e| Error::io("write", "a line", e));
    for (number, item) in (part.items)(setup)?.iter().enumerate().skip(from) {
        say(json!({ "begin": number, "item": item }))?;
        let line = match crate::caught(|| (part.run)(setup, item)) {
            Ok(row) => json!({ "item": item, "row": row }),
            Err(error) => json!({ "item": item, "error": error.to_string() }),
        };
        say(line)?;
        // After a fault every call fails, so the other jobs go to a new process.
        Tensor::zeros(&[1], DType::F32, setup.device)?.to_vec::<f32>()?;
    }
    Ok(())
}

/// Why the lines of a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// It ended.
    Process,
    /// Time ran out.
    Time,
    /// A job took too long.
    Patience,
}

/// Reads the lines of JSON that a process prints until it ends, no line has come for `patience`, or the deadline has come; then it is ended.
fn lines(mut child: Child, deadline: Instant, patience: Duration, mut each: impl FnMut(Value)) -> End {
    let (sender, receiver) = mpsc::channel();
    let reader = child.stdout.take().map(|stdout| {
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(|line| line.ok()) {
                if let Ok(value) = serde_json::from_str::<Value>(&line)
                    && sender.send(value).is_err()
                {
                    break;
                }
            }
        })
    });
    let end = loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match receiver.recv_timeout(left.min(patience)) {
            Ok(value) => each(value),
            Err(RecvTimeoutError::Disconnected) => break End::Process,
            Err(RecvTimeoutError::Timeout) if left <= patience => break End::Time,
            Err(RecvTimeoutError::Timeout) => break End::Patience,
        }
    };
    // One that has ended can't be ended again.
    child.kill().ok();
    child.wait().ok();
    // Its output is closed, unless a child of its own holds it open.
    if let Some(reader) = reader.filter(|reader| reader.is_finished()) {
        reader.join().ok();
    }
    end
}

/// Adds what a line says to the outcomes; a job that has begun is in `begun`.
fn take(value: &Value, begun: &mut Option<(usize, String)>, outcomes: &mut Vec<Outcome>) {
    let Some(item) = value["item"].as_str().map(str::to_owned) else { return };
    if let Some(number) = value["begin"].as_u64() {
        *begun = Some((number as usize, item));
        return;
    }
    let row = match value["error"].as_str() {
        Some(error) => Err(error.to_owned()),
        None => Ok(value["row"].clone()),
    };
    *begun = None;
    outcomes.push(Outcome { item, row });
}

/// The outcomes of a part's jobs, done by processes that `command` makes for the first job that is left, in so many seconds for all and for
/// each; and how it ended otherwise than with the last job.
///
/// # Errors
/// When a process can't be started.
pub fn oversee(
    [seconds, patience]: [u64; 2],
    items: &[String],
    mut command: impl FnMut(usize) -> Command,
) -> Result<(Vec<Outcome>, Option<String>)> {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let (mut outcomes, mut from) = (Vec::new(), 0);
    while from < items.len() {
        let child = command(from).stdout(Stdio::piped()).stdin(Stdio::null()).spawn();
        let child = child.map_err(|error| Error::io("start", "a process", error))?;
        let (mut begun, before) = (None, outcomes.len());
        let end =
            lines(child, deadline, Duration::from_secs(patience), |value| take(&value, &mut begun, &mut outcomes));
        from += outcomes.len() - before;
        if let Some((number, item)) = begun {
            let why = match end {
                End::Process => "its process ended",
                End::Time => "time ran out",
                End::Patience => "it took too long",
            };
            outcomes.push(Outcome { item, row: Err(why.to_owned()) });
            from = number + 1;
        } else if outcomes.len() == before {
            return Ok((
                outcomes,
                Some(format!("a process ended before its first job; {} are left", items.len() - from)),
            ));
        }
        if end == End::Time && from < items.len() {
            return Ok((outcomes, Some(format!("{seconds} s were over; {} jobs are left", items.len() - from))));
        }
    }
    Ok((outcomes, None))
}

/// The rows of a process that prints one for each of its jobs.
///
/// # Errors
/// When it can't be started.
pub fn rows(seconds: u64, mut command: Command) -> Result<(Vec<Outcome>, Option<String>)> {
    let child = command.stdout(Stdio::piped()).stdin(Stdio::null()).spawn();
    let child = child.map_err(|error| Error::io("start", "a process", error))?;
    let mut outcomes = Vec::new();
    let limit = Duration::from_secs(seconds);
    let end = lines(child, Instant::now() + limit, limit, |value| {
        take(&value, &mut None, &mut outcomes);
    });
    Ok((outcomes, (end != End::Process).then(|| format!("{seconds} s were over"))))
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    fn items(count: usize) -> Vec<String> {
        (0..count).map(|number| format!("job {number}")).collect()
    }

    /// What a process prints that does the jobs `from..to` and then the rest of the script.
    fn script(from: usize, to: usize, rest: &str) -> String {
        let job = |n: usize| {
            format!("echo '{{\"begin\":{n},\"item\":\"job {n}\"}}'; echo '{{\"item\":\"job {n}\",\"row\":{n}}}';")
        };
        (from..to).map(job).collect::<String>() + rest
    }

    fn begin(n: usize) -> String {
        format!("echo '{{\"begin\":{n},\"item\":\"job {n}\"}}'; ")
    }

    #[test]
    fn a_process_that_ends_early_costs_the_job_that_it_was_at() {
        let mut starts = Vec::new();
        let (outcomes, rest) = oversee([60, 60], &items(5), |from| {
            starts.push(from);
            // Job 1 ends its process, job 3 as well.
            shell(&match from {
                0 => script(0, 1, &(begin(1) + "kill -9 $$")),
                2 => script(2, 3, &(begin(3) + "exit 3")),
                _ => script(from, 5, "echo talk"),
            })
        })
        .unwrap();
        assert_eq!((starts, rest), (vec![0, 2, 4], None));
        let failed: Vec<&str> = outcomes.iter().filter(|one| one.row.is_err()).map(|one| &one.item[..]).collect();
        assert_eq!((outcomes.len(), failed), (5, vec!["job 1", "job 3"]));
        assert_eq!(outcomes[4].row, Ok(json!(4)));
    }

    #[test]
    fn a_process_that_stops_between_jobs_goes_on_in_a_new_one() {
        let mut starts = Vec::new();
        let (outcomes, rest) = oversee([60, 60], &items(3), |from| {
            starts.push(from);
            shell(&script(from, from + 1, "exit 1"))
        })
        .unwrap();
        assert_eq!((starts, outcomes.len(), rest), (vec![0, 1, 2], 3, None));
    }

    #[test]
    fn time_runs_out() {
        let start = Instant::now();
        let (outcomes, rest) =
            oversee([1, 1], &items(4), |from| shell(&script(from, 2, &(begin(2) + "sleep 50")))).unwrap();
        assert!(start.elapsed() < Duration::from_secs(20));
        assert_eq!(outcomes.len(), 3);
        assert_eq!(outcomes[2].row, Err("time ran out".to_owned()));
        assert_eq!(rest.unwrap(), "1 s were over; 1 jobs are left");
        let (outcomes, rest) = rows(1, shell(r#"echo '{"item":"a","row":1}'; sleep 50"#)).unwrap();
        assert_eq!((outcomes.len(), rest.is_some()), (1, true));
    }

    #[test]
    fn a_job_that_hangs_is_given_up() {
        let start = Instant::now();
        let (outcomes, rest) = oversee([60, 2], &items(3), |from| {
            shell(&match from {
                0 => script(0, 1, &(begin(1) + "sleep 50")),
                _ => script(from, 3, ""),
            })
        })
        .unwrap();
        assert!(start.elapsed() < Duration::from_secs(30));
        assert_eq!((outcomes.len(), rest), (3, None));
        assert_eq!(outcomes[1].row, Err("it took too long".to_owned()));
    }

    #[test]
    fn a_process_that_does_nothing_is_not_started_again() {
        let mut starts = 0;
        let (outcomes, rest) = oversee([60, 60], &items(4), |_| {
            starts += 1;
            shell("exit 1")
        })
        .unwrap();
        assert_eq!((starts, outcomes.len()), (1, 0));
        assert_eq!(rest.unwrap(), "a process ended before its first job; 4 are left");
    }
}
