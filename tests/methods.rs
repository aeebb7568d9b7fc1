//! The methods of tensors and variables: the same names, the same values, and the results of PyTorch.

use std::{collections::BTreeSet, fs, path::Path};

use tomograd::{
    autodiff::gradcheck,
    kernels::{
        index::PadMode,
        methods::{Other, ScanInputs},
        resample::Interpolation,
    },
    prelude::*,
};

/// The result of a method: one operand, several, or one with indices.
trait Outputs {
    fn values(self) -> Vec<Tensor>;
}

impl Outputs for Tensor {
    fn values(self) -> Vec<Tensor> {
        vec![self]
    }
}

impl Outputs for Var {
    fn values(self) -> Vec<Tensor> {
        vec![self.into_value()]
    }
}

impl<T: Outputs> Outputs for Vec<T> {
    fn values(self) -> Vec<Tensor> {
        self.into_iter().flat_map(T::values).collect()
    }
}

impl<T: Outputs> Outputs for (T, Tensor) {
    fn values(self) -> Vec<Tensor> {
        let mut all = self.0.values();
        all.push(self.1);
        all
    }
}

/// The variable whose gradient is checked, if any.
trait Checked {
    fn checked(self) -> Option<Var>;
}

impl Checked for Tensor {
    fn checked(self) -> Option<Var> {
        None
    }
}

impl Checked for Var {
    fn checked(self) -> Option<Var> {
        self.has_gradient().then_some(self)
    }
}

impl Checked for Vec<Var> {
    fn checked(self) -> Option<Var> {
        self.into_iter().next_back()
    }
}

impl Checked for (Var, Tensor) {
    fn checked(self) -> Option<Var> {
        Some(self.0)
    }
}

type Run<T, O> = fn(&T) -> Result<O>;

struct Entry {
    name: &'static str,
    of_tensors: Run<Tensor, Vec<Tensor>>,
    of_variables: Run<Var, Vec<Tensor>>,
    variable: Run<Var, Option<Var>>,
}

/// Every method, called on `x` of shape (2, 3, 4) as a tensor and as a variable. `Of` is the type.
macro_rules! entries {
    ($($name:ident: |$x:ident| $body:expr;)*) => {
        fn entries() -> Vec<Entry> {
            vec![$(Entry {
                name: stringify!($name),
                of_tensors: |$x| {
                    #[allow(dead_code)]
                    type Of = Tensor;
                    $body.map(Outputs::values)
                },
                of_variables: |$x| {
                    #[allow(dead_code)]
                    type Of = Var;
                    $body.map(Outputs::values)
                },
                variable: |$x| {
                    #[allow(dead_code)]
                    type Of = Var;
                    $body.map(Checked::checked)
                },
            }),*]
        }
    };
}

