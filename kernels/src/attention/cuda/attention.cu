// Scaled dot-product attention, forward, with online softmax (Dao 2023, "FlashAttention-2", arXiv 2307.08691): y = softmax(scale q kᵀ +
// biases) v for each of a batch of q (L, E), k (S, E), v (S, V); y is (L, V), and `sums` (L), always f32, gets the logarithm of each
// query's sum for the backward pass. A query that sees no key gives zeros and −∞.
//
// Kernels NAME_D serve E and V up to D. Launch: grid (batch · ⌈L / ROWS⌉, 1, 1); f16 and bf16: ROWS = 64 and 128 threads; f32: ROWS = 64,
// of D = 128 32, and 256 threads; shared memory as noted at the kernels. A block goes over blocks of 64 keys. While scores are computed,
// the values are on their way, and while the values are summed, the next keys.
#include "attention_half.cuh"

constexpr int KEYS = 64;

// ---- f16 and bf16: each of 4 warps has 16 queries ----

template <typename T, int D>
__device__ __forceinline__ void attention_half(const T *q, const T *k, const T *v, const Biases &biases, T *y, float *sums, const Attention &shape) {
  constexpr int ROWS = 64, THREADS = 128;
  DYNAMIC_SHARED(T, shared);
  T *queries = shared, *keys = shared + ROWS * D, *values = keys + KEYS * D;
  const int blocks = (shape.queries + ROWS - 1) / ROWS, batch = blockIdx.x / blocks, first = blockIdx.x % blocks * ROWS;
  q += static_cast<long long>(batch) * shape.queries * shape.size;
  k += static_cast<long long>(batch) * shape.keys * shape.size;
  v += static_cast<long long>(batch) * shape.keys * shape.value_size;
  y += static_cast<long long>(batch) * shape.queries * shape.value_size;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  // This lane's rows of scores: row and row + 8.
  const int row = warp * 16 + lane / 4;
  const int end = shape.causal ? min(shape.keys, first + ROWS) : shape.keys;

  bring<T, D, ROWS, THREADS>(queries, q, first, shape.queries, shape.size, shape.aligned);
  cp_async_commit();
  bring<T, D, KEYS, THREADS>(keys, k, 0, shape.keys, shape.size, shape.aligned);
  cp_async_commit();
  cp_async_wait<1>();
  __syncthreads();
  Rows<T, D> own(queries, warp * 16);
  float most[2] = {-INFINITY, -INFINITY}, sum[2] = {0.0f, 0.0f};
  float out[D / 8][4] = {};
  for (int block = 0; block < end; block += KEYS) {
    bring<T, D, KEYS, THREADS>(values, v, block, shape.keys, shape.value_size, shape.aligned_values);
    cp_async_commit();
    cp_async_wait<1>();
    // The keys are there.
    __syncthreads();
    float score[KEYS / 8][4] = {};
    multiply(score, own, keys);
    // Nobody reads the keys any more.
    __syncthreads();
    bring<T, D, KEYS, THREADS>(keys, k, block + KEYS, shape.keys, shape.size, shape.aligned);
    cp_async_commit();
    finish<T>(
        [&](auto f) {
#pragma unroll
          for (int j = 0; j < KEYS / 8; j++)
#pragma unroll
            for (int i = 0; i < 4; i++) f(score[j][i], first + row + i / 2 * 8, block + j * 8 + lane % 4 * 2 + i % 2);
        },
        biases, batch, first, block + KEYS, shape);
    // Softmax: a row is held by four lanes.
#pragma unroll
    for (int h = 0; h < 2; h++) {
      float now = most[h];
#pragma unroll
      for (int j = 0; j < KEYS / 8; j++)
#pragma unroll
        for (int i = 0; i < 2; i++) now = fmaxf(now, score[j][h * 2 + i]);
      now = fmaxf(now, __shfl_xor_sync(0xffffffff, now, 1));
      now = fmaxf(now, __shfl_xor_sync(0xffffffff, now, 2));
      // Where all scores are −∞, so that no difference of infinities arises.
      const float base = now == -INFINITY ? 0.0f : now, scale = exp2_fast(most[h] - base);
      most[h] = now;
      float added = 0.0f;
#pragma unroll
      for (int j = 0; j < KEYS / 8; j++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
          float &one = score[j][h * 2 + i];
          one = exp2_fast(one - base);
          added += one;
        }
      sum[h] = sum[h] * scale + added;
#pragma unroll
      for (int j = 0; j < D / 8; j++) {
        out[j][h * 2] *= scale;
        out[j][h * 2 + 1] *= scale;
      }
    }
    cp_async_wait<1>();
    // The values are there.
    __syncthreads();
    accumulate<D>(out, score, values);
    // Nobody reads the values any more.
    __syncthreads();
  }
  float factors[2];
#pragma unroll
  for (int h = 0; h < 2; h++) {
    sum[h] += __shfl_xor_sync(0xffffffff, sum[h], 1);
    sum[h] += __shfl_xor_sync(0xffffffff, sum[h], 2);
    const int query = first + row + h * 8;
    factors[h] = most[h] == -INFINITY && sum[h] == 0.0f ? 0.0f : 1.0f / sum[h];
    if (lane % 4 == 0 && query < shape.queries) sums[static_cast<long long>(batch) * shape.queries + query] = most[h] * LN_2 + logf(sum[h]);
  }
  store<D>(y, out, factors, queries, warp * 16, first + warp * 16, shape.queries, shape.value_size, shape.aligned_values);
}

