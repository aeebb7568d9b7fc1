//! The header of a safetensors file: a JSON object with the dtype, shape and offsets of each tensor.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
};

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use tomograd_core::{Error, Result, contiguous_strides, element_count};

use super::{METADATA, MOST_HEADER, OPERATION};
use crate::{
    blob::Blob,
    stored::{StoredDType, StoredTensor, View},
};

fn fail(what: String) -> Error {
    Error::format(OPERATION, what)
}

/// The length of the header, from the first eight bytes of a file of `length` bytes.
pub(super) fn length(first: &[u8], length: u64) -> Result<u64> {
    let first: [u8; 8] = first.try_into().map_err(|_| fail("no header".into()))?;
    let header = u64::from_le_bytes(first);
    let room = length.checked_sub(8).is_some_and(|rest| header <= rest);
    if room && header <= MOST_HEADER {
        return Ok(header);
    }
    Err(fail(format!("a header of {header} bytes in a file of {length}")))
}

/// A tensor in the header; offsets are in bytes after the header.
pub(super) struct Place {
    pub(super) name: String,
    pub(super) start: u64,
    pub(super) end: u64,
    /// The name of the dtype in the file.
    dtype: String,
    stored: StoredDType,
    shape: Vec<usize>,
}

impl Place {
    /// Fails with the reason if the tensor can't be read.
    pub(super) fn readable(&self) -> Result<(), String> {
        match self.stored.dtype() {
            Some(_) => Ok(()),
            None => Err(format!("elements of the type {:.40}, which no tensor can hold", self.dtype)),
        }
    }

    pub(super) fn tensor(self, blob: Blob) -> StoredTensor {
        let strides = contiguous_strides(&self.shape).into_iter().map(|stride| stride as u64).collect();
        let view = View { blob, stored: self.stored, big_endian: false, offset: 0, strides, shape: self.shape };
        StoredTensor::new(self.name, view)
    }
}

/// The parsed header.
pub(super) struct Header {
    /// In the order of the offsets.
    pub(super) places: Vec<Place>,
    pub(super) metadata: BTreeMap<String, String>,
}

impl Header {
    /// Parses a header that is followed by `body` bytes, in which the tensors must be contiguous.
    pub(super) fn parse(text: &[u8], body: u64) -> Result<Self> {
        let Pairs(header) = serde_json::from_slice::<Pairs<Value>>(text)
            .map_err(|error| fail(format!("the header can't be read: {error}")))?;
        let mut metadata = BTreeMap::new();
        let mut places = Vec::new();
        for (name, value) in header {
            match value {
                Value::Metadata(pairs) => metadata = pairs,
                Value::Tensor(entry) => places.push(entry.place(name, body)?),
            }
        }
        // Empty tensors come before the tensor at the same offset, in the order of the header (the sort is stable).
        places.sort_by_key(|place| (place.start, place.end));
        let mut at = 0;
        for Place { name, start, end, .. } in &places {
            if *start != at {
                return Err(
                    fail(format!("{name} begins at {start}")).expected(format!("{at}: no gaps and no overlaps"))
                );
            }
            at = *end;
        }
        if at != body {
            return Err(fail(format!("{} bytes after the last tensor", body - at)));
        }
        Ok(Self { places, metadata })
    }
}

impl Entry {
    fn place(self, name: String, body: u64) -> Result<Place> {
        let Entry { dtype, shape, data_offsets: [start, end] } = self;
        // A dtype of a later version doesn't make the other tensors unreadable.
        let stored = StoredDType::of_safetensors(&dtype).unwrap_or(StoredDType::Unknown);
        let shape: Vec<usize> = shape.into_iter().map(|size| usize::try_from(size).unwrap_or(usize::MAX)).collect();
        let bits = (element_count(OPERATION, &shape)? as u64).checked_mul(stored.bits().into());
        let bytes = bits.filter(|bits| bits.is_multiple_of(8)).map(|bits| bits / 8);
        let right = stored == StoredDType::Unknown || bytes.is_some_and(|bytes| end.checked_sub(start) == Some(bytes));
        if end > body || start > end || !right {
            let expected = bytes.map_or("whole".to_owned(), |bytes| bytes.to_string());
            return Err(fail(format!("{name} lies at {start}..{end} of {body} bytes"))
                .expected(format!("{expected} bytes inside of the file")));
        }
        Ok(Place { name, start, end, dtype, stored, shape })
    }
}

/// The value of a name in the header.
enum Value {
    Metadata(BTreeMap<String, String>),
    Tensor(Entry),
}

/// The header entry of a tensor.
#[derive(serde::Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<u64>,
    /// Start and end, in bytes after the header.
    data_offsets: [u64; 2],
}

/// The entries of a JSON object, in order; a duplicate name is an error.
struct Pairs<T>(Vec<(String, T)>);

/// A value whose type depends on its name.
trait Named: Sized {
    fn next<'de, A: MapAccess<'de>>(name: &str, map: &mut A) -> Result<Self, A::Error>;
}

impl Named for Value {
    fn next<'de, A: MapAccess<'de>>(name: &str, map: &mut A) -> Result<Self, A::Error> {
        if name == METADATA {
            // `null` means none, as in the reference implementation.
            let pairs = map.next_value::<Option<Pairs<String>>>()?.map_or_else(Vec::new, |Pairs(pairs)| pairs);
            return Ok(Value::Metadata(pairs.into_iter().collect()));
        }
        let entry = map.next_value::<Entry>();
        entry.map(Value::Tensor).map_err(|error| serde::de::Error::custom(format!("{name}: {error}")))
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
