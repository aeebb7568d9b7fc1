// The gradient of the weights of a depthwise convolution (see depthwise.cu): dw[part, c, i, j, k] = Σ over the part's outputs of
// dy[z, y, x] x[z + i − pad_z, y + j − pad_y, x + k − pad_x].
//
// Launch: grid (C, parts, 1), 256 threads. A part has `length` groups of four outputs of a row, counted over (N, D, H, ⌈W / 4⌉). For each
// row of taps a thread takes every 256th group, for which it reads 4 + K − 1 voxels of a row, and keeps K sums; a fixed tree joins them.
#include "indices.cuh"

// Sizes in elements, and those that groups are counted in.
struct DepthwiseWeights {
  int batch, channels;
  int depth, height, width;
  int out_depth, out_height, out_width;
  int pad_z, pad_y, pad_x;
  int unused;
  long long length, groups;
  Divisor across, rows, planes;  // ⌈W / 4⌉, H and D of the outputs
};

constexpr int ALONG_X = 4, THREADS = 256, WARPS = THREADS / 32;

template <typename T, int K_Z, int K>
__device__ __forceinline__ void depthwise_weights(const T *x, const T *dy, float *dw, const DepthwiseWeights &shape) {
  constexpr int TAPS = K_Z * K * K;
  __shared__ float sums[WARPS][TAPS];
  const int channel = blockIdx.x, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const long long first = blockIdx.y * shape.length, end = first + shape.length < shape.groups ? first + shape.length : shape.groups;
#pragma unroll 1
  for (int row_of_taps = 0; row_of_taps < K_Z * K; row_of_taps++) {
    const int i = row_of_taps / K - shape.pad_z, j = row_of_taps % K - shape.pad_y;
    float sum[K] = {};
    for (long long group = first + threadIdx.x; group < end; group += THREADS) {
      long long n = group;
      const int out_x = static_cast<int>(last_of(n, shape.across)) * ALONG_X, out_y = static_cast<int>(last_of(n, shape.rows));
      const int out_z = static_cast<int>(last_of(n, shape.planes)), z = out_z + i, y = out_y + j;
      if (z < 0 || z >= shape.depth || y < 0 || y >= shape.height) continue;
      const long long image = n * shape.channels + channel;
      const T *gradients = dy + ((image * shape.out_depth + out_z) * shape.out_height + out_y) * shape.out_width + out_x;
      const T *voxels = x + ((image * shape.depth + z) * shape.height + y) * shape.width;
      float value[ALONG_X + K - 1];
#pragma unroll
      for (int o = 0; o < ALONG_X + K - 1; o++) {
        const int at = out_x + o - shape.pad_x;
        value[o] = at >= 0 && at < shape.width ? to_float(voxels[at]) : 0.0f;
      }
#pragma unroll
      for (int o = 0; o < ALONG_X; o++) {
        const float gradient = out_x + o < shape.out_width ? to_float(gradients[o]) : 0.0f;
#pragma unroll
        for (int k = 0; k < K; k++) sum[k] = fmaf(gradient, value[o + k], sum[k]);
      }
    }
#pragma unroll
    for (int k = 0; k < K; k++) {
#pragma unroll
      for (int distance = 16; distance > 0; distance /= 2) sum[k] += __shfl_xor_sync(0xffffffff, sum[k], distance);
      if (lane == 0) sums[warp][row_of_taps * K + k] = sum[k];
    }
  }
  __syncthreads();
  for (int tap = threadIdx.x; tap < TAPS; tap += THREADS) {
    float total = 0.0f;
#pragma unroll
    for (int other = 0; other < WARPS; other++) total += sums[other][tap];
    dw[(static_cast<long long>(blockIdx.y) * shape.channels + channel) * TAPS + tap] = total;
  }
}

#define KERNEL(T, NAME, K_Z, K)                                                                                                       \
  extern "C" __global__ void __launch_bounds__(256) NAME(const T *x, const T *dy, float *dw, const DepthwiseWeights shape) {          \
    depthwise_weights<T, K_Z, K>(x, dy, dw, shape);                                                                                   \
  }
#define KERNELS(T, SUFFIX)                         \
  KERNEL(T, depthwise2d_weights_3_##SUFFIX, 1, 3)  \
  KERNEL(T, depthwise2d_weights_5_##SUFFIX, 1, 5)  \
  KERNEL(T, depthwise2d_weights_7_##SUFFIX, 1, 7)  \
  KERNEL(T, depthwise3d_weights_3_##SUFFIX, 3, 3)  \
  KERNEL(T, depthwise3d_weights_5_##SUFFIX, 5, 5)  \
  KERNEL(T, depthwise3d_weights_7_##SUFFIX, 7, 7)
KERNELS(float, f32)
KERNELS(f16, f16)
KERNELS(bf16, bf16)
