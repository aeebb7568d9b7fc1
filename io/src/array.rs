//! Arrays of numbers whose layout a text header says: the voxels of NRRD and MetaImage.
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use std::{
    io::{BufRead, Read},
    path::{Path, PathBuf},
};

use tomograd_core::{Error, Result, Tensor, element_count, room_for};

use crate::{
    detached,
    stream::{self, Compression, Held, Input, Length, Stream, io_error},
    voxels::{self, Coding, Stored},
};

const OPERATION: &str = "volume";

/// How the numbers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// The bytes of the numbers.
    Bytes(Compression),
    /// Decimal numbers, separated by blanks or commas.
    Text,
    /// Two hexadecimal digits a byte.
    Hex,
}

impl Encoding {
    pub(crate) fn compression(self) -> Compression {
        match self {
            Self::Bytes(compression) => compression,
            Self::Text | Self::Hex => Compression::None,
        }
    }
}

/// Where the numbers of a header are.
#[derive(Debug)]
pub(crate) enum Data {
    /// Behind the header.
    Here,
    /// In these files, each with the same number of elements.
    Files(Vec<String>),
}

/// What follows a header, or a data file.
pub(crate) type Bytes<'a> = Input<Box<dyn BufRead + 'a>>;

/// An array in a file.
#[derive(Debug)]
pub(crate) struct Array {
    pub(crate) stored: Stored,
    /// The size of every axis, the fastest first.
    pub(crate) sizes: Vec<usize>,
    /// Which axes are spatial, one to three; the others hold the numbers of a voxel, or time.
    pub(crate) spatial: Vec<usize>,
    pub(crate) big: bool,
    pub(crate) encoding: Encoding,
}

impl Array {
    /// The number of elements.
    fn count(&self) -> Result<usize> {
        if self.sizes.contains(&0) {
            return Err(Error::format(OPERATION, format!("sizes {:?}", self.sizes)).expected("at least 1 each"));
        }
        element_count(OPERATION, &self.sizes)
    }

    /// The number of bytes, unless they are compressed or text.
    fn bytes(&self) -> Result<u64> {
        Ok((self.count()? as u64).saturating_mul(self.stored.size() as u64))
    }

    /// Reads the elements from where `data` says: the rest of the header's file, or files in its `folder`. `skip` passes over
    /// what is in front of so many bytes of data.
    pub(crate) fn read_from<'a>(
        &self,
        data: &Data,
        input: Bytes<'a>,
        folder: Option<&Path>,
        skip: impl Fn(Bytes<'a>, u64) -> Result<Stream<Bytes<'a>>>,
    ) -> Result<(Tensor, Coding)> {
        let bytes = self.bytes()?;
        let names = match data {
            Data::Here => {
                let mut input = Some(input);
                let once = || Error::format(OPERATION, "the data is read once");
                return self.read(1, |_| skip(input.take().ok_or_else(once)?, bytes));
            }
            Data::Files(names) => names,
        };
        let folder = folder.ok_or_else(|| {
            Error::format(OPERATION, "a header whose data is in another file").expected("the path of the header")
        })?;
        let share = bytes.checked_div(names.len() as u64).unwrap_or(0);
        self.read(names.len(), |part| {
            let name = names.get(part).map_or("", String::as_str);
            let path = detached::inside(folder, name)?;
            let opened = stream::open(&path).and_then(|(reader, length)| {
                let reader: Box<dyn BufRead> = Box::new(reader);
                skip(Input::new(reader, length), share)
            });
            opened.map_err(|error| error.within(name.to_owned()))
        })
    }

