//! Compiling kernels with NVRTC, for one architecture, to machine code. A driver can't load PTX that a newer compiler made; it
//! loads machine code of any compiler of its major version.

use std::{
    ffi::{CStr, CString, c_char, c_int},
    io::IsTerminal,
    ptr,
};

use cudarc::nvrtc::{result::NvrtcError, sys};

use super::{
    HEADERS, ahead,
    cache::{self, Cache},
    driver::{Capability, Source},
};
use crate::{Error, ErrorKind, Result};

/// The version of NVRTC, major and minor; `None` if its library isn't there.
pub(super) fn version() -> Option<(c_int, c_int)> {
    // cudarc panics when it calls into a library that isn't there.
    // SAFETY: loading the library runs only its own initialisation.
    if !unsafe { sys::is_culib_present() } {
        return None;
    }
    let (mut major, mut minor) = (0, 0);
    // SAFETY: NVRTC writes two numbers.
    unsafe { sys::nvrtcVersion(&mut major, &mut minor) }.result().ok()?;
    Some((major, minor))
}

/// The options of the compiler for a device.
pub(super) fn options(capability: Capability) -> Vec<String> {
    let Capability { major, minor } = capability;
    // Instructions of Hopper alone are in the architecture with an a.
    let own = if major == 9 { "a" } else { "" };
    vec![
        format!("--gpu-architecture=sm_{major}{minor}{own}"),
        "--std=c++17".to_owned(),
        // Lambdas are of the device, as in `.ci/cuda-kernels`.
        "-default-device".to_owned(),
        "--generate-line-info".to_owned(),
    ]
}

/// The machine code of a source for devices of this capability: what was provided, from the cache on disk, or compiled and put there.
///
/// # Errors
/// When it can't be compiled; the error holds the compiler's messages.
pub(super) fn cubin(source: &Source, capability: Capability) -> Result<Vec<u8>> {
    if let Some(cubin) = ahead::provided(source, capability) {
        return Ok(cubin.to_vec());
    }
    let options = options(capability);
    let compiler = version().ok_or_else(|| Error::new(ErrorKind::Device, "compile", "NVRTC isn't there"))?;
    let cache = Cache::of_user();
    let key = key(source, &options, compiler);
    if let Some(cubin) = cache.as_ref().and_then(|cache| cache.get(&key)) {
        return Ok(cubin);
    }
    // The first run of a program compiles for some seconds; whoever watches should know why nothing happens.
    if std::io::stderr().is_terminal() {
        eprintln!("compiling {} for compute capability {capability}", source.name);
    }
    let cubin = compile(source, &options)?;
    if let Some(cache) = &cache {
        cache.put(&key, &cubin);
    }
    Ok(cubin)
}

/// All that the machine code follows from.
fn key(source: &Source, options: &[String], (major, minor): (c_int, c_int)) -> Vec<u8> {
    key_of(source, options, &format!("nvrtc {major}.{minor}"))
}

/// A digest of all that the machine code follows from but the compiler's version.
pub(super) fn digest(source: &Source, capability: Capability) -> [u64; 2] {
    cache::digest(&key_of(source, &options(capability), ""))
}

fn key_of(source: &Source, options: &[String], compiler: &str) -> Vec<u8> {
    let options = options.join(" ");
    let expanded = source.expanded();
    let parts =
        [compiler, &options, source.name, &expanded].into_iter().chain(HEADERS.iter().map(|header| header.text));
    parts.map(|part| format!("{}:{part}", part.len())).collect::<String>().into_bytes()
}

/// A program of NVRTC, freed when dropped.
struct Program(sys::nvrtcProgram);

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: the program was created and isn't used any more.
        let _ = unsafe { sys::nvrtcDestroyProgram(&mut self.0) };
    }
}

