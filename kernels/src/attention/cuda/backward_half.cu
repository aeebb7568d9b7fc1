// The gradients of attention in f16 and bf16 on tensor cores, by the formulas of backward.cu and as there by one kernel whose blocks own keys
// and one whose blocks own queries, so that no two blocks add to one element: the order of all sums is fixed.
//
// Kernels NAME_D serve E and V up to D. Launch: grid (batch · ⌈owned / 64⌉, 1, 1), 128 threads, shared memory as noted at the kernels. Each of
// 4 warps owns 16 rows: with them on the left of each product, the weights p and the gradients ds lie as the left operands of the next
// products have them, and never leave the registers. While a tile of the others' rows is used, the next one is on its way.
//
// p and ds are rounded to f16 or bf16. So that none becomes zero in f16 that matters, they are multiplied by powers of two: p, which is at
// most 1, by 2^15, and ds by 2^-4 / m, where m is the power of two below the largest |dy| of its query (dq) or of all queries (dk). Then an
// f16 of ds is off by half an ulp or, if that is more, 2^-21 m; and it overflows only if Σ_c |v[j, c]| of a key reaches 2^18.
#include "attention_half.cuh"

constexpr int OWNED = 64, THREADS = 128;
constexpr float LOG2_WEIGHTS = 15.0f, WEIGHTS = 32768.0f;

// inner[r] = (Σ_c dy[r, c] y[r, c], max_c |dy[r, c]|): a warp for each row.
template <typename T>
__device__ __forceinline__ void inner_products(const T *dy, const T *y, float2 *inner, int columns, long long rows) {
  const long long row = blockIdx.x * 8LL + threadIdx.x / 32;
  if (row >= rows) return;
  float sum = 0.0f, most = 0.0f;
  for (int i = threadIdx.x % 32; i < columns; i += 32) {
    const float gradient = to_float(dy[row * columns + i]);
    sum = fmaf(gradient, to_float(y[row * columns + i]), sum);
    most = fmaxf(most, fabsf(gradient));
  }
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) {
    sum += __shfl_xor_sync(0xffffffff, sum, distance);
    most = fmaxf(most, __shfl_xor_sync(0xffffffff, most, distance));
  }
  if (threadIdx.x % 32 == 0) inner[row] = make_float2(sum, most);
}

// By what ds is multiplied where the largest |dy| is `most`. The exponent is bounded so that the products with it are in range.
__device__ __forceinline__ float factor_of(float most) {
  const int exponent = static_cast<int>(__float_as_uint(most) >> 23);
  return __uint_as_float(static_cast<unsigned>(min(max(250 - exponent, 32), 222)) << 23);
}

// What a query's scores are decreased by, in units of log₂, to give weights times 2^15. A query that sees no key has a sum of −∞.
__device__ __forceinline__ float base_of(float sum) { return sum == -INFINITY ? INFINITY : fmaf(sum, LOG2_E, -LOG2_WEIGHTS); }