entries! {
    neg: |x| x.neg();
    abs: |x| x.abs();
    exp: |x| x.exp();
    log: |x| x.log();
    sqrt: |x| x.sqrt();
    square: |x| x.square();
    reciprocal: |x| x.reciprocal();
    relu: |x| x.relu();
    sigmoid: |x| x.sigmoid();
    tanh: |x| x.tanh();
    gelu: |x| x.gelu();
    gelu_tanh: |x| x.gelu_tanh();
    silu: |x| x.silu();
    softplus: |x| x.softplus();
    mish: |x| x.mish();
    hardswish: |x| x.hardswish();
    leaky_relu: |x| x.neg()?.leaky_relu(0.1);
    elu: |x| x.neg()?.elu(0.7);
    clamp: |x| x.clamp(0.5, 0.9);
    pow: |x| x.pow(1.5);
    add_scalar: |x| x.add_scalar(0.5);
    mul_scalar: |x| x.mul_scalar(0.5);
    cast: |x| x.cast(DType::F64);
    add: |x| x.add(&x.square()?);
    sub: |x| x.sub(&x.square()?);
    mul: |x| x.mul(&x.exp()?);
    div: |x| x.div(&x.exp()?);
    reverse_sub: |x| x.reverse_sub(1.0);
    reverse_div: |x| x.reverse_div(1.0);
    maximum: |x| x.maximum(&x.square()?);
    minimum: |x| x.minimum(0.7);
    eq: |x| Ok(x.eq(x)?);
    ne: |x| x.ne(x);
    lt: |x| x.lt(&x.square()?);
    le: |x| x.le(0.7);
    gt: |x| x.gt(0.7);
    ge: |x| x.ge(x);
    sum: |x| x.sum([0, 2]);
    mean: |x| x.mean(keep(1..));
    mean_spatial: |x| x.mean_spatial();
    max: |x| x.max(2);
    min: |x| x.min(..);
    variance: |x| x.variance(keep([0, 1]), 1);
    norm: |x| x.norm(2);
    reshape: |x| Of::reshape(x, &[4, 6]);
    flatten: |x| x.flatten(1..);
    squeeze: |x| x.narrow(0, 1, 1)?.squeeze(0);
    unsqueeze: |x| x.unsqueeze(1);
    permute: |x| x.permute(&[2, 0, 1]);
    transpose: |x| x.transpose(0, 2);
    expand: |x| x.expand(&[2, 2, 3, 4]);
    slice: |x| x.slice(2, 1, 2, 2);
    narrow: |x| x.narrow(1, 1, 2);
    select: |x| x.select(1, 2);
    split: |x| x.split(&[1, 3], 2);
    concat: |x| Of::concat(&[x, &x.neg()?], 1);
    stack: |x| Of::stack(&[x, &x.neg()?], 3);
    roll: |x| x.roll(2, -5);
    pad: |x| x.pad(&[0, 1, 0], &[1, 0, 2], PadMode::Replicate);
    where_: |x| x.where_(&x.gt(0.7)?, &x.square()?);
    gather: |x| x.gather(2, &Tensor::from_slice(&[3i64, 0, 1, 1, 2, 2], &[2, 3, 1], Device::Cpu)?);
    index_select: |x| x.index_select(1, &Tensor::from_slice(&[2i64, 0, 2, 1], &[4], Device::Cpu)?);
    scatter_add: |x| x.scatter_add(2, &Tensor::zeros(&[2, 3, 4], DType::I64, Device::Cpu)?, &x.square()?);
    one_hot: |x| x.cast(DType::I64)?.one_hot(2, 1, DType::F32);
    argmax: |x| x.argmax(1);
    argmin: |x| x.argmin(2);
    sort: |x| x.sort(1);
    sort_descending: |x| x.sort_descending(2);
    top_k: |x| x.top_k(2, 3);
    cumsum: |x| x.cumsum(1);
    matmul: |x| x.matmul(&x.transpose(1, 2)?);
    softmax: |x| x.softmax(1);
    log_softmax: |x| x.log_softmax(2);
    attention: |x| x.attention(x, x, &[], Some(0.5), true);
    interpolate: |x| x.interpolate(&[7], Interpolation::Linear);
    adaptive_average_pool: |x| x.adaptive_average_pool(&[3]);
    adaptive_max_pool: |x| x.adaptive_max_pool(&[3]);
    selective_scan: |x| {
        let states = x.narrow(1, 0, 2)?;
        Of::selective_scan(ScanInputs {
            u: x,
            delta: x,
            a: &x.select(0, 0)?.narrow(1, 0, 2)?.neg()?,
            b: &states,
            c: &states.square()?,
            skip: None,
            gate: Some(x),
            delta_bias: None,
            delta_softplus: true,
        })
    };
}

/// Distinct positive numbers, none at a kink of the functions above.
fn x() -> Result<Tensor> {
    let values: Vec<f64> = (0..24).map(|i| 0.213 + 0.07 * f64::from(i * 7 % 24)).collect();
    Tensor::from_slice(&values, &[2, 3, 4], Device::Cpu)
}

