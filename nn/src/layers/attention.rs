//! Multi-head attention.

use tomograd_autodiff::{Var, methods::*};
use tomograd_core::{Error, Result, element_count};
use tomograd_kernels::matmul;

use super::{Linear, LinearOptions};
use crate::{Module, Pass, Scope, Slot, init::Init};

/// Multi-head self-attention (Vaswani et al. 2017): queries, keys and values are linear in x and split into heads. Each head
/// computes [`attention`](tomograd_autodiff::methods::Networks::attention); the heads' outputs are concatenated and projected
/// by a linear layer. (N, L, E) to (N, L, E).
///
/// Parameters: `in_proj_weight` (3E, E) and `in_proj_bias` (3E), which concatenate those of queries, keys and values;
/// `out_proj.weight` (E, E), `out_proj.bias` (E). Names and initialisation are those of PyTorch's layer.
///
/// ```
/// use tomograd_core::{DType, Device, Seed, Tensor};
/// use tomograd_nn::{Module, MultiHeadAttention, Params, Pass};
/// let mut params = Params::new(Device::Cpu, Seed::new(1));
/// let attention = MultiHeadAttention::new(params.root(), 16, 4)?;
/// let pass = Pass::eval(&params)?;
/// let tokens = pass.input(&Tensor::ones(&[2, 5, 16], DType::F32, Device::Cpu)?);
/// assert_eq!(attention.forward(&tokens, &pass)?.shape(), [2, 5, 16]);
/// let positions = pass.input(&Tensor::zeros(&[4, 5, 5], DType::F32, Device::Cpu)?); // a bias for each head
/// assert_eq!(attention.attend(&tokens, &[&positions], &pass)?.shape(), [2, 5, 16]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct MultiHeadAttention {
    heads: usize,
    size: usize,
    weight: Slot,
    bias: Slot,
    output: Linear,
}

impl MultiHeadAttention {
    /// A layer of embedding dimension `size` with `heads` heads of dimension `size / heads`.
    ///
    /// # Errors
    /// When the size is 0 or overflows, the heads don't divide it, a name is taken, or memory runs out.
    pub fn new(mut scope: Scope<'_>, size: usize, heads: usize) -> Result<Self> {
        if size == 0 || heads == 0 || !size.is_multiple_of(heads) {
            let error = Error::argument("multi_head_attention", format!("{heads} heads of {size} numbers"));
            return Err(scope.place(error.expected("a number of heads that divides them")));
        }
        let three = size.saturating_mul(3);
        element_count("multi_head_attention", &[three, size]).map_err(|error| scope.place(error))?;
        // Xavier bound for (3E, E): √(6 / (fan_in + fan_out)) (Glorot and Bengio 2010).
        let init = Init::Uniform((6.0 / (4.0 * size as f64)).sqrt());
        scope.whole(|scope| {
            let weight = scope.parameter("in_proj_weight", &[three, size], init)?;
            let bias = scope.parameter("in_proj_bias", &[three], Init::Constant(0.0))?;
            let options = LinearOptions::new(size).bias_filled(Init::Constant(0.0));
            let output = Linear::new(scope.at("out_proj"), size, options)?;
            Ok(Self { heads, size, weight, bias, output })
        })
    }

    /// The forward pass with up to three biases added to the scores, such as relative positions and masks; each broadcasts to
    /// (N, heads, L, L).
    ///
    /// # Errors
    /// When x isn't (N, L, E), a bias doesn't broadcast, or memory runs out.
    pub fn attend(&self, x: &Var, biases: &[&Var], pass: &Pass) -> Result<Var> {
        let &[batch, length, size] = x.shape() else {
            return Err(Error::shape("multi_head_attention", format!("an input of {} axes", x.rank()))
                .expected(format!("(N, L, {})", self.size))
                .shapes([x.shape()]));
        };
        let (weight, bias) = (pass.parameter(self.weight)?, pass.parameter(self.bias)?);
        let all = Var::apply(matmul::Linear { bias: true }, &[x, &weight, &bias])
            .map_err(|error| pass.within(self.weight, error))?;
        // Split into heads, (N, heads, L, E / heads), as views of one tensor.
        let heads = |part: Var| part.reshape(&[batch, length, self.heads, size / self.heads])?.transpose(1, 2);
        let parts = all.split(&[size; 3], 2)?.into_iter().map(heads).collect::<Result<Vec<Var>>>()?;
        let y = parts[0].attention(&parts[1], &parts[2], biases, None, false)?;
        self.output.forward(&y.transpose(1, 2)?.reshape(&[batch, length, size])?, pass)
    }
}

impl Module for MultiHeadAttention {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        self.attend(x, &[], pass)
    }
}

#[cfg(test)]
mod tests {
    use tomograd_core::{DType, Device, Seed, Tensor};

    use super::*;
    use crate::{Params, gradcheck};

    #[test]
    fn gradients_equal_differences() {
        let x = Tensor::normal(&[2, 5, 6], 0.0, 1.0, Seed::new(3), DType::F64, Device::Cpu).unwrap();
        gradcheck::module(|scope| MultiHeadAttention::new(scope, 6, 3), &x).unwrap();
    }

    #[test]
    fn a_bad_number_of_heads_or_input_is_explained() {
        let mut params = Params::new(Device::Cpu, Seed::new(0));
        let error = MultiHeadAttention::new(params.root(), 6, 4).unwrap_err().to_string();
        assert!(error.contains("4 heads of 6 numbers"), "{error}");
        let layer = MultiHeadAttention::new(params.root(), 6, 2).unwrap();
        let pass = Pass::eval(&params).unwrap();
        let x = pass.input(&Tensor::ones(&[5, 6], DType::F32, Device::Cpu).unwrap());
        let error = layer.forward(&x, &pass).unwrap_err().to_string();
        assert!(error.contains("(N, L, 6)"), "{error}");
    }
}
