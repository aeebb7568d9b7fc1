// Convolution on tensor cores, as a matrix product whose right operand is gathered while it is brought to shared memory (implicit GEMM):
// rows are output channels, columns the voxels of all images, terms the taps and channels of a window, the channels of a tap one after
// another. Any rank up to 3, stride, padding, dilation and groups; the gradient of the data is the same with other numbers, one launch for
// each residue of voxels by the stride.
//
// Image and weights come with their channels last (channels_last.cu), so that 16 bytes of a voxel are one copy of cp.async, and the padding
// is a copy of no bytes. Slices come two ahead of what is computed. Sums are in f32. What is f32 here is TF32, rounded by channels_last.cu.
//
// y[n, o, q] = bias[o] + Σ_{t, c} w[o, first + t · step, c] x[n, p · stride + t · dilation + offset, c] at q = start + p · distance.
// Kernels NAME_R have tiles of R rows. Launch: grid (tiles of rows · tiles of 128 columns, groups), 256 threads where R is 128, else 128.
#include "gather.cuh"

struct Implicit {
  Gather x;
  int rows;                                // output channels of a group
  int columns;                             // outputs of all images
  int all_taps, first_tap, tap_step[3];    // where the taps lie among those of the weights
  int first, all;                          // channels of the first of two results, and of both
  int output[3], start[3], distance[3];    // of the results, along each axis
  int pieces;                              // whether outputs of neighbouring columns lie in whole pieces of 16 bytes
};

template <typename T>
struct Targets {
  T *at[2];
};

// The terms of a sum that a thread brings, each of which is a piece of a tap's channels.
struct Walk {
  int channel, tap[3];

  __device__ __forceinline__ void go_on(const Gather &s, int terms) {
    channel += terms;
    while (channel >= s.channels) {
      channel -= s.channels;
      if (++tap[2] < s.taps[2]) continue;
      tap[2] = 0;
      if (++tap[1] < s.taps[1]) continue;
      tap[1] = 0;
      tap[0]++;
    }
  }
};

// Image n's result `channel`, from its first voxel on.
template <typename T>
__device__ __forceinline__ T *channel_of(const Targets<T> &y, const Implicit &s, int n, int channel) {
  const long long voxels = static_cast<long long>(s.output[0]) * s.output[1] * s.output[2];
  if (channel < s.first) return y.at[0] + (static_cast<long long>(n) * s.first + channel) * voxels;
  return y.at[1] + (static_cast<long long>(n) * (s.all - s.first) + channel - s.first) * voxels;
}

// The place of the image's output `output` among the voxels of a result.
__device__ __forceinline__ long long target_of(const Implicit &s, int output) {
  const int x = last_of(output, s.x.output[2]), y = last_of(output, s.x.output[1]);
  const long long plane = (s.start[0] + static_cast<long long>(output) * s.distance[0]) * s.output[1] + s.start[1] + y * s.distance[1];
  return plane * s.output[2] + s.start[2] + x * s.distance[2];
}

