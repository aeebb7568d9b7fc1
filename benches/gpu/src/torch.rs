//! PyTorch on the same machine, if its Python is there: the files that its side needs, and the command that runs it.

use std::{fs, path::Path, process::Command};

use tomograd_core::{Error, Result};

use crate::archive::Archive;

/// PyTorch's side, and what it imports.
const FILES: [(&str, &str); 3] = [
    ("torch_side.py", include_str!("torch_side.py")),
    ("scan_compiled.py", include_str!("../../scan_compiled.py")),
    ("compare.py", include_str!("../../compare.py")),
];

/// Whether `python` can import torch and sees a GPU; if not, why.
///
/// # Errors
/// With the reason.
pub fn look(python: &str) -> Result<String> {
    let code = "import torch; assert torch.cuda.is_available(), 'torch sees no GPU'; print(torch.__version__)";
    let output = Command::new(python).args(["-c", code]).output();
    let output = output.map_err(|error| Error::io("torch", python, error))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    let last = text(&output.stderr).lines().last().unwrap_or("it failed without a word").to_owned();
    Err(Error::argument("torch", format!("{python}: {last}")).expected("a python3 with torch (--python PATH)"))
}

/// Writes PyTorch's side into a folder, with the cases, and the networks of `torch_bench.py` if that travels along.
///
/// # Errors
/// When a file can't be written.
pub fn write(archive: &Archive, folder: &Path) -> Result<()> {
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        fs::write(&path, bytes).map_err(|error| Error::io("write", path.display(), error))
    };
    fs::create_dir_all(folder).map_err(|error| Error::io("write", folder.display(), error))?;
    for (name, text) in FILES {
        write(name, text.as_bytes())?;
    }
    for name in ["cases.json", "torch_bench.py"] {
        if let Some(bytes) = archive.get(name) {
            write(name, bytes)?;
        }
    }
    Ok(())
}

/// The command that times the cases, for at most so many seconds; it prints a line of JSON for each.
pub fn command(python: &str, folder: &Path, seconds: u64) -> Command {
    let mut command = Command::new(python);
    command.arg(folder.join("torch_side.py")).args(["--seconds", &seconds.to_string()]).current_dir(folder);
    command
}
