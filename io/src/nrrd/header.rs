//! Headers: lines of `field: value`.

use std::{collections::BTreeMap, io::BufRead};

use tomograd_core::Result;

use super::{MAGIC, fail};
use crate::{
    array::{Data, Encoding},
    detached,
    stream::{Compression, Input},
    voxels::Stored,
};

/// The fields that say what the voxels are and where.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) stored: Stored,
    pub(super) sizes: Vec<usize>,
    pub(super) big: bool,
    pub(super) encoding: Encoding,
    pub(super) data: Data,
    pub(super) line_skip: u64,
    pub(super) byte_skip: i64,
    fields: BTreeMap<String, String>,
}

/// Names of fields, as they may be written: the one that is used here, and others.
const ALIASES: [(&str, &str); 9] = [
    ("axismins", "axis mins"),
    ("axismaxs", "axis maxs"),
    ("centerings", "centers"),
    ("datafile", "data file"),
    ("lineskip", "line skip"),
    ("byteskip", "byte skip"),
    ("blocksize", "block size"),
    ("oldmin", "old min"),
    ("oldmax", "old max"),
];

impl Header {
    pub(super) fn read(input: &mut Input<impl BufRead>) -> Result<Self> {
        let (fields, list) = lines(input)?;
        let one = |name: &str| fields.get(name).map(String::as_str);
        let needed = |name: &str| one(name).ok_or_else(|| fail(format!("a header without the field {name:?}")));
        let stored = stored(needed("type")?)?;
        let rank = needed("dimension")?.parse::<usize>().ok().filter(|rank| (1..=16).contains(rank));
        let rank = rank.ok_or_else(|| fail(format!("dimension {:?}", one("dimension"))).expected("1 to 16"))?;
        let sizes: Option<Vec<usize>> = needed("sizes")?.split_whitespace().map(|size| size.parse().ok()).collect();
        let sizes = sizes.filter(|sizes| sizes.len() == rank && !sizes.contains(&0));
        let sizes = sizes.ok_or_else(|| {
            fail(format!("sizes {:?}", one("sizes"))).expected(format!("{rank} numbers of at least 1"))
        })?;
        let encoding = match needed("encoding")?.to_ascii_lowercase().as_str() {
            "raw" => Encoding::Bytes(Compression::None),
            "gz" | "gzip" => Encoding::Bytes(Compression::Gzip),
            "txt" | "text" | "ascii" => Encoding::Text,
            "hex" => Encoding::Hex,
            other => return Err(fail(format!("the encoding {other:?}")).expected("raw, gzip, ascii or hex")),
        };
        let big = match one("endian").map(str::to_ascii_lowercase).as_deref() {
            Some("little") => false,
            Some("big") => true,
            None if stored.size() == 1 || encoding == Encoding::Text => false,
            other => return Err(fail(format!("endian {other:?}")).expected("little or big")),
        };
        let whole = |name: &str| match one(name) {
            None => Ok(0),
            Some(text) => text.parse::<i64>().map_err(|_| fail(format!("{name} {text:?}")).expected("a whole number")),
        };
        let line_skip = u64::try_from(whole("line skip")?).map_err(|_| fail("a negative line skip"))?;
        let byte_skip = whole("byte skip")?;
        if byte_skip < -1 {
            return Err(fail(format!("byte skip {byte_skip}")).expected("-1 or more"));
        }
        let data = match one("data file") {
            Some(field) => Data::Files(detached::files(field, list, &sizes)?),
            None => Data::Here,
        };
        Ok(Self { stored, sizes, big, encoding, data, line_skip, byte_skip, fields })
    }

