//! Times of reading volumes: `cargo bench -p tomograd-io --bench reading -- ROUNDS FILE...` prints a JSON object a line, with the
//! seconds of each round. `benches/reading.py` has nibabel's and SimpleITK's beside them.

use std::time::Instant;

use tomograd_io::Volume;

fn main() {
    // Cargo adds `--bench`.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let Some((rounds, files)) = arguments.split_first() else {
        println!("usage: reading ROUNDS FILE...");
        return;
    };
    let rounds: usize = rounds.parse().expect("a number of rounds");
    for file in files {
        let mut seconds = Vec::new();
        for _ in 0..rounds {
            let begun = Instant::now();
            let volume = Volume::read(file).expect("a volume");
            seconds.push(begun.elapsed().as_secs_f64());
            drop(volume);
        }
        println!("{}", serde_json::json!({"file": file, "seconds": seconds}));
    }
}
