//! A writer of small DICOM files: explicit little endian, the elements in the order in which they are given.

#![allow(dead_code)] // each test uses a part of it

use std::{fs, path::PathBuf};

/// An element with these bytes as its value.
pub fn element(tag: (u16, u16), vr: &[u8; 2], value: &[u8]) -> Vec<u8> {
    let mut bytes = [tag.0.to_le_bytes(), tag.1.to_le_bytes()].concat();
    let mut value = value.to_vec();
    if value.len() % 2 == 1 {
        value.push(if vr == b"UI" || vr == b"OB" { 0 } else { b' ' });
    }
    bytes.extend(vr);
    if [b"OB", b"OW", b"SQ", b"UN", b"UT"].contains(&vr) {
        bytes.extend([0, 0]);
        bytes.extend((value.len() as u32).to_le_bytes());
    } else {
        bytes.extend((value.len() as u16).to_le_bytes());
    }
    bytes.extend(value);
    bytes
}

/// An element of text.
pub fn text(tag: (u16, u16), vr: &[u8; 2], value: &str) -> Vec<u8> {
    element(tag, vr, value.as_bytes())
}

/// A number of 16 bits.
pub fn short(tag: (u16, u16), value: u16) -> Vec<u8> {
    element(tag, b"US", &value.to_le_bytes())
}

/// A sequence of these items.
pub fn sequence(tag: (u16, u16), items: &[Vec<u8>]) -> Vec<u8> {
    let mut inside = Vec::new();
    for item in items {
        inside.extend([0xFE, 0xFF, 0x00, 0xE0]);
        inside.extend((item.len() as u32).to_le_bytes());
        inside.extend(item);
    }
    element(tag, b"SQ", &inside)
}

/// A file of these elements in explicit little endian.
pub fn file(elements: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = vec![0; 128];
    bytes.extend(b"DICM");
    bytes.extend(text((2, 0x10), b"UI", "1.2.840.10008.1.2.1"));
    elements.iter().for_each(|element| bytes.extend(element));
    bytes
}

/// A slice of a series, of 4 × 3 pixels, all of one value.
#[derive(Clone)]
pub struct Slice {
    pub series: &'static str,
    pub instance: String,
    pub number: i32,
    pub position: Option<[f64; 3]>,
    pub orientation: [f64; 6],
    pub spacing: [f64; 2],
    pub value: i16,
    pub slope: f64,
    pub intercept: f64,
    pub image_type: &'static str,
    /// More elements, sorted into their groups by the reader.
    pub more: Vec<Vec<u8>>,
}

impl Default for Slice {
    fn default() -> Self {
        Self {
            series: "1.2.3",
            instance: "1.2.3.1".to_owned(),
            number: 1,
            position: Some([0.0; 3]),
            orientation: [1.0, 0.0, 0.0, 0.0, 1.0, 0.0],
            spacing: [2.0, 0.5],
            value: 0,
            slope: 1.0,
            intercept: 0.0,
            image_type: "ORIGINAL\\PRIMARY\\AXIAL",
            more: Vec::new(),
        }
    }
}

fn joined(numbers: &[f64]) -> String {
    numbers.iter().map(f64::to_string).collect::<Vec<_>>().join("\\")
}

impl Slice {
    pub fn bytes(&self) -> Vec<u8> {
        let mut elements = vec![
            text((8, 8), b"CS", self.image_type),
            text((8, 0x16), b"UI", "1.2.840.10008.5.1.4.1.1.2"),
            text((8, 0x18), b"UI", &self.instance),
            text((8, 0x60), b"CS", "CT"),
            text((0x20, 0xD), b"UI", "1.2"),
            text((0x20, 0xE), b"UI", self.series),
            text((0x20, 0x11), b"IS", "7"),
            text((0x20, 0x13), b"IS", &self.number.to_string()),
        ];
        if let Some(position) = self.position {
            elements.push(text((0x20, 0x32), b"DS", &joined(&position)));
            elements.push(text((0x20, 0x37), b"DS", &joined(&self.orientation)));
        }
        elements.extend(self.more.clone());
        let pixels: Vec<u8> = (0..12).flat_map(|i| (self.value + i).to_le_bytes()).collect();
        elements.extend([
            short((0x28, 2), 1),
            text((0x28, 4), b"CS", "MONOCHROME2"),
            short((0x28, 0x10), 3),
            short((0x28, 0x11), 4),
            text((0x28, 0x30), b"DS", &joined(&self.spacing)),
            short((0x28, 0x100), 16),
            short((0x28, 0x101), 16),
            short((0x28, 0x102), 15),
            short((0x28, 0x103), 1),
            text((0x28, 0x1052), b"DS", &self.intercept.to_string()),
            text((0x28, 0x1053), b"DS", &self.slope.to_string()),
            element((0x7FE0, 0x10), b"OW", &pixels),
        ]);
        file(&elements)
    }
}

/// A folder of its own, gone at the end.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tomograd-dicom-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn add(&self, name: &str, bytes: &[u8]) {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Siemens' header of these fields.
pub fn csa(fields: &[(&str, &[&str])]) -> Vec<u8> {
    let mut bytes = b"SV10\x04\x03\x02\x01".to_vec();
    bytes.extend((fields.len() as u32).to_le_bytes());
    bytes.extend(77u32.to_le_bytes());
    for (name, items) in fields {
        let mut own = name.as_bytes().to_vec();
        own.resize(76, 0);
        bytes.extend(own);
        bytes.extend((items.len() as u32).to_le_bytes());
        bytes.extend(77u32.to_le_bytes());
        for item in *items {
            let length = item.len() as u32;
            bytes.extend([length, length, 77, length].iter().flat_map(|number| number.to_le_bytes()));
            bytes.extend(item.as_bytes());
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
    }
    bytes
}
