//! The safetensors format: a JSON header with names, dtypes, shapes and offsets, then the elements.

mod header;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashSet},
    io::{Read, Write},
    path::Path,
    sync::Arc,
};

use serde_json::json;
use tomograd_core::{DType, Device, Element, Error, ErrorKind, Result, Tensor, bf16, f16};

use self::header::Header;
use crate::{
    atomic::write_all,
    blob::{Blob, Source},
    stored::{Skipped, StoredTensor},
    write_atomically,
};

/// The contents of a file.
#[derive(Debug)]
pub struct Contents {
    /// Names and tensors, in the order of their offsets. Element types that tensors lack are converted to the next type that
    /// holds all their values ([`StoredDType::dtype`](crate::StoredDType::dtype)).
    pub tensors: Vec<(String, Tensor)>,
    /// Metadata: text by name.
    pub metadata: BTreeMap<String, String>,
    /// Tensors that no dtype can hold: complex numbers, elements smaller than a byte, unknown types, and 64-bit
    /// unsigned integers beyond the range of i64.
    pub skipped: Vec<Skipped>,
}

const OPERATION: &str = "safetensors";
/// The name of the header entry with the metadata.
const METADATA: &str = "__metadata__";
/// The maximum header size (that of the reference implementation).
const MOST_HEADER: u64 = 100_000_000;

fn dtype_name(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 => "F32",
        DType::F64 => "F64",
        DType::F16 => "F16",
        DType::BF16 => "BF16",
        DType::I64 => "I64",
        DType::I32 => "I32",
        DType::U8 => "U8",
        DType::Bool => "BOOL",
    }
}

/// Writes tensors in the given order; the same input gives the same bytes.
///
/// ```
/// use std::collections::BTreeMap;
/// use tomograd_core::{DType, Device, Tensor};
/// use tomograd_io::safetensors;
/// # let path = std::env::temp_dir().join(format!("tomograd-save-doc-{}.safetensors", std::process::id()));
/// let tensors = [("fc.bias".to_owned(), Tensor::ones(&[3], DType::F32, Device::Cpu)?)];
/// let metadata = BTreeMap::from([("epoch".to_owned(), "7".to_owned())]);
/// safetensors::save(&path, &tensors, &metadata)?;
/// assert_eq!(safetensors::load(&path)?.metadata, metadata);
/// # std::fs::remove_file(&path).ok();
/// # Ok::<(), tomograd_core::Error>(())
/// ```
///
/// # Errors
/// When a name is used twice or is `__metadata__`, names and metadata together exceed 100 MB, or the file can't be written
/// (an existing file then stays unchanged).
pub fn save(path: &Path, tensors: &[(String, Tensor)], metadata: &BTreeMap<String, String>) -> Result<()> {
    write_atomically(path, |writer| write(writer, tensors, metadata))
        .map_err(|error| error.within(path.display().to_string()))
}

/// Writes tensors to any writer, as [`save`] does to a file.
///
/// ```
/// use std::collections::BTreeMap;
/// use tomograd_core::{DType, Device, Tensor};
/// use tomograd_io::safetensors;
/// let tensors = [("fc.bias".to_owned(), Tensor::ones(&[3], DType::F32, Device::Cpu)?)];
/// let mut bytes = Vec::new();
/// safetensors::write(&mut bytes, &tensors, &BTreeMap::new())?;
/// let contents = safetensors::read(&mut &bytes[..], bytes.len() as u64)?;
/// assert_eq!(contents.tensors[0].1.to_vec::<f32>()?, [1.0; 3]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
///
/// # Errors
/// As [`save`].
pub fn write(writer: &mut dyn Write, tensors: &[(String, Tensor)], metadata: &BTreeMap<String, String>) -> Result<()> {
    // Written entry by entry: a serde_json map would sort the names, and empty tensors, which all have the same offset, would
    // lose their order.
    let mut entries = Vec::with_capacity(tensors.len().saturating_add(1));
    if !metadata.is_empty() {
        entries.push(format!("{}:{}", json!(METADATA), json!(metadata)));
    }
    let mut names = HashSet::from([METADATA]);
    let mut place = 0usize;
    for (name, tensor) in tensors {
        if !names.insert(name) {
            return Err(Error::argument(OPERATION, format!("the name {name} is given twice, or is the format's own")));
        }
        let end = place.saturating_add(tensor.count().saturating_mul(tensor.dtype().size()));
        let entry = json!({"dtype": dtype_name(tensor.dtype()), "shape": tensor.shape(), "data_offsets": [place, end]});
        entries.push(format!("{}:{entry}", json!(name)));
        place = end;
    }
    let mut text = format!("{{{}}}", entries.join(",")).into_bytes();
    // Aligns the elements to eight bytes.
    text.resize(text.len().next_multiple_of(8), b' ');
    if text.len() as u64 > MOST_HEADER {
        return Err(Error::argument(OPERATION, format!("a header of {} bytes", text.len()))
            .expected(format!("at most {MOST_HEADER}, which is all that readers take")));
    }
    write_all(writer, &(text.len() as u64).to_le_bytes())?;
    write_all(writer, &text)?;
    for (_, tensor) in tensors {
        // One tensor at a time is copied to the host, if it is on another device.
        write_elements(writer, &tensor.to(Device::Cpu)?.contiguous()?)?;
    }
    Ok(())
}

