//! Lists the CUDA sources of the workspace, so that the program can compile them ahead of time.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

/// The names of the headers that the device layer gives to every source.
const SHARED: [&str; 4] = ["tomograd.cuh", "indices.cuh", "sums.cuh", "tiles.cuh"];

fn main() {
    let root = Path::new(&env::var("CARGO_MANIFEST_DIR").unwrap()).join("../..").canonicalize().unwrap();
    let mut files = Vec::new();
    for folder in ["core/src", "kernels/src"] {
        println!("cargo::rerun-if-changed={}", root.join(folder).display());
        find(&root.join(folder), &mut files);
    }
    files.sort();
    let literal = |path: &Path| format!("include_str!({:?})", path.to_str().unwrap());
    let mut list = String::from("&[\n");
    for file in files {
        let folder = file.parent().unwrap();
        // Those that it includes, then those that these include: a header's line is replaced after it has come in.
        let mut included = includes(&file);
        let mut next = 0;
        while let Some(name) = included.get(next) {
            included.extend(includes(&folder.join(name)));
            next += 1;
        }
        let headers: String = included
            .iter()
            .map(|name| format!("Header {{ name: {name:?}, text: {} }}, ", literal(&folder.join(name))))
            .collect();
        let name = file.file_name().unwrap().to_str().unwrap();
        list += &format!("    Source {{ name: {name:?}, text: {}, headers: &[{headers}] }},\n", literal(&file));
    }
    list += "]\n";
    fs::write(PathBuf::from(env::var("OUT_DIR").unwrap()).join("sources.rs"), list).unwrap();
}

/// The headers beside a file that it includes.
fn includes(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap();
    let names = text.lines().filter_map(|line| line.strip_prefix("#include \"")?.strip_suffix('"'));
    names.filter(|name| !SHARED.contains(name)).map(str::to_owned).collect()
}

/// Adds the `.cu` files below a folder.
fn find(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            find(&path, files);
        } else if path.extension().is_some_and(|ending| ending == "cu") {
            files.push(path);
        }
    }
}
