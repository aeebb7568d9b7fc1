// Matrix products C = A B + bias, batched: A is (M, K), B (K, N), C (M, N), the bias (N) or null.
// Any of A and B may be stored transposed: kernels NAME_xy, where x is n for A stored (M, K) and t for (K, M), and y is n for B stored
// (K, N) and t for (N, K). Launch: grid (⌈N / 128⌉, ⌈M / 128⌉, batch), 256 threads; shared memory as noted at the kernels.
//
// f16 and bf16 go to tensor cores and are summed in f32; f32 is multiplied and added in full f32, over k in sequence, or, by the kernels
// gemm_tf32_xy, rounded to TF32 and multiplied on tensor cores. Tiles come by cp.async two ahead of what is computed. Elements beyond an
// edge are zeros there, so that nothing else knows of edges until C is written.
#include "tiles.cuh"

// Sizes and distances in elements. Of an operand is aligned what lies on multiples of 16 bytes in every row.
struct Gemm {
  int m, n, k;
  int lda, ldb, ldc;                         // from row to row as stored
  long long batch_a, batch_b, batch_c;       // from one product to the next
  int aligned_a, aligned_b, aligned_c;
};

constexpr int TILE = 128;    // rows and columns of a block's part of C
constexpr int THREADS = 256;

__device__ __forceinline__ int clamp(int x, int low, int high) { return min(max(x, low), high); }

// ---- tensor cores: each of 8 warps computes 64 × 32 of C from tiles of 64 bytes along k ----

// Starts to bring lines first_line.. and k first_k.. of an operand, (lines, k) or transposed.
template <typename T, bool K_IN_ROWS>
__device__ __forceinline__ void bring(T *tile, const T *x, int stride, int first_line, int lines, int first_k, int k_size, bool aligned) {
  typedef Tile<T, TILE, K_IN_ROWS> Lies;
#pragma unroll
  for (int i = 0; i < Lies::SIZE / Lies::PIECE / THREADS; i++) {
    const int piece = threadIdx.x + i * THREADS, in_row = piece % Lies::ACROSS * Lies::PIECE;
    const int line = K_IN_ROWS ? piece / Lies::ACROSS : in_row, k = K_IN_ROWS ? in_row : piece / Lies::ACROSS;
    const int row = K_IN_ROWS ? first_line + line : first_k + k, column = K_IN_ROWS ? first_k + k : first_line + line;
    const int rows = K_IN_ROWS ? lines : k_size, columns = K_IN_ROWS ? k_size : lines;
    const int valid = row < rows ? clamp(columns - column, 0, Lies::PIECE) : 0;
    const T *from = valid ? x + static_cast<long long>(row) * stride + column : x;
    T *to = tile + Lies::place(line, k);
    if (aligned) {
      cp_async<16>(to, from, valid * sizeof(T));
    } else if constexpr (sizeof(T) == 4) {
      for (int j = 0; j < Lies::PIECE; j++) cp_async<4>(to + j, j < valid ? from + j : x, j < valid ? 4 : 0);
    } else {
      for (int j = 0; j < Lies::PIECE; j++) to[j].bits = j < valid ? from[j].bits : 0;
    }
  }
}

