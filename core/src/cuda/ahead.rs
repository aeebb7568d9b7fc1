//! Machine code that was compiled ahead of time: a program that brings it along needs no NVRTC where it runs.
//!
//! [`compile_ahead`] makes it, on a machine with NVRTC and without a GPU; [`provide`] hands it to the device layer, which looks there
//! before it looks into the cache on disk and calls NVRTC.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use super::{
    compile,
    driver::{Capability, Source},
};
use crate::{Error, ErrorKind, Result};

/// What the machine code of a source for devices of one capability is kept under: a digest of the source, of all headers and of the
/// compiler's options.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CodeKey {
    capability: Capability,
    digest: [u64; 2],
}

impl CodeKey {
    /// The key of a source for devices of this capability.
    pub fn new(source: &Source, capability: Capability) -> Self {
        Self { capability, digest: compile::digest(source, capability) }
    }

    /// The key as text, a file's name: `sm_90-` and 32 digits.
    ///
    /// ```
    /// use tomograd_core::cuda::{Capability, CodeKey, Source};
    /// let source = Source { name: "a.cu", text: "void a();", headers: &[] };
    /// let key = CodeKey::new(&source, Capability { major: 9, minor: 0 });
    /// assert_eq!(CodeKey::parse(&key.text()), Some(key));
    /// assert_eq!(CodeKey::parse("sm_90"), None);
    /// ```
    pub fn text(&self) -> String {
        let Capability { major, minor } = self.capability;
        format!("sm_{major}{minor}-{:016x}{:016x}", self.digest[0], self.digest[1])
    }

    /// The key of this text; `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        let (architecture, digest) = text.strip_prefix("sm_")?.split_once('-')?;
        let (major, minor) = architecture.split_at_checked(architecture.len().checked_sub(1)?)?;
        let capability = Capability { major: major.parse().ok()?, minor: minor.parse().ok()? };
        let (first, second) = digest.split_at_checked(16)?;
        let number = |digits: &str| u64::from_str_radix(digits, 16).ok();
        let key = Self { capability, digest: [number(first)?, number(second)?] };
        // Signs and further digits aren't what `text` writes.
        (key.text() == text).then_some(key)
    }
}

static PROVIDED: Mutex<Option<HashMap<CodeKey, Arc<[u8]>>>> = Mutex::new(None);

fn with_provided<R>(body: impl FnOnce(&mut HashMap<CodeKey, Arc<[u8]>>) -> R) -> R {
    body(PROVIDED.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default())
}

/// Hands machine code to the device layer, for kernels that are loaded from now on; a key that was given before keeps its code. It must
/// come from [`compile_ahead`]: a driver refuses other bytes, but runs any machine code.
pub fn provide(key: CodeKey, code: Vec<u8>) {
    with_provided(|provided| {
        provided.entry(key).or_insert_with(|| code.into());
    });
}

/// The machine code that was provided for a source.
pub(super) fn provided(source: &Source, capability: Capability) -> Option<Arc<[u8]>> {
    with_provided(|provided| match provided.is_empty() {
        true => None,
        false => provided.get(&CodeKey::new(source, capability)).cloned(),
    })
}

/// Whether any machine code was provided for devices of this capability.
pub(super) fn is_provided_for(capability: Capability) -> bool {
    with_provided(|provided| provided.keys().any(|key| key.capability == capability))
}

/// Compiles a source for devices of this capability by NVRTC. It needs no driver and no GPU, and uses no cache.
///
/// # Errors
/// When NVRTC isn't there, or the source doesn't compile; the error holds the compiler's messages.
pub fn compile_ahead(source: &Source, capability: Capability) -> Result<Vec<u8>> {
    if compile::version().is_none() {
        let what = "the library NVRTC, which compiles the kernels, wasn't found";
        return Err(Error::new(ErrorKind::Device, "compile_ahead", what)
            .expected("libnvrtc.so in the library path (of the CUDA toolkit, or of PyPI's nvidia-cuda-nvrtc)"));
    }
    compile::compile(source, &compile::options(capability))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_found_under_its_own_key_alone() {
        let (old, new) = (Capability { major: 8, minor: 0 }, Capability { major: 9, minor: 7 });
        let source = Source { name: "ahead.cu", text: "void a();", headers: &[] };
        assert!(provided(&source, new).is_none() && !is_provided_for(new));
        provide(CodeKey::new(&source, new), b"first".to_vec());
        provide(CodeKey::new(&source, new), b"second".to_vec());
        assert_eq!(provided(&source, new).as_deref(), Some(&b"first"[..]));
        assert!(is_provided_for(new) && !is_provided_for(old));
        assert!(provided(&source, old).is_none());
        assert!(provided(&Source { text: "void b();", ..source }, new).is_none());
    }

    #[test]
    fn only_what_a_key_writes_is_read_as_one() {
        let source = Source { name: "a.cu", text: "void a();", headers: &[] };
        for (major, minor) in [(8, 0), (9, 0), (12, 0)] {
            let key = CodeKey::new(&source, Capability { major, minor });
            assert_eq!(CodeKey::parse(&key.text()), Some(key));
            assert_eq!(CodeKey::parse(&format!("{}0", key.text())), None);
        }
        for text in [
            "",
            "sm_",
            "sm_-",
            "sm_90-",
            "sm_90-+0000000000000000000000000000000",
            "sm_é0-00000000000000000000000000000000",
        ] {
            assert_eq!(CodeKey::parse(text), None, "{text}");
        }
    }
}
