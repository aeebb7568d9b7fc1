//! Comparisons of two tensors, element by element.

mod cpu;
mod reference;

use tomograd_core::{DType, Error, ErrorKind, Random, Result, Tensor, broadcast_shapes};

use crate::{Context, Cost, Forward, HalfPolicy, Meta, Op, Saved, check, op::with_element, registry, registry::Proven};

/// What is asked of two elements. A NaN is unequal to everything, itself included, and neither less nor greater than anything.
///
/// Inputs: x and y of one dtype, any one; they are broadcast as in NumPy. The output is bool, and has no gradient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compare {
    /// x = y.
    Equal,
    /// x ≠ y.
    NotEqual,
    /// x < y.
    Less,
    /// x ≤ y.
    LessEqual,
    /// x > y.
    Greater,
    /// x ≥ y.
    GreaterEqual,
}

impl Op for Compare {
    fn name(&self) -> &'static str {
        match self {
            Compare::Equal => "eq",
            Compare::NotEqual => "ne",
            Compare::Less => "lt",
            Compare::LessEqual => "le",
            Compare::Greater => "gt",
            Compare::GreaterEqual => "ge",
        }
    }

    fn infer(&self, inputs: &[Meta]) -> Result<Vec<Meta>> {
        check::inputs(self.name(), inputs, 2, 2)?;
        let (x, y) = (&inputs[0], &inputs[1]);
        if x.dtype != y.dtype {
            return Err(Error::new(ErrorKind::DType, self.name(), format!("inputs hold {} and {}", x.dtype, y.dtype))
                .expected("one dtype")
                .shapes([&x.shape[..], &y.shape]));
        }
        Ok(vec![x.with_shape(broadcast_shapes(self.name(), &[&x.shape, &y.shape])?).with_dtype(DType::Bool)])
    }

    fn forward_cpu(&self, _: &Context, inputs: &[&Tensor], outputs: &[Meta]) -> Result<Forward> {
        with_element!(inputs[0].dtype(), T => {
            Ok(Forward::one(cpu::compare::<T>(*self, inputs[0], inputs[1], &outputs[0])?))
        })
    }

    fn backward_cpu(
        &self,
        _: &Context,
        _: Saved,
        _: Vec<Option<Tensor>>,
        needed: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![None; needed.len()])
    }

    fn half_policy(&self) -> HalfPolicy {
        HalfPolicy::Keep
    }

    fn cost(&self, inputs: &[Meta], outputs: &[Meta]) -> Cost {
        Cost::of(outputs[0].count() as f64, inputs, outputs)
    }
}

impl Proven for Compare {
    fn reference(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        reference::compare(*self, &inputs[0], &inputs[1])
    }

    fn case(random: &mut Random) -> Result<(Self, Vec<Tensor>)> {
        let all = [
            Compare::Equal,
            Compare::NotEqual,
            Compare::Less,
            Compare::LessEqual,
            Compare::Greater,
            Compare::GreaterEqual,
        ];
        let compare = all[random.below(6) as usize];
        let shape = match random.below(20) {
            // A parallel chunk ends within a row.
            0 => vec![3, cpu::GRAIN / 3 + 1 + random.below(9) as usize],
            _ => registry::shape(random, 0, 4),
        };
        // Whole numbers, many of them equal.
        let mut values = |shape: &[usize]| registry::map(&registry::values(random, shape)?, f64::round);
        let x = values(&shape)?;
        let y = if shape.len() % 2 == 1 { values(&[])? } else { values(&shape)? };
        if random.bernoulli(0.3) {
            return Ok((compare, vec![y, x]));
        }
        let narrow: Vec<usize> = shape.iter().map(|&size| if random.bernoulli(0.3) { 1 } else { size }).collect();
        let lead = random.below(narrow.len() as u64 + 1) as usize;
        let broadcast = registry::map(&registry::values(random, &narrow[lead..])?, f64::round)?;
        Ok((compare, vec![x, if random.bernoulli(0.5) { broadcast } else { y }]))
    }

    fn is_differentiable(&self, _: usize) -> bool {
        false
    }
}