template <typename T, bool A_TRANSPOSED, bool B_TRANSPOSED>
__device__ __forceinline__ void gemm_tensor(const T *a, const T *b, const T *bias, T *c, const Gemm &shape) {
  DYNAMIC_SHARED(T, shared);
  typedef Tile<T, TILE, !A_TRANSPOSED> A;
  typedef Tile<T, TILE, B_TRANSPOSED> B;
  a += blockIdx.z * shape.batch_a;
  b += blockIdx.z * shape.batch_b;
  c += blockIdx.z * shape.batch_c;
  const int first_row = blockIdx.y * TILE, first_column = blockIdx.x * TILE;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warp_row = warp / 4 * 64, warp_column = warp % 4 * 32;
  const int steps = (shape.k + A::DEPTH - 1) / A::DEPTH;
  auto bring_step = [&](int step, int stage) {
    T *tile = shared + stage * (A::SIZE + B::SIZE);
    bring<T, !A_TRANSPOSED>(tile, a, shape.lda, first_row, shape.m, step * A::DEPTH, shape.k, shape.aligned_a);
    bring<T, B_TRANSPOSED>(tile + A::SIZE, b, shape.ldb, first_column, shape.n, step * A::DEPTH, shape.k, shape.aligned_b);
  };
  float sums[4][4][4] = {};
  in_stages(steps, bring_step, [&](int stage) {
    const T *tile = shared + stage * (A::SIZE + B::SIZE);
    multiply<TILE, TILE, !A_TRANSPOSED, B_TRANSPOSED, sizeof(T) == 4>(sums, tile, tile + A::SIZE, warp_row, warp_column);
  });
  float added[4][2];
#pragma unroll
  for (int j = 0; j < 8; j++) {
    const int column = first_column + warp_column + j / 2 * 8 + lane % 4 * 2 + j % 2;
    added[j / 2][j % 2] = bias && column < shape.n ? to_float(bias[column]) : 0.0f;
  }
  if constexpr (sizeof(T) == 4) {
    // Four lanes write a sector of a row.
    each_pair(sums, [&](int down, int across, float left, float right) {
      const int row = first_row + warp_row + down * 8 + lane / 4, column = first_column + warp_column + across * 8 + lane % 4 * 2;
      float *to = c + static_cast<long long>(row) * shape.ldc + column;
      if (row >= shape.m || column >= shape.n) return;
      left += added[across][0], right += added[across][1];
      if (shape.aligned_c && column + 1 < shape.n) {
        *reinterpret_cast<float2 *>(to) = make_float2(left, right);
      } else {
        to[0] = left;
        if (column + 1 < shape.n) to[1] = right;
      }
    });
  } else {
    // So that C is written in whole sectors.
    to_shared<TILE>(shared, sums, warp_row, warp_column, [&](int, int across, float &left, float &right) {
      left += added[across][0], right += added[across][1];
    });
    for (int group = threadIdx.x; group < TILE * TILE / 8; group += THREADS) {
      const int row = group / (TILE / 8), column = group % (TILE / 8) * 8, valid = clamp(shape.n - first_column - column, 0, 8);
      if (first_row + row >= shape.m) continue;
      const T *from = shared + row * shared_row(TILE) + column;
      T *to = c + static_cast<long long>(first_row + row) * shape.ldc + first_column + column;
      if (valid == 8 && shape.aligned_c) {
        *reinterpret_cast<uint4 *>(to) = *reinterpret_cast<const uint4 *>(from);
      } else {
        for (int j = 0; j < valid; j++) to[j].bits = from[j].bits;
      }
    }
  }
}

// ---- f32: each thread computes 8 × 8 of C from tiles of 16 along k, which lie as (k, line) ----

constexpr int DEPTH_F32 = 16;
constexpr int ROW_F32 = TILE + 4;  // longer, so that lines of four k are in different banks
constexpr int OPERAND_F32 = DEPTH_F32 * ROW_F32;

template <bool K_IN_ROWS>
__device__ __forceinline__ void bring_f32(float *tile, const float *x, int stride, int first_line, int lines, int first_k, int k_size,
                                          bool aligned) {
  if (!K_IN_ROWS && aligned) {
#pragma unroll
    for (int i = 0; i < TILE * DEPTH_F32 / 4 / THREADS; i++) {
      const int group = threadIdx.x + i * THREADS, line = group % (TILE / 4) * 4, k = group / (TILE / 4);
      const int valid = first_k + k < k_size ? clamp(lines - first_line - line, 0, 4) : 0;
      const float *from = valid ? x + static_cast<long long>(first_k + k) * stride + first_line + line : x;
      cp_async<16>(tile + k * ROW_F32 + line, from, valid * 4);
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < TILE * DEPTH_F32 / THREADS; i++) {
    // A warp brings 8 k of 4 lines where k is in the rows: a whole sector each.
    const int line = K_IN_ROWS ? threadIdx.x / 8 + i / 2 * 32 : threadIdx.x % TILE;
    const int k = K_IN_ROWS ? threadIdx.x % 8 + i % 2 * 8 : threadIdx.x / TILE + i * (THREADS / TILE);
    const bool inside = first_line + line < lines && first_k + k < k_size;
    const long long row = K_IN_ROWS ? first_line + line : first_k + k;
    const float *from = inside ? x + row * stride + (K_IN_ROWS ? first_k + k : first_line + line) : x;
    cp_async<4>(tile + k * ROW_F32 + line, from, inside ? 4 : 0);
  }
}

template <bool A_TRANSPOSED, bool B_TRANSPOSED>
__device__ __forceinline__ void gemm_f32(const float *a, const float *b, const float *bias, float *c, const Gemm &shape) {
  DYNAMIC_SHARED(float, shared);
  a += blockIdx.z * shape.batch_a;
  b += blockIdx.z * shape.batch_b;
  c += blockIdx.z * shape.batch_c;
  const int first_row = blockIdx.y * TILE, first_column = blockIdx.x * TILE;
  // Rows row.. and row + 64.., four each; columns likewise.
  const int row = threadIdx.x / 16 * 4, column = threadIdx.x % 16 * 4;
  const int steps = (shape.k + DEPTH_F32 - 1) / DEPTH_F32;
  auto bring_step = [&](int step, int stage) {
    float *tile = shared + stage * 2 * OPERAND_F32;
    bring_f32<!A_TRANSPOSED>(tile, a, shape.lda, first_row, shape.m, step * DEPTH_F32, shape.k, shape.aligned_a);
    bring_f32<B_TRANSPOSED>(tile + OPERAND_F32, b, shape.ldb, first_column, shape.n, step * DEPTH_F32, shape.k, shape.aligned_b);
  };
  float sums[8][8] = {};
  in_stages(steps, bring_step, [&](int stage) {
    const float *tile_a = shared + stage * 2 * OPERAND_F32, *tile_b = tile_a + OPERAND_F32;
#pragma unroll
    for (int k = 0; k < DEPTH_F32; k++) {
      float left[8], right[8];
#pragma unroll
      for (int half = 0; half < 2; half++) {
        const float4 x = *reinterpret_cast<const float4 *>(tile_a + k * ROW_F32 + half * 64 + row);
        const float4 y = *reinterpret_cast<const float4 *>(tile_b + k * ROW_F32 + half * 64 + column);
        left[half * 4] = x.x, left[half * 4 + 1] = x.y, left[half * 4 + 2] = x.z, left[half * 4 + 3] = x.w;
        right[half * 4] = y.x, right[half * 4 + 1] = y.y, right[half * 4 + 2] = y.z, right[half * 4 + 3] = y.w;
      }
#pragma unroll
      for (int i = 0; i < 8; i++)
#pragma unroll
        for (int j = 0; j < 8; j++) sums[i][j] = fmaf(left[i], right[j], sums[i][j]);
    }
  });
  float added[8];
#pragma unroll
  for (int j = 0; j < 8; j++) {
    const int x = first_column + column + j / 4 * 64 + j % 4;
    added[j] = bias && x < shape.n ? bias[x] : 0.0f;
  }
#pragma unroll
  for (int i = 0; i < 8; i++) {
    const int y = first_row + row + i / 4 * 64 + i % 4;
    if (y >= shape.m) continue;
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int x = first_column + column + half * 64, valid = clamp(shape.n - x, 0, 4);
      float values[4];
#pragma unroll
      for (int j = 0; j < 4; j++) values[j] = sums[i][half * 4 + j] + added[half * 4 + j];
      float *to = c + static_cast<long long>(y) * shape.ldc + x;
      if (valid == 4 && shape.aligned_c) {
        *reinterpret_cast<float4 *>(to) = make_float4(values[0], values[1], values[2], values[3]);
      } else {
#pragma unroll
        for (int j = 0; j < 4; j++)
          if (j < valid) to[j] = values[j];
      }
    }
  }
}

