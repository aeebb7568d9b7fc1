//! What a network computes, on [`Device::Meta`]; and numbers as people write them.

use tomograd::{
    kernels::trace,
    nn::{Named, Pass},
    prelude::*,
};

/// Inputs without elements, of these shapes, in the order of the network's inputs.
///
/// # Errors
/// When the network has fewer inputs, or a size overflows.
pub(crate) fn inputs(model: &Model, shapes: &[Vec<usize>]) -> Result<Named<Tensor>> {
    let names = model.network().inputs();
    if shapes.len() > names.len() {
        return Err(Error::argument("zoo", format!("shapes of {} inputs", shapes.len())).expected(format!(
            "at most {}: {}",
            names.len(),
            names.join(", ")
        )));
    }
    let dtype = model.params().dtype();
    let input = |(&name, shape): (&&'static str, &Vec<usize>)| Ok((name, Tensor::zeros(shape, dtype, Device::Meta)?));
    names.iter().zip(shapes).map(input).collect()
}

/// The multiply-adds of convolutions and matrix products of a forward pass for inputs of these shapes.
///
/// # Errors
/// When the network refuses a shape.
pub(crate) fn multiply_adds(model: &Model, shapes: &[Vec<usize>]) -> Result<f64> {
    let inputs = inputs(model, shapes)?;
    let (result, events) = trace::collect(|| model.run(&inputs).map(drop));
    result?;
    Ok(events.iter().map(|event| event.cost.multiply_adds).sum())
}

/// Names and shapes of the outputs.
///
/// # Errors
/// When the network refuses a shape.
pub(crate) fn outputs(model: &Model, shapes: &[Vec<usize>], training: bool) -> Result<Vec<(String, Vec<usize>)>> {
    let pass = Pass::eval(model.params())?.training(training);
    let inputs = inputs(model, shapes)?;
    let inputs = inputs.iter().map(|(name, value)| (name, pass.input(value))).collect();
    let outputs = model.network().run(&inputs, &pass)?;
    Ok(outputs.into_iter().map(|(name, output)| (name, output.shape().to_vec())).collect())
}

/// A number with three digits and a unit of thousands: `25.6 M`.
pub(crate) fn short(number: f64) -> String {
    let units = ["", " k", " M", " G", " T", " P"];
    let mut unit = 0;
    let mut value = number;
    while value >= 999.5 && unit + 1 < units.len() {
        (value, unit) = (value / 1000.0, unit + 1);
    }
    let digits = match value {
        _ if unit == 0 => 0,
        ..9.995 => 2,
        ..99.95 => 1,
        _ => 0,
    };
    format!("{value:.digits$}{}", units[unit])
}

/// A whole number with its thousands apart: `25,557,032`.
pub(crate) fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let cases = [(0.0, "0"), (999.0, "999"), (1000.0, "1.00 k"), (25_557_032.0, "25.6 M"), (999_600.0, "1.00 M")];
        for (number, text) in cases {
            assert_eq!(short(number), text);
        }
        assert_eq!(["0", "999", "1,000", "25,557,032"], [0, 999, 1000, 25_557_032].map(grouped));
    }
}