    /// The file and the byte of the first element, and the sizes of x, y and z, where the bytes are the numbers of one volume
    /// in one file.
    pub(crate) fn located<'a>(
        &self,
        data: &Data,
        input: Bytes<'a>,
        path: &Path,
        length: u64,
        skip: impl Fn(Bytes<'a>, u64) -> Result<Stream<Bytes<'a>>>,
    ) -> Result<(PathBuf, u64, [usize; 3])> {
        let fail = |what: String| {
            Error::format(OPERATION, what).expected("raw numbers of one volume in one file, which can be read in part")
        };
        if self.encoding != Encoding::Bytes(Compression::None) {
            return Err(fail("compressed numbers, or text".to_owned()));
        }
        let sizes = match (self.sizes.as_slice(), self.spatial.as_slice()) {
            (&[x, y, z], [0, 1, 2]) => [x, y, z],
            (sizes, _) => return Err(fail(format!("sizes {sizes:?}"))),
        };
        let bytes = self.bytes()?;
        let at = |length: u64, stream: &Stream<Bytes<'a>>| match stream.length {
            Length::Known(left) => Ok(length.saturating_sub(left)),
            Length::AtMost(_) => Err(fail("numbers whose place isn't known".to_owned())),
        };
        match data {
            Data::Here => Ok((path.to_owned(), at(length, &skip(input, bytes)?)?, sizes)),
            Data::Files(names) => {
                let [name] = names.as_slice() else { return Err(fail(format!("{} data files", names.len()))) };
                let path = detached::inside(path.parent().unwrap_or(Path::new("")), name)?;
                let (reader, length) = stream::open(&path)?;
                let length = length.ok_or_else(|| fail(format!("{name} is a pipe")))?;
                let stream = skip(Input::new(Box::new(reader), Some(length)), bytes)?;
                Ok((path, at(length, &stream)?, sizes))
            }
        }
    }

    /// Reads the elements from `parts` streams of the same size, which `open` opens at the first element: the voxels (axes
    /// other than spatial in front, then D, H, W), and their coding.
    fn read<R: BufRead>(
        &self,
        parts: usize,
        mut open: impl FnMut(usize) -> Result<Stream<R>>,
    ) -> Result<(Tensor, Coding)> {
        let count = self.count()?;
        let share =
            count.checked_div(parts).filter(|&share| share.checked_mul(parts) == Some(count)).ok_or_else(|| {
                Error::format(OPERATION, format!("{count} numbers in {parts} files"))
                    .expected("the same number in each")
            })?;
        if self.sizes.len() > 7 {
            let what = format!("{} axes", self.sizes.len());
            return Err(Error::format(OPERATION, what).expected("at most 7"));
        }
        if parts == 1 {
            let mut stream = open(0)?;
            self.check(&stream, share)?;
            if let (Length::Known(_), Encoding::Bytes(_)) = (stream.length, self.encoding) {
                return self.decode(stream);
            }
            if let Encoding::Bytes(_) = self.encoding {
                let bytes = (share as u64).saturating_mul(self.stored.size() as u64);
                return stream::worked_on(&mut stream, bytes, bytes, |reader| self.decode(reader));
            }
            let held = self.hold(&mut stream, share)?;
            return self.decode(held);
        }
        let mut all = Held::default();
        for part in 0..parts {
            let mut stream = open(part)?;
            self.check(&stream, share)?;
            all.append(self.hold(&mut stream, share)?);
        }
        self.decode(all)
    }

    /// Whether the stream can hold so many numbers; before memory is taken.
    fn check<R: BufRead>(&self, stream: &Stream<R>, count: usize) -> Result<()> {
        let needed = match self.encoding {
            Encoding::Bytes(_) => (count as u64).saturating_mul(self.stored.size() as u64),
            // A digit each, and what separates them.
            Encoding::Text => (count as u64).saturating_mul(2).saturating_sub(1),
            Encoding::Hex => (count as u64).saturating_mul(2).saturating_mul(self.stored.size() as u64),
        };
        let (Length::Known(most) | Length::AtMost(most)) = stream.length;
        if needed > most {
            let what = format!("{needed} bytes of voxels, but the file holds at most {most} after its header");
            return Err(Error::format(OPERATION, what));
        }
        Ok(())
    }

    /// The bytes of `count` numbers, read to the checksum where there is one.
    fn hold<R: BufRead>(&self, stream: &mut Stream<R>, count: usize) -> Result<Held> {
        let bytes = (count as u64).saturating_mul(self.stored.size() as u64);
        match self.encoding {
            Encoding::Bytes(_) => {
                let held = stream::hold(stream, bytes)?;
                stream.finish(bytes)?;
                Ok(held)
            }
            Encoding::Text => text(stream, self.stored, count, self.big).map(Held::from),
            Encoding::Hex => hex(stream, bytes).map(Held::from),
        }
    }

    fn decode(&self, mut reader: impl Read) -> Result<(Tensor, Coding)> {
        let rank = self.sizes.len();
        let first = self.spatial.first().copied().unwrap_or(0);
        let shape: Vec<usize> = self.sizes.iter().rev().copied().collect();
        let all = voxels::decode(&mut reader, Coding::plain(self.stored), &shape, self.big)?;
        // What was held isn't needed beside the copy that follows.
        drop(reader);
        // The tensor's axes run against the file's. In front come the numbers of a voxel, then time, then z, y, x.
        let others = |of_a_voxel: bool| {
            let chosen = move |axis: &usize| !self.spatial.contains(axis) && (*axis < first) == of_a_voxel;
            (0..rank).rev().filter(chosen)
        };
        let order: Vec<usize> = others(true).chain(others(false)).chain(self.spatial.iter().rev().copied()).collect();
        let ordered: Vec<usize> = order.iter().map(|axis| rank.saturating_sub(1).saturating_sub(*axis)).collect();
        let all = if ordered.is_sorted() { all } else { all.permute(&ordered)?.contiguous()? };
        let mut shape = all.shape().to_vec();
        // A picture has one plane; a row of voxels, one row.
        let at = rank.saturating_sub(self.spatial.len()).min(shape.len());
        for _ in self.spatial.len()..3 {
            shape.insert(at, 1);
        }
        let channels = match others(true).collect::<Vec<_>>()[..] {
            [axis] => self.sizes.get(axis).copied().unwrap_or(1),
            _ => 1,
        };
        Ok((all.reshape(&shape)?, Coding::several(self.stored, channels)))
    }
}