#define TENSOR_KERNEL(T, NAME, A_TRANSPOSED, B_TRANSPOSED)                                                                                  \
  extern "C" __global__ void __launch_bounds__(256, 2) NAME(const T *a, const T *b, const T *bias, T *c, const Gemm shape) {            \
    gemm_tensor<T, A_TRANSPOSED, B_TRANSPOSED>(a, b, bias, c, shape);                                                                       \
  }
#define F32_KERNEL(NAME, A_TRANSPOSED, B_TRANSPOSED)                                                                                      \
  extern "C" __global__ void __launch_bounds__(256, 2) NAME(const float *a, const float *b, const float *bias, float *c,                \
                                                             const Gemm shape) {                                                          \
    gemm_f32<A_TRANSPOSED, B_TRANSPOSED>(a, b, bias, c, shape);                                                                           \
  }

// dynamic shared memory: 49152 bytes for gemm_f16_nn gemm_f16_nt gemm_f16_tn gemm_f16_tt
TENSOR_KERNEL(f16, gemm_f16_nn, false, false)
TENSOR_KERNEL(f16, gemm_f16_nt, false, true)
TENSOR_KERNEL(f16, gemm_f16_tn, true, false)
TENSOR_KERNEL(f16, gemm_f16_tt, true, true)
// dynamic shared memory: 49152 bytes for gemm_bf16_nn gemm_bf16_nt gemm_bf16_tn gemm_bf16_tt
TENSOR_KERNEL(bf16, gemm_bf16_nn, false, false)
TENSOR_KERNEL(bf16, gemm_bf16_nt, false, true)
TENSOR_KERNEL(bf16, gemm_bf16_tn, true, false)
TENSOR_KERNEL(bf16, gemm_bf16_tt, true, true)
// dynamic shared memory: 49152 bytes for gemm_tf32_nn gemm_tf32_nt gemm_tf32_tn gemm_tf32_tt
TENSOR_KERNEL(float, gemm_tf32_nn, false, false)
TENSOR_KERNEL(float, gemm_tf32_nt, false, true)
TENSOR_KERNEL(float, gemm_tf32_tn, true, false)
TENSOR_KERNEL(float, gemm_tf32_tt, true, true)
// dynamic shared memory: 50688 bytes for gemm_f32_nn gemm_f32_nt gemm_f32_tn gemm_f32_tt
F32_KERNEL(gemm_f32_nn, false, false)
F32_KERNEL(gemm_f32_nt, false, true)
F32_KERNEL(gemm_f32_tn, true, false)
F32_KERNEL(gemm_f32_tt, true, true)