template <typename T, int ROWS>
__device__ __forceinline__ void implicit(const T *x, const T *weight, const T *bias, const Targets<T> &y, const Implicit &s) {
  constexpr int THREADS = threads_of(ROWS), WARP_ROWS = warp_rows(ROWS), M = WARP_ROWS / 16, N = 4;
  typedef Tile<T, ROWS, true> A;
  typedef Tile<T, COLUMNS, true> B;
  DYNAMIC_SHARED(T, shared);
  const int row_tiles = (s.rows + ROWS - 1) / ROWS, group = blockIdx.y;
  const int first_row = blockIdx.x % row_tiles * ROWS, first_column = blockIdx.x / row_tiles * COLUMNS;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warp_row = warp / 4 * WARP_ROWS, warp_column = warp % 4 * 32;
  const int steps = (s.x.taps[0] * s.x.taps[1] * s.x.taps[2] * s.x.channels + A::DEPTH - 1) / A::DEPTH;

  // A thread brings one piece of the slices of a few rows and columns.
  constexpr int LINES = THREADS / A::ACROSS, OF_A = ROWS / LINES, OF_B = COLUMNS / LINES;
  const int line = threadIdx.x / A::ACROSS, piece = threadIdx.x % A::ACROSS * A::PIECE;
  weight += (static_cast<long long>(group) * s.rows + first_row + line) * s.all_taps * s.x.channels;
  x += static_cast<long long>(group) * quotient(s.columns, s.x.output[0]) * s.x.input[0] * s.x.input[1] * s.x.input[2] * s.x.channels;
  Window windows[OF_B];
#pragma unroll
  for (int i = 0; i < OF_B; i++) {
    const int column = first_column + line + i * LINES;
    windows[i] = window_of(s.x, min(column, s.columns - 1));
    // Far outside of the image.
    if (column >= s.columns) windows[i].at[0] = -(1 << 30);
  }
  Walk walk = {0, {0, 0, 0}};
  walk.go_on(s.x, piece);
  auto bring_step = [&](int step, int stage) {
    T *tile = shared + stage * (A::SIZE + B::SIZE);
    int distance[3];
    distance_of(s.x, walk.tap, distance);
    const int tap = s.first_tap + walk.tap[0] * s.tap_step[0] + walk.tap[1] * s.tap_step[1] + walk.tap[2] * s.tap_step[2];
    const T *of_row = weight + static_cast<long long>(tap) * s.x.channels + walk.channel;
    const int flat = flat_of(s.x, distance);
    const bool is_term = walk.tap[0] < s.x.taps[0];
#pragma unroll
    for (int i = 0; i < OF_A; i++) {
      const bool there = is_term && first_row + line + i * LINES < s.rows;
      const T *from = there ? of_row + static_cast<long long>(i * LINES) * s.all_taps * s.x.channels : x;
      cp_async<16>(tile + A::place(line + i * LINES, piece), from, there ? 16 : 0);
    }
#pragma unroll
    for (int i = 0; i < OF_B; i++) {
      const bool there = is_term && inside(s.x, windows[i], distance);
      const T *from = there ? x + static_cast<long long>(windows[i].flat + flat) * s.x.channels + walk.channel : x;
      cp_async<16>(tile + A::SIZE + B::place(line + i * LINES, piece), from, there ? 16 : 0);
    }
    walk.go_on(s.x, A::DEPTH);
  };
  float sums[M][N][4] = {};
  in_stages(steps, bring_step, [&](int stage) {
    const T *tile = shared + stage * (A::SIZE + B::SIZE);
    multiply<ROWS, COLUMNS, true, true>(sums, tile, tile + A::SIZE, warp_row, warp_column);
  });

  float added[M * 2];
#pragma unroll
  for (int i = 0; i < M * 2; i++) {
    const int row = first_row + warp_row + i * 8 + lane / 4;
    added[i] = bias && row < s.rows ? to_float(bias[group * s.rows + row]) : 0.0f;
  }
  if constexpr (sizeof(T) == 4) {
    // Four lanes write a sector of a row.
#pragma unroll
    for (int i = 0; i < N * 2; i++) {
      const int across = i / 2, side = i % 2, column = first_column + warp_column + across * 8 + lane % 4 * 2 + side;
      if (column >= s.columns || s.pieces && side) continue;
      int output = column;
      const int n = quotient(output, s.x.output[0]);
      output -= n * s.x.output[0].size;
      const long long target = s.pieces ? output : target_of(s, output);
#pragma unroll
      for (int down = 0; down < M * 2; down++) {
        const int row = first_row + warp_row + down * 8 + lane / 4;
        if (row >= s.rows) continue;
        const float *pair = &sums[down / 2][across][down % 2 * 2];
        float *to = channel_of(y, s, n, group * s.rows + row) + target;
        if (s.pieces)
          *reinterpret_cast<float2 *>(to) = make_float2(pair[0] + added[down], pair[1] + added[down]);
        else
          *to = pair[side] + added[down];
      }
    }
  } else {
    // So that the results are written in whole sectors.
    to_shared<COLUMNS>(shared, sums, warp_row, warp_column, [&](int down, int, float &left, float &right) {
      left += added[down], right += added[down];
    });
    const int rows = min(s.rows - first_row, ROWS);
    const int width = s.pieces ? A::PIECE : 1;
    const int across = COLUMNS / width, column = threadIdx.x % across * width;
    if (first_column + column >= s.columns) return;
    int output = first_column + column;
    const int n = quotient(output, s.x.output[0]);
    output -= n * s.x.output[0].size;
    const long long target = s.pieces ? output : target_of(s, output);
    for (int row = threadIdx.x / across; row < rows; row += THREADS / across) {
      T *to = channel_of(y, s, n, group * s.rows + first_row + row) + target;
      const T *from = shared + row * shared_row(COLUMNS) + column;
      if (s.pieces)
        *reinterpret_cast<uint4 *>(to) = *reinterpret_cast<const uint4 *>(from);
      else
        to->bits = from->bits;
    }
  }
}

#define KERNEL(T, NAME, ROWS)                                                                                                     \
  extern "C" __global__ void __launch_bounds__(threads_of(ROWS), ROWS > 64 ? 2 : 4)                                              \
      NAME(const T *x, const T *weight, const T *bias, const __grid_constant__ Targets<T> y, const __grid_constant__ Implicit shape) { \
    implicit<T, ROWS>(x, weight, bias, y, shape);                                                                                 \
  }

// dynamic shared memory: 49152 bytes for conv_tensor_f16_128 conv_tensor_bf16_128 conv_tensor_tf32_128
KERNEL(f16, conv_tensor_f16_128, 128)
KERNEL(bf16, conv_tensor_bf16_128, 128)
KERNEL(float, conv_tensor_tf32_128, 128)
// dynamic shared memory: 36864 bytes for conv_tensor_f16_64 conv_tensor_bf16_64 conv_tensor_tf32_64
KERNEL(f16, conv_tensor_f16_64, 64)
KERNEL(bf16, conv_tensor_bf16_64, 64)
KERNEL(float, conv_tensor_tf32_64, 64)
// dynamic shared memory: 30720 bytes for conv_tensor_f16_32 conv_tensor_bf16_32 conv_tensor_tf32_32
KERNEL(f16, conv_tensor_f16_32, 32)
KERNEL(bf16, conv_tensor_bf16_32, 32)
KERNEL(float, conv_tensor_tf32_32, 32)
