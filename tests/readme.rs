//! README.md shows the first two examples, which must run. The checkpoint of the first must be readable by the second, by the
//! registry and by the program `tomograd`. Links of the documents must lead to files.

use std::{fs, path::Path, process::Command};

use tomograd::prelude::*;

const SHOWN: [&str; 2] = ["1_train", "2_predict"];

#[test]
fn the_readme_shows_the_examples() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    for name in SHOWN {
        let example = fs::read_to_string(root.join(format!("examples/{name}.rs"))).unwrap();
        let code = &example[example.find("use ").unwrap()..];
        assert!(readme.contains(&format!("```rust\n{code}```\n")), "README.md has other code than examples/{name}.rs");
    }
    // There is no other Rust code in it, which no test would run.
    assert_eq!(readme.matches("```rust").count(), SHOWN.len());
}

#[test]
fn the_guide_to_a_new_network_shows_a_real_one() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |name: &str| fs::read_to_string(root.join(name)).unwrap();
    let (guide, file) = (read("CONTRIBUTING.md"), read("models/src/segmentation/meshnet.rs"));
    assert!(guide.contains(&format!("```rust\n{file}```\n")), "CONTRIBUTING.md has another file than meshnet.rs");
    // Checks the lines of the diff that exist after the change, in order.
    let diffs: Vec<&str> = guide.split("```diff\n").skip(1).collect();
    let names = ["models/src/registry.rs", "models/src/segmentation/mod.rs", "models/src/segmentation/mod.rs"];
    assert_eq!(diffs.len(), names.len());
    for (name, diff) in names.iter().zip(diffs) {
        let lines =
            diff.lines().take_while(|line| !line.starts_with("```")).map(|line| line.get(1..).unwrap_or_default());
        assert!(
            read(name).contains(&lines.collect::<Vec<_>>().join("\n")),
            "CONTRIBUTING.md shows other lines of {name}"
        );
    }
}

/// The targets of Markdown's links: `](TARGET)` and `[NAME]: TARGET`.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let inline = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let defined = text.lines().filter(|line| line.starts_with('[')).filter_map(|line| Some(line.split_once("]: ")?.1));
    inline.chain(defined).map(|target| target.split('#').next().unwrap_or_default())
}

#[test]
fn links_of_the_documents_lead_to_files() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let documents = |folder: &str| {
        let entries = fs::read_dir(root.join(folder)).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.extension().is_some_and(|ending| ending == "md")).collect::<Vec<_>>()
    };
    let (mut found, mut dead) = (0, Vec::new());
    for path in ["", "docs", "docs/guide", "docs/decisions", "docs/zoo"].map(documents).concat() {
        let text = fs::read_to_string(&path).unwrap();
        for link in links(&text).filter(|link| !link.is_empty() && !link.contains("://")) {
            found += 1;
            if !path.parent().unwrap().join(link).exists() {
                dead.push(format!("{}: {link}", path.display()));
            }
        }
    }
    assert!(found > 50 && dead.is_empty(), "{found} links, of which these lead nowhere:\n{}", dead.join("\n"));
}

#[test]
fn the_programs_of_all_pages_of_the_zoo_are_tests() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let guide = fs::read_to_string(root.join("src/guide.rs")).unwrap();
    let listed: Vec<&str> = guide.split_once("pages! {").unwrap().1.split_whitespace().collect();
    for entry in fs::read_dir(root.join("docs/zoo")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "md") {
            let name = path.file_stem().unwrap().to_str().unwrap();
            assert!(listed.contains(&name), "src/guide.rs doesn't list {name} among the pages");
        }
    }
}

#[test]
fn what_the_readme_saves_can_be_loaded() {
    let folder = std::env::temp_dir().join(format!("tomograd-readme-{}", std::process::id()));
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data/hippocampus");
    let mut names: Vec<_> =
        fs::read_dir(from.join("images")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    for part in ["images", "labels"] {
        let to = folder.join("examples/data/hippocampus").join(part);
        fs::create_dir_all(&to).unwrap();
        for name in &names[..4] {
            fs::copy(from.join(part).join(name), to.join(name)).unwrap();
        }
    }
    let test = std::env::current_exe().unwrap();
    for name in SHOWN {
        let program = test.parent().and_then(Path::parent).unwrap().join("examples").join(name);
        assert!(program.exists(), "{} isn't there: cargo test builds it", program.display());
        assert!(Command::new(program).current_dir(&folder).status().unwrap().success());
    }
    assert!(Volume::read(folder.join("mask.nii.gz")).is_ok());

    let model = Model::load(folder.join("hippocampus.safetensors"), Device::Cpu).unwrap();
    assert_eq!(model.config()["network"], "unet3d");
    assert_eq!(model.config()["widths"], serde_json::json!([8, 16, 32]));
    let mut loaded = Loaded::read(folder.join("hippocampus.safetensors")).unwrap();
    let mut optimizer = AdamW::new(model.params(), 1e-3).unwrap();
    loaded.restore_optimizer(&mut optimizer).unwrap();
    assert_eq!(optimizer.state().steps, 4);
    fs::remove_dir_all(folder).unwrap();
}
