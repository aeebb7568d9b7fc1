//! `tomograd zoo` as a user runs it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use tomograd::{
    io::safetensors,
    models::{formula, registry},
    prelude::*,
};

fn zoo(arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_tomograd")).arg("zoo").args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// The output of a call that succeeds.
fn out(arguments: &[&str]) -> String {
    let (code, out, error) = zoo(arguments);
    assert_eq!(code, 0, "{arguments:?}: {error}");
    out
}

/// The one line of a call that is refused as an invalid command line.
fn refused(arguments: &[&str]) -> String {
    let (code, _, error) = zoo(arguments);
    assert_eq!((code, error.lines().count()), (2, 1), "{arguments:?}: {error}");
    error
}

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tomograd-zoo-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

#[test]
fn list_has_every_preset() {
    let all = out(&["list"]);
    let names: Vec<&str> = all.lines().skip(1).map(|line| line.split_whitespace().next().unwrap()).collect();
    let presets = registry::families().iter().flat_map(|family| family.presets().unwrap());
    assert_eq!(names, presets.map(|preset| preset.name).collect::<Vec<_>>());
    assert!(all.lines().any(|line| line.starts_with("resnet50 ") && line.contains("25.6 M")), "{all}");

    let classifiers = out(&["list", "--task", "classification", "--rank", "3"]);
    assert!(classifiers.contains("resnet50") && !classifiers.contains("unet3d"), "{classifiers}");
    assert!(!out(&["list", "--rank", "2"]).contains("meshnet"));
    let error = refused(&["list", "--task", "segmantation"]);
    assert!(error.contains("did you mean segmentation?"), "{error}");
    assert_eq!(zoo(&["list", "--rank", "4"]).0, 2);
}

#[test]
fn show_has_configuration_and_cost() {
    let json =
        |arguments: &[&str]| serde_json::from_str::<Value>(&out(&[&["show", "--json"], arguments].concat())).unwrap();
    let resnet = json(&["resnet50"]);
    assert_eq!((resnet["family"].as_str(), resnet["parameters"].as_u64()), (Some("resnet"), Some(25_557_032)));
    assert_eq!(resnet["inputs"][0]["shape"], serde_json::json!([1, 3, 224, 224]));
    assert_eq!(resnet["outputs"][0], serde_json::json!({"name": "logits", "shape": [1, 1000]}));
    assert_eq!(resnet["stages"][4], serde_json::json!({"name": "layer4", "channels": 2048, "reduction": 32}));
    // The 4.09 G multiply-adds of torchvision's documentation.
    assert_eq!(resnet["inference"]["multiply_adds"].as_f64(), Some(4_089_184_256.0));
    assert!(resnet["training"]["peak_bytes"].as_u64() > resnet["inference"]["peak_bytes"].as_u64());

    let small = json(&[
        "resnet",
        "--set",
        "layers=[1,1]",
        "--set",
        "block=basic",
        "--set",
        "classes=3",
        "--shape",
        "2,3,64,32",
    ]);
    assert_eq!(small["config"]["layers"], serde_json::json!([1, 1]));
    assert_eq!(small["outputs"][0]["shape"], serde_json::json!([2, 3]));
    assert_eq!(
        small["config"],
        json(&["resnet", "--set", "layers=[1,1]", "--set", "block=\"basic\"", "--set", "classes=3"])["config"]
    );
    // A family stands for its first preset.
    assert_eq!(json(&["resnet"])["preset"], "resnet18");

    let text = out(&["show", "resnet50"]);
    for part in ["arXiv:1512.03385", "25,557,032", "layer4", "1 × 3 × 224²", "4.09 G", "BSD-3-Clause"] {
        assert!(text.contains(part), "{part} isn't in\n{text}");
    }
}

#[test]
fn every_preset_is_shown_at_its_own_size() {
    for preset in registry::families().iter().flat_map(|family| family.presets().unwrap()) {
        let shown: Value = serde_json::from_str(&out(&["show", preset.name, "--json"])).unwrap();
        assert!(shown["inference"]["flops"].as_f64().unwrap() > 0.0, "{}", preset.name);
        // Its auxiliary head has one value of each channel, on whose statistics the original doesn't train either.
        assert_eq!(shown["training"].is_null(), preset.name == "inception_v3", "{}", preset.name);
    }
}

#[test]
fn mistakes_are_named() {
    for (arguments, expected) in [
        (&["show", "resnet5"][..], "did you mean resnet50?"),
        (&["show", "resnet50", "--set", "clases=3"], "no field is called clases, did you mean classes?"),
        (&["show", "resnet50", "--set", "classes"], "--set FIELD=VALUE"),
        (&["show", "resnet50", "--set", "classes=0"], "classes is 0"),
        (&["show", "resnet50", "--shape", "1,3,224"], "spatial axes"),
        (&["show", "resnet50", "--shape", "1,3,64,64", "--shape", "1,3,64,64"], "at most 1: image"),
        (&["show", "unet2d", "--shape", "1,1,100,100"], "multiples of 16"),
        (&["draw", "resnet50", "--set", "layers.9=1", "--out", "x.svg"], "layers.9"),
    ] {
        let error = refused(arguments);
        assert!(error.contains(expected), "{arguments:?}: {error}");
    }
    assert_eq!(zoo(&["draw"]).0, 2, "there is no name");
    assert_eq!(zoo(&["draw", "resnet50", "--all", "--out-dir", "x"]).0, 2);
    assert_eq!(zoo(&["show", "resnet50", "--shape", "1,x"]).0, 2);
    assert_eq!(zoo(&["run", "resnet50", "--dump", "x"]).0, 2, "the parameters come from nowhere");
    assert_eq!(zoo(&["run", "resnet50", "--fill", "formula", "--seed", "1", "--dump", "x"]).0, 2);
    // Batch norm in training has no statistics of one value.
    let small = ["run", "resnet18", "--set", "width=4", "--shape", "1,3,32,32", "--fill", "formula", "--dump", "x"];
    assert!(refused(&[&small[..], &["--train"]].concat()).contains("more than one value"));
}

/// The attribute of an element, as a number.
fn number(element: &str, name: &str) -> f64 {
    let start = element.find(&format!(" {name}=\"")).unwrap() + name.len() + 3;
    element[start..].split('"').next().unwrap().parse().unwrap()
}

/// Left, top, right and bottom of the blocks, without the background.
fn boxes(svg: &str) -> Vec<[f64; 4]> {
    let of = |line: &str| {
        let [x, y, width, height] = ["x", "y", "width", "height"].map(|name| number(line, name));
        [x, y, x + width, y + height]
    };
    svg.lines().filter(|line| line.starts_with("<rect x=")).map(of).collect()
}

/// The box around a text.
fn box_of(svg: &str, text: &str) -> [f64; 4] {
    let line =
        svg.lines().find(|line| line.ends_with(&format!(">{text}</text>"))).unwrap_or_else(|| panic!("{text}\n{svg}"));
    let (x, y) = (number(line, "x"), number(line, "y"));
    let inside = |of: &[f64; 4]| of[0] < x && x < of[2] && of[1] < y && y < of[3];
    boxes(svg).into_iter().find(inside).unwrap()
}

#[test]
fn every_family_has_a_small_picture_without_overlaps() {
    let folder = Folder::new("all");
    out(&["draw", "--all", "--out-dir", &folder.file("")]);
    for family in registry::families() {
        let svg = fs::read_to_string(folder.file(&format!("{}.svg", family.name()))).unwrap();
        let name = family.name();
        assert!(svg.len() < 60_000, "{name}: {} bytes", svg.len());
        let boxes = boxes(&svg);
        assert!((3..=60).contains(&boxes.len()), "{name}: {} boxes", boxes.len());
        for (place, a) in boxes.iter().enumerate() {
            for b in &boxes[..place] {
                let apart = a[0] >= b[2] || b[0] >= a[2] || a[1] >= b[3] || b[1] >= a[3];
                assert!(apart, "{name}: {a:?} and {b:?} overlap");
            }
        }
        // Each arrow has a head; the legend may have more.
        assert!(svg.matches("Z\" fill=").count() >= boxes.len() - 1, "{name}");
        for (open, close) in [("<svg", "</svg>"), ("<g ", "</g>"), ("<text", "</text>")] {
            assert_eq!(svg.matches(open).count(), svg.matches(close).count(), "{name}: {open}");
        }
    }
}

#[test]
fn a_unet_looks_like_a_u_and_repeats_are_folded() {
    let folder = Folder::new("draw");
    let drawn = |name: &str, more: &[&str]| {
        let file = folder.file(&format!("{name}.svg"));
        out(&[&["draw", name, "--out", &file], more].concat());
        fs::read_to_string(file).unwrap()
    };
    let unet = drawn("unet2d", &[]);
    for (level, up) in [("enc.0", "dec.3"), ("enc.1", "dec.2"), ("enc.2", "dec.1"), ("enc.3", "dec.0")] {
        let (down, up) = (box_of(&unet, level), box_of(&unet, up));
        assert_eq!((down[1] + down[3]) / 2.0, (up[1] + up[3]) / 2.0, "{level} isn't at the height of its counterpart");
        assert!(down[2] < up[0]);
    }
    let [first, last] = ["enc.0", "enc.4"].map(|name| box_of(&unet, name));
    assert!(first[3] < last[1]);
    for part in ["2 × conv 3²", "max pool 2²", "concatenation", "transposed conv 2², stride 2", "64 × 224²"] {
        assert!(unet.contains(&format!(">{part}</text>")), "{part} isn't in\n{unet}");
    }
    let resnet = drawn("resnet101", &[]);
    for part in ["23 × residual block", "conv 1², 3², 1²", "batch norm, ReLU", "global average", "1024 × 14²"] {
        assert!(resnet.contains(&format!(">{part}</text>")), "{part} isn't in\n{resnet}");
    }
    assert_eq!(boxes(&resnet).len(), 8);
    // A configuration's own numbers are drawn.
    let changed = drawn("resnet18", &["--set", "rank=3", "--set", "layers=[1,5]", "--shape", "1,3,64,64,32"]);
    assert!(changed.contains(">5 × residual block</text>") && changed.contains(">128 × 8 × 8 × 4</text>"), "{changed}");

    let error = refused(&["draw", "unet2d", "--out", &folder.file("unet2d.svg")]);
    assert!(error.contains("--overwrite"), "{error}");
    drawn("unet2d", &["--overwrite"]);
}

#[test]
fn run_writes_what_the_formula_gives() {
    let folder = Folder::new("run");
    let small = ["unet2d", "--set", "widths=[2,3]", "--set", "in_channels=1", "--shape", "2,1,4,6"];
    let run = |name: &str, more: &[&str]| {
        let file = folder.file(name);
        out(&[&["run"], &small[..], &["--dump", &file], more].concat());
        safetensors::load(Path::new(&file)).unwrap()
    };
    let config = serde_json::json!({"network": "unet2d", "in_channels": 1, "classes": 2, "widths": [2, 3]});
    let mut model = Model::with_dtype(config, Device::Cpu, Seed::new(0), DType::F64).unwrap();
    formula::fill(model.params_mut()).unwrap();
    for (mode, training) in [("eval", false), ("train", true)] {
        let written = run(mode, if training { &["--fill", "formula", "--train"] } else { &["--fill", "formula"] });
        let expected = formula::dump(model.params(), model.network(), &[&[2, 1, 4, 6]], training).unwrap();
        let kept: Vec<_> = expected.iter().filter(|(name, _)| training || !name.starts_with("buffer.")).collect();
        assert_eq!(written.tensors.len(), kept.len(), "{mode}");
        for (name, value) in kept {
            let (_, found) = written.tensors.iter().find(|(other, _)| other == name).unwrap();
            assert_eq!(found.dtype(), DType::F64);
            assert_eq!(found.to_vec_f64().unwrap(), value.to_vec_f64().unwrap(), "{mode} {name}");
        }
        assert_eq!(written.metadata["mode"], mode);
    }

    // Weights of a file, which are those of the seed.
    let seeded = Model::with_dtype(model.config().clone(), Device::Cpu, Seed::new(7), DType::F64).unwrap();
    let weights = folder.file("weights.safetensors");
    let state: Vec<_> = seeded.params().state().map(|(name, value)| (name.to_owned(), value.clone())).collect();
    safetensors::save(Path::new(&weights), &state, &Default::default()).unwrap();
    let value = |contents: &safetensors::Contents| {
        contents.tensors.iter().find(|(name, _)| name == "output.0").unwrap().1.to_vec_f64().unwrap()
    };
    let by_file = run("file", &["--weights", &weights]);
    assert_eq!(value(&by_file), value(&run("seed", &["--seed", "7"])));
    assert_ne!(value(&by_file), value(&run("other", &["--seed", "8"])));
    let narrow = value(&run("f32", &["--weights", &weights, "--dtype", "f32"]));
    assert!(value(&by_file).iter().zip(&narrow).all(|(a, b)| (a - b).abs() < 1e-5));

    // Nothing is replaced, and a file that doesn't fit is explained.
    let dump = folder.file("eval");
    let before = fs::read(&dump).unwrap();
    let again = [&["run"], &small[..], &["--fill", "formula", "--dump", &dump]].concat();
    assert!(refused(&again).contains("--overwrite"));
    assert_eq!(fs::read(&dump).unwrap(), before);
    out(&[&again[..], &["--overwrite"]].concat());
    safetensors::save(Path::new(&weights), &state[1..], &Default::default()).unwrap();
    let short = folder.file("short");
    let (code, _, error) = zoo(&[&["run"], &small[..], &["--weights", &weights, "--dump", &short]].concat());
    assert!(code == 1 && error.contains(&state[0].0) && error.contains("weights.safetensors"), "{error}");
    assert!(!Path::new(&short).exists());
}

/// To write the table anew: `TOMOGRAD_UPDATE=1 cargo test -p tomograd-cli --test zoo the_readme`.
#[test]
fn the_readme_of_the_zoo_has_the_table() {
    const MARKS: [&str; 2] = ["<!-- tomograd zoo list --markdown -->\n\n", "\n<!-- end -->"];
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/zoo/README.md");
    let readme = fs::read_to_string(&file).unwrap();
    let (before, rest) = readme.split_once(MARKS[0]).unwrap();
    let (table, after) = rest.split_once(MARKS[1]).unwrap();
    let times = Path::new(env!("CARGO_MANIFEST_DIR")).join("../benches/results/zoo_times.json");
    let printed = out(&["list", "--markdown", "--times", times.to_str().unwrap()]);
    if std::env::var("TOMOGRAD_UPDATE").is_ok() {
        fs::write(&file, [before, MARKS[0], &printed, MARKS[1], after].concat()).unwrap();
    } else {
        assert_eq!(table, printed, "TOMOGRAD_UPDATE=1 writes the table anew");
    }
}
