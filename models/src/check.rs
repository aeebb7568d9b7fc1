//! What networks ask of their configurations.

use tomograd_core::{Error, Result};

/// No layer has more channels.
pub(crate) const MOST_CHANNELS: usize = 1 << 24;

/// That each of the `sizes` of a configuration's `field` lies in 1 to `most`.
pub(crate) fn sizes(operation: &str, field: &str, sizes: &[usize], most: usize) -> Result<()> {
    let Some(place) = sizes.iter().position(|size| !(1..=most).contains(size)) else { return Ok(()) };
    let index = if sizes.len() > 1 { format!("[{place}]") } else { String::new() };
    Err(Error::argument(operation, format!("{field}{index} is {}", sizes[place]))
        .expected(format!("a number from 1 to {most}")))
}

/// That a configuration's `field` has a number of entries that lies in `least` to `most`.
pub(crate) fn length(operation: &str, field: &str, length: usize, least: usize, most: usize) -> Result<()> {
    if (least..=most).contains(&length) {
        return Ok(());
    }
    Err(Error::argument(operation, format!("{field} has {length} entries")).expected(format!("{least} to {most}")))
}
