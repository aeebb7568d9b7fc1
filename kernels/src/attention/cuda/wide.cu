// Attention of elements too wide for the tiles of attention.cu: the scores (batch · L, S) are products in memory, which these kernels
// turn into weights and gradients. A block does a row.
#include "attention.cuh"
#include "sums.cuh"

#define THREADS 256

// The score of a key from its product, in units of log₂.
__device__ __forceinline__ float
score_of(float product, const Biases &biases, const Attention &shape, int batch, int query, int key) {
  if (shape.causal && key > query) return -INFINITY;
  float score = product * (shape.scale * LOG2_E);
  for (int i = 0; i < shape.biases; i++)
    score = fmaf(bias_of<float>(biases, i, batch, shape)[query * shape.bias[i].row + key * shape.bias[i].key], LOG2_E, score);
  return score;
}

// Products become weights; `sums` gets the logarithms of the queries' sums.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    attention_weights(float *products, const __grid_constant__ Biases biases, float *sums, const Attention shape, long long rows) {
  __shared__ float partial[THREADS];
  for (long long row = blockIdx.x; row < rows; row += gridDim.x) {
    float *line = products + row * shape.keys;
    const int batch = (int)(row / shape.queries), query = (int)(row % shape.queries);
    float most = -INFINITY, sum = 0.0f;
    for (int key = threadIdx.x; key < shape.keys; key += THREADS) {
      const float score = score_of(line[key], biases, shape, batch, query, key);
      line[key] = score;
      most = fmaxf(most, score);
    }
    most = joined<THREADS>(partial, most, [](float a, float b) { return fmaxf(a, b); });
    const float base = most == -INFINITY ? 0.0f : most;
    for (int key = threadIdx.x; key < shape.keys; key += THREADS) {
      const float weight = exp2f(line[key] - base);
      line[key] = weight;
      sum += weight;
    }
    sum = sum_of_block<THREADS>(partial, sum);
    const float factor = most == -INFINITY && sum == 0.0f ? 0.0f : 1.0f / sum;
    for (int key = threadIdx.x; key < shape.keys; key += THREADS) line[key] *= factor;
    if (threadIdx.x == 0) sums[row] = most * LN_2 + logf(sum);
  }
}

// Products become weights again, by the sums.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    attention_weights_again(float *products, const __grid_constant__ Biases biases, const float *sums, const Attention shape, long long rows) {
  for (long long row = blockIdx.x; row < rows; row += gridDim.x) {
    float *line = products + row * shape.keys;
    const int batch = (int)(row / shape.queries), query = (int)(row % shape.queries);
    const float sum = sums[row];
    for (int key = threadIdx.x; key < shape.keys; key += THREADS) {
      const float score = score_of(line[key], biases, shape, batch, query, key);
      line[key] = sum == -INFINITY ? 0.0f : exp2f(fmaf(-sum, LOG2_E, score));
    }
  }
}

// The gradients of weights become those of scores: p (dp − inner).
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    attention_scores_gradient(const float *weights, float *gradients, const float *inner, int keys, long long rows) {
  for (long long row = blockIdx.x; row < rows; row += gridDim.x) {
    const float of_row = inner[row];
    for (int key = threadIdx.x; key < keys; key += THREADS) gradients[row * keys + key] = weights[row * keys + key] * (gradients[row * keys + key] - of_row);
  }
}
