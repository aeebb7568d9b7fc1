// What the kernels of attention share: sizes and biases.
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
