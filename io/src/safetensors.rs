//! The safetensors format: a JSON header of names, dtypes, shapes and places, then the elements.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    fs::File,
    io::{Read, Write},
    path::Path,
};

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::json;
use tomograd_core::{DType, Device, Element, Error, Result, Tensor, TensorBuilder, bf16, element_count, f16};

use crate::{atomic::write_all, write_atomically};

/// What a file holds.
#[derive(Debug)]
pub struct Contents {
    /// Names and tensors, in the order of their place in the file.
    pub tensors: Vec<(String, Tensor)>,
    /// Free text by name.
    pub metadata: BTreeMap<String, String>,
}

const OPERATION: &str = "safetensors";
/// The entry of the header that isn't a tensor.
const METADATA: &str = "__metadata__";
/// No header is larger than this (the reference implementation's limit).
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

/// Writes tensors in the given order; the same tensors give the same bytes.
///
/// # Errors
/// When a name is given twice or is `__metadata__`, names and metadata together exceed 100 MB, or the file can't be written
/// (what was there before is then untouched).
pub fn save(path: &Path, tensors: &[(String, Tensor)], metadata: &BTreeMap<String, String>) -> Result<()> {
    write_atomically(path, |writer| write(writer, tensors, metadata))
        .map_err(|error| error.within(path.display().to_string()))
}

/// Writes tensors to any writer, as [`save`] does to a file.
///
/// # Errors
/// As [`save`].
pub fn write(writer: &mut dyn Write, tensors: &[(String, Tensor)], metadata: &BTreeMap<String, String>) -> Result<()> {
    // Written piece by piece: a map of serde_json would sort the names, and those of empty tensors, which all lie at the
    // same place, would lose their order.
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
    // The elements begin at a multiple of eight.
    text.resize(text.len().next_multiple_of(8), b' ');
    if text.len() as u64 > MOST_HEADER {
        return Err(Error::argument(OPERATION, format!("a header of {} bytes", text.len()))
            .expected(format!("at most {MOST_HEADER}, which is all that readers take")));
    }
    write_all(writer, &(text.len() as u64).to_le_bytes())?;
    write_all(writer, &text)?;
    for (_, tensor) in tensors {
        write_elements(writer, &tensor.contiguous()?)?;
    }
    Ok(())
}

fn write_elements(writer: &mut dyn Write, tensor: &Tensor) -> Result<()> {
    fn encode<T: Element, const N: usize>(
        writer: &mut dyn Write,
        tensor: &Tensor,
        bytes: fn(T) -> [u8; N],
    ) -> Result<()> {
        // In pieces, so that no second copy of a large tensor is made.
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

/// Reads a file. Every size in the header is compared with the file's before memory is taken.
///
/// # Errors
/// When the file can't be read or isn't what its header says.
pub fn load(path: &Path) -> Result<Contents> {
    let place = path.display().to_string();
    let file = File::open(path).map_err(|error| Error::io(OPERATION, &place, error))?;
    let length = file.metadata().map_err(|error| Error::io(OPERATION, &place, error))?.len();
    read(&mut std::io::BufReader::new(file), length).map_err(|error| error.within(place))
}

/// Reads `length` bytes of a reader, as [`load`] does of a file.
///
/// # Errors
/// When the reader fails or the bytes aren't what their header says.
pub fn read(reader: &mut dyn Read, length: u64) -> Result<Contents> {
    let fail = |what: String| Error::format(OPERATION, what);
    // Memory grows as the bytes arrive, whatever `length` claims.
    let mut exact = |count: usize| -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(count.min(1 << 20));
        let got = (&mut *reader).take(count as u64).read_to_end(&mut bytes);
        let got = got.map_err(|error| Error::io(OPERATION, "the file", error))?;
        if got == count { Ok(bytes) } else { Err(fail(format!("the file ends after {got} of {count} bytes"))) }
    };
    let first: [u8; 8] = exact(8)?.try_into().map_err(|_| fail("no header".into()))?;
    let header_length = u64::from_le_bytes(first);
    let body =
        length.checked_sub(8).and_then(|rest| rest.checked_sub(header_length)).filter(|_| header_length <= MOST_HEADER);
    let Some(body) = body else {
        return Err(fail(format!("a header of {header_length} bytes in a file of {length}")));
    };
    let Pairs(header) = serde_json::from_slice::<Pairs<Header>>(&exact(header_length as usize)?)
        .map_err(|error| fail(format!("the header can't be read: {error}")))?;
    let mut metadata = BTreeMap::new();
    let mut entries = Vec::new();
    for (name, value) in header {
        let value = match value {
            Header::Metadata(pairs) => {
                metadata = pairs;
                continue;
            }
            Header::Tensor(value) => value,
        };
        let Entry { dtype: text, shape, data_offsets: [start, end] } = value;
        let dtype = DType::ALL.into_iter().find(|&dtype| dtype_name(dtype) == text).ok_or_else(|| {
            fail(format!("{name} has dtype {text:?}")).expected("F32, F64, F16, BF16, I64, I32, U8 or BOOL")
        })?;
        let shape: Vec<usize> = shape.into_iter().map(|size| usize::try_from(size).unwrap_or(usize::MAX)).collect();
        let count = element_count(OPERATION, &shape)?;
        if end > body || end.checked_sub(start) != Some((count * dtype.size()) as u64) {
            return Err(fail(format!("{name} lies at {start}..{end} of {body} bytes"))
                .expected(format!("{} bytes inside of the file", count * dtype.size())));
        }
        entries.push((start, end, name, dtype, shape));
    }
    // Empty tensors come before the one that begins where they lie, in the order of the header (the sort is stable).
    entries.sort_by_key(|&(start, end, ..)| (start, end));
    let mut tensors = Vec::with_capacity(entries.len());
    let mut place = 0;
    for (start, _, name, dtype, shape) in entries {
        if start != place {
            return Err(fail(format!("{name} begins at {start}")).expected(format!("{place}: no gaps and no overlaps")));
        }
        let count: usize = shape.iter().product();
        let bytes = exact(count * dtype.size())?;
        place += bytes.len() as u64;
        tensors.push((name, tensor_of(dtype, &shape, &bytes)?));
    }
    if place != body {
        return Err(fail(format!("{} bytes after the last tensor", body - place)));
    }
    Ok(Contents { tensors, metadata })
}

/// What stands behind a name in the header.
enum Header {
    Metadata(BTreeMap<String, String>),
    Tensor(Entry),
}

/// What the header says of a tensor.
#[derive(serde::Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<u64>,
    /// From where to where it lies, in bytes after the header.
    data_offsets: [u64; 2],
}