fn bits(tensors: &[Tensor]) -> Result<Vec<Vec<u64>>> {
    let of = |tensor: &Tensor| Ok(tensor.to_vec_f64()?.into_iter().map(f64::to_bits).collect());
    tensors.iter().map(of).collect()
}

#[test]
fn tensors_and_variables_give_the_same() -> Result<()> {
    let x = x()?;
    for entry in entries() {
        let of_tensors = (entry.of_tensors)(&x).map_err(|error| error.within(entry.name))?;
        let tape = Tape::recording(Default::default());
        let of_variables = (entry.of_variables)(&tape.leaf(x.clone())?)?;
        assert_eq!(of_tensors.len(), of_variables.len(), "{}", entry.name);
        for (a, b) in of_tensors.iter().zip(&of_variables) {
            assert_eq!((a.shape(), a.dtype()), (b.shape(), b.dtype()), "{}", entry.name);
        }
        assert_eq!(bits(&of_tensors)?, bits(&of_variables)?, "{}", entry.name);
    }
    Ok(())
}

#[test]
fn every_method_has_its_gradient() -> Result<()> {
    let x = x()?;
    let mut checked = 0;
    for entry in entries() {
        let tape = Tape::recording(Default::default());
        let Some(_) = (entry.variable)(&tape.leaf(x.clone())?)? else { continue };
        let function = |vars: &[Var]| {
            let output = (entry.variable)(&vars[0])?;
            // Without a recording tape there is no gradient, but a value.
            match output {
                Some(output) => Ok(output),
                None => Ok(vars[0].constant((entry.of_tensors)(vars[0].value())?.swap_remove(0))),
            }
        };
        if entry.name == "split" {
            // The last part is the differentiable one.
            let last = |vars: &[Var]| vars[0].narrow(2, 1, 3);
            gradcheck::check(last, std::slice::from_ref(&x))?;
            continue;
        }
        gradcheck::check(function, std::slice::from_ref(&x)).map_err(|error| error.within(entry.name))?;
        checked += 1;
    }
    assert!(checked > 60, "{checked}");
    Ok(())
}

/// Compares values and gradients with PyTorch's (tests/golden/methods.py), up to a few roundings of sums of 24 terms.
#[test]
fn values_and_gradients_are_those_of_pytorch() -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/methods.json");
    let golden: serde_json::Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let numbers = |value: &serde_json::Value| -> Option<Vec<f64>> {
        value.as_array().map(|numbers| numbers.iter().map(|number| number.as_f64().unwrap()).collect())
    };
    let close = |found: &[f64], expected: &[f64]| {
        let near = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-13 * (1.0 + b.abs());
        found.len() == expected.len() && found.iter().zip(expected).all(near)
    };
    for entry in entries() {
        // It has its own golden file.
        if entry.name == "selective_scan" {
            continue;
        }
        let case = &golden[entry.name];
        let tape = Tape::recording(Default::default());
        let x = tape.leaf(x()?)?;
        let mut values = Vec::new();
        for output in (entry.of_tensors)(x.value())? {
            values.extend(output.to_vec_f64()?);
        }
        let expected = numbers(&case["values"]).unwrap_or_else(|| panic!("no golden of {}", entry.name));
        assert!(close(&values, &expected), "{}: {values:?}, not {expected:?}", entry.name);
        let output = (entry.variable)(&x)?;
        assert_eq!(output.is_some(), !case["gradient"].is_null(), "whether {} has a gradient", entry.name);
        let (Some(output), Some(expected)) = (output, numbers(&case["gradient"])) else { continue };
        let weights: Vec<f64> = (0..output.value().count()).map(|i| (i as f64).cos()).collect();
        let weights = tensor(&weights, output.shape());
        let gradients = tape.backward(&output.mul(&tape.constant(weights))?.sum(..)?)?;
        let gradient = gradients.get(&x).unwrap().to_vec::<f64>()?;
        assert!(close(&gradient, &expected), "gradient of {}: {gradient:?}, not {expected:?}", entry.name);
    }
    Ok(())
}

