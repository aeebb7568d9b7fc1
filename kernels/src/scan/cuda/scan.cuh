// What the kernels of the selective scan share: sizes, and steps of a row.
#pragma once
#include "tomograd.cuh"

struct Scan {
  int channels, groups, states, length;
  int softplus;
  int aligned;  // whether rows of L elements are multiples of four elements
};

constexpr int THREADS = 128, STEPS = 4, CHUNK = THREADS * STEPS, WARPS = THREADS / 32;

__device__ __forceinline__ void load_four(const float *x, float (&values)[4]) {
  const float4 four = *reinterpret_cast<const float4 *>(x);
  values[0] = four.x, values[1] = four.y, values[2] = four.z, values[3] = four.w;
}
template <typename T>
__device__ __forceinline__ void load_four(const T *x, float (&values)[4]) {
  const uint2 four = *reinterpret_cast<const uint2 *>(x);
  const float2 left = unpack<T>(four.x), right = unpack<T>(four.y);
  values[0] = left.x, values[1] = left.y, values[2] = right.x, values[3] = right.y;
}
__device__ __forceinline__ void store_four(float *x, const float (&values)[4]) {
  *reinterpret_cast<float4 *>(x) = make_float4(values[0], values[1], values[2], values[3]);
}
template <typename T>
__device__ __forceinline__ void store_four(T *x, const float (&values)[4]) {
  *reinterpret_cast<uint2 *>(x) = make_uint2(pack<T>(values[0], values[1]), pack<T>(values[2], values[3]));
}
// Four steps of a row from step t; zeros beyond its end.
template <typename T>
__device__ __forceinline__ void load_steps(const T *row, int t, const Scan &shape, float (&values)[4]) {
  if (shape.aligned && t < shape.length) {
    load_four(row + t, values);
  } else {
#pragma unroll
    for (int i = 0; i < STEPS; i++) values[i] = t + i < shape.length ? to_float(row[t + i]) : 0.0f;
  }
}
// Writes what of four steps is before the end.
template <typename T>
__device__ __forceinline__ void store_steps(T *row, int t, const Scan &shape, const float (&values)[4]) {
  if (shape.aligned && t < shape.length) {
    store_four(row + t, values);
  } else {
#pragma unroll
    for (int i = 0; i < STEPS; i++)
      if (t + i < shape.length) row[t + i] = from_float<T>(values[i]);
  }
}
// Δ of a step.
__device__ __forceinline__ float step_of(float raw, const Scan &shape) {
  return shape.softplus ? fmaxf(raw, 0.0f) + log1pf(expf(-fabsf(raw))) : raw;
}
__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }
