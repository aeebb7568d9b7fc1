//! Every `.cu` of the repository on the emulator, against plain loops in f64: results within a bound, no fault, and costs. Then the proof
//! of the proof: without one of its barriers or waits, a kernel must fail.
//!
//! TOMOGRAD_CASES is the number of random cases of a kernel (8); TOMOGRAD_SOURCES a part of the paths of the sources that are run (all);
//! TOMOGRAD_FIGURES names a file that gets a line a kernel for docs/cuda-kernels.md.

#[path = "../support/mod.rs"]
mod support;

mod attention;
mod attention_backward;
mod channels_last;
mod cumulative;
mod depthwise;
mod gemm;
mod implicit;
mod implicit_weights;
mod matmul;
mod scan;

use std::{collections::BTreeMap, fs, path::Path};

use support::{Figures, emulator};
use tomograd_emulator::{Emulator, Library};

/// The figures of each kernel by its name, or what went wrong.
type Outcome = Result<BTreeMap<String, Figures>, String>;

/// A source with what runs it.
struct Proof {
    file: &'static str,
    /// With the headers of its folder in place of the lines that include them.
    source: String,
    /// Cases beyond the corners; fewer for the proof of the proof.
    run: fn(&'static Emulator, &Library, usize) -> Outcome,
}

macro_rules! proofs {
    ($($file:literal: $run:path),* $(,)?) => {
        [$(Proof { file: $file, source: expanded($file), run: $run }),*]
    };
}

fn expanded(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../src").join(file);
    let mut source = fs::read_to_string(&path).unwrap();
    let headers: Vec<_> = fs::read_dir(path.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|header| header.extension().is_some_and(|extension| extension == "cuh"))
        .map(|header| {
            (header.file_name().unwrap().to_string_lossy().into_owned(), fs::read_to_string(&header).unwrap())
        })
        .collect();
    // Headers may include one another.
    for _ in 0..headers.len() {
        for (name, text) in &headers {
            source = source.replace(&format!("#include \"{name}\""), text);
        }
    }
    // Also the shared header that has barriers, where a source goes by all of these.
    if source.contains("to_shared<") {
        let tiles = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../core/src/cuda/tiles.cuh");
        let tiles = fs::read_to_string(tiles).unwrap();
        source = source.replace("#include \"tiles.cuh\"", &tiles);
    }
    source
}

fn proofs() -> Vec<Proof> {
    let mut proofs: Vec<Proof> = proofs! {
        "attention/cuda/attention.cu": attention::run,
        "attention/cuda/backward_half.cu": attention_backward::run,
        "conv/cuda/channels_last.cu": channels_last::run,
        "conv/cuda/depthwise.cu": depthwise::run,
        "conv/cuda/implicit.cu": implicit::run,
        "conv/cuda/implicit_weights.cu": implicit_weights::run,
        "cumulative/cuda/cumulative.cu": cumulative::run,
        "matmul/cuda/gemm.cu": gemm::run,
        "matmul/cuda/matmul.cu": matmul::run,
        "scan/cuda/scan.cu": scan::run,
    }
    .into();
    if let Ok(part) = std::env::var("TOMOGRAD_SOURCES") {
        proofs.retain(|proof| proof.file.contains(&part));
    }
    proofs
}

#[test]
fn kernels_are_right() {
    let Some(emulator) = emulator() else { return };
    let mut lines = String::new();
    for proof in proofs() {
        let library = emulator.compile(proof.file, &proof.source, &[]).unwrap();
        let figures = (proof.run)(emulator, &library, support::case_count())
            .unwrap_or_else(|why| panic!("{}: {why}", proof.file));
        for kernel in library.kernels() {
            let Some(figures) = figures.get(kernel) else { panic!("{}: no case of {kernel}", proof.file) };
            assert!(figures.cases > 0 && figures.error <= 1.0);
            let Figures { cases, error, sectors, banks, barriers } = figures;
            // Matrix products load whole sectors, and their banks don't conflict.
            let heavy = ["attention_backward", "conv_tensor", "gemm", "channels_last"]
                .iter()
                .any(|name| kernel.starts_with(name));
            assert!(
                !heavy || *sectors <= 1.3 && *banks < 1.005,
                "{kernel}: {sectors} sectors, {banks} cycles of banks"
            );
            lines += &format!(
                "{kernel}\t{cases}\t{:.0} %\t{sectors:.2}\t{banks:.2}\t{barriers:.0}\n",
                (error * 100.0).ceil()
            );
        }
    }
    println!("{lines}");
    if let Ok(file) = std::env::var("TOMOGRAD_FIGURES") {
        fs::write(file, lines).unwrap();
    }
}

/// Where a statement that orders accesses stands, as its line, beginning and end.
fn orders(source: &str) -> Vec<(usize, usize, usize)> {
    let mut found = Vec::new();
    for word in ["__syncthreads(", "__syncwarp(", "cp_async_wait<"] {
        for (place, _) in source.match_indices(word) {
            let line = source[..place].matches('\n').count() + 1;
            let begin = source[..place].rfind('\n').map_or(0, |end| end + 1);
            // Not in a comment.
            if !source[begin..place].contains("//") {
                let end = place + source[place..].find(';').expect("the end of a statement");
                found.push((line, place, end));
            }
        }
    }
    found.sort_unstable();
    found
}

#[test]
fn each_barrier_and_wait_is_needed() {
    let Some(emulator) = emulator() else { return };
    let mut wrong = Vec::new();
    for proof in proofs() {
        let orders = orders(&proof.source);
        // What the shared header orders is deleted for the sources that go by all of it.
        let elsewhere = proof.source.contains("#include \"tiles.cuh\"");
        assert!(!orders.is_empty() || elsewhere, "{}: nothing that orders accesses", proof.file);
        for (line, begin, end) in orders {
            let mut source = proof.source.clone();
            source.replace_range(begin..end, "");
            let library = emulator.compile(proof.file, &source, &["-O1"]).unwrap();
            let outcome = (proof.run)(emulator, &library, 2);
            // A survivor must say why in the line before it or its own.
            let explained = proof.source.lines().nth(line - 1).is_some_and(|text| text.contains("survives:"))
                || line > 1 && proof.source.lines().nth(line - 2).is_some_and(|text| text.contains("survives:"));
            let statement = &proof.source[begin..end];
            match outcome {
                Err(why) if !explained => println!("{}:{line}: without {statement}: {why}", proof.file),
                Ok(_) if explained => println!("{}:{line}: without {statement}: survives, as it says", proof.file),
                Err(why) => wrong.push(format!("{}:{line}: {statement} is said to survive: {why}", proof.file)),
                Ok(_) => wrong.push(format!("{}:{line}: nothing noticed that {statement} is missing", proof.file)),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Sources whose kernels operations launch: `kernels/tests/cuda` runs each operation on the emulator, by the launches that a GPU gets,
/// and compares it with its reference.
const BY_OPERATIONS: &[&str] = &[
    "attention/cuda/backward.cu",
    "attention/cuda/wide.cu",
    "compare/cuda/compare.cu",
    "conv/cuda/conv.cu",
    "conv/cuda/depthwise_weights.cu",
    "dropout/cuda/dropout.cu",
    "elementwise/cuda/chain.cu",
    "index/cuda/index.cu",
    "loss/cuda/dice_ce.cu",
    "norm/cuda/norm.cu",
    "norm/layer/cuda/layer.cu",
    "optim/cuda/steps.cu",
    "pool/cuda/pool.cu",
    "reduce/cuda/reduce.cu",
    "resample/cuda/interpolate.cu",
    "scan/cuda/backward.cu",
    "softmax/cuda/softmax.cu",
    "sort/cuda/sort.cu",
    "view/cuda/unslice.cu",
];

#[test]
fn every_source_is_proven() {
    if std::env::var_os("TOMOGRAD_SOURCES").is_some() {
        return;
    }
    fn walk(folder: &Path, found: &mut Vec<String>, root: &Path) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found, root);
            } else if path.extension().is_some_and(|extension| extension == "cu") {
                found.push(path.strip_prefix(root).unwrap().to_string_lossy().into_owned());
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../src");
    let mut found = Vec::new();
    walk(&root, &mut found, &root);
    found.sort();
    let here = proofs();
    let mut known: Vec<&str> = here.iter().map(|proof| proof.file).chain(BY_OPERATIONS.iter().copied()).collect();
    known.sort_unstable();
    assert_eq!(
        found, known,
        "kernels/src/ has sources without cases here or in kernels/tests/cuda, or the other way round"
    );
}