/// The methods in the sources are those in the list above.
#[test]
fn every_method_is_tried() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels/src/methods");
    let mut written = BTreeSet::new();
    for file in fs::read_dir(folder).unwrap().flatten() {
        let text = fs::read_to_string(file.path()).unwrap();
        // A trait's block ends with a brace at the start of a line.
        let blocks = text.split("\npub trait ").skip(1).filter(|block| !block.starts_with("Operand"));
        for line in blocks.flat_map(|block| block.split("\n}").next().unwrap_or_default().lines()) {
            let line = line.trim_start();
            let name = |name: &str| name.len() > 1 && name.chars().all(|c| c.is_lowercase() || c == '_');
            let of_macro = line.split_once(" => ").filter(|(before, _)| name(before));
            let of_trait = line.strip_prefix("fn ").and_then(|rest| rest.split(['(', '<']).next());
            written.extend(of_trait.or(of_macro.map(|(name, _)| name)).map(str::to_owned));
        }
    }
    let tried: BTreeSet<String> = entries().iter().map(|entry| entry.name.to_owned()).collect();
    assert_eq!(written, tried, "left: methods in kernels/src/methods, right: those of this test");
}

fn tensor(values: &[f64], shape: &[usize]) -> Tensor {
    Tensor::from_slice(values, shape, Device::Cpu).unwrap()
}

/// A row with NaN and equal elements by torch.sort(stable=True), topk, argmax and argmin of torch 2.15. For equal elements
/// topk returns any index, here the first.
#[test]
fn nan_and_equal_elements_are_ordered_as_in_pytorch() -> Result<()> {
    let nan = f64::NAN;
    let x = tensor(&[2.0, nan, 1.0, 2.0, -1.0, nan], &[6]);
    let text = |values: &Tensor| values.to_vec_f64().map(|values| format!("{values:?}"));
    let (values, places) = x.sort(0)?;
    assert_eq!(text(&values)?, "[-1.0, 1.0, 2.0, 2.0, NaN, NaN]");
    assert_eq!(places.to_vec::<i64>()?, [4, 2, 0, 3, 1, 5]);
    let (values, places) = x.sort_descending(0)?;
    assert_eq!(text(&values)?, "[NaN, NaN, 2.0, 2.0, 1.0, -1.0]");
    assert_eq!(places.to_vec::<i64>()?, [1, 5, 0, 3, 2, 4]);
    let (values, places) = x.top_k(0, 3)?;
    assert_eq!(text(&values)?, "[NaN, NaN, 2.0]");
    assert_eq!(places.to_vec::<i64>()?, [1, 5, 0]);
    assert_eq!((x.argmax(0)?.to_scalar()?, x.argmin(0)?.to_scalar()?), (1.0, 1.0));
    let ties = tensor(&[0.0, 3.0, -1.0, 3.0, -1.0], &[5]);
    assert_eq!((ties.argmax(0)?.to_scalar()?, ties.argmin(0)?.to_scalar()?), (1.0, 2.0));
    assert_eq!(text(&x.cumsum(0)?)?, "[2.0, NaN, NaN, NaN, NaN, NaN]");
    // -0 and 0 are equal, and so keep their order.
    assert_eq!(tensor(&[0.0, -0.0], &[2]).sort(0)?.1.to_vec::<i64>()?, [0, 1]);
    // All comparisons with NaN are false, except for inequality.
    assert_eq!(x.ne(&x)?.to_vec::<bool>()?, [false, true, false, false, false, true]);
    assert_eq!(x.le(2.0)?.to_vec::<bool>()?, [true, false, true, true, true, false]);
    assert!(x.max(0)?.to_scalar()?.is_nan() && x.maximum(0.0)?.to_vec::<f64>()?[1].is_nan());
    Ok(())
}

