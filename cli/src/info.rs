//! `tomograd info FILE`.

use std::path::Path;

use tomograd::{Result, io};

pub(crate) fn run(file: &Path) -> Result<()> {
    let info = io::info(file)?;
    println!("file         {}\n{info}", file.display());
    Ok(())
}
