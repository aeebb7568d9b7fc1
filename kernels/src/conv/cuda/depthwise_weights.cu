// The gradient of the weights of a depthwise convolution (see depthwise.cu): dw[part, c, i, j, k] = Σ over the part's outputs of
// dy[z, y, x] x[z + i − pad_z, y + j − pad_y, x + k − pad_x].
//
// Launch: grid (C, parts, 1), 256 threads. A part has `length` pieces of a row of x, each for 32 outputs along x, counted over
// (N, D of the outputs, H of x, ⌈W of the outputs / 32⌉). A warp takes every 8th piece, brings it with its halo to shared memory, and
// multiplies it with the rows of dy that it is read for by K rows of taps: so K voxels and K gradients are read for K² products, whose
// sums stay in registers. That is done for each plane of taps. A fixed tree joins the sums.
#include "indices.cuh"

// Sizes in elements, and those that pieces are counted in.
struct DepthwiseWeights {
  int batch, channels;
  int depth, height, width;
  int out_depth, out_height, out_width;
  int pad_z, pad_y, pad_x;
  int unused;
  long long length, pieces;
  Divisor across, rows, planes;  // ⌈W / 32⌉, H of x, D of the outputs
};

constexpr int THREADS = 256, WARPS = THREADS / 32, PIECE = 32;

template <typename T, int K_Z, int K>
__device__ __forceinline__ void depthwise_weights(const T *x, const T *dy, float *dw, const DepthwiseWeights &shape) {
  constexpr int TAPS = K_Z * K * K;
  __shared__ float sums[WARPS][TAPS];
  __shared__ float pieces[WARPS][PIECE + 8];
  const int channel = blockIdx.x, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const long long first = blockIdx.y * shape.length, end = first + shape.length < shape.pieces ? first + shape.length : shape.pieces;
  float *piece = pieces[warp];
#pragma unroll 1
  for (int plane = 0; plane < K_Z; plane++) {
    float sum[K][K] = {};
    for (long long number = first + warp; number < end; number += WARPS) {
      long long n = number;
      const int first_x = static_cast<int>(last_of(n, shape.across)) * PIECE, row = static_cast<int>(last_of(n, shape.rows));
      const int out_z = static_cast<int>(last_of(n, shape.planes)), z = out_z + plane - shape.pad_z;
      if (z < 0 || z >= shape.depth) continue;
      const long long image = n * shape.channels + channel;
      const T *voxels = x + ((image * shape.depth + z) * shape.height + row) * shape.width;
      auto voxel = [&](int at) { return at >= 0 && at < shape.width ? to_float(voxels[at]) : 0.0f; };
      piece[lane + shape.pad_x] = voxel(first_x + lane);
      if (lane < K - 1) {
        const int beside = lane < shape.pad_x ? lane : lane + PIECE;
        piece[beside] = voxel(first_x + beside - shape.pad_x);
      }
      __syncwarp();
      float value[K];
#pragma unroll
      for (int k = 0; k < K; k++) value[k] = piece[lane + k];
      // The next piece may be written when this one was read.
      __syncwarp();
      const int out_x = first_x + lane;
      const T *gradients = dy + (image * shape.out_depth + out_z) * shape.out_height * shape.out_width + out_x;
#pragma unroll
      for (int j = 0; j < K; j++) {
        const int out_y = row + shape.pad_y - j;
        const bool inside = out_y >= 0 && out_y < shape.out_height && out_x < shape.out_width;
        const float gradient = inside ? to_float(gradients[static_cast<long long>(out_y) * shape.out_width]) : 0.0f;
#pragma unroll
        for (int k = 0; k < K; k++) sum[j][k] = fmaf(gradient, value[k], sum[j][k]);
      }
    }
#pragma unroll
    for (int j = 0; j < K; j++)
#pragma unroll
      for (int k = 0; k < K; k++) {
#pragma unroll
        for (int distance = 16; distance > 0; distance /= 2) sum[j][k] += __shfl_xor_sync(0xffffffff, sum[j][k], distance);
        if (lane == 0) sums[warp][(plane * K + j) * K + k] = sum[j][k];
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
