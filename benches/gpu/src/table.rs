//! The results as one page of Markdown.

use std::fmt::Write;

use crate::{Row, parts::Outcome};

/// What a part, or PyTorch's side, has to say.
#[derive(Debug, Clone, Default)]
pub struct Section {
    /// The jobs' outcomes.
    pub outcomes: Vec<Outcome>,
    /// What isn't in them: why the part ended early.
    pub note: Option<String>,
}

/// All that the page shows.
#[derive(Debug, Clone, Default)]
pub struct Results {
    /// What is known of the machine: a name and a value a line.
    pub machine: Vec<(String, String)>,
    /// The checks of the operations.
    pub registry: Section,
    /// The trainings that are run three times.
    pub bits: Section,
    /// The training with its Dice.
    pub segmentation: Section,
    /// The cases.
    pub cases: Section,
    /// PyTorch's side of them.
    pub torch: Section,
    /// Seconds that all took.
    pub seconds: f64,
}

/// A cell's text, in which nothing ends the cell or the line.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace(['\n', '\r'], " ")
}

/// A number with three significant digits; nothing for what isn't there.
fn number(value: &Row) -> String {
    match value.as_f64() {
        Some(value) if value >= 100.0 => format!("{value:.0}"),
        Some(value) if value >= 10.0 => format!("{value:.1}"),
        Some(value) if value >= 1.0 => format!("{value:.2}"),
        Some(value) if value >= 0.1 => format!("{value:.3}"),
        Some(value) => format!("{value:.2e}"),
        None => String::new(),
    }
}

impl Results {
    /// The number of checks, trainings and cases that failed or are missing.
    pub fn failures(&self) -> usize {
        let failed = |section: &Section| {
            section.outcomes.iter().filter(|one| one.row.is_err()).count() + usize::from(section.note.is_some())
        };
        let wrong = |row: &Row| row["failures"].as_array().map_or(0, Vec::len);
        let checks: usize = self.registry.outcomes.iter().filter_map(|one| one.row.as_ref().ok()).map(wrong).sum();
        let unequal =
            self.bits.outcomes.iter().filter_map(|one| one.row.as_ref().ok()).filter(|row| row["equal"] != true);
        let untimed =
            |one: &&Outcome| one.row.as_ref().is_ok_and(|row| row["f32"].is_null() && row["unknown"].is_null());
        let untimed = self.cases.outcomes.iter().filter(untimed).count();
        let sections = [&self.registry, &self.bits, &self.segmentation, &self.cases];
        sections.into_iter().map(failed).sum::<usize>() + checks + unequal.count() + untimed
    }

    /// The page.
    pub fn markdown(&self) -> String {
        let mut page = String::from("# tomograd on a GPU\n\n");
        for (name, value) in &self.machine {
            let _ = writeln!(page, "- {name}: {}", cell(value));
        }
        let _ = writeln!(page, "- all of this took {:.0} s\n", self.seconds);
        self.operations(&mut page);
        self.trainings(&mut page);
        self.times(&mut page);
        page
    }

    fn operations(&self, page: &mut String) {
        let (mut passed, mut failures, mut failed) = (0, Vec::new(), 0);
        for Outcome { item, row } in &self.registry.outcomes {
            match row {
                Ok(row) => {
                    passed += row["passed"].as_u64().unwrap_or(0);
                    let texts = row["failures"].as_array().into_iter().flatten().filter_map(Row::as_str);
                    let before = failures.len();
                    failures.extend(texts.map(|text| format!("{item}: {text}")));
                    failed += usize::from(failures.len() > before);
                }
                Err(why) => {
                    failures.push(format!("{item}: {why}"));
                    failed += 1;
                }
            }
        }
        let count = self.registry.outcomes.len();
        page.push_str("## Operations beside their references, and gradients\n\n");
        let _ = writeln!(
            page,
            "{count} operations, {} of them without a failure; {passed} cases passed.\n",
            count - failed
        );
        for failure in &failures {
            let _ = writeln!(page, "- {}", cell(failure));
        }
        note(page, &self.registry, !failures.is_empty());
    }

    fn trainings(&self, page: &mut String) {
        page.push_str(
            "## Equal bits\n\n| training | runs | steps | equal | weights' digest | first loss | last loss |\n",
        );
        page.push_str("| --- | --- | --- | --- | --- | --- | --- |\n");
        for Outcome { item, row } in &self.bits.outcomes {
            let line = match row {
                Ok(row) => format!(
                    "{} | {} | {} | {} | {} | {}",
                    row["runs"],
                    row["steps"],
                    if row["equal"] == true { "yes" } else { "**no**" },
                    row["digest"].as_str().unwrap_or(""),
                    number(&row["first_loss"]),
                    number(&row["last_loss"])
                ),
                Err(why) => format!("{} | | | | |", cell(why)),
            };
            let _ = writeln!(page, "| {item} | {line} |");
        }
        page.push('\n');
        note(page, &self.bits, false);
        page.push_str("## A training with its Dice\n\n");
        for Outcome { item, row } in &self.segmentation.outcomes {
            let _ = match row {
                Ok(row) => {
                    let classes = row["dice_of_classes"].as_array().into_iter().flatten().map(number);
                    writeln!(
                        page,
                        "{item}: {} epochs, {} steps in {} s, last loss {}; mean Dice of {} validation cases **{}** (by class {}).\n",
                        row["epochs"],
                        row["steps"],
                        number(&row["seconds"]),
                        number(&row["last_loss"]),
                        row["validation_cases"],
                        number(&row["dice"]),
                        classes.collect::<Vec<_>>().join(", ")
                    )
                }
                Err(why) => writeln!(page, "{item}: {}\n", cell(why)),
            };
        }
        note(page, &self.segmentation, false);
    }

