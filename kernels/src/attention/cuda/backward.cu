// The gradients of attention in f32 (see attention.cu; backward_half.cu has f16 and bf16), which recompute the weights from the logarithms of
// the queries' sums (Dao 2023): with D_i = Σ_c dy[i, c] y[i, c], p = exp(scale q kᵀ + biases − sums) and ds = p (dy vᵀ − D), dv = pᵀ dy,
// dk = scale dsᵀ q, dq = scale ds k. Sums are in f32 and in a fixed order: a block owns keys and goes over the queries, another kernel's
// blocks own queries and go over the keys.
//
// Kernels NAME_D serve E and V up to D. Launch: grid (batch · ⌈owned / TILE⌉, 1, 1), where TILE is 64, of D = 128 32; 256 threads; shared
// memory as noted at the kernels. 16 threads share an owned row; thread (t, u) has owned rows t + 16 i and the others' rows u + 16 j.
#include "attention.cuh"

constexpr int THREADS = 256;

// inner[r] = Σ_c dy[r, c] y[r, c]: a warp for each row.
extern "C" __global__ void __launch_bounds__(256) attention_inner_f32(const float *dy, const float *y, float *inner, int columns, long long rows) {
  const long long row = blockIdx.x * (THREADS / 32LL) + threadIdx.x / 32;
  if (row >= rows) return;
  float sum = 0.0f;
  for (int i = threadIdx.x % 32; i < columns; i += 32) sum = fmaf(dy[row * columns + i], y[row * columns + i], sum);
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) sum += __shfl_xor_sync(0xffffffff, sum, distance);
  if (threadIdx.x % 32 == 0) inner[row] = sum;
}

// Brings rows first.. of x (rows, columns); zeros beyond.
template <int D, int TILE>
__device__ __forceinline__ void bring(float *tile, const float *x, int first, int rows, int columns) {
#pragma unroll 4
  for (int i = threadIdx.x; i < TILE * D; i += THREADS) {
    const int row = i / D, column = i % D;
    const bool inside = first + row < rows && column < columns;
    tile[row * (D + 4) + column] = inside ? x[static_cast<long long>(first + row) * columns + column] : 0.0f;
  }
}

// sums += the products of `COUNT` rows of one tile with as many of another.
template <int D, int MINE>
__device__ __forceinline__ void multiply(float (&sums)[MINE][MINE], const float *left, const float *right, int t, int u) {
  constexpr int ROW = D + 4;
#pragma unroll 2
  for (int e = 0; e < D; e += 4) {
    float4 a[MINE], b[MINE];
#pragma unroll
    for (int i = 0; i < MINE; i++) a[i] = *reinterpret_cast<const float4 *>(left + (t + i * 16) * ROW + e);
#pragma unroll
    for (int j = 0; j < MINE; j++) b[j] = *reinterpret_cast<const float4 *>(right + (u + j * 16) * ROW + e);
#pragma unroll
    for (int i = 0; i < MINE; i++)
#pragma unroll
      for (int j = 0; j < MINE; j++) {
        sums[i][j] = fmaf(a[i].x, b[j].x, sums[i][j]);
        sums[i][j] = fmaf(a[i].y, b[j].y, sums[i][j]);
        sums[i][j] = fmaf(a[i].z, b[j].z, sums[i][j]);
        sums[i][j] = fmaf(a[i].w, b[j].w, sums[i][j]);
      }
  }
}

// out += factorsᵀ values: `factors` has a row for each of TILE rows of values, and a column for each owned row.
template <int D, int TILE, int MINE, int PARTS>
__device__ __forceinline__ void accumulate(float (&out)[MINE][PARTS][4], const float *factors, const float *values, int t, int u) {
  constexpr int ROW = D + 4, FACTORS = TILE + 2;
  if (D < 64 && u * 4 >= D) return;
#pragma unroll 2
  for (int s = 0; s < TILE; s++) {
    float factor[MINE];
#pragma unroll
    for (int i = 0; i < MINE; i++) factor[i] = factors[s * FACTORS + t + i * 16];
#pragma unroll
    for (int part = 0; part < PARTS; part++) {
      const float4 value = *reinterpret_cast<const float4 *>(values + s * ROW + part * 64 + u * 4);
#pragma unroll
      for (int i = 0; i < MINE; i++) {
        out[i][part][0] = fmaf(factor[i], value.x, out[i][part][0]);
        out[i][part][1] = fmaf(factor[i], value.y, out[i][part][1]);
        out[i][part][2] = fmaf(factor[i], value.z, out[i][part][2]);
        out[i][part][3] = fmaf(factor[i], value.w, out[i][part][3]);
      }
    }
  }
}

