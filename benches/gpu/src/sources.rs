//! The CUDA sources of the workspace, compiled ahead of time.

use tomograd_core::{
    Result,
    cuda::{Capability, CodeKey, Header, Source, compile_ahead},
};

/// Every source, as the device layer loads it.
pub const SOURCES: &[Source] = include!(concat!(env!("OUT_DIR"), "/sources.rs"));

/// The folder of machine code in an archive.
const FOLDER: &str = "code/";

/// Adds the machine code of every source for devices of this capability to an archive.
///
/// # Errors
/// When NVRTC isn't there or a source doesn't compile.
pub fn pack(archive: &mut super::archive::Archive, capability: Capability) -> Result<()> {
    for source in SOURCES {
        let name = format!("{FOLDER}{}", CodeKey::new(source, capability).text());
        archive.add(&name, compile_ahead(source, capability)?);
    }
    Ok(())
}

/// Hands the machine code of an archive to the device layer, and returns how many sources it is of.
pub fn provide(archive: &super::archive::Archive) -> usize {
    let mut count = 0;
    for (name, code) in archive.under(FOLDER) {
        if let Some(key) = CodeKey::parse(name) {
            tomograd_core::cuda::provide(key, code.to_vec());
            count += 1;
        }
    }
    count
}
