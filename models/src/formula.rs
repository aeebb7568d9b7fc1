//! Parity by formula: all values of a model and its inputs are computed from the names and shapes of the tensors, so that a
//! network can be compared with its original implementation without a file of weights.

use tomograd_autodiff::Var;
use tomograd_core::{DType, Device, Error, Result, Seed, Tensor, element_count, room_for};
use tomograd_kernels::{Context, methods::*};
use tomograd_nn::{Named, Network, Params, Pass};

/// 64-bit FNV-1a hash of the UTF-8 bytes.
pub fn hash(name: &str) -> u64 {
    name.bytes().fold(0xCBF2_9CE4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3))
}

/// The first `count` numbers u of `name`, in [0, 1): the top 53 bits of the splitmix64 finalizer of h + i ·
/// 0x9E3779B97F4A7C15, where h is the hash of the name and i starts at 1.
///
/// # Errors
/// When memory runs out.
pub fn uniform(name: &str, count: usize) -> Result<Vec<f64>> {
    let mut numbers = room_for("formula", count)?;
    let hash = hash(name);
    let number = |i: u64| {
        let mut z = hash.wrapping_add(i.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    };
    numbers.extend((1..=count as u64).map(number));
    Ok(numbers)
}

/// s = 2u − 1 as a tensor, for inputs and cotangents.
///
/// # Errors
/// When the size overflows or memory runs out.
pub fn signed(name: &str, shape: &[usize], dtype: DType) -> Result<Tensor> {
    let values: Vec<f64> = uniform(name, element_count("formula", shape)?)?.iter().map(|u| 2.0 * u - 1.0).collect();
    Tensor::from_slice(&values, shape, Device::Cpu)?.converted(dtype)
}

/// The value of the parameter or buffer called `name`: the last part of the name and the rank decide the range (0 for
/// integers).
///
/// # Errors
/// When the size overflows or memory runs out.
pub fn parameter(name: &str, shape: &[usize], dtype: DType) -> Result<Tensor> {
    if !dtype.is_float() {
        return Tensor::zeros(shape, dtype, Device::Cpu);
    }
    let u = uniform(name, element_count("formula", shape)?)?;
    let last = name.rsplit('.').next().unwrap_or(name);
    let affine = |offset: f64, scale: f64| u.iter().map(|u| offset + scale * (2.0 * u - 1.0)).collect::<Vec<f64>>();
    let values = match (last, shape.len()) {
        ("weight", 2..) => affine(0.0, (3.0 / shape[1..].iter().product::<usize>() as f64).sqrt()),
        ("weight", _) => affine(1.0, 0.1),
        ("bias" | "running_mean", _) => affine(0.0, 0.1),
        ("running_var", _) => u.iter().map(|u| 1.0 + 0.1 * u).collect(),
        _ => affine(0.0, 0.02),
    };
    Tensor::from_slice(&values, shape, Device::Cpu)?.converted(dtype)
}

/// Sets all parameters and buffers.
///
/// # Errors
/// When memory runs out.
pub fn fill(params: &mut Params) -> Result<()> {
    let filled = |(name, value): (&str, &Tensor)| {
        Ok((name.to_owned(), parameter(name, value.shape(), value.dtype())?.to(value.device())?))
    };
    let state = params.state().map(filled).collect::<Result<Vec<_>>>()?;
    params.load(state)
}

/// The inputs by formula with these shapes, in the order of [`Network::inputs`]: the main one is filled as `input`, number k of the
/// others as `input.k`.
fn inputs(
    params: &Params,
    network: &dyn Network,
    shapes: &[&[usize]],
    made: impl Fn(&Tensor) -> Result<Var>,
) -> Result<Named<Var>> {
    let names = network.inputs();
    if shapes.len() > names.len() {
        return Err(Error::argument("formula", format!("shapes of {} inputs", shapes.len())).expected(format!(
            "at most {}: {}",
            names.len(),
            names.join(", ")
        )));
    }
    let input = |(k, (&name, &shape))| {
        let filled = if k == 0 { "input".to_owned() } else { format!("input.{k}") };
        Ok((name, made(&signed(&filled, shape, params.dtype())?)?))
    };
    names.iter().zip(shapes).enumerate().map(input).collect()
}

/// The outputs `output.k` of a network in inference mode for inputs by formula, as [`dump`] has them, without the time and memory for
/// gradients.
///
/// # Errors
/// When the network has fewer inputs, a shape doesn't fit, or memory runs out.
pub fn outputs(params: &Params, network: &dyn Network, inputs: &[&[usize]]) -> Result<Vec<(String, Tensor)>> {
    let pass = Pass::eval(params)?;
    let inputs = self::inputs(params, network, inputs, |value| Ok(pass.input(value)))?;
    let outputs = network.run(&inputs, &pass)?.into_iter().enumerate();
    Ok(outputs.map(|(k, (_, output))| (format!("output.{k}"), output.into_value())).collect())
}

/// The results of a network for inputs by formula with these shapes, in the order of [`Network::inputs`] (the main input is
/// filled as `input`, number k of the others as `input.k`): `output.k`, `grad.input.k`, `grad_norm.NAME` for each parameter,
/// and in training mode `buffer.NAME` after one step, all in the parameters' dtype or f64. The loss is Σ_k mean(output_k ·
/// cotangent_k).
///
/// # Errors
/// When the network has fewer inputs, a shape doesn't fit, or memory runs out.
pub fn dump(
    params: &Params,
    network: &dyn Network,
    inputs: &[&[usize]],
    training: bool,
) -> Result<Vec<(String, Tensor)>> {
    let pass = Pass::new(params, Seed::new(0), training, true, Context::default())?;
    let inputs = self::inputs(params, network, inputs, |value| pass.input_with_gradient(value))?;
    let mut results = Vec::new();
    let mut loss = None;
    for (k, (_, output)) in network.run(&inputs, &pass)?.into_iter().enumerate() {
        results.push((format!("output.{k}"), output.value().clone()));
        let cotangent = pass.input(&signed(&format!("cotangent.{k}"), output.shape(), output.dtype())?);
        let term = output.mul(&cotangent)?.mean(..)?;
        loss = Some(match loss {
            Some(sum) => term.add(&sum)?,
            None => term,
        });
    }
    let Some(loss) = loss else { return Ok(results) };
    let update = pass.backward(loss)?;
    for (k, (_, x)) in inputs.iter().enumerate() {
        results.extend(update.input_gradient(x).map(|gradient| (format!("grad.input.{k}"), gradient.clone())));
    }
    for info in params.parameters() {
        if let Some(gradient) = update.gradient(info.name) {
            let norm = gradient.to_vec_f64()?.iter().map(|g| g * g).sum::<f64>().sqrt();
            results.push((format!("grad_norm.{}", info.name), Tensor::scalar(norm, params.device())?));
        }
    }
    for (name, _) in params.state() {
        results.extend(update.buffer(params, name)?.map(|value| (format!("buffer.{name}"), value)));
    }
    Ok(results)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_published_values() {
        assert_eq!(hash("conv1.weight"), 0x69a2_9a2c_ee47_d254);
        assert!(uniform("conv1.weight", usize::MAX).is_err());
        assert_eq!(uniform("conv1.weight", 3).unwrap(), [0.5450749789171447, 0.745161751328336, 0.022921737033572143]);
        let weight = parameter("conv1.weight", &[2, 3, 3], DType::F64).unwrap().to_vec::<f64>().unwrap();
        for (value, expected) in weight.iter().zip([0.05204810242306044, 0.2830884062488297, -0.5508825270963723]) {
            assert!((value - expected).abs() < 1e-15);
        }
    }
}