fn write_elements(writer: &mut dyn Write, tensor: &Tensor) -> Result<()> {
    fn encode<T: Element, const N: usize>(
        writer: &mut dyn Write,
        tensor: &Tensor,
        bytes: fn(T) -> [u8; N],
    ) -> Result<()> {
        // In chunks, to avoid a second copy of a large tensor.
        let mut buffer = Vec::with_capacity(1 << 14);
        for part in tensor.as_slice::<T>()?.chunks((1 << 14) / N) {
            buffer.clear();
            part.iter().for_each(|&element| buffer.extend_from_slice(&bytes(element)));
            write_all(writer, &buffer)?;
        }
        Ok(())
    }
    match tensor.dtype() {
        DType::F32 => encode::<f32, 4>(writer, tensor, f32::to_le_bytes),
        DType::F64 => encode::<f64, 8>(writer, tensor, f64::to_le_bytes),
        DType::F16 => encode::<f16, 2>(writer, tensor, f16::to_le_bytes),
        DType::BF16 => encode::<bf16, 2>(writer, tensor, bf16::to_le_bytes),
        DType::I64 => encode::<i64, 8>(writer, tensor, i64::to_le_bytes),
        DType::I32 => encode::<i32, 4>(writer, tensor, i32::to_le_bytes),
        DType::U8 => encode::<u8, 1>(writer, tensor, |x| [x]),
        DType::Bool => encode::<bool, 1>(writer, tensor, |x| [u8::from(x)]),
    }
}

/// Reads a file. All sizes in the header are checked against the file size before memory is allocated.
/// ([`Weights`](crate::Weights) reads tensors one at a time.)
///
/// ```
/// # use std::collections::BTreeMap;
/// # use tomograd_core::{DType, Device, Tensor};
/// use tomograd_io::safetensors;
/// # let path = std::env::temp_dir().join(format!("tomograd-load-doc-{}.safetensors", std::process::id()));
/// # safetensors::save(&path, &[("fc.bias".to_owned(), Tensor::ones(&[3], DType::F32, Device::Cpu)?)], &BTreeMap::new())?;
/// for (name, tensor) in safetensors::load(&path)?.tensors {
///     assert_eq!((&name[..], tensor.shape()), ("fc.bias", &[3][..]));
/// }
/// # std::fs::remove_file(&path).ok();
/// # Ok::<(), tomograd_core::Error>(())
/// ```
///
/// # Errors
/// When the file can't be read or contradicts its header.
pub fn load(path: &Path) -> Result<Contents> {
    let open = || {
        let (stored, skipped, metadata) = stored(&Source::open(path)?)?;
        let mut contents = Contents { tensors: Vec::with_capacity(stored.len()), metadata, skipped };
        stored.into_iter().try_for_each(|tensor| contents.take(&tensor))?;
        Ok(contents)
    };
    open().map_err(|error: Error| error.within(path.display().to_string()))
}

impl Contents {
    fn take(&mut self, tensor: &StoredTensor) -> Result<()> {
        match tensor.read() {
            Ok(value) => self.tensors.push((tensor.name().to_owned(), value)),
            Err(error) if error.kind() == ErrorKind::DType => {
                self.skipped.push(Skipped::new(tensor.name(), error.to_string()));
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// Unread tensors, unreadable tensors, and metadata.
pub(crate) type Stored = (Vec<StoredTensor>, Vec<Skipped>, BTreeMap<String, String>);

/// The tensors of a file, not read yet.
pub(crate) fn stored(source: &Arc<Source>) -> Result<Stored> {
    let first = source.bytes(0, source.length().min(8))?;
    let length = header::length(&first, source.length())?;
    let Header { places, metadata } = Header::parse(&source.bytes(8, length)?, source.length() - 8 - length)?;
    let (mut tensors, mut skipped) = (Vec::new(), Vec::new());
    for place in places {
        match place.readable() {
            Ok(()) => {
                let blob = Blob::new(source.clone(), 8 + length + place.start, place.end - place.start);
                tensors.push(place.tensor(blob));
            }
            Err(why) => skipped.push(Skipped::new(&place.name, why)),
        }
    }
    Ok((tensors, skipped, metadata))
}

/// Reads `length` bytes of a reader, as [`load`] does for a file.
///
/// # Errors
/// When the reader fails or the bytes contradict their header.
pub fn read(reader: &mut dyn Read, length: u64) -> Result<Contents> {
    // Memory grows as the bytes arrive, whatever `length` claims.
    let mut exact = |count: u64| -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(count.min(1 << 20) as usize);
        let got = (&mut *reader).take(count).read_to_end(&mut bytes);
        let got = got.map_err(|error| Error::io(OPERATION, "the file", error))?;
        let cut = || Error::format(OPERATION, format!("the file ends after {got} of {count} bytes"));
        if got as u64 == count { Ok(bytes) } else { Err(cut()) }
    };
    let header = header::length(&exact(8)?, length)?;
    let Header { places, metadata } = Header::parse(&exact(header)?, length - 8 - header)?;
    let mut contents = Contents { tensors: Vec::with_capacity(places.len()), metadata, skipped: Vec::new() };
    for place in places {
        let bytes = exact(place.end - place.start)?;
        match place.readable() {
            Ok(()) => {
                let blob = Blob::new(Arc::new(Source::of(bytes)), 0, place.end - place.start);
                contents.take(&place.tensor(blob))?;
            }
            Err(why) => contents.skipped.push(Skipped::new(&place.name, why)),
        }
    }
    Ok(contents)
}