/// The pairs of a JSON object in their order; a name that is given twice is an error.
struct Pairs<T>(Vec<(String, T)>);

/// A value whose kind depends on its name.
trait Named: Sized {
    fn next<'de, A: MapAccess<'de>>(name: &str, map: &mut A) -> Result<Self, A::Error>;
}

impl Named for Header {
    fn next<'de, A: MapAccess<'de>>(name: &str, map: &mut A) -> Result<Self, A::Error> {
        if name == METADATA {
            // `null` says that there is none, as in the reference implementation.
            let pairs = map.next_value::<Option<Pairs<String>>>()?.map_or_else(Vec::new, |Pairs(pairs)| pairs);
            return Ok(Header::Metadata(pairs.into_iter().collect()));
        }
        let entry = map.next_value::<Entry>();
        entry.map(Header::Tensor).map_err(|error| serde::de::Error::custom(format!("{name}: {error}")))
    }
}

impl Named for String {
    fn next<'de, A: MapAccess<'de>>(_: &str, map: &mut A) -> Result<Self, A::Error> {
        map.next_value()
    }
}

impl<'de, T: Named> Deserialize<'de> for Pairs<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader<T>(std::marker::PhantomData<T>);

        impl<'de, T: Named> Visitor<'de> for Reader<T> {
            type Value = Pairs<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs<T>, A::Error> {
                let (mut pairs, mut names) = (Vec::new(), HashSet::new());
                while let Some(name) = map.next_key::<String>()? {
                    if !names.insert(name.clone()) {
                        return Err(serde::de::Error::custom(format!("the name {name} is given twice")));
                    }
                    let value = T::next(&name, &mut map)?;
                    pairs.push((name, value));
                }
                Ok(Pairs(pairs))
            }
        }

        deserializer.deserialize_map(Reader(std::marker::PhantomData))
    }
}

