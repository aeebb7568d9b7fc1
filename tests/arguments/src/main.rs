//! Calls every public function that takes a number with hostile values: 0, −1, NaN, infinities, 2⁴⁰ and the largest values.
//! Each call must give an error or a right result: never a panic, an abort of the process, a silent NaN or an endless loop.
//!
//! The functions are found in the sources ([`scan`]); a function without a case fails the test, and so does a case without a
//! function. The cases of each crate run in a separate process with little memory, so that an aborting case is reported
//! like any other.

mod autodiff;
mod core;
mod io;
mod kernels;
mod methods;
mod models;
mod models_smaller;
mod nn;
mod pipeline;
mod scan;
mod trainer;
mod walk;

use std::{
    collections::BTreeSet,
    process::{Command, Stdio},
};

use walk::{Case, Walk};

/// The crates and their cases. Methods of tensors and variables, which are in the kernels crate, and trainers have separate
/// walks.
const CRATES: [(&str, &[Case]); 10] = [
    ("core", core::CASES),
    ("kernels", kernels::CASES),
    ("methods", methods::CASES),
    ("autodiff", autodiff::CASES),
    ("nn", nn::CASES),
    ("models", models::CASES),
    ("models_smaller", models_smaller::CASES),
    ("io", io::CASES),
    ("pipeline", pipeline::CASES),
    ("trainer", trainer::CASES),
];

#[test]
fn every_public_function_that_takes_a_number_has_a_case() {
    let found = scan::entries();
    let listed: BTreeSet<String> =
        CRATES.iter().flat_map(|(_, cases)| *cases).map(|case| case.name.to_owned()).collect();
    let missing: Vec<&String> = found.required.difference(&listed).collect();
    let known = |name: &&String| found.required.contains(*name) || found.optional.contains(*name);
    let gone: Vec<&String> = listed.iter().filter(|name| !known(name)).collect();
    assert!(missing.is_empty(), "{} functions without a case: {missing:#?}", missing.len());
    assert!(gone.is_empty(), "cases of functions that are gone: {gone:#?}");
    assert!(found.required.len() > 200);
}

/// Walks the cases of a crate in child processes: if one aborts, another continues after the case that aborted it.
fn walk_in_children(name: &str) {
    if let Ok(first) = std::env::var("TOMOGRAD_ARGUMENTS_FROM") {
        return walk_here(name, first.parse().unwrap());
    }
    let (_, cases) = CRATES.iter().find(|(known, _)| *known == name).unwrap();
    let (mut first, mut wrong) = (0, Vec::new());
    while first < cases.len() {
        let output = Command::new(std::env::current_exe().unwrap())
            .args([&format!("walks::{name}"), "--exact", "--nocapture", "--test-threads=1"])
            .env("TOMOGRAD_ARGUMENTS_FROM", first.to_string())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        wrong.extend(text.lines().filter_map(|line| line.split("@wrong\t").nth(1)).map(str::to_owned));
        if text.lines().any(|line| line.ends_with("@done")) {
            break;
        }
        let last = text.lines().filter_map(|line| line.split("@at\t").nth(1)).next_back().unwrap_or_else(|| {
            panic!("a child began nothing: {text}{}", String::from_utf8_lossy(&output.stderr));
        });
        let (number, call) = last.split_once('\t').unwrap();
        let how = if text.lines().any(|line| line == "@late") { "takes too long" } else { "ends the process" };
        let complaint = String::from_utf8_lossy(&output.stderr);
        wrong.push(format!("{call} {how}: {}", complaint.lines().next_back().unwrap_or_default()));
        first = number.parse::<usize>().unwrap() + 1;
    }
    assert!(wrong.is_empty(), "{} calls that are neither refused nor right:\n{}", wrong.len(), wrong.join("\n"));
}

fn walk_here(name: &str, first: usize) {
    limit_memory();
    std::panic::set_hook(Box::new(|_| {}));
    walk::watch();
    let (_, cases) = CRATES.iter().find(|(known, _)| *known == name).unwrap();
    for (number, case) in cases.iter().enumerate().skip(first) {
        (case.run)(&Walk { name: case.name, number });
    }
    let _ = std::panic::take_hook();
    walk::say("@done");
}

/// Limits the memory, so that allocations due to a hostile argument fail on any machine.
fn limit_memory() {
    tomograd::core::memory::set_limit(tomograd::core::Device::Cpu, Some(256 << 20)).unwrap();
    #[cfg(target_os = "linux")]
    {
        let most = libc::rlimit { rlim_cur: 16 << 30, rlim_max: 16 << 30 };
        // SAFETY: the structure is valid for the call, and a limit changes nothing that exists.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &most) }, 0);
    }
}

macro_rules! walks {
    ($($name:ident)*) => {
        /// One test per crate, which its child process finds by name.
        mod walks {
            $(
                #[test]
                fn $name() {
                    super::walk_in_children(stringify!($name));
                }
            )*
        }
    };
}

walks!(core kernels methods autodiff nn models models_smaller io pipeline trainer);
