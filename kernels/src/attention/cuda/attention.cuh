// What the kernels of attention share: sizes, biases, scores.
#pragma once
#include "tomograd.cuh"

// Distances of a bias broadcast to (batch, L, S) in elements, 0 along what it is broadcast over. Element b of the batch is number
// b / inner of the outer and b % inner of the inner axis.
struct Bias {
  long long outer, inner, row, key;
};
struct Biases {
  const void *at[3];
};
struct Attention {
  int queries, keys, size, value_size;  // L, S, E, V
  int inner;
  int biases;
  int causal;           // query i sees keys 0 to i
  int aligned, aligned_values;  // whether rows of q and k, or of v and y, are multiples of 16 bytes
  float scale;
  Bias bias[3];
};

constexpr float LOG2_E = 1.4426950408889634f, LN_2 = 0.6931471805599453f;

// The matrix (L, S) of bias i for an element of the batch.
template <typename T>
__device__ __forceinline__ const T *bias_of(const Biases &biases, int i, int batch, const Attention &shape) {
  const Bias &bias = shape.bias[i];
  return static_cast<const T *>(biases.at[i]) + batch / shape.inner * bias.outer + batch % shape.inner * bias.inner;
}

// Makes scores of products, in units of log₂: scaled, with the biases, and −∞ where a query doesn't see the key. `each` calls a function
// for all of a thread's scores with the score, its query and its key; the queries are `first` or later, the keys before `end`.
template <typename T, typename Each>
__device__ __forceinline__ void finish(const Each &each, const Biases &biases, int batch, int first, int end, const Attention &shape) {
  const float factor = shape.scale * LOG2_E;
  each([&](float &score, int, int) { score *= factor; });
#pragma unroll 1
  for (int i = 0; i < shape.biases; i++) {
    const Bias &bias = shape.bias[i];
    const T *values = bias_of<T>(biases, i, batch, shape);
    each([&](float &score, int query, int key) {
      if (query < shape.queries && key < shape.keys) score = fmaf(to_float(values[query * bias.row + key * bias.key]), LOG2_E, score);
    });
  }
  if (end > shape.keys || (shape.causal && end > first))
    each([&](float &score, int query, int key) {
      if (key >= shape.keys || (shape.causal && key > query)) score = -INFINITY;
    });
}
