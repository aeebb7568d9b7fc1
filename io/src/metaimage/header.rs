//! Headers: lines of `Key = Value`, the last of which says where the data is.

use std::{collections::BTreeMap, io::BufRead};

use tomograd_core::Result;

use super::fail;
use crate::{
    array::{Data, Encoding},
    detached,
    geometry::{self, Affine},
    stream::{Compression, Input},
    voxels::Stored,
};

/// What is in front of the data in its file.
#[derive(Debug, Clone, Copy)]
pub(super) enum Skip {
    Bytes(u64),
    /// The data is the end of the file.
    ToTheLast,
}

#[derive(Debug)]
pub(super) struct Header {
    pub(super) stored: Stored,
    /// The sizes along x, y, z, t, ...
    pub(super) sizes: Vec<usize>,
    pub(super) channels: usize,
    pub(super) big: bool,
    pub(super) encoding: Encoding,
    pub(super) compressed_size: Option<u64>,
    pub(super) skip: Skip,
    pub(super) data: Data,
    fields: BTreeMap<String, String>,
}

/// Where the voxels are.
pub(super) struct Placed {
    pub(super) affine: Affine,
    /// The step of the fourth axis.
    pub(super) step: Option<f64>,
    pub(super) notes: Vec<String>,
}

/// Keys with which a header may begin.
const FIRST: [&str; 16] = [
    "ObjectType",
    "ObjectSubType",
    "NDims",
    "Comment",
    "Name",
    "ID",
    "ParentID",
    "TransformType",
    "DimSize",
    "BinaryData",
    "CompressedData",
    "ElementType",
    "ElementSpacing",
    "Offset",
    "Color",
    "Modality",
];

/// Whether these bytes are the beginning of a header.
pub(crate) fn begins(first: &[u8]) -> bool {
    let key = first.iter().take_while(|byte| byte.is_ascii_alphanumeric()).count();
    let (key, rest) = first.split_at_checked(key).unwrap_or_default();
    let blanks = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    rest.get(blanks) == Some(&b'=') && FIRST.iter().any(|name| name.as_bytes() == key)
}

impl Header {
    pub(super) fn read(input: &mut Input<impl BufRead>) -> Result<Self> {
        let (fields, list) = lines(input)?;
        let one = |name: &str| fields.get(name).map(String::as_str);
        let needed = |name: &str| one(name).ok_or_else(|| fail(format!("a header without {name}")));
        if let Some(kind) = one("ObjectType").filter(|kind| !kind.eq_ignore_ascii_case("Image")) {
            return Err(fail(format!("ObjectType = {kind}")).expected("Image"));
        }
        let rank = needed("NDims")?.parse::<usize>().ok().filter(|rank| (1..=7).contains(rank));
        let rank = rank.ok_or_else(|| fail(format!("NDims = {:?}", one("NDims"))).expected("1 to 7"))?;
        let sizes: Option<Vec<usize>> = needed("DimSize")?.split_whitespace().map(|size| size.parse().ok()).collect();
        let sizes = sizes.filter(|sizes| sizes.len() == rank && !sizes.contains(&0));
        let sizes = sizes.ok_or_else(|| {
            fail(format!("DimSize = {:?}", one("DimSize"))).expected(format!("{rank} numbers of at least 1"))
        })?;
        let stored = stored(needed("ElementType")?)?;
        let channels = one("ElementNumberOfChannels").map_or(Some(1), |number| number.parse::<usize>().ok());
        let channels = channels.filter(|channels| *channels > 0).ok_or_else(|| {
            fail(format!("ElementNumberOfChannels = {:?}", one("ElementNumberOfChannels"))).expected("at least 1")
        })?;
        let truth = |name: &str| match one(name).map(str::to_ascii_lowercase).as_deref() {
            None => Ok(None),
            Some("true" | "t" | "1") => Ok(Some(true)),
            Some("false" | "f" | "0") => Ok(Some(false)),
            Some(other) => Err(fail(format!("{name} = {other}")).expected("True or False")),
        };
        let big = truth("BinaryDataByteOrderMSB")?.or(truth("ElementByteOrderMSB")?).unwrap_or(false);
        let compressed = truth("CompressedData")?.unwrap_or(false);
        let encoding = match (truth("BinaryData")?.unwrap_or(true), compressed) {
            (false, _) => Encoding::Text,
            (true, true) => Encoding::Bytes(Compression::Zlib),
            (true, false) => Encoding::Bytes(Compression::None),
        };
        let size = one("CompressedDataSize").filter(|_| compressed).map(|size| size.parse::<f64>().ok());
        let compressed_size = match size {
            None => None,
            // Some versions write it as a floating-point number.
            Some(Some(size)) if (1.0..9e15).contains(&size) && size.fract() == 0.0 => Some(size as u64),
            Some(_) => {
                let what = format!("CompressedDataSize = {:?}", one("CompressedDataSize"));
                return Err(fail(what).expected("a number of bytes"));
            }
        };
        let skip = match one("HeaderSize").map_or(Some(0), |size| size.parse::<i64>().ok()) {
            Some(-1) => Skip::ToTheLast,
            Some(size @ 0..) => Skip::Bytes(size.unsigned_abs()),
            _ => return Err(fail(format!("HeaderSize = {:?}", one("HeaderSize"))).expected("-1, or bytes to skip")),
        };
        if one("HeaderSizePerSlice").is_some_and(|size| size != "0") {
            return Err(fail("HeaderSizePerSlice").expected("data without headers of slices"));
        }
        let data = match needed("ElementDataFile")? {
            "LOCAL" | "Local" | "local" => Data::Here,
            "" => return Err(fail("ElementDataFile without a name").expected("LOCAL, or the name of a file")),
            field => Data::Files(detached::files(field, list, &sizes)?),
        };
        Ok(Self { stored, sizes, channels, big, encoding, compressed_size, skip, data, fields })
    }