template <int MINE, int PARTS>
__device__ __forceinline__ void
store(float *to, const float (&out)[MINE][PARTS][4], float factor, int first, int rows, int columns, int t, int u) {
#pragma unroll
  for (int i = 0; i < MINE; i++) {
    const int row = first + t + i * 16;
    if (row >= rows) continue;
#pragma unroll
    for (int part = 0; part < PARTS; part++)
#pragma unroll
      for (int o = 0; o < 4; o++) {
        const int column = part * 64 + u * 4 + o;
        if (column < columns) to[static_cast<long long>(row) * columns + column] = out[i][part][o] * factor;
      }
  }
}

// OF_KEYS: `first_out` and `second_out` are dv and dk; otherwise `first_out` is dq, and `scores`, if it isn't null, gets ds (batch, L, S).
template <int D, int TILE, bool OF_KEYS>
__device__ __forceinline__ void backward(const float *q, const float *k, const float *v, const float *dy, const Biases &biases,
                                         const float *sums, const float *inner, float *first_out, float *second_out, float *scores,
                                         const Attention &shape) {
  constexpr int ROW = D + 4, MINE = TILE / 16, PARTS = (D + 63) / 64, FACTORS = TILE + 2;
  DYNAMIC_SHARED(float, shared);
  float *own = shared, *own_other = own + TILE * ROW, *others = own_other + TILE * ROW, *others_other = others + TILE * ROW,
        *factors = others_other + TILE * ROW;
  const int owned = OF_KEYS ? shape.keys : shape.queries, blocks = (owned + TILE - 1) / TILE;
  const int batch = blockIdx.x / blocks, first = blockIdx.x % blocks * TILE, t = threadIdx.x / 16, u = threadIdx.x % 16;
  q += static_cast<long long>(batch) * shape.queries * shape.size;
  k += static_cast<long long>(batch) * shape.keys * shape.size;
  v += static_cast<long long>(batch) * shape.keys * shape.value_size;
  dy += static_cast<long long>(batch) * shape.queries * shape.value_size;
  sums += static_cast<long long>(batch) * shape.queries;
  inner += static_cast<long long>(batch) * shape.queries;
  bring<D, TILE>(own, OF_KEYS ? k : q, first, owned, shape.size);
  bring<D, TILE>(own_other, OF_KEYS ? v : dy, first, owned, shape.value_size);
  // Queries before the first key see none of a block's keys, and keys behind the last query are seen by none of a block's queries.
  const int begin = OF_KEYS && shape.causal ? first : 0;
  int end = OF_KEYS ? shape.queries : shape.keys;
  if (!OF_KEYS && shape.causal && !scores) end = min(end, first + TILE);
  float left[MINE][PARTS][4] = {}, right[OF_KEYS ? MINE : 1][PARTS][4] = {};
  for (int block = begin; block < end; block += TILE) {
    bring<D, TILE>(others, OF_KEYS ? q : k, block, OF_KEYS ? shape.queries : shape.keys, shape.size);
    bring<D, TILE>(others_other, OF_KEYS ? dy : v, block, OF_KEYS ? shape.queries : shape.keys, shape.value_size);
    __syncthreads();
    float score[MINE][MINE] = {}, gradient[MINE][MINE] = {};
    multiply<D, MINE>(score, own, others, t, u);
    multiply<D, MINE>(gradient, own_other, others_other, t, u);
    auto each = [&](auto f) {
#pragma unroll
      for (int i = 0; i < MINE; i++)
#pragma unroll
        for (int j = 0; j < MINE; j++) {
          const int mine = first + t + i * 16, other = block + u + j * 16;
          f(score[i][j], gradient[i][j], OF_KEYS ? other : mine, OF_KEYS ? mine : other);
        }
    };
    each([&](float &score, float &, int, int) { score *= shape.scale * LOG2_E; });
#pragma unroll 1
    for (int b = 0; b < shape.biases; b++) {
      const float *values = bias_of<float>(biases, b, batch, shape);
      const long long row = shape.bias[b].row, column = shape.bias[b].key;
      each([&](float &score, float &, int query, int key) {
        if (query < shape.queries && key < shape.keys) score = fmaf(values[query * row + key * column], LOG2_E, score);
      });
    }
    each([&](float &score, float &gradient, int query, int key) {
      const bool seen = query < shape.queries && key < shape.keys && !(shape.causal && key > query);
      const float sum = seen ? sums[query] : -INFINITY;
      // A query that sees no key has a sum of 0.
      score = seen && sum != -INFINITY ? exp2f(fmaf(-sum, LOG2_E, score)) : 0.0f;
      gradient = seen ? score * (gradient - inner[query]) : 0.0f;
    });
    if (OF_KEYS) {
#pragma unroll
      for (int i = 0; i < MINE; i++)
#pragma unroll
        for (int j = 0; j < MINE; j++) factors[(u + j * 16) * FACTORS + t + i * 16] = score[i][j];
      __syncthreads();
      accumulate<D, TILE>(left, factors, others_other, t, u);
      // Nobody reads the weights any more.
      __syncthreads();
    } else if (scores) {
      each([&](float &, float &gradient, int query, int key) {
        if (query < shape.queries && key < shape.keys)
          scores[(static_cast<long long>(batch) * shape.queries + query) * shape.keys + key] = gradient;
      });
    }
#pragma unroll
    for (int i = 0; i < MINE; i++)
#pragma unroll
      for (int j = 0; j < MINE; j++) factors[(u + j * 16) * FACTORS + t + i * 16] = gradient[i][j];
    __syncthreads();
    if constexpr (OF_KEYS) {
      accumulate<D, TILE>(right, factors, others, t, u);
    } else {
      accumulate<D, TILE>(left, factors, others, t, u);
    }
    // Nobody reads the tiles any more.
    __syncthreads();
  }
  if constexpr (OF_KEYS) {
    store(first_out + static_cast<long long>(batch) * shape.keys * shape.value_size, left, 1.0f, first, owned, shape.value_size, t, u);
    store(second_out + static_cast<long long>(batch) * shape.keys * shape.size, right, shape.scale, first, owned, shape.size, t, u);
  } else {
    store(first_out + static_cast<long long>(batch) * shape.queries * shape.size, left, shape.scale, first, owned, shape.size, t, u);
  }
}