fn tensor_of(dtype: DType, shape: &[usize], bytes: &[u8]) -> Result<Tensor> {
    fn decode<T: Element, const N: usize>(shape: &[usize], bytes: &[u8], value: fn([u8; N]) -> T) -> Result<Tensor> {
        let mut parts = bytes.chunks_exact(N).map(|part| value(part.try_into().unwrap_or([0; N])));
        TensorBuilder::<T>::new(OPERATION, shape, Device::Cpu)?.fill_with(|_| parts.next().unwrap_or_default())
    }
    match dtype {
        DType::F32 => decode::<f32, 4>(shape, bytes, f32::from_le_bytes),
        DType::F64 => decode::<f64, 8>(shape, bytes, f64::from_le_bytes),
        DType::F16 => decode::<f16, 2>(shape, bytes, f16::from_le_bytes),
        DType::BF16 => decode::<bf16, 2>(shape, bytes, bf16::from_le_bytes),
        DType::I64 => decode::<i64, 8>(shape, bytes, i64::from_le_bytes),
        DType::I32 => decode::<i32, 4>(shape, bytes, i32::from_le_bytes),
        DType::U8 => decode::<u8, 1>(shape, bytes, |[x]| x),
        DType::Bool => match bytes.iter().find(|&&byte| byte > 1) {
            Some(byte) => Err(Error::format(OPERATION, format!("a truth value of {byte}")).expected("0 or 1")),
            None => decode::<bool, 1>(shape, bytes, |[x]| x != 0),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> (Vec<(String, Tensor)>, BTreeMap<String, String>) {
        let tensor = |dtype| {
            Tensor::arange(6, DType::F32, Device::Cpu).unwrap().converted(dtype).unwrap().reshape(&[2, 3]).unwrap()
        };
        let tensors = DType::ALL.iter().map(|&dtype| (format!("t.{dtype}"), tensor(dtype))).collect();
        (tensors, BTreeMap::from([("format".to_owned(), "1".to_owned())]))
    }

    fn bytes() -> Vec<u8> {
        let (tensors, metadata) = sample();
        let mut bytes = Vec::new();
        write(&mut bytes, &tensors, &metadata).unwrap();
        bytes
    }

    #[test]
    fn reads_what_it_writes() {
        let (tensors, metadata) = sample();
        let bytes = bytes();
        let contents = read(&mut &bytes[..], bytes.len() as u64).unwrap();
        assert_eq!(contents.metadata, metadata);
        for ((name, tensor), (expected_name, expected)) in contents.tensors.iter().zip(&tensors) {
            assert_eq!((name, tensor.dtype(), tensor.shape()), (expected_name, expected.dtype(), expected.shape()));
            assert_eq!(tensor.to_vec_f64().unwrap(), expected.to_vec_f64().unwrap());
        }
    }

    #[test]
    fn what_the_reference_implementation_takes_is_read() {
        let read = |header: &str, body: &[u8]| {
            let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
            bytes.extend_from_slice(header.as_bytes());
            bytes.extend_from_slice(body);
            super::read(&mut &bytes[..], bytes.len() as u64)
        };
        let entry = r#""a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}"#;
        for header in [
            format!(r#"{{"__metadata__":null,{entry}}}"#),
            format!(r#"{{"__metadata__":{{}},{entry}}}"#),
            // Not aligned, white space around, and a field that isn't known.
            format!(" \n{{{entry} }} \t"),
            r#"{"a":{"shape":[2],"more":[{}],"dtype":"U8","data_offsets":[0,2]}}"#.to_owned(),
            // Empty tensors lie anywhere between the others.
            format!(r#"{{"e":{{"dtype":"F64","shape":[3,0],"data_offsets":[2,2]}},{entry}}}"#),
        ] {
            let contents = read(&header, &[7, 8]).unwrap();
            let tensor = contents.tensors.iter().find(|(name, _)| name == "a").unwrap();
            assert_eq!(tensor.1.to_vec::<u8>().unwrap(), [7, 8], "{header}");
            assert!(contents.metadata.is_empty());
        }
        assert!(read("{}", &[]).unwrap().tensors.is_empty());
        for header in [
            r#"{"__metadata__":{"a":null}}"#,
            r#"{"__metadata__":[]}"#,
            r#"{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2],"shape":[2]}}"#,
            r#"{"a":null}"#,
            "[]",
            "null",
        ] {
            assert!(read(header, if header.contains("U8") { &[7, 8] } else { &[] }).is_err(), "{header}");
        }
    }

    #[test]
    fn a_length_that_nobody_holds_takes_no_memory() {
        let header = r#"{"a":{"dtype":"U8","shape":[1125899906842624],"data_offsets":[0,1125899906842624]}}"#;
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        for length in [8 + header.len() as u64 + (1 << 50), u64::MAX] {
            assert!(read(&mut &bytes[..], length).is_err());
        }
    }

    #[test]
    fn truncated_and_lying_files_are_errors() {
        let bytes = bytes();
        for end in 0..bytes.len() {
            assert!(read(&mut &bytes[..end], end as u64).is_err(), "{end}");
        }
        for (from, to) in [("[2,3]", "[2,9]"), ("[0,", "[8,"), ("F32", "F99"), ("[2,3]", "[-1]"), ("BOOL", "bool")] {
            let text = String::from_utf8_lossy(&bytes[8..]).replacen(from, to, 1);
            let mut changed = bytes[..8].to_vec();
            changed.extend_from_slice(text.as_bytes());
            assert!(read(&mut &changed[..], changed.len() as u64).is_err(), "{from}");
        }
        let mut huge = bytes.clone();
        huge[..8].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(read(&mut &huge[..], huge.len() as u64).is_err());
    }
}