/// The bytes of `count` decimal numbers in the byte order asked for.
fn text<R: BufRead>(stream: &mut Stream<R>, stored: Stored, count: usize, big: bool) -> Result<Vec<u8>> {
    // `check` has compared the number with the length of the file.
    let mut bytes: Vec<u8> = room_for(OPERATION, count.saturating_mul(stored.size()))?;
    let mut reader = std::io::BufReader::new(stream);
    let mut word = Vec::new();
    for _ in 0..count {
        next_word(&mut reader, &mut word)?;
        let word = std::str::from_utf8(&word).unwrap_or("\u{FFFD}");
        let number = stored.parse(word).ok_or_else(|| {
            let what =
                if word.is_empty() { "the file ends before the last number".to_owned() } else { format!("{word:?}") };
            Error::format(OPERATION, what).expected(format!("a number that {} holds", Coding::plain(stored).name()))
        })?;
        let number = number.get(..stored.size()).unwrap_or_default();
        if big { bytes.extend(number.iter().rev()) } else { bytes.extend(number) }
    }
    Ok(bytes)
}

/// The longest decimal number.
const LONGEST: usize = 400;

fn next_word(reader: &mut impl BufRead, word: &mut Vec<u8>) -> Result<()> {
    let separates = |byte: &u8| byte.is_ascii_whitespace() || *byte == b',' || *byte == 0;
    word.clear();
    loop {
        let bytes = reader.fill_buf().map_err(io_error("the voxels"))?;
        if bytes.is_empty() {
            return Ok(());
        }
        let blanks = if word.is_empty() { bytes.iter().take_while(|byte| separates(byte)).count() } else { 0 };
        let rest = bytes.get(blanks..).unwrap_or_default();
        let length = rest.iter().position(separates).unwrap_or(rest.len());
        word.extend(rest.iter().take(length));
        let used = blanks.saturating_add(length);
        let ended = length < rest.len() && !word.is_empty();
        reader.consume(used);
        if word.len() > LONGEST {
            return Err(Error::format(OPERATION, "a number without an end").expected("numbers separated by blanks"));
        }
        if ended {
            return Ok(());
        }
    }
}

/// `count` bytes, each of two hexadecimal digits.
fn hex<R: BufRead>(stream: &mut Stream<R>, count: u64) -> Result<Vec<u8>> {
    let mut bytes: Vec<u8> = room_for(OPERATION, usize::try_from(count).unwrap_or(usize::MAX))?;
    let mut high = None;
    for byte in std::io::BufReader::new(stream).bytes() {
        let byte = byte.map_err(io_error("the voxels"))?;
        if byte.is_ascii_whitespace() {
            continue;
        }
        let digit = char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let digit = digit.ok_or_else(|| {
            Error::format(OPERATION, format!("{:?}", char::from(byte))).expected("hexadecimal digits")
        })?;
        match high.take() {
            None => high = Some(digit),
            Some(first) => bytes.push(first << 4 | digit),
        }
        if bytes.len() as u64 == count {
            return Ok(bytes);
        }
    }
    Err(Error::format(OPERATION, "the file ends inside of the voxels"))
}
