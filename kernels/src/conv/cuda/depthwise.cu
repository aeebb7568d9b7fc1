// Depthwise convolution in 2D and 3D with stride 1, dilation 1 and odd cubic kernels of 3, 5 or 7: for each of N · C channels
// y[z, y, x] = bias[c] + Σ w[c, i, j, k] x[z + i − pad_z, y + j − pad_y, x + k − pad_x], zeros beyond the edges. With `flip` the taps
// are taken in reverse order, which makes it the gradient of its input (with padding K − 1 − pad). In 2D there is one plane and one tap i.
//
// Kernels NAME_64_T have blocks of 64 × 16 outputs in x and y, NAME_32_T of 32 × 32, for images that aren't wider. Launch: grid
// (N · C · ⌈out_width / 64⌉ · ⌈out_height / 16⌉ or likewise, ⌈out_depth / planes⌉, 1), 256 threads, no dynamic shared memory.
// A block computes `planes` planes one after another; it needs `planes` + K − 1 planes of the input. A plane with its halo lies in shared
// memory (as f32), while the next one is on its way into registers. A thread has four outputs along x, in as many planes as the plane at
// hand adds to: so a row is read once for all taps along z.
#include "tomograd.cuh"

// Sizes in elements.
struct Depthwise {
  int channels;
  int depth, height, width;
  int out_depth, out_height, out_width;
  int pad_z, pad_y, pad_x;
  int planes;    // of the output that a block computes
  int flip;
  int aligned;   // whether four outputs of a row lie on a multiple of their size
};

constexpr int ALONG_X = 4, THREADS = 256;

template <typename T>
__device__ __forceinline__ void store_four(T *to, const float (&values)[4], int valid, bool aligned) {
  if (valid >= 4 && aligned) {
    *reinterpret_cast<uint2 *>(to) = make_uint2(pack<T>(values[0], values[1]), pack<T>(values[2], values[3]));
  } else {
#pragma unroll
    for (int i = 0; i < 4; i++)
      if (i < valid) to[i].bits = from_float<T>(values[i]).bits;
  }
}
template <>
__device__ __forceinline__ void store_four<float>(float *to, const float (&values)[4], int valid, bool aligned) {
  if (valid >= 4 && aligned) {
    *reinterpret_cast<float4 *>(to) = make_float4(values[0], values[1], values[2], values[3]);
  } else {
#pragma unroll
    for (int i = 0; i < 4; i++)
      if (i < valid) to[i] = values[i];
  }
}

