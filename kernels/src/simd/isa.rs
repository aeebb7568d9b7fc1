//! The supported instruction sets, and the one that this process uses.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

/// An instruction set that kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// Plain Rust: runs on every platform; meant for correctness rather than speed.
    Portable,
    /// AVX2 with FMA: 16 registers of 256 bits.
    Avx2,
    /// AVX-512 (F, BW, DQ, VL): 32 registers of 512 bits.
    Avx512,
}

impl Isa {
    /// All instruction sets, from the simplest on.
    pub const ALL: [Isa; 3] = [Isa::Portable, Isa::Avx2, Isa::Avx512];

    /// Whether this processor supports it.
    pub fn is_available(self) -> bool {
        self <= detected()
    }

    /// The instruction sets that this processor supports, from the simplest on.
    pub fn available() -> impl Iterator<Item = Isa> {
        Self::ALL.into_iter().filter(|isa| isa.is_available())
    }

    /// The name that `TOMOGRAD_ISA` expects.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Portable => "portable",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Isa {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Isa::ALL.into_iter().find(|isa| isa.name().eq_ignore_ascii_case(name)).ok_or_else(|| {
            format!("unknown instruction set {name:?}: expected one of {}", Isa::ALL.map(Isa::name).join(", "))
        })
    }
}

/// The best instruction set that this processor supports.
pub fn detected() -> Isa {
    static DETECTED: OnceLock<Isa> = OnceLock::new();
    *DETECTED.get_or_init(|| {
        #[cfg(target_arch = "x86_64")]
        {
            // Avx512 requires Avx2 too, so that `is_available` is a comparison.
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            let avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            if avx2 && avx512 {
                return Isa::Avx512;
            }
            if avx2 {
                return Isa::Avx2;
            }
        }
        Isa::Portable
    })
}

/// The instruction set of this process: `TOMOGRAD_ISA` if it is set, otherwise the best one. The variable is read once. An
/// unknown value, or one that this processor doesn't support, is an error that says so.
pub fn selected() -> Result<Isa, String> {
    static SELECTED: OnceLock<Result<Isa, String>> = OnceLock::new();
    SELECTED
        .get_or_init(|| match std::env::var("TOMOGRAD_ISA") {
            Err(std::env::VarError::NotPresent) => Ok(detected()),
            Err(error) => Err(format!("TOMOGRAD_ISA: {error}")),
            Ok(name) => checked(&name),
        })
        .clone()
}

/// Parses a value of `TOMOGRAD_ISA` and checks that this processor supports it.
pub(super) fn checked(name: &str) -> Result<Isa, String> {
    let isa: Isa = name.parse().map_err(|error| format!("TOMOGRAD_ISA: {error}"))?;
    if isa.is_available() {
        return Ok(isa);
    }
    Err(format!("TOMOGRAD_ISA: this processor lacks {isa}; the best that it has is {}", detected()))
}

/// [`selected`] for code that can't return an error: a bad `TOMOGRAD_ISA` is reported once on standard error, and the best
/// instruction set is used instead.
pub(crate) fn selected_or_detected() -> Isa {
    static USED: OnceLock<Isa> = OnceLock::new();
    *USED.get_or_init(|| {
        selected().unwrap_or_else(|error| {
            eprintln!("{error}; using {}", detected());
            detected()
        })
    })
}
