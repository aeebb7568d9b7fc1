//! Every kind of fault is found, and what is right passes.

mod support;

use support::{Buffer, emulator, measure};
use tomograd_emulator::{Emulator, FaultKind, Library};

fn run(emulator: &'static Emulator, library: &Library, kernel: &str) -> Result<Vec<f32>, tomograd_emulator::Fault> {
    let values: Vec<f32> = (0..64).map(|i| i as f32).collect();
    let (x, y) = (Buffer::of(emulator, &values), Buffer::<f32>::new(emulator, 64));
    let blocks = if kernel == "race_blocks" { 2 } else { 1 };
    let arguments = [x.argument(), y.argument()];
    measure(library, kernel, [blocks, 1, 1], [64, 1, 1], 64 * 4, &arguments).map(|_| y.read())
}

#[test]
fn each_fault_is_found_and_named() {
    let Some(emulator) = emulator() else { return };
    let library = emulator.compile("faults.cu", include_str!("faults.cu"), &[]).unwrap();
    assert!(library.kernels().count() > 30);
    for kernel in library.kernels() {
        let result = run(emulator, &library, kernel);
        let expected = match kernel.split('_').next().unwrap() {
            "right" => None,
            "race" => Some(FaultKind::Race),
            "unwritten" => Some(FaultKind::Unwritten),
            "bounds" => Some(FaultKind::OutOfBounds),
            "diverged" => Some(FaultKind::Diverged),
            "shuffle" => Some(FaultKind::Shuffle),
            "misaligned" => Some(FaultKind::Misaligned),
            "pending" => Some(FaultKind::Pending),
            "launch" => Some(FaultKind::Launch),
            other => panic!("kernels named {other}"),
        };
        match (result, expected) {
            (Ok(_), None) => {}
            (Err(fault), Some(kind)) => {
                println!("{fault}");
                assert_eq!(fault.kind, kind, "{fault}");
                assert!(fault.message.contains(kernel), "{fault}");
            }
            (result, expected) => panic!("{kernel}: {result:?}, expected {expected:?}"),
        }
    }
}

#[test]
fn right_kernels_compute() {
    let Some(emulator) = emulator() else { return };
    let library = emulator.compile("faults.cu", include_str!("faults.cu"), &[]).unwrap();
    let expect = |kernel: &str, f: &dyn Fn(usize) -> usize| {
        let expected: Vec<f32> = (0..64).map(|i| f(i) as f32).collect();
        assert_eq!(run(emulator, &library, kernel).unwrap(), expected, "{kernel}");
    };
    expect("right_neighbour", &|i| i / 2);
    expect("right_rounds", &|i| 63 - i);
    expect("right_lanes", &|i| i / 32 * 32);
    expect("right_atomic", &|i| i * 64);
    expect("right_half_shuffle", &|i| if i % 32 < 16 { i + (i ^ 1) } else { i });
    expect("right_vector", &|i| i);
    expect("right_vectors_in_shared", &|i| i ^ 32);
    expect("right_copy", &|i| i / 2);
}

#[test]
fn messages_say_where() {
    let Some(emulator) = emulator() else { return };
    let library = emulator.compile("faults.cu", include_str!("faults.cu"), &[]).unwrap();
    let message = |kernel| run(emulator, &library, kernel).unwrap_err().message;
    let branch = message("diverged_branch");
    assert!(branch.contains("threads 0-39 wait at __syncthreads (faults.cu:"), "{branch}");
    assert!(branch.contains("threads 40-63 have ended"), "{branch}");
    let lines = message("diverged_lines");
    assert!(lines.contains("threads 0-31 wait") && lines.contains("threads 32-63 wait"), "{lines}");
    let shuffle = message("diverged_shuffle");
    assert!(
        shuffle.contains("threads 0-15, 32-47 wait at a shuffle") && shuffle.contains("mask 0xffffffff"),
        "{shuffle}"
    );
    let bounds = message("bounds_shared");
    assert!(bounds.contains("thread 63") && bounds.contains("byte 252 of tile (252 bytes)"), "{bounds}");
    if std::process::Command::new("addr2line").arg("--version").output().is_ok() {
        let line = include_str!("faults.cu")
            .lines()
            .position(|line| line.contains("tile[threadIdx.x] = x[threadIdx.x]"))
            .unwrap();
        assert!(line > 0 && bounds.contains("(faults.cu:"), "{bounds}");
    }
}

#[test]
fn calls_that_no_device_takes() {
    let Some(emulator) = emulator() else { return };
    let library = emulator.compile("faults.cu", include_str!("faults.cu"), &[]).unwrap();
    let x = Buffer::of(emulator, &[0f32; 64]);
    let fail = |kernel, grid, block, shared, arguments: &[_]| {
        let fault = measure(&library, kernel, grid, block, shared, arguments).unwrap_err();
        assert_eq!(fault.kind, FaultKind::Launch);
        fault.message
    };
    let two = [x.argument(), x.argument()];
    let right = "right_vector";
    assert!(fail("missing", [1; 3], [1; 3], 0, &two).contains("no kernel missing; there are right_neighbour"));
    assert!(fail(right, [1; 3], [1; 3], 0, &two[..1]).contains("1 arguments; expected 2"));
    assert!(fail(right, [0, 1, 1], [1; 3], 0, &two).contains("no threads"));
    assert!(fail(right, [1, 65536, 1], [1; 3], 0, &two).contains("a grid of more than"));
    assert!(fail(right, [1; 3], [1024, 2, 1], 0, &two).contains("1024 threads"));
    assert!(fail(right, [1; 3], [1; 3], 100 << 10, &two).contains("99 KB"));
    assert!(emulator.compile("broken.cu", "int;;x(", &[]).is_err());
    assert!(emulator.compile("none.cu", "int x;", &[]).unwrap_err().contains("no kernel"));
}

#[test]
fn memory_that_is_gone() {
    let Some(emulator) = emulator() else { return };
    let library = emulator.compile("faults.cu", include_str!("faults.cu"), &[]).unwrap();
    let (x, y) = (Buffer::of(emulator, &[1f32; 64]), Buffer::<f32>::new(emulator, 64));
    let mut pointer = x.argument();
    // SAFETY: the argument's address is that of the buffer's pointer.
    emulator.freed(unsafe { *pointer.cast::<*const u8>() });
    let fault = measure(&library, "right_vector", [1; 3], [64, 1, 1], 0, &[pointer, y.argument()]).unwrap_err();
    assert_eq!(fault.kind, FaultKind::OutOfBounds, "{fault}");
    pointer = y.argument();
    // SAFETY: as above.
    let memory = unsafe { *pointer.cast::<*mut u8>() };
    assert_eq!(emulator.uninitialised(memory, 256), 256);
    emulator.written(memory, 100);
    assert_eq!(emulator.uninitialised(memory, 256), 156);
    let z = Buffer::<f32>::new(emulator, 64);
    // SAFETY: as above.
    let copy = unsafe { *z.argument().cast::<*mut u8>() };
    emulator.copied(copy, memory, 256);
    assert_eq!(emulator.uninitialised(copy, 256), 156);
    assert_eq!(emulator.uninitialised(copy, 257), usize::MAX);
}
