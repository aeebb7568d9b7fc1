// Gradient of a convolution's weights on tensor cores, as a matrix product whose right operand is gathered while it is brought to shared memory:
// rows are output channels, columns the taps and channels of a window, the channels of a tap one after another; terms are the outputs of all
// images. Image and gradient come with their channels last (channels_last.cu).
//
// dw[part, o, t, c] = Σ over the `length` outputs (n, p) of a part of dy[n, p, o] x[n, p · stride + t · dilation + offset, c], in f32, to be
// added over the parts. Kernels NAME_R have tiles of R rows. Launch: grid (tiles of rows · tiles of 128 columns, groups, parts), 256 threads
// where R is 128, else 128.
#include "gather.cuh"

struct Weights {
  Gather x;
  int rows, padded;   // output channels of a group, and with those that fill up the last piece of dy
  int terms, length;  // outputs of all images, and of a part
  SmallDivisor channels, kernel_y, kernel_x;
};

template <typename T, int ROWS>
__device__ __forceinline__ void weights(const T *x, const T *dy, float *dw, const Weights &s) {
  constexpr int THREADS = threads_of(ROWS), WARP_ROWS = warp_rows(ROWS), M = WARP_ROWS / 16, N = 4;
  typedef Tile<T, ROWS, false> A;
  typedef Tile<T, COLUMNS, false> B;
  DYNAMIC_SHARED(T, shared);
  const int row_tiles = (s.rows + ROWS - 1) / ROWS, group = blockIdx.y, groups = gridDim.y;
  const int first_row = blockIdx.x % row_tiles * ROWS, first_column = blockIdx.x / row_tiles * COLUMNS;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warp_row = warp / 4 * WARP_ROWS, warp_column = warp % 4 * 32;
  const int columns = s.x.taps[0] * s.x.taps[1] * s.x.taps[2] * s.x.channels;
  const int begin = blockIdx.z * s.length, end = min(begin + s.length, s.terms), steps = (end - begin + A::DEPTH - 1) / A::DEPTH;

  // A thread brings one piece of the rows, and one of the columns, of a few outputs. That of the columns is a tap's for good.
  constexpr int TERMS_A = THREADS / A::ACROSS, TERMS_B = THREADS / B::ACROSS;
  const int row = threadIdx.x % A::ACROSS * A::PIECE, column = threadIdx.x % B::ACROSS * B::PIECE;
  const bool is_row = first_row + row < s.padded, is_column = first_column + column < columns;
  int place = first_column + column;
  const int channel = last_of(place, s.channels), tap_x = last_of(place, s.kernel_x), tap_y = last_of(place, s.kernel_y);
  const int tap[3] = {place, tap_y, tap_x};
  int distance[3];
  distance_of(s.x, tap, distance);
  dy += static_cast<long long>(group) * s.terms * s.padded + first_row + row;
  const long long voxels = static_cast<long long>(s.x.input[0]) * s.x.input[1] * s.x.input[2];
  x += (group * quotient(s.terms, s.x.output[0]) * voxels + flat_of(s.x, distance)) * s.x.channels + channel;
  auto bring_step = [&](int step, int stage) {
    T *tile = shared + stage * (A::SIZE + B::SIZE);
#pragma unroll
    for (int i = 0; i < A::DEPTH / TERMS_A; i++) {
      const int k = threadIdx.x / A::ACROSS + i * TERMS_A, term = begin + step * A::DEPTH + k;
      const bool there = is_row && term < end;
      cp_async<16>(tile + A::place(row, k), there ? dy + static_cast<long long>(term) * s.padded : dy, there ? 16 : 0);
    }
#pragma unroll
    for (int i = 0; i < A::DEPTH / TERMS_B; i++) {
      const int k = threadIdx.x / B::ACROSS + i * TERMS_B, term = begin + step * A::DEPTH + k;
      const Window window = window_of(s.x, term);
      const bool there = is_column && term < end && inside(s.x, window, distance);
      const T *from = there ? x + static_cast<long long>(window.flat) * s.x.channels : dy;
      cp_async<16>(tile + A::SIZE + B::place(column, k), from, there ? 16 : 0);
    }
  };
  float sums[M][N][4] = {};
  in_stages(steps, bring_step, [&](int stage) {
    const T *tile = shared + stage * (A::SIZE + B::SIZE);
    multiply<ROWS, COLUMNS, false, false>(sums, tile, tile + A::SIZE, warp_row, warp_column);
  });
  // Four lanes write a sector of a row.
  dw += (static_cast<long long>(blockIdx.z) * groups + group) * s.rows * columns;
  each_pair(sums, [&](int down, int across, float left, float right) {
    const int r = first_row + warp_row + down * 8 + lane / 4, c = first_column + warp_column + across * 8 + lane % 4 * 2;
    if (r < s.rows && c < columns) *reinterpret_cast<float2 *>(dw + static_cast<long long>(r) * columns + c) = make_float2(left, right);
  });
}

#define KERNEL(T, NAME, ROWS)                                                                              \
  extern "C" __global__ void __launch_bounds__(threads_of(ROWS), ROWS > 64 ? 2 : sizeof(T) == 4 ? 3 : 4)  \
      NAME(const T *x, const T *dy, float *dw, const __grid_constant__ Weights shape) {                   \
    weights<T, ROWS>(x, dy, dw, shape);                                                                    \
  }

// dynamic shared memory: 49152 bytes for conv_tensor_weights_f16_128 conv_tensor_weights_bf16_128 conv_tensor_weights_tf32_128
KERNEL(f16, conv_tensor_weights_f16_128, 128)
KERNEL(bf16, conv_tensor_weights_bf16_128, 128)
KERNEL(float, conv_tensor_weights_tf32_128, 128)
// dynamic shared memory: 36864 bytes for conv_tensor_weights_f16_64 conv_tensor_weights_bf16_64 conv_tensor_weights_tf32_64
KERNEL(f16, conv_tensor_weights_f16_64, 64)
KERNEL(bf16, conv_tensor_weights_bf16_64, 64)
KERNEL(float, conv_tensor_weights_tf32_64, 64)
// dynamic shared memory: 30720 bytes for conv_tensor_weights_f16_32 conv_tensor_weights_bf16_32 conv_tensor_weights_tf32_32
KERNEL(f16, conv_tensor_weights_f16_32, 32)
KERNEL(bf16, conv_tensor_weights_bf16_32, 32)
KERNEL(float, conv_tensor_weights_tf32_32, 32)
