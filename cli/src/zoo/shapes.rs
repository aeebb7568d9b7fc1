//! Shapes of inputs: on the command line, and sensible ones where it has none.

use clap::Args;
use serde_json::Value;
use tomograd::{core::shape_text, prelude::*};

use super::{choice::Chosen, measure};

/// The shapes of a network's inputs on the command line.
#[derive(Args)]
pub(crate) struct Shapes {
    /// The shape of an input, batch and channels first; once for each input. By default one image of a common size
    #[arg(long = "shape", value_name = "N,C,H,W", value_parser = parse)]
    shapes: Vec<Shape>,
}

/// The shape of one input.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Shape(pub(crate) Vec<usize>);

fn parse(text: &str) -> Result<Shape, String> {
    let sizes: Result<Vec<usize>, _> = text.split(',').map(|size| size.trim().parse()).collect();
    sizes.map(Shape).map_err(|_| "expected sizes such as 1,3,224,224".to_owned())
}

/// Sizes that are tried in turn where the command line has none: the usual ones first, then some that networks of one
/// fixed size or of special multiples were made for.
fn usual_sizes(rank: usize) -> &'static [usize] {
    match rank {
        1 => &[1024, 1000, 4096],
        2 => &[224, 256, 384, 512, 299, 320, 572, 1024, 192],
        _ => &[96, 64, 128, 112, 160, 80, 132, 224, 32],
    }
}

impl Shapes {
    /// The shapes of the command line, or default ones that the network takes.
    ///
    /// # Errors
    /// When the network refuses them; the error has its reason.
    pub(crate) fn of(&self, chosen: &Chosen, model: &Model) -> Result<Vec<Vec<usize>>> {
        if self.shapes.is_empty() {
            return usual(chosen, model);
        }
        let shapes: Vec<Vec<usize>> = self.shapes.iter().map(|shape| shape.0.clone()).collect();
        measure::multiply_adds(model, &shapes).map(|_| shapes)
    }
}

/// Default shapes that the network takes: one image of a usual size with the configuration's channels.
///
/// # Errors
/// When it takes none of the usual sizes; the error has the reason for the first.
pub(crate) fn usual(chosen: &Chosen, model: &Model) -> Result<Vec<Vec<usize>>> {
    let inputs = model.network().inputs();
    let mut refused = None;
    for shape in candidates(chosen, model.config()) {
        // Inputs beyond the first may be optional, or further images of the same size.
        for count in [1, inputs.len()] {
            let shapes = vec![shape.clone(); count];
            match measure::multiply_adds(model, &shapes) {
                Ok(_) => return Ok(shapes),
                Err(error) if refused.is_none() => refused = Some((shape.clone(), error)),
                Err(_) => {}
            }
        }
    }
    let (shape, error) = refused.unwrap_or_else(|| (Vec::new(), Error::argument("zoo", "the network has no input")));
    Err(Error::argument("zoo", format!("no usual size fits; {} was refused: {error}", shape_text(&shape)))
        .expected(format!("--shape N,C,SIZE,... for each of its inputs: {}", inputs.join(", "))))
}

/// The spatial size that the configuration names: some networks are for one size.
fn fixed_size(config: &Value, rank: usize) -> Option<Vec<usize>> {
    ["size", "image_size", "img_size", "input_size"].iter().find_map(|field| match config.get(field)? {
        Value::Array(sizes) => sizes.iter().map(|size| Some(size.as_u64()? as usize)).collect(),
        size => size.as_u64().map(|size| vec![size as usize; rank]),
    })
}

/// The shapes that are tried in turn: of the size that the configuration names, of that for which the preset was published, of usual
/// sizes, and vectors.
fn candidates(chosen: &Chosen, config: &Value) -> Vec<Vec<usize>> {
    let number = |field: &str| config.get(field).and_then(Value::as_u64).map(|number| number as usize);
    let channels = number("in_channels").unwrap_or(1);
    let ranks = chosen.family.card().ranks;
    let rank = number("rank").or(ranks.first().copied()).unwrap_or(2);
    let published = chosen.size.clone().filter(|size| size.len() == rank);
    let of_rank = |rank: usize| usual_sizes(rank).iter().map(move |&size| vec![size; rank]);
    let others = [2, 3, 1].into_iter().filter(|&other| other != rank).flat_map(of_rank);
    let spatial = fixed_size(config, rank).into_iter().chain(published).chain(of_rank(rank)).chain(others);
    let images = spatial.map(|spatial| [vec![1, channels], spatial].concat());
    let vectors = number("latent_size").into_iter().chain([channels]).map(|size| vec![1, size]);
    images.chain(vectors).collect()
}

/// A shape as people write sizes: `1 × 3 × 224 × 224`, equal ones as a power: `1 × 3 × 224²`.
pub(crate) fn text(shape: &[usize]) -> String {
    let parts: Vec<String> = shape.iter().map(usize::to_string).collect();
    match shape {
        [batch, channels, spatial @ ..] if spatial.len() > 1 && spatial.iter().all(|size| *size == spatial[0]) => {
            format!("{batch} × {channels} × {}", power(spatial[0], spatial.len()))
        }
        _ => parts.join(" × "),
    }
}

/// `224²`, `96³`.
pub(crate) fn power(size: usize, exponent: usize) -> String {
    let exponent = match exponent {
        2 => "²",
        3 => "³",
        _ => "",
    };
    format!("{size}{exponent}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_read_and_written() {
        assert_eq!(parse("1, 3,224,224").unwrap(), Shape(vec![1, 3, 224, 224]));
        for text in ["", "1,,2", "1,-2", "a"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!(text(&[1, 3, 224, 224]), "1 × 3 × 224²");
        assert_eq!(text(&[2, 1, 96, 96, 96]), "2 × 1 × 96³");
        assert_eq!(text(&[1, 1, 64, 96]), "1 × 1 × 64 × 96");
        assert_eq!(text(&[1, 10]), "1 × 10");
    }
}