impl Program {
    /// A text or binary that NVRTC gives in two calls: its size, and then its bytes.
    fn bytes(
        &self,
        size: unsafe fn(sys::nvrtcProgram, *mut usize) -> sys::nvrtcResult,
        content: unsafe fn(sys::nvrtcProgram, *mut c_char) -> sys::nvrtcResult,
    ) -> Result<Vec<u8>, NvrtcError> {
        let mut length = 0;
        // SAFETY: the program is alive, and NVRTC writes one number.
        unsafe { size(self.0, &mut length) }.result()?;
        let mut bytes = vec![0u8; length];
        // SAFETY: NVRTC writes as many bytes as it said.
        unsafe { content(self.0, bytes.as_mut_ptr().cast()) }.result()?;
        Ok(bytes)
    }

    fn log(&self) -> String {
        let log = self.bytes(sys::nvrtcGetProgramLogSize, sys::nvrtcGetProgramLog).unwrap_or_default();
        CStr::from_bytes_until_nul(&log).map(|log| log.to_string_lossy().trim().to_owned()).unwrap_or_default()
    }
}

/// Compiles a source with these options.
///
/// # Errors
/// When it can't be compiled; the error holds the compiler's messages.
pub(super) fn compile(source: &Source, options: &[String]) -> Result<Vec<u8>> {
    let fail = |what: String| {
        Error::new(ErrorKind::Device, "compile", format!("{}: {what}", source.name))
            .expected("kernels that NVRTC compiles; --device cpu needs none")
    };
    let text = |text: &str| CString::new(text).map_err(|_| fail("the text holds a zero byte".to_owned()));
    let (name, code) = (text(source.name)?, text(&source.expanded())?);
    let names: Vec<CString> = HEADERS.iter().map(|header| text(header.name)).collect::<Result<_>>()?;
    let headers: Vec<CString> = HEADERS.iter().map(|header| text(header.text)).collect::<Result<_>>()?;
    let pointers = |texts: &[CString]| texts.iter().map(|text| text.as_ptr()).collect::<Vec<*const c_char>>();
    let (name_pointers, header_pointers) = (pointers(&names), pointers(&headers));
    let mut program = Program(ptr::null_mut());
    // SAFETY: the texts end with a zero and outlive the program's use of them; each header has its name.
    let created = unsafe {
        sys::nvrtcCreateProgram(
            &mut program.0,
            code.as_ptr(),
            name.as_ptr(),
            HEADERS.len() as c_int,
            header_pointers.as_ptr(),
            name_pointers.as_ptr(),
        )
    };
    created.result().map_err(|error| fail(error.to_string()))?;
    let options: Vec<CString> = options.iter().map(|option| text(option)).collect::<Result<_>>()?;
    let pointers = pointers(&options);
    // SAFETY: the program is alive, and the options end with a zero.
    let compiled = unsafe { sys::nvrtcCompileProgram(program.0, pointers.len() as c_int, pointers.as_ptr()) };
    compiled.result().map_err(|error| fail(format!("{error}\n{}", program.log())))?;
    program.bytes(sys::nvrtcGetCUBINSize, sys::nvrtcGetCUBIN).map_err(|error| fail(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_holds_all_that_the_machine_code_follows_from() {
        let source = Source { name: "a.cu", text: "void a();", headers: &[] };
        let at = |major, minor| options(Capability { major, minor });
        let keys = [
            key(&source, &at(8, 0), (13, 0)),
            key(&source, &at(8, 6), (13, 0)),
            key(&source, &at(8, 0), (12, 9)),
            key(&Source { name: "b.cu", ..source }, &at(8, 0), (13, 0)),
            key(&Source { text: "void b();", ..source }, &at(8, 0), (13, 0)),
        ];
        for (i, key) in keys.iter().enumerate() {
            assert!(!keys[..i].contains(key), "{i}");
        }
        assert_eq!(at(9, 0)[0], "--gpu-architecture=sm_90a");
    }

    #[test]
    fn the_check_of_the_kernels_compiles_with_these_options() {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../.ci/cuda-kernels");
        let script = std::fs::read_to_string(script).unwrap();
        // The first is the architecture, and line numbers change no code.
        for option in
            options(Capability { major: 8, minor: 0 }).iter().skip(1).filter(|option| !option.contains("line"))
        {
            assert!(script.contains(&format!("\"{option}\"")), "{option}");
        }
    }
}