#define KERNELS(D, TILE)                                                                                                          \
  extern "C" __global__ void __launch_bounds__(256, 1) attention_backward_keys_f32_##D(                                           \
      const float *q, const float *k, const float *v, const float *dy, const __grid_constant__ Biases biases, const float *sums,  \
      const float *inner, float *dv, float *dk, const Attention shape) {                                                          \
    backward<D, TILE, true>(q, k, v, dy, biases, sums, inner, dv, dk, nullptr, shape);                                            \
  }                                                                                                                               \
  extern "C" __global__ void __launch_bounds__(256, 1) attention_backward_queries_f32_##D(                                        \
      const float *q, const float *k, const float *v, const float *dy, const __grid_constant__ Biases biases, const float *sums,  \
      const float *inner, float *dq, float *scores, const Attention shape) {                                                      \
    backward<D, TILE, false>(q, k, v, dy, biases, sums, inner, dq, nullptr, scores, shape);                                       \
  }
// dynamic shared memory: 53760 bytes for attention_backward_keys_f32_32 attention_backward_queries_f32_32
KERNELS(32, 64)
// dynamic shared memory: 86528 bytes for attention_backward_keys_f32_64 attention_backward_queries_f32_64
KERNELS(64, 64)
// dynamic shared memory: 71936 bytes for attention_backward_keys_f32_128 attention_backward_queries_f32_128
KERNELS(128, 32)