// OF_KEYS: `first_out` and `second_out` are dv and dk; otherwise `first_out` is dq, and `scores`, if it isn't null, gets ds (batch, L, S).
template <typename T, int D, int TILE, bool OF_KEYS>
__device__ __forceinline__ void backward(const T *q, const T *k, const T *v, const T *dy, const Biases &biases, const float *sums,
                                         const float2 *inner, T *first_out, T *second_out, float *scores, const Attention &shape) {
  DYNAMIC_SHARED(T, shared);
  T *own = shared, *own_other = own + OWNED * D, *tiles = own_other + OWNED * D;
  // Of the keys' kernel also: of each query of two tiles what `inner` has and its sum; the largest |dy| that each warp has seen.
  float2 *tile_inner = reinterpret_cast<float2 *>(tiles + 4 * TILE * D);
  float *tile_sums = reinterpret_cast<float *>(tile_inner + 2 * TILE), *largest = tile_sums + 2 * TILE;
  const int owned = OF_KEYS ? shape.keys : shape.queries, others = OF_KEYS ? shape.queries : shape.keys;
  const int blocks = (owned + OWNED - 1) / OWNED, batch = blockIdx.x / blocks, first = blockIdx.x % blocks * OWNED;
  q += static_cast<long long>(batch) * shape.queries * shape.size;
  k += static_cast<long long>(batch) * shape.keys * shape.size;
  v += static_cast<long long>(batch) * shape.keys * shape.value_size;
  dy += static_cast<long long>(batch) * shape.queries * shape.value_size;
  sums += static_cast<long long>(batch) * shape.queries;
  inner += static_cast<long long>(batch) * shape.queries;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  // This lane's owned rows: row and row + 8.
  const int row = warp * 16 + lane / 4;
  // Queries before the first key see none of a block's keys, and keys behind the last query are seen by none of a block's queries.
  const int begin = OF_KEYS && shape.causal ? first : 0;
  const int end = !OF_KEYS && shape.causal && !scores ? min(others, first + OWNED) : others;

  auto next = [&](int block, int stage) {
    T *tile = tiles + stage * 2 * TILE * D;
    bring<T, D, TILE, THREADS>(tile, OF_KEYS ? q : k, block, others, shape.size, shape.aligned);
    bring<T, D, TILE, THREADS>(tile + TILE * D, OF_KEYS ? dy : v, block, others, shape.value_size, shape.aligned_values);
    if (OF_KEYS && threadIdx.x < TILE) {
      const int query = block + threadIdx.x, there = query < others ? query : 0, valid = query < others;
      cp_async<4>(tile_sums + stage * TILE + threadIdx.x, sums + there, valid * 4);
      cp_async<8>(tile_inner + stage * TILE + threadIdx.x, inner + there, valid * 8);
    }
    cp_async_commit();
  };
  bring<T, D, OWNED, THREADS>(own, OF_KEYS ? k : q, first, owned, shape.size, shape.aligned);
  bring<T, D, OWNED, THREADS>(own_other, OF_KEYS ? v : dy, first, owned, shape.value_size, shape.aligned_values);
  next(begin, 0);
  float factor[2], base[2], offset[2];
  if (OF_KEYS) {
    float most = 0.0f;
#pragma unroll 4
    for (int i = begin + threadIdx.x; i < shape.queries; i += THREADS) {
      const float2 both = inner[i];
      most = fmaxf(most, both.y);
    }
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) most = fmaxf(most, __shfl_xor_sync(0xffffffff, most, distance));
    if (lane == 0) largest[warp] = most;
  } else {
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const int query = first + row + h * 8;
      const float2 both = query < shape.queries ? inner[query] : make_float2(0.0f, 0.0f);
      factor[h] = factor_of(both.y) / WEIGHTS;
      offset[h] = both.x * factor[h];
      base[h] = query < shape.queries ? base_of(sums[query]) : INFINITY;
    }
  }
  cp_async_wait<0>();
  __syncthreads();
  if (OF_KEYS) factor[0] = factor[1] = factor_of(fmaxf(fmaxf(largest[0], largest[1]), fmaxf(largest[2], largest[3]))) / WEIGHTS;
  Rows<T, D> left(own, warp * 16), left_other(own_other, warp * 16);
  float out[D / 8][4] = {}, out_values[OF_KEYS ? D / 8 : 1][4] = {};
  for (int block = begin, stage = 0; block < end; block += TILE, stage ^= 1) {
    if (block + TILE < end) next(block + TILE, stage ^ 1);
    const T *tile = tiles + stage * 2 * TILE * D, *tile_other = tile + TILE * D;
    float weight[TILE / 8][4] = {};
    multiply(weight, left, tile);
    finish<T>(
        [&](auto f) {
#pragma unroll
          for (int j = 0; j < TILE / 8; j++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
              const int mine = first + row + i / 2 * 8, other = block + j * 8 + lane % 4 * 2 + i % 2;
              f(weight[j][i], OF_KEYS ? other : mine, OF_KEYS ? mine : other);
            }
        },
        biases, batch, OF_KEYS ? block : first, OF_KEYS ? first + OWNED : block + TILE, shape);
#pragma unroll
    for (int j = 0; j < TILE / 8; j++) {
      const int column = j * 8 + lane % 4 * 2;
      float bases[2];
      if (OF_KEYS) {
        const float2 both = *reinterpret_cast<const float2 *>(tile_sums + stage * TILE + column);
        bases[0] = block + column < others ? base_of(both.x) : INFINITY;
        bases[1] = block + column + 1 < others ? base_of(both.y) : INFINITY;
      }
#pragma unroll
      for (int i = 0; i < 4; i++) weight[j][i] = exp2_fast(weight[j][i] - (OF_KEYS ? bases[i % 2] : base[i / 2]));
    }
    if constexpr (OF_KEYS) accumulate<D>(out_values, weight, tile_other);
    float gradient[TILE / 8][4] = {};
    multiply(gradient, left_other, tile_other);
#pragma unroll
    for (int j = 0; j < TILE / 8; j++) {
      float offsets[2];
      if (OF_KEYS) {
        const float4 both = *reinterpret_cast<const float4 *>(tile_inner + stage * TILE + j * 8 + lane % 4 * 2);
        offsets[0] = both.x * factor[0];
        offsets[1] = both.z * factor[0];
      }
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const float difference = fmaf(gradient[j][i], factor[i / 2], -(OF_KEYS ? offsets[i % 2] : offset[i / 2]));
        // A key that isn't seen has no part in a gradient, whatever its value is.
        gradient[j][i] = weight[j][i] == 0.0f ? 0.0f : weight[j][i] * difference;
      }
      if (!OF_KEYS && scores) {
        const int key = block + j * 8 + lane % 4 * 2;
#pragma unroll
        for (int h = 0; h < 2; h++) {
          const int query = first + row + h * 8;
          if (query >= shape.queries || key >= shape.keys) continue;
          float *to = scores + (static_cast<long long>(batch) * shape.queries + query) * shape.keys + key;
          const float unscale = 1.0f / (factor[h] * WEIGHTS), x = gradient[j][h * 2] * unscale, y = gradient[j][h * 2 + 1] * unscale;
          if (shape.keys % 2 == 0) {
            *reinterpret_cast<float2 *>(to) = make_float2(x, y);
          } else {
            to[0] = x;
            if (key + 1 < shape.keys) to[1] = y;
          }
        }
      }
    }
    accumulate<D>(out, gradient, tile);
    cp_async_wait<0>();
    // The next tile is there, and nobody reads this one any more.
    __syncthreads();
  }
  const int rows = warp * 16;
  const float scale[2] = {shape.scale / (factor[0] * WEIGHTS), shape.scale / (factor[1] * WEIGHTS)};
  if constexpr (OF_KEYS) {
    const float whole[2] = {1.0f / WEIGHTS, 1.0f / WEIGHTS};
    store<D>(first_out + static_cast<long long>(batch) * shape.keys * shape.value_size, out_values, whole, own_other, rows, first + rows,
             shape.keys, shape.value_size, shape.aligned_values);
    store<D>(second_out + static_cast<long long>(batch) * shape.keys * shape.size, out, scale, own, rows, first + rows, shape.keys, shape.size,
             shape.aligned);
  } else {
    store<D>(first_out + static_cast<long long>(batch) * shape.queries * shape.size, out, scale, own, rows, first + rows, shape.queries,
             shape.size, shape.aligned);
  }
}