// ---- f32: 16 threads share a row; thread (t, u) has rows t + 16 i and keys u + 16 j ----

template <int D, int COUNT>
__device__ __forceinline__ void bring_f32(float *tile, const float *x, int first, int rows, int columns, bool aligned) {
  constexpr int ROW = D + 4;
  if (aligned) {
#pragma unroll
    for (int i = 0; i < COUNT * D / 4 / 256; i++) {
      const int group = threadIdx.x + i * 256, row = group / (D / 4), column = group % (D / 4) * 4;
      const int valid = first + row < rows ? min(max(columns - column, 0), 4) : 0;
      cp_async<16>(tile + row * ROW + column, valid ? x + static_cast<long long>(first + row) * columns + column : x, valid * 4);
    }
  } else {
    for (int i = threadIdx.x; i < COUNT * D; i += 256) {
      const int row = i / D, column = i % D;
      const bool inside = first + row < rows && column < columns;
      cp_async<4>(tile + row * ROW + column, inside ? x + static_cast<long long>(first + row) * columns + column : x, inside ? 4 : 0);
    }
  }
  cp_async_commit();
}

template <int D, int ROWS>
__device__ __forceinline__ void attention_f32(const float *q, const float *k, const float *v, const Biases &biases, float *y, float *sums, const Attention &shape) {
  constexpr int ROW = D + 4, MINE = ROWS / 16, PARTS = (D + 63) / 64, P_ROW = KEYS + 16;  // rows of weights half the banks apart
  DYNAMIC_SHARED(float, shared);
  float *queries = shared, *keys = queries + ROWS * ROW, *values = keys + KEYS * ROW, *weights = values + KEYS * ROW;
  const int blocks = (shape.queries + ROWS - 1) / ROWS, batch = blockIdx.x / blocks, first = blockIdx.x % blocks * ROWS;
  q += static_cast<long long>(batch) * shape.queries * shape.size;
  k += static_cast<long long>(batch) * shape.keys * shape.size;
  v += static_cast<long long>(batch) * shape.keys * shape.value_size;
  y += static_cast<long long>(batch) * shape.queries * shape.value_size;
  const int t = threadIdx.x / 16, u = threadIdx.x % 16;
  const int end = shape.causal ? min(shape.keys, first + ROWS) : shape.keys;
  bring_f32<D, ROWS>(queries, q, first, shape.queries, shape.size, shape.aligned);
  bring_f32<D, KEYS>(keys, k, 0, shape.keys, shape.size, shape.aligned);
  float most[MINE], sum[MINE], out[MINE][PARTS][4] = {};
#pragma unroll
  for (int i = 0; i < MINE; i++) most[i] = -INFINITY, sum[i] = 0.0f;
  for (int block = 0; block < end; block += KEYS) {
    bring_f32<D, KEYS>(values, v, block, shape.keys, shape.value_size, shape.aligned_values);
    cp_async_wait<1>();
    // The queries and keys are there.
    __syncthreads();
    float score[MINE][4] = {};
#pragma unroll 4
    for (int e = 0; e < D; e += 4) {
      float4 left[MINE], right[4];
#pragma unroll
      for (int i = 0; i < MINE; i++) left[i] = *reinterpret_cast<const float4 *>(queries + (t + i * 16) * ROW + e);
#pragma unroll
      for (int j = 0; j < 4; j++) right[j] = *reinterpret_cast<const float4 *>(keys + (u + j * 16) * ROW + e);
#pragma unroll
      for (int i = 0; i < MINE; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
          score[i][j] = fmaf(left[i].x, right[j].x, score[i][j]);
          score[i][j] = fmaf(left[i].y, right[j].y, score[i][j]);
          score[i][j] = fmaf(left[i].z, right[j].z, score[i][j]);
          score[i][j] = fmaf(left[i].w, right[j].w, score[i][j]);
        }
    }
    // Nobody reads the keys any more.
    __syncthreads();
    bring_f32<D, KEYS>(keys, k, block + KEYS, shape.keys, shape.size, shape.aligned);
    finish<float>(
        [&](auto f) {
#pragma unroll
          for (int i = 0; i < MINE; i++)
#pragma unroll
            for (int j = 0; j < 4; j++) f(score[i][j], first + t + i * 16, block + u + j * 16);
        },
        biases, batch, first, block + KEYS, shape);
#pragma unroll
    for (int i = 0; i < MINE; i++) {
      float now = most[i];
#pragma unroll
      for (int j = 0; j < 4; j++) now = fmaxf(now, score[i][j]);
#pragma unroll
      for (int distance = 8; distance > 0; distance /= 2) now = fmaxf(now, __shfl_xor_sync(0xffffffff, now, distance));
      const float base = now == -INFINITY ? 0.0f : now, scale = exp2f(most[i] - base);
      most[i] = now;
      float added = 0.0f;
#pragma unroll
      for (int j = 0; j < 4; j++) {
        const float weight = exp2f(score[i][j] - base);
        weights[(t + i * 16) * P_ROW + u + j * 16] = weight;
        added += weight;
      }
      sum[i] = sum[i] * scale + added;
#pragma unroll
      for (int part = 0; part < PARTS; part++)
#pragma unroll
        for (int o = 0; o < 4; o++) out[i][part][o] *= scale;
    }
    cp_async_wait<1>();
    // The values and weights are there.
    __syncthreads();
#pragma unroll 2
    for (int key = 0; key < KEYS; key += 4) {
      float4 weight[MINE];
#pragma unroll
      for (int i = 0; i < MINE; i++) weight[i] = *reinterpret_cast<const float4 *>(weights + (t + i * 16) * P_ROW + key);
#pragma unroll
      for (int part = 0; part < PARTS; part++) {
        if (D < 64 && u * 4 >= D) break;
#pragma unroll
        for (int j = 0; j < 4; j++) {
          const float4 value = *reinterpret_cast<const float4 *>(values + (key + j) * ROW + part * 64 + u * 4);
#pragma unroll
          for (int i = 0; i < MINE; i++) {
            const float one = j == 0 ? weight[i].x : j == 1 ? weight[i].y : j == 2 ? weight[i].z : weight[i].w;
            out[i][part][0] = fmaf(one, value.x, out[i][part][0]);
            out[i][part][1] = fmaf(one, value.y, out[i][part][1]);
            out[i][part][2] = fmaf(one, value.z, out[i][part][2]);
            out[i][part][3] = fmaf(one, value.w, out[i][part][3]);
          }
        }
      }
    }
    // Nobody reads the values and weights any more.
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < MINE; i++) {
#pragma unroll
    for (int distance = 8; distance > 0; distance /= 2) sum[i] += __shfl_xor_sync(0xffffffff, sum[i], distance);
    const int query = first + t + i * 16;
    if (query >= shape.queries) continue;
    const float factor = most[i] == -INFINITY && sum[i] == 0.0f ? 0.0f : 1.0f / sum[i];
    if (u == 0) sums[static_cast<long long>(batch) * shape.queries + query] = most[i] * LN_2 + logf(sum[i]);
    float *to = y + static_cast<long long>(query) * shape.value_size;
#pragma unroll
    for (int part = 0; part < PARTS; part++) {
      const int column = part * 64 + u * 4;
      if (shape.aligned_values && column < shape.value_size) {
        *reinterpret_cast<float4 *>(to + column) =
            make_float4(out[i][part][0] * factor, out[i][part][1] * factor, out[i][part][2] * factor, out[i][part][3] * factor);
      } else {
#pragma unroll
        for (int o = 0; o < 4; o++)
          if (column + o < shape.value_size) to[column + o] = out[i][part][o] * factor;
      }
    }
  }
}