    fn times(&self, page: &mut String) {
        page.push_str("## Times\n\nMilliseconds, of the least of three series, each queued without a wait in it. A ratio above 1: that many ");
        page.push_str("times faster than PyTorch in the same precision.\n\n");
        let columns = ["f32", "tf32", "bf16", "f16"];
        let mut head = String::from("| case |");
        for column in columns {
            let _ = write!(head, " {column} | PyTorch | ratio |");
        }
        let _ = writeln!(page, "{head} PyTorch's way | missing |");
        let _ = writeln!(page, "| --- |{} --- | --- |", " ---: | ---: | ---: |".repeat(columns.len()));
        let empty = Row::Null;
        for Outcome { item, row } in &self.cases.outcomes {
            let theirs = self.torch.outcomes.iter().find(|other| other.item == *item);
            let (ours, theirs) =
                (row.as_ref().unwrap_or(&empty), theirs.and_then(|one| one.row.as_ref().ok()).unwrap_or(&empty));
            let mut line = format!("| {item} |");
            for column in columns {
                let ratio = match (ours[column].as_f64(), theirs[column].as_f64()) {
                    (Some(ours), Some(theirs)) => format!("{:.2}", theirs / ours),
                    _ => String::new(),
                };
                let _ = write!(line, " {} | {} | {ratio} |", number(&ours[column]), number(&theirs[column]));
            }
            let said = |row: &Row, whose: &str| {
                let texts = row["missing"].as_array().into_iter().flatten().filter_map(Row::as_str);
                texts.map(|text| format!("{whose}{text}")).collect::<Vec<_>>()
            };
            let mut missing = said(ours, "");
            missing.extend(row.as_ref().err().cloned());
            missing.extend(said(theirs, "PyTorch, "));
            let way = theirs["way"].as_str().unwrap_or("");
            let _ = writeln!(page, "{line} {way} | {} |", cell(&missing.join("; ")));
        }
        page.push('\n');
        note(page, &self.cases, false);
        if let Some(note) = &self.torch.note {
            let _ = writeln!(page, "PyTorch: {}\n", cell(note));
        }
    }
}

/// Why a part ended early, in a paragraph of its own.
fn note(page: &mut String, section: &Section, after_list: bool) {
    if after_list {
        page.push('\n');
    }
    if let Some(note) = &section.note {
        let _ = writeln!(page, "Not finished: {}\n", cell(note));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn outcome(item: &str, row: Result<Row, &str>) -> Outcome {
        Outcome { item: item.to_owned(), row: row.map_err(str::to_owned) }
    }

    #[test]
    fn the_page_shows_what_failed() {
        let results = Results {
            machine: vec![("GPU".to_owned(), "some | card".to_owned())],
            registry: Section {
                outcomes: vec![
                    outcome("Conv", Ok(json!({ "passed": 40, "failures": [] }))),
                    outcome(
                        "Matmul",
                        Ok(json!({ "passed": 39, "failures": ["views, case 3: element 1 is 2\nnot 3"] })),
                    ),
                    outcome("Norm", Err("its process ended")),
                ],
                note: Some("90 s were over; 4 jobs are left".to_owned()),
            },
            bits: Section {
                outcomes: vec![
                    outcome(
                        "a",
                        Ok(
                            json!({ "runs": 3, "steps": 20, "equal": true, "digest": "0f", "first_loss": 2.0, "last_loss": 1.5 }),
                        ),
                    ),
                    outcome(
                        "b",
                        Ok(
                            json!({ "runs": 3, "steps": 20, "equal": false, "digest": "0e", "first_loss": 2.0, "last_loss": 1.5 }),
                        ),
                    ),
                ],
                note: None,
            },
            cases: Section {
                outcomes: vec![
                    outcome("conv", Ok(json!({ "missing": ["f32: no memory"] }))),
                    outcome("swin", Ok(json!({ "unknown": true, "missing": ["swin isn't in the registry"] }))),
                    outcome("matmul", Ok(json!({ "f32": 2.0, "bf16": 0.5, "missing": ["tf32: no"] }))),
                ],
                note: None,
            },
            torch: Section {
                outcomes: vec![outcome("matmul", Ok(json!({ "f32": 3.0, "way": "cuBLAS", "missing": [] })))],
                note: None,
            },
            ..Results::default()
        };
        // A check, a process, an early end, unequal bits, and a case without its time in f32.
        assert_eq!(results.failures(), 5);
        let page = results.markdown();
        for part in [
            "- GPU: some \\| card\n",
            "3 operations, 1 of them without a failure; 79 cases passed.",
            "- Matmul: views, case 3: element 1 is 2 not 3\n- Norm: its process ended\n\nNot finished: 90 s were over",
            "| a | 3 | 20 | yes | 0f | 2.00 | 1.50 |\n| b | 3 | 20 | **no** |",
            "| matmul | 2.00 | 3.00 | 1.50 |  |  |  | 0.500 |  |  |  |  |  | cuBLAS | tf32: no |",
        ] {
            assert!(page.contains(part), "{part}\nisn't in\n{page}");
        }
        let widths: Vec<usize> = page
            .lines()
            .filter(|line| line.starts_with("| case") || line.starts_with("| matmul"))
            .map(|line| line.matches('|').count())
            .collect();
        assert_eq!(widths, [16, 16]);
    }
}