template <typename T, int K_Z, int K, int WIDTH>
__device__ __forceinline__ void depthwise(const T *x, const T *w, const T *bias, T *y, const Depthwise &shape) {
  constexpr int HEIGHT = THREADS / (WIDTH / ALONG_X), ROWS = HEIGHT + K - 1, COLUMNS = WIDTH + K - 1;
  constexpr int READ = (COLUMNS + 3) / 4 * 4, ROW = WIDTH + 8, TAPS = (K + 3) / 4 * 4;
  // A plane's columns that lie on whole sectors go to warps, 32 columns at a time; those of the halo at both sides to threads.
  constexpr int WARPS = THREADS / 32, PIECES = ROWS * (WIDTH / 32), MINE = (PIECES + WARPS - 1) / WARPS, SIDES = ROWS * (K - 1);
  static_assert(SIDES <= THREADS, "a thread brings one element of the halo");
  __shared__ __align__(16) float plane[2][ROWS * ROW];
  __shared__ __align__(16) float taps[K_Z * K * TAPS];
  const int tiles_x = (shape.out_width + WIDTH - 1) / WIDTH, tiles_y = (shape.out_height + HEIGHT - 1) / HEIGHT;
  const int tile = blockIdx.x % (tiles_x * tiles_y), image = blockIdx.x / (tiles_x * tiles_y), channel = image % shape.channels;
  const int first_x = tile % tiles_x * WIDTH, first_y = tile / tiles_x * HEIGHT, first_z = blockIdx.y * shape.planes;
  const int end_z = min(first_z + shape.planes, shape.out_depth);
  const int column = threadIdx.x % (WIDTH / ALONG_X) * ALONG_X, row = threadIdx.x / (WIDTH / ALONG_X);
  x += static_cast<long long>(image) * shape.depth * shape.height * shape.width;
  y += static_cast<long long>(image) * shape.out_depth * shape.out_height * shape.out_width;
  w += channel * (K_Z * K * K);

  for (int i = threadIdx.x; i < K_Z * K * TAPS; i += THREADS) {
    const int tap = i / TAPS * K + i % TAPS;
    taps[i] = i % TAPS < K ? to_float(w[shape.flip ? K_Z * K * K - 1 - tap : tap]) : 0.0f;
  }
  // What the last thread of a row reads behind the columns, and no sum takes.
  for (int i = threadIdx.x; i < 2 * ROWS * (READ - COLUMNS); i += THREADS) plane[i / (READ - COLUMNS) / ROWS][i / (READ - COLUMNS) % ROWS * ROW + COLUMNS + i % (READ - COLUMNS)] = 0.0f;
  float coming[MINE], side;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int side_row = threadIdx.x / (K - 1), beside = threadIdx.x % (K - 1), side_column = beside < shape.pad_x ? beside : beside + WIDTH;
  auto element = [&](int z, int from_row, int from_column) {
    const int from_y = first_y + from_row - shape.pad_y, from_x = first_x + from_column - shape.pad_x;
    const bool inside = z >= 0 && z < shape.depth && from_y >= 0 && from_y < shape.height && from_x >= 0 && from_x < shape.width;
    return inside ? to_float(x[(static_cast<long long>(z) * shape.height + from_y) * shape.width + from_x]) : 0.0f;
  };
  auto load = [&](int z) {
#pragma unroll
    for (int i = 0; i < MINE; i++) {
      const int piece = warp + i * WARPS;
      coming[i] = piece < PIECES ? element(z, piece / (WIDTH / 32), piece % (WIDTH / 32) * 32 + lane + shape.pad_x) : 0.0f;
    }
    side = threadIdx.x < SIDES ? element(z, side_row, side_column) : 0.0f;
  };
  auto keep = [&](float *to) {
#pragma unroll
    for (int i = 0; i < MINE; i++) {
      const int piece = warp + i * WARPS;
      if (piece < PIECES) to[piece / (WIDTH / 32) * ROW + piece % (WIDTH / 32) * 32 + lane + shape.pad_x] = coming[i];
    }
    if (threadIdx.x < SIDES) to[side_row * ROW + side_column] = side;
  };
  const float start = bias ? to_float(bias[channel]) : 0.0f;
  // sums[i] is of the output plane that tap i of the plane at hand adds to.
  float sums[K_Z][ALONG_X];
#pragma unroll
  for (int i = 0; i < K_Z; i++)
#pragma unroll
    for (int j = 0; j < ALONG_X; j++) sums[i][j] = start;
  // Input planes without those whose outputs are another block's.
  const int begin = first_z - shape.pad_z, end = end_z - shape.pad_z + K_Z - 1;
  load(begin);
  keep(plane[0]);
  __syncthreads();
  for (int z = begin; z < end; z++) {
    const float *here = plane[(z - begin) % 2];
    if (z + 1 < end) load(z + 1);
    if (z >= 0 && z < shape.depth) {
#pragma unroll
      for (int j = 0; j < K; j++) {
        const float4 *from = reinterpret_cast<const float4 *>(here + (row + j) * ROW + column);
        float values[12];
#pragma unroll
        for (int i = 0; i < (ALONG_X + K - 1 + 3) / 4; i++) {
          const float4 four = from[i];
          values[i * 4] = four.x, values[i * 4 + 1] = four.y, values[i * 4 + 2] = four.z, values[i * 4 + 3] = four.w;
        }
#pragma unroll
        for (int i = 0; i < K_Z; i++) {
          float tap[TAPS];
#pragma unroll
          for (int k = 0; k < TAPS; k += 4) {
            const float4 four = *reinterpret_cast<const float4 *>(taps + (i * K + j) * TAPS + k);
            tap[k] = four.x, tap[k + 1] = four.y, tap[k + 2] = four.z, tap[k + 3] = four.w;
          }
#pragma unroll
          for (int k = 0; k < K; k++)
#pragma unroll
            for (int o = 0; o < ALONG_X; o++) sums[i][o] = fmaf(tap[k], values[k + o], sums[i][o]);
        }
      }
    }
    // Nothing more comes to the plane of the last tap.
    const int out_z = z + shape.pad_z - (K_Z - 1), out_y = first_y + row, out_x = first_x + column;
    if (out_z >= first_z && out_y < shape.out_height)
      store_four<T>(y + (static_cast<long long>(out_z) * shape.out_height + out_y) * shape.out_width + out_x, sums[K_Z - 1], shape.out_width - out_x,
                    shape.aligned);
#pragma unroll
    for (int o = 0; o < ALONG_X; o++) {
#pragma unroll
      for (int i = K_Z - 1; i > 0; i--) sums[i][o] = sums[i - 1][o];
      sums[0][o] = start;
    }
    if (z + 1 < end) keep(plane[(z + 1 - begin) % 2]);
    __syncthreads();
  }
}

// Two blocks a multiprocessor: sums and rows need more than 80 registers.
#define KERNEL(T, NAME, K_Z, K, WIDTH)                                                                                                \
  extern "C" __global__ void __launch_bounds__(256, 2) NAME(const T *x, const T *w, const T *bias, T *y,              \
                                                                           const Depthwise shape) {                                   \
    depthwise<T, K_Z, K, WIDTH>(x, w, bias, y, shape);                                                                                \
  }
#define WIDTHS(T, SUFFIX, NAME, K_Z, K)      \
  KERNEL(T, NAME##_64_##SUFFIX, K_Z, K, 64)  \
  KERNEL(T, NAME##_32_##SUFFIX, K_Z, K, 32)
#define KERNELS(T, SUFFIX)                     \
  WIDTHS(T, SUFFIX, depthwise2d_3, 1, 3)       \
  WIDTHS(T, SUFFIX, depthwise2d_5, 1, 5)       \
  WIDTHS(T, SUFFIX, depthwise2d_7, 1, 7)       \
  WIDTHS(T, SUFFIX, depthwise3d_3, 3, 3)       \
  WIDTHS(T, SUFFIX, depthwise3d_5, 5, 5)       \
  WIDTHS(T, SUFFIX, depthwise3d_7, 7, 7)
KERNELS(float, f32)
KERNELS(f16, f16)
KERNELS(bf16, bf16)