    /// The numbers of the first of these fields that is there.
    fn numbers(&self, names: &[&str], count: usize) -> Result<Option<Vec<f64>>> {
        let Some((name, text)) = names.iter().find_map(|name| self.fields.get(*name).map(|text| (name, text))) else {
            return Ok(None);
        };
        let numbers: Option<Vec<f64>> = text.split_whitespace().map(|number| number.parse().ok()).collect();
        let numbers = numbers.filter(|numbers| numbers.len() == count && numbers.iter().all(|x| x.is_finite()));
        let numbers = numbers.ok_or_else(|| fail(format!("{name} = {text:?}")).expected(format!("{count} numbers")))?;
        Ok(Some(numbers))
    }

    /// The affine: row n of `TransformMatrix` is the direction of axis n.
    pub(super) fn place(&self) -> Result<Placed> {
        let mut notes = Vec::new();
        let rank = self.sizes.len();
        let matrix = self.numbers(&["TransformMatrix", "Rotation", "Orientation"], rank.saturating_mul(rank))?;
        let offset = self.numbers(&["Offset", "Position", "Origin"], rank)?.unwrap_or_default();
        let spacing = self.numbers(&["ElementSpacing", "ElementSize"], rank)?;
        if matrix.is_none() {
            notes.push("the file doesn't say its directions: taken as LPS".to_owned());
        }
        if spacing.is_none() {
            notes.push("the file doesn't say its spacing: taken as 1 mm".to_owned());
        }
        for (name, plain) in [("ElementToIntensityFunctionSlope", 1.0), ("ElementToIntensityFunctionOffset", 0.0)] {
            if let Some(text) = self.fields.get(name).filter(|text| text.parse() != Ok(plain)) {
                notes.push(format!("{name} = {text} isn't applied, as ITK doesn't"));
            }
        }
        if let Some(unit) = self.fields.get("DistanceUnits").filter(|unit| !matches!(unit.as_str(), "mm" | "?" | "")) {
            notes.push(format!("DistanceUnits = {unit}: lengths are taken as millimetres, as ITK does"));
        }
        let direction = |axis: usize, world: usize| match &matrix {
            Some(matrix) if axis < rank && world < rank => {
                matrix.get(axis.saturating_mul(rank).saturating_add(world)).copied().unwrap_or(0.0)
            }
            _ => f64::from(u8::from(axis == world)),
        };
        // Time, behind three axes of space, must be apart from them.
        for (axis, world) in (0..rank).flat_map(|axis| (0..rank).map(move |world| (axis, world))) {
            if (axis >= 3 || world >= 3) && (axis == world) != (direction(axis, world) != 0.0) {
                return Err(fail("a TransformMatrix that turns space into time").expected("directions within space"));
            }
        }
        let step = |axis: usize| spacing.as_ref().and_then(|spacing| spacing.get(axis)).copied().unwrap_or(1.0);
        let mut affine: Affine = [[0.0; 4], [0.0; 4], [0.0; 4], [0.0, 0.0, 0.0, 1.0]];
        for (world, (row, sign)) in affine.iter_mut().zip([-1.0, -1.0, 1.0]).enumerate() {
            let [x, y, z] = [0, 1, 2].map(|axis| direction(axis, world) * step(axis));
            let at = if world < rank { offset.get(world).copied().unwrap_or(0.0) } else { 0.0 };
            *row = [x, y, z, at].map(|value| if value == 0.0 { 0.0 } else { sign * value });
        }
        let step = (rank > 3).then(|| step(3).abs()).filter(|step| *step > 0.0);
        Ok(Placed { affine: geometry::checked(affine)?, step, notes })
    }
}

/// The fields, and the lines after `ElementDataFile = LIST`.
fn lines(input: &mut Input<impl BufRead>) -> Result<(BTreeMap<String, String>, Vec<String>)> {
    let (mut fields, mut list) = (BTreeMap::new(), Vec::new());
    while let Some(line) = input.line()? {
        if line.trim().is_empty() {
            continue;
        }
        let Some((name, value)) = line.split_once('=').or_else(|| line.split_once(':')) else {
            let line: String = line.chars().take(80).collect();
            return Err(fail(format!("the line {line:?} of the header")).expected("KEY = VALUE"));
        };
        let (name, value) = (name.trim().to_owned(), value.trim().to_owned());
        let last = name == "ElementDataFile";
        let is_list = last && value.split_whitespace().next() == Some("LIST");
        // Comments may come several times.
        if fields.insert(name.clone(), value).is_some() && name != "Comment" {
            return Err(fail(format!("{name} twice")));
        }
        if is_list {
            while let Some(line) = input.line()? {
                if !line.trim().is_empty() {
                    list.push(line.trim().to_owned());
                }
            }
        }
        if last {
            break;
        }
    }
    Ok((fields, list))
}

fn stored(name: &str) -> Result<Stored> {
    Ok(match name.strip_suffix("_ARRAY").unwrap_or(name) {
        "MET_CHAR" => Stored::I8,
        "MET_UCHAR" => Stored::U8,
        "MET_SHORT" => Stored::I16,
        "MET_USHORT" => Stored::U16,
        // The format's long has 32 bits.
        "MET_INT" | "MET_LONG" => Stored::I32,
        "MET_UINT" | "MET_ULONG" => Stored::U32,
        "MET_LONG_LONG" => Stored::I64,
        "MET_ULONG_LONG" => Stored::U64,
        "MET_FLOAT" => Stored::F32,
        "MET_DOUBLE" => Stored::F64,
        _ => return Err(fail(format!("ElementType = {name}")).expected("MET_CHAR to MET_DOUBLE")),
    })
}
