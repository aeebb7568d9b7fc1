//! TF32 on the tensor cores of CUDA devices, by the emulator: convolutions, matrix products and linear layers stay within the bound that
//! `allow_tf32` states, and in full f32 where it isn't allowed. A program of its own, since the setting is the process's.

use tomograd_core::{DType, Device, Random, Result, Seed, Tensor};
use tomograd_emulator::{device, measured};
use tomograd_kernels::{
    Context, Op, Precision, Saved,
    cast::cast,
    conv::{Conv, ConvTranspose},
    cuda::{allow_tf32, tf32_allowed},
    matmul::{Linear, Matmul},
    run, run_backward, testing,
};

/// An operation with the shapes of its inputs, and the number of products of an element of its output and of each input's gradient.
struct Case {
    op: Box<dyn Op>,
    shapes: Vec<Vec<usize>>,
    products: Vec<usize>,
}

fn conv(shapes: [&[usize]; 2], stride: usize, padding: usize, dilation: usize, groups: usize, bias: bool) -> Case {
    let [x, w] = shapes;
    let rank = x.len() - 2;
    let three = |value| vec![value; rank];
    let (stride, padding, dilation) = (three(stride), three(padding), three(dilation));
    let outputs: usize = (0..rank)
        .map(|axis| {
            let reach = dilation[axis] * (w[2 + axis] - 1) + 1;
            (x[2 + axis] + 2 * padding[axis] - reach) / stride[axis] + 1
        })
        .product();
    let taps: usize = w[2..].iter().product();
    let mut case = Case {
        op: Box::new(Conv { stride, padding, dilation, groups, two_inputs: false, bias }),
        shapes: vec![x.to_vec(), w.to_vec()],
        products: vec![w[1] * taps, w[0] / groups * taps, x[0] * outputs],
    };
    if bias {
        case.shapes.push(vec![w[0]]);
        case.products.push(x[0] * outputs);
    }
    case
}

fn cases() -> Vec<Case> {
    let mut all = vec![
        conv([&[2, 8, 5, 6, 7], &[12, 8, 3, 3, 3]], 1, 1, 1, 1, true),
        conv([&[1, 21, 13, 17], &[40, 21, 3, 3]], 2, 1, 1, 1, false),
        conv([&[2, 12, 11, 9], &[10, 6, 3, 3]], 1, 2, 2, 2, true),
        conv([&[3, 5, 31], &[70, 5, 4]], 3, 0, 1, 1, false),
        conv([&[1, 4, 40, 36], &[130, 4, 1, 1]], 1, 0, 1, 1, false),
    ];
    let (stride, ones) = (vec![2; 3], vec![1; 3]);
    let transposed = ConvTranspose {
        stride,
        padding: ones.clone(),
        output_padding: ones.clone(),
        dilation: ones,
        groups: 1,
        bias: false,
    };
    let shapes = vec![vec![2, 6, 3, 4, 5], vec![6, 9, 3, 3, 3]];
    all.push(Case { op: Box::new(transposed), shapes, products: vec![6 * 27, 9 * 27, 2 * 60] });
    for (m, n, k) in [(130, 100, 83), (72, 136, 1040)] {
        let shapes = vec![vec![2, m, k], vec![k, n]];
        all.push(Case { op: Box::new(Matmul), shapes, products: vec![k, n, 2 * m] });
    }
    let shapes = vec![vec![3, 33, 70], vec![96, 70], vec![96]];
    all.push(Case { op: Box::new(Linear { bias: true }), shapes, products: vec![71, 96, 99, 99] });
    all
}

/// The output and the gradients of all inputs.
fn both(op: &dyn Op, inputs: &[Tensor], dy: &Tensor, context: &Context) -> Result<Vec<Tensor>> {
    let references: Vec<&Tensor> = inputs.iter().collect();
    let forward = run(op, &references, context)?;
    let saved = Saved::new(op, &references, &forward);
    let gradients = run_backward(op, saved, vec![Some(dy.clone())], &vec![true; inputs.len()], context)?;
    Ok(forward.outputs.into_iter().chain(gradients.into_iter().flatten()).collect())
}

fn random_values(random: &mut Random, shape: &[usize]) -> Result<Tensor> {
    cast(&testing::values(random, shape)?, DType::F32)
}

#[test]
fn tf32_is_within_its_bound_where_it_is_allowed() -> Result<()> {
    let Some(device) = device() else { return Ok(()) };
    assert!(!tf32_allowed(), "off until it is allowed");
    let mut random = Seed::new(2026).named("tf32").random();
    let mut coarse = 0;
    for Case { op, shapes, products } in cases() {
        let inputs: Vec<Tensor> =
            shapes.iter().map(|shape| random_values(&mut random, shape)).collect::<Result<_>>()?;
        let there: Vec<Tensor> = inputs.iter().map(|x| x.to(device)).collect::<Result<_>>()?;
        let (context, plain) = (Context::default(), Context::default().precision(Precision::Strict));
        let dy =
            random_values(&mut random, run(&*op, &there.iter().collect::<Vec<_>>(), &context)?.outputs[0].shape())?;
        let wide: Vec<Tensor> = inputs.iter().map(|x| cast(x, DType::F64)).collect::<Result<_>>()?;
        let exact = both(&*op, &wide, &cast(&dy, DType::F64)?, &plain)?;
        // Σ |a| |b| of each element.
        let sizes: Vec<Tensor> = wide.iter().map(|x| testing::map(x, f64::abs)).collect::<Result<_>>()?;
        let sizes = both(&*op, &sizes, &testing::map(&cast(&dy, DType::F64)?, f64::abs)?, &plain)?;
        let dy = dy.to(device)?;
        allow_tf32(true);
        let (results, launches) = measured(|| both(&*op, &there, &dy, &context));
        let again = both(&*op, &there, &dy, &context)?;
        let (_, strict) = measured(|| both(&*op, &there, &dy, &plain));
        allow_tf32(false);
        let (_, forbidden) = measured(|| both(&*op, &there, &dy, &context));
        let results = results?;
        for (launches, expected) in [(launches, true), (strict, false), (forbidden, false)] {
            let found = launches.iter().any(|launch| launch.kernel.contains("tf32"));
            assert_eq!(found, expected, "{op:?}: whether TF32 was used");
        }
        assert_eq!(results.len(), products.len());
        for (k, result) in results.iter().enumerate() {
            assert_eq!((result.dtype(), result.shape()), (DType::F32, exact[k].shape()));
            assert_eq!(result.to_vec::<f32>()?, again[k].to_vec::<f32>()?, "{op:?}: result {k} of a second run");
            // As `allow_tf32` says.
            let relative = 2f64.powi(-10) + 2f64.powi(-22) + (products[k] as f64 / 8.0 + 3.0) * 2f64.powi(-22);
            let values = result.to(Device::Cpu)?.to_vec_f64()?;
            let (exact, sizes) = (exact[k].to_vec_f64()?, sizes[k].to_vec_f64()?);
            for (i, ((value, exact), size)) in values.iter().zip(&exact).zip(&sizes).enumerate() {
                let (error, bound) = ((value - exact).abs(), relative * size + 1e-30);
                assert!(error <= bound, "{op:?} of {shapes:?}: element {i} of {k} is {value}, not {exact} ± {bound:e}");
                // More than f32 would be off.
                coarse += usize::from(error > products[k] as f64 * 2f64.powi(-22) * size);
            }
        }
    }
    assert!(coarse > 1000, "no element has the error of TF32");
    Ok(())
}