#define KERNELS(T, SUFFIX, D, TILE)                                                                                               \
  extern "C" __global__ void __launch_bounds__(128, 2) attention_backward_keys_##SUFFIX##_##D(                        \
      const T *q, const T *k, const T *v, const T *dy, const __grid_constant__ Biases biases, const float *sums,                  \
      const float2 *inner, T *dv, T *dk, const Attention shape) {                                                                 \
    backward<T, D, TILE, true>(q, k, v, dy, biases, sums, inner, dv, dk, nullptr, shape);                                         \
  }                                                                                                                               \
  extern "C" __global__ void __launch_bounds__(128, 2) attention_backward_queries_##SUFFIX##_##D(                     \
      const T *q, const T *k, const T *v, const T *dy, const __grid_constant__ Biases biases, const float *sums,                  \
      const float2 *inner, T *dq, float *scores, const Attention shape) {                                                         \
    backward<T, D, TILE, false>(q, k, v, dy, biases, sums, inner, dq, nullptr, scores, shape);                                    \
  }
#define INNER(T, SUFFIX)                                                                                                          \
  extern "C" __global__ void __launch_bounds__(256) attention_inner_##SUFFIX(const T *dy, const T *y, float2 *inner, int columns, \
                                                                             long long rows) {                                    \
    inner_products<T>(dy, y, inner, columns, rows);                                                                               \
  }
INNER(f16, f16)
INNER(bf16, bf16)
// dynamic shared memory: 26128 bytes for attention_backward_keys_f16_32 attention_backward_keys_bf16_32
// dynamic shared memory: 24576 bytes for attention_backward_queries_f16_32 attention_backward_queries_bf16_32
KERNELS(f16, f16, 32, 64)
KERNELS(bf16, bf16, 32, 64)
// dynamic shared memory: 33552 bytes for attention_backward_keys_f16_64 attention_backward_keys_bf16_64
// dynamic shared memory: 32768 bytes for attention_backward_queries_f16_64 attention_backward_queries_bf16_64
KERNELS(f16, f16, 64, 32)
KERNELS(bf16, bf16, 64, 32)
// dynamic shared memory: 66320 bytes for attention_backward_keys_f16_128 attention_backward_keys_bf16_128
// dynamic shared memory: 65536 bytes for attention_backward_queries_f16_128 attention_backward_queries_bf16_128
KERNELS(f16, f16, 128, 32)
KERNELS(bf16, bf16, 128, 32)