/// Integers and half precision can be compared and sorted; a number that isn't representable in the dtype is rejected.
#[test]
fn other_dtypes() -> Result<()> {
    let label = Tensor::from_slice(&[0u8, 3, 1, 3], &[4], Device::Cpu)?;
    assert_eq!(label.ge(1.0)?.to_vec::<bool>()?, [false, true, true, true]);
    for wrong in [0.5, 256.0, -1.0, f64::NAN, f64::INFINITY] {
        let error = label.lt(wrong).unwrap_err().to_string();
        assert!(error.contains("beside u8"), "{error}");
    }
    assert!(label.eq(&tensor(&[1.0], &[1])).is_err());
    assert_eq!(label.where_(&label.eq(3.0)?, 255.0)?.to_vec::<u8>()?, [255, 3, 255, 3]);
    assert!(label.add(1.0).is_err(), "arithmetic is that of floating point");
    let half = tensor(&[1.5, -2.0, 0.25], &[3]).converted(DType::F16)?;
    let (values, places) = half.sort(0)?;
    assert_eq!((values.dtype(), values.to_vec_f64()?), (DType::F16, vec![-2.0, 0.25, 1.5]));
    assert_eq!(places.to_vec::<i64>()?, [1, 2, 0]);
    assert_eq!(half.lt(0.5)?.to_vec::<bool>()?, [false, true, true]);
    Ok(())
}

#[test]
fn reductions_take_any_axes() -> Result<()> {
    let x = Tensor::arange(24, DType::F64, Device::Cpu)?.reshape(&[2, 3, 4])?;
    for (sum, shape) in [
        (x.sum(..)?, vec![]),
        (x.sum(keep(..))?, vec![1, 1, 1]),
        (x.sum(1)?, vec![2, 4]),
        (x.sum([2, 0])?, vec![3]),
        (x.sum(&[0, 1][..])?, vec![4]),
        (x.sum(vec![])?, vec![2, 3, 4]),
        (x.sum(1..)?, vec![2]),
        (x.sum(..2)?, vec![4]),
        (x.sum(keep(0..=1))?, vec![1, 1, 4]),
    ] {
        assert_eq!(sum.shape(), shape);
        assert_eq!(sum.to_vec::<f64>()?.iter().sum::<f64>(), 276.0);
    }
    for wrong in [x.sum(3), x.sum([0, 0]), x.sum(4..), x.sum(..4), x.sum(keep(2..5))] {
        assert!(wrong.is_err());
    }
    // The variance of 0, 1, 2, 3 is 5/4, or 5/3 with Bessel's correction.
    assert_eq!(x.variance(2, 0)?.to_vec::<f64>()?, [1.25; 6]);
    assert!(x.variance(2, 1)?.to_vec::<f64>()?.iter().all(|v| (v - 5.0 / 3.0).abs() < 1e-15));
    assert!(x.variance(2, 4).unwrap_err().to_string().contains("more elements than the correction"));
    assert_eq!(tensor(&[3.0, 4.0, 0.0, 0.0], &[2, 2]).norm(1)?.to_vec::<f64>()?, [5.0, 0.0]);
    Ok(())
}

/// The norm isn't differentiable at 0; as in PyTorch, its gradient there is 0 and not NaN.
#[test]
fn the_norm_of_nothing_has_the_gradient_0() -> Result<()> {
    let tape = Tape::recording(Default::default());
    let x = tape.leaf(tensor(&[3.0, 4.0, 0.0, 0.0], &[2, 2]))?;
    let gradients = tape.backward(&x.norm(1)?.sum(..)?)?;
    let gradient = gradients.get(&x).unwrap().to_vec::<f64>()?;
    assert!(
        gradient.iter().zip([0.6, 0.8, 0.0, 0.0]).all(|(dx, expected)| (dx - expected).abs() < 1e-15),
        "{gradient:?}"
    );
    Ok(())
}

