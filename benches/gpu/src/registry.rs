//! The checks of every operation on the device: the list and the cases of the tests of `tomograd-kernels`.

use serde_json::json;
use tomograd_core::{Error, Result, Tensor};
use tomograd_kernels::testing;

use crate::{Row, Setup, caught};

#[path = "../../../kernels/tests/cuda/checks.rs"]
pub mod checks;

/// What stands before the name of an operation that writes its targets in place.
const IN_PLACE: &str = "in place: ";

/// The names of all operations.
pub fn items() -> Vec<String> {
    let all = testing::all().into_iter().map(|entry| entry.name.to_owned());
    all.chain(testing::in_place().into_iter().map(|entry| format!("{IN_PLACE}{}", entry.name))).collect()
}

/// Runs the checks of an operation: how many cases passed, and what failed.
///
/// # Errors
/// When no operation has this name.
pub fn run(setup: &Setup, item: &str) -> Result<Row> {
    let (mut passed, mut failures) = (0, Vec::new());
    let mut note = |place: String, result: Result<()>| match result {
        Ok(()) => passed += 1,
        Err(error) => failures.push(format!("{place}: {error}")),
    };
    let cases = setup.choose(1, 8);
    let unknown = || Error::argument("registry", format!("no operation {item}"));
    if let Some(name) = item.strip_prefix(IN_PLACE) {
        let entry = testing::in_place().into_iter().find(|entry| entry.name == name).ok_or_else(unknown)?;
        for number in 0..cases {
            let result = caught(|| {
                checks::in_place(&entry.case(&mut checks::random("in place", entry.name, number))?, setup.device)
            });
            note(format!("case {number}"), result);
        }
    } else {
        let entry = testing::all().into_iter().find(|entry| entry.name == item).ok_or_else(unknown)?;
        for (name, check) in checks::CHECKS {
            for number in 0..cases {
                let mut random = checks::random(name, entry.name, number);
                let case = entry.case(&mut random)?;
                let result = caught(|| check(&case, setup.device, &mut random));
                let shapes: Vec<&[usize]> = case.inputs.iter().map(Tensor::shape).collect();
                note(format!("{name}, case {number}, {:?} on {shapes:?}", case.op), result);
            }
        }
    }
    Ok(json!({ "passed": passed, "failures": failures }))
}