    /// The text of a field.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(String::as_str)
    }

    /// The words of a field, in quotation marks or not; none if it isn't there.
    pub(super) fn words(&self, name: &str) -> Vec<String> {
        let text = self.text(name).unwrap_or_default();
        if !text.contains('"') {
            return text.split_whitespace().map(str::to_owned).collect();
        }
        text.split('"').skip(1).step_by(2).map(str::to_owned).collect()
    }

    /// The numbers of a field, one for each axis.
    pub(super) fn numbers(&self, name: &str) -> Result<Option<Vec<f64>>> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let numbers: Option<Vec<f64>> = text.split_whitespace().map(|number| number.parse().ok()).collect();
        let numbers = numbers.filter(|numbers| numbers.len() == self.sizes.len());
        let expected = || format!("{} numbers, one for each axis", self.sizes.len());
        numbers.map(Some).ok_or_else(|| fail(format!("{name} {text:?}")).expected(expected()))
    }

    /// The vectors of a field: `(1,0,0)`, or `none`.
    pub(super) fn vectors(&self, name: &str) -> Result<Option<Vec<Option<Vec<f64>>>>> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let wrong = || fail(format!("{name} {text:?}")).expected("vectors as (1,0,0), or none");
        let mut vectors = Vec::new();
        let mut rest = text.trim_start();
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix("none") {
                vectors.push(None);
                rest = after.trim_start();
                continue;
            }
            let (inner, after) = rest.strip_prefix('(').and_then(|rest| rest.split_once(')')).ok_or_else(wrong)?;
            let vector: Option<Vec<f64>> = inner.split(',').map(|number| number.trim().parse().ok()).collect();
            vectors.push(Some(vector.ok_or_else(wrong)?));
            rest = after.trim_start();
        }
        Ok(Some(vectors))
    }
}

/// The fields, and the lines after `data file: LIST`.
fn lines(input: &mut Input<impl BufRead>) -> Result<(BTreeMap<String, String>, Vec<String>)> {
    let magic = input.line()?.unwrap_or_default();
    let version = magic.as_bytes().strip_prefix(MAGIC).and_then(|digits| std::str::from_utf8(digits).ok());
    if !version
        .and_then(|digits| digits.trim_end().parse::<u32>().ok())
        .is_some_and(|version| (1..=5).contains(&version))
    {
        return Err(fail(format!("the first line {magic:?}")).expected("NRRD0001 to NRRD0005"));
    }
    let (mut fields, mut list) = (BTreeMap::new(), Vec::new());
    while let Some(line) = input.line()?.filter(|line| !line.is_empty()) {
        if line.starts_with('#') || line.contains(":=") && line.find(":=") < line.find(": ").or(Some(usize::MAX)) {
            continue;
        }
        let Some((name, value)) = line.split_once(':') else {
            return Err(fail(format!("the line {line:?} of the header")).expected("FIELD: VALUE"));
        };
        let name = name.trim().to_ascii_lowercase();
        let name = ALIASES.into_iter().find(|(other, _)| *other == name).map_or(name, |(_, name)| name.to_owned());
        let value = value.trim().to_owned();
        let is_list = name == "data file" && value.split_whitespace().next() == Some("LIST");
        if fields.insert(name.clone(), value).is_some() {
            return Err(fail(format!("the field {name:?} twice")));
        }
        if is_list {
            // The rest of the header is the list.
            while let Some(line) = input.line()?.filter(|line| !line.is_empty()) {
                list.push(line);
            }
            break;
        }
    }
    Ok((fields, list))
}

fn stored(name: &str) -> Result<Stored> {
    Ok(match name.to_ascii_lowercase().as_str() {
        "signed char" | "int8" | "int8_t" => Stored::I8,
        "uchar" | "unsigned char" | "uint8" | "uint8_t" => Stored::U8,
        "short" | "short int" | "signed short" | "signed short int" | "int16" | "int16_t" => Stored::I16,
        "ushort" | "unsigned short" | "unsigned short int" | "uint16" | "uint16_t" => Stored::U16,
        "int" | "signed int" | "int32" | "int32_t" => Stored::I32,
        "uint" | "unsigned int" | "uint32" | "uint32_t" => Stored::U32,
        "longlong"
        | "long long"
        | "long long int"
        | "signed long long"
        | "signed long long int"
        | "int64"
        | "int64_t" => Stored::I64,
        "ulonglong" | "unsigned long long" | "unsigned long long int" | "uint64" | "uint64_t" => Stored::U64,
        "float" => Stored::F32,
        "double" => Stored::F64,
        _ => return Err(fail(format!("the type {name:?}")).expected("integers of 8 to 64 bits, float or double")),
    })
}