#[test]
fn a_custom_operation_is_checked() -> Result<()> {
    let tape = Tape::recording(Default::default());
    let x = tape.leaf(tensor(&[1.0, 2.0], &[2]))?;
    let index = tape.constant(Tensor::from_slice(&[1i64, 1], &[2], Device::Cpu)?);
    // Together with an index, which has no gradient.
    let picked = Var::custom(
        &[&x, &index],
        |inputs| inputs[0].gather(0, &inputs[1]),
        |inputs, _, dy| Ok(vec![inputs[0].mul(0.0)?.scatter_add(0, &inputs[1], dy)?]),
    )?;
    let gradients = tape.backward(&picked.sum(..)?)?;
    assert_eq!(gradients.get(&x).unwrap().to_vec::<f64>()?, [0.0, 2.0]);

    type Wrong = fn(&[Tensor], &Tensor, &Tensor) -> Result<Vec<Tensor>>;
    let wrong: [(Wrong, &str); 3] = [
        (|_, _, dy| Ok(vec![dy.clone(), dy.clone()]), "one for each of 1 floating-point inputs"),
        (|_, _, dy| Ok(vec![dy.sum(..)?]), "a gradient of the input's shape and dtype"),
        (|_, _, dy| Ok(vec![dy.cast(DType::F32)?]), "a gradient of the input's shape and dtype"),
    ];
    for (backward, expected) in wrong {
        let tape = Tape::recording(Default::default());
        let x = tape.leaf(tensor(&[1.0, 2.0], &[2]))?;
        let y = Var::custom(&[&x], |x| x[0].square(), backward)?;
        let error = tape.backward(&y.sum(..)?).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let none = Var::custom(&[], |_| Tensor::scalar(1.0, Device::Cpu), |_, _, _| Ok(vec![]));
    assert!(none.unwrap_err().to_string().contains("needs an input"));
    Ok(())
}

#[test]
fn a_custom_operation_has_its_gradient() -> Result<()> {
    let function = |vars: &[Var]| {
        Var::custom(
            &[&vars[0], &vars[1]],
            |x| x[0].mul(&x[1])?.sum(..),
            |x, _, dy| Ok(vec![x[1].mul(dy)?, x[0].mul(dy)?]),
        )
    };
    gradcheck::check(function, &[x()?, x()?.square()?])
}

/// A generic function works for tensors and variables.
#[test]
fn a_function_of_operands() -> Result<()> {
    fn dice<T: Methods>(p: &T, q: &T) -> Result<T> {
        p.mul(q)?.sum(..)?.mul(2.0)?.div(&p.sum(..)?.add(&q.sum(..)?)?)
    }
    let (p, q) = (tensor(&[1.0, 0.0, 1.0], &[3]), tensor(&[1.0, 1.0, 0.0], &[3]));
    assert_eq!(dice(&p, &q)?.to_scalar()?, 0.5);
    let tape = Tape::recording(Default::default());
    assert_eq!(dice(&tape.leaf(p)?, &tape.constant(q))?.value().to_scalar()?, 0.5);
    Ok(())
}

#[test]
fn tensors_print_their_values() -> Result<()> {
    let x = Tensor::from_slice(&[1.0f32, 2.5, -3.0, 4.0], &[2, 2], Device::Cpu)?;
    let text = "[[1.0000, 2.5000],\n [-3.0000, 4.0000]] f32 (2, 2) cpu";
    assert_eq!(x.to_string(), text);
    assert_eq!(Tape::recording(Default::default()).leaf(x.clone())?.to_string(), text);
    assert!(format!("{x:?}").contains("2.5"));
    let other: Other<'_, Tensor> = 0.5.into();
    assert!(format!("{other:?}").contains("0.5"));
    Ok(())
}
