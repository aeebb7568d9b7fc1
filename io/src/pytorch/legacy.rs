//! The format of `torch.save` before version 1.6: pickles of a magic number, a version and system information, the pickle of
//! the object, the pickle of the storage keys, and then the storages, each as an element count and the elements.

use std::{collections::HashMap, sync::Arc};

use tomograd_core::{Error, Result};

use super::{
    OPERATION,
    input::Input,
    machine::{Nodes, read},
    node::{Id, Node},
};
use crate::blob::{Blob, Source};

/// 0x1950a86a20f9469cfc6c in the encoding of a pickle.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
const VERSION: i64 = 1001;

/// Whether a file starts with a pickle of protocol 2 or later.
pub(super) fn begins(first: &[u8]) -> bool {
    matches!(first, [0x80, 2..=5, ..])
}

/// The object, and its storages by key. Elements are little-endian, whatever machine wrote them.
pub(super) fn open(source: &Arc<Source>, nodes: &mut Nodes) -> Result<(Id, HashMap<String, Blob>)> {
    let mut input = Input::new(source.clone(), 0, source.length());
    let mut next =
        |what: &str, nodes: &mut Nodes| read(&mut input, nodes).map_err(|error| error.within(what.to_owned()));
    // Checked first, so that other pickles are rejected before they are read.
    let magic = next("the magic number", nodes)?;
    if !matches!(nodes.get(magic), Node::BigInt(bytes) if **bytes == MAGIC) {
        return Err(
            Error::format(OPERATION, "a pickle that torch.save hasn't written").expected("PyTorch's magic number")
        );
    }
    let version = next("the version", nodes)?;
    if !matches!(nodes.get(version), Node::Int(VERSION)) {
        return Err(Error::format(OPERATION, "a file of another version").expected(format!("version {VERSION}")));
    }
    next("the system", nodes)?;
    let (root, keys) = (next("the object", nodes)?, next("the storages' keys", nodes)?);
    let bytes = element_sizes(nodes)?;
    let mut blobs = HashMap::new();
    let mut at = input.place();
    for &key in nodes.ids(keys).unwrap_or_default() {
        let key = match nodes.get(key) {
            Node::Text(key) => key.to_string(),
            Node::Int(key) => key.to_string(),
            _ => return Err(Error::format(OPERATION, "a storage's key that is no text")),
        };
        let within = |error: Error| error.within(format!("storage {key}"));
        let size =
            *bytes.get(&key[..]).ok_or_else(|| within(Error::format(OPERATION, "no tensor is of this storage")))?;
        let count = source.bytes(at, 8).map_err(within)?;
        let count = count.iter().rev().fold(0u64, |count, &byte| count << 8 | u64::from(byte));
        let end = count.checked_mul(size).and_then(|length| at.checked_add(8)?.checked_add(length));
        let end = end.filter(|&end| end <= source.length()).ok_or_else(|| {
            within(
                Error::format(OPERATION, format!("{count} elements of {size} bytes at byte {at}"))
                    .expected(format!("elements inside of the file of {} bytes", source.length())),
            )
        })?;
        blobs.insert(key, Blob::new(source.clone(), at + 8, end - at - 8));
        at = end;
    }
    Ok((root, blobs))
}

/// The element size of each storage in bytes.
fn element_sizes(nodes: &Nodes) -> Result<HashMap<String, u64>> {
    let mut sizes = HashMap::new();
    for node in &nodes.nodes {
        let Node::Storage(storage) = node else { continue };
        let size = storage.stored.map_or(Some(1), |stored| stored.bytes()).unwrap_or(1) as u64;
        if sizes.insert(storage.key.to_string(), size).is_some_and(|other| other != size) {
            return Err(Error::format(OPERATION, format!("storage {} has elements of two sizes", storage.key)));
        }
    }
    Ok(sizes)
}