#define HALF_KERNEL(T, NAME, D)                                                                                                              \
  extern "C" __global__ void __launch_bounds__(128, 2) NAME(const T *q, const T *k, const T *v, const __grid_constant__ Biases biases, T *y, float *sums,             \
                                                          const Attention shape) {                                                           \
    attention_half<T, D>(q, k, v, biases, y, sums, shape);                                                                                           \
  }
#define F32_KERNEL(NAME, D, ROWS)                                                                                                            \
  extern "C" __global__ void __launch_bounds__(256, 1) NAME(const float *q, const float *k, const float *v, const __grid_constant__ Biases biases, float *y, float *sums, \
                                                          const Attention shape) {                                                           \
    attention_f32<D, ROWS>(q, k, v, biases, y, sums, shape);                                                                                         \
  }
// dynamic shared memory: 12288 bytes for attention_f16_32 attention_bf16_32
HALF_KERNEL(f16, attention_f16_32, 32)
HALF_KERNEL(bf16, attention_bf16_32, 32)
// dynamic shared memory: 24576 bytes for attention_f16_64 attention_bf16_64
HALF_KERNEL(f16, attention_f16_64, 64)
HALF_KERNEL(bf16, attention_bf16_64, 64)
// dynamic shared memory: 49152 bytes for attention_f16_128 attention_bf16_128
HALF_KERNEL(f16, attention_f16_128, 128)
HALF_KERNEL(bf16, attention_bf16_128, 128)
// dynamic shared memory: 48128 bytes for attention_f32_32
F32_KERNEL(attention_f32_32, 32, 64)
// dynamic shared memory: 72704 bytes for attention_f32_64
F32_KERNEL(attention_f32_64, 64, 64)
// dynamic shared memory: 94720 bytes for attention_f32_128
F32_KERNEL(attention_f32_128, 128, 32)
