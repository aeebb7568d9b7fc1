//! The devices that hold tensors and run operations.

use std::{fmt, str::FromStr};

use crate::{Error, ErrorKind, Result};

/// The processor that holds a tensor's memory and runs its operations.
///
/// ```
/// use tomograd_core::{DType, Device, Tensor};
/// assert_eq!("cuda:1".parse::<Device>()?, Device::Cuda(1));
/// let huge = Tensor::zeros(&[1 << 20, 1 << 20], DType::F32, Device::Meta)?; // 4 TB that nobody holds
/// assert!(huge.to_vec::<f32>().is_err());
/// assert!(Tensor::zeros(&[2], DType::F32, Device::Cuda(0)).is_err(), "this build has no CUDA kernels");
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Device {
    /// The host's processor and memory.
    #[default]
    Cpu,
    /// No processor and no memory: tensors have only shape and dtype, and operations only infer the shapes and costs of their
    /// results. Running a network here gives its number of parameters, its operation count and its peak memory within
    /// milliseconds, at any input size. Reading an element is an error.
    Meta,
    /// The CUDA device with this index. This version has no CUDA kernels, so every use is an error that says so.
    Cuda(usize),
}

impl Device {
    /// Checks that this build supports the device.
    ///
    /// # Errors
    /// [`ErrorKind::Device`] for every CUDA device.
    pub fn check(self, operation: &str) -> Result<()> {
        match self {
            Device::Cpu | Device::Meta => Ok(()),
            Device::Cuda(_) => Err(Error::new(
                ErrorKind::Device,
                operation,
                format!("device {self} can't be used: this version of tomograd has no CUDA kernels"),
            )
            .expected("cpu or meta")),
        }
    }

    /// Checks that the host can address this device's memory.
    pub(crate) fn require_host(self, operation: &str) -> Result<()> {
        let what = match self {
            Device::Cpu => return Ok(()),
            Device::Meta => "a meta tensor has no elements, only shape and dtype".to_owned(),
            Device::Cuda(_) => format!("the host can't address memory of {self}"),
        };
        Err(Error::new(ErrorKind::Device, operation, what).expected("a tensor on cpu"))
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Cpu => f.write_str("cpu"),
            Device::Meta => f.write_str("meta"),
            Device::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

impl FromStr for Device {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "cpu" => Ok(Device::Cpu),
            "meta" => Ok(Device::Meta),
            "cuda" => Ok(Device::Cuda(0)),
            _ => text.strip_prefix("cuda:").and_then(|index| index.parse().ok()).map(Device::Cuda).ok_or_else(|| {
                Error::argument("device", format!("no device is called {text:?}")).expected("cpu, meta, cuda or cuda:N")
            }),
        }
    }
}
