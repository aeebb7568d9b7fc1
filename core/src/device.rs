//! The devices that hold tensors and run operations.

use std::{fmt, str::FromStr};

use crate::{Error, ErrorKind, Result, cuda::Gpu};

/// The processor that holds a tensor's memory and runs its operations.
///
/// ```
/// use tomograd_core::{DType, Device, Tensor};
/// assert_eq!("cuda:1".parse::<Device>()?, Device::Cuda(1));
/// let huge = Tensor::zeros(&[1 << 20, 1 << 20], DType::F32, Device::Meta)?; // 4 TB that nobody holds
/// assert!(huge.to_vec::<f32>().is_err());
/// match Tensor::zeros(&[2], DType::F32, Device::Cuda(0)) {
///     Ok(zeros) => assert_eq!(zeros.to_vec::<f32>()?, [0.0, 0.0]),
///     Err(error) => println!("{error}"), // says what is missing
/// }
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
    /// The CUDA device with this index: an NVIDIA GPU of compute capability 8.0 or higher. Operations without a CUDA kernel are
    /// errors that say so.
    Cuda(usize),
}

impl Device {
    /// Checks that the device can be used, and opens it if it is a CUDA device.
    ///
    /// # Errors
    /// [`ErrorKind::Device`] for a CUDA device that this machine hasn't, or can't use: the driver or NVRTC is missing or too
    /// old, or the GPU is. The error says which, and how to go on.
    pub fn check(self, operation: &str) -> Result<()> {
        match self {
            Device::Cpu | Device::Meta => Ok(()),
            Device::Cuda(index) => Gpu::open(index, operation).map(|_| ()),
        }
    }

    /// The device of this name, which was [checked](Self::check): for arguments of programs.
    ///
    /// ```
    /// use tomograd_core::Device;
    /// assert_eq!(Device::usable("cpu")?, Device::Cpu);
    /// assert!(Device::usable("cuda:1000").is_err());
    /// # Ok::<(), tomograd_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// When no device has this name, or it can't be used.
    pub fn usable(name: &str) -> Result<Self> {
        let device: Self = name.parse()?;
        device.check("device").map(|()| device)
    }

    /// Checks that the host can address this device's memory.
    pub(crate) fn require_host(self, operation: &str) -> Result<()> {
        if self == Device::Cpu { Ok(()) } else { Err(self.no_elements(operation)) }
    }

    /// The error for reading elements that the host can't address.
    #[cold]
    pub(crate) fn no_elements(self, operation: &str) -> Error {
        let what = match self {
            Device::Meta => "a meta tensor has no elements, only shape and dtype".to_owned(),
            other => format!("the host can't address memory of {other}"),
        };
        Error::new(ErrorKind::Device, operation, what).expected("a tensor on cpu")
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
