// The selective scan of Mamba, forward (Gu and Dao 2023, arXiv 2312.00752): of each batch element and channel, with N states from 0,
// x_t = exp(Δ_t a) x_{t−1} + Δ_t b_t u_t, y_t = (Σ_n c_t x_t + skip u_t) silu(z_t), with Δ = delta + delta_bias or softplus of that.
// u, delta, z and y are (B, D, L), a (D, N), b and c (B, G, N, L), skip and delta_bias (D); skip, z and delta_bias may be null.
//
// Launch: grid (B · D, 1, 1), 128 threads, shared memory of 2 N floats. A block has one channel and goes over chunks of 512 steps; a thread
// has 4 steps one after another. A step is the map x → d x + e, and maps compose: (d, e) then (d′, e′) is (d′ d, d′ e + e′). So for each
// state a scan within the warp by shuffles, and the four warps' totals in shared memory, give every thread the state before its steps.
// `borders` (B, D, ⌈L / 512⌉, N), if it isn't null, gets the states before each chunk, in f32: the backward pass starts from there.
#include "scan.cuh"

template <typename T>
__device__ __forceinline__ void scan(const T *u, const T *delta, const T *a, const T *b, const T *c, const T *skip, const T *z,
                                     const T *delta_bias, T *y, float *borders, const Scan &shape) {
  DYNAMIC_SHARED(float, carried);  // the states before this chunk and the next, in turns
  __shared__ float2 totals[2][WARPS];
  const int batch = blockIdx.x / shape.channels, channel = blockIdx.x % shape.channels;
  const int group = channel / (shape.channels / shape.groups), lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const long long row = static_cast<long long>(blockIdx.x) * shape.length;
  const long long states = (static_cast<long long>(batch) * shape.groups + group) * shape.states * shape.length;
  a += channel * shape.states;
  const float bias = delta_bias ? to_float(delta_bias[channel]) : 0.0f, bypass = skip ? to_float(skip[channel]) : 0.0f;
  // Read after the first barrier of the totals.
  for (int n = threadIdx.x; n < shape.states; n += THREADS) carried[n] = 0.0f;
  int turn = 0;  // of the totals
  for (int first = 0, chunk = 0; first < shape.length; first += CHUNK, chunk++) {
    const int t = first + threadIdx.x * STEPS;
    const float *before = carried + chunk % 2 * shape.states;
    float *after = carried + (chunk + 1) % 2 * shape.states;
    float input[4], step[4], sum[4];
    load_steps(u + row, t, shape, input);
    load_steps(delta + row, t, shape, step);
#pragma unroll
    for (int i = 0; i < STEPS; i++) {
      // Steps behind the end change nothing.
      step[i] = t + i < shape.length ? step_of(step[i] + bias, shape) : 0.0f;
      sum[i] = bypass * input[i];
      input[i] *= step[i];
    }
    for (int n = 0; n < shape.states; n++, turn ^= 1) {
      const float rate = to_float(a[n]) * 1.4426950408889634f;
      float drive[4], weight[4], decay[4];
      load_steps(b + states + static_cast<long long>(n) * shape.length, t, shape, drive);
      load_steps(c + states + static_cast<long long>(n) * shape.length, t, shape, weight);
      // The map of this thread's steps, then of all steps of the warp up to them.
      float2 map = make_float2(1.0f, 0.0f);
#pragma unroll
      for (int i = 0; i < STEPS; i++) {
        decay[i] = exp2_fast(step[i] * rate);
        drive[i] *= input[i];
        map.x *= decay[i];
        map.y = fmaf(decay[i], map.y, drive[i]);
      }
#pragma unroll
      for (int distance = 1; distance < 32; distance *= 2) {
        const float d = __shfl_up_sync(0xffffffff, map.x, distance), e = __shfl_up_sync(0xffffffff, map.y, distance);
        if (lane >= distance) {
          map.y = fmaf(map.x, e, map.y);
          map.x *= d;
        }
      }
      if (lane == 31) totals[turn][warp] = map;
      // One barrier a state: the totals of the one before aren't read after it, and those take turns.
      __syncthreads();
      const float start = before[n];
      float x = start, mine = start;
#pragma unroll
      for (int other = 0; other < WARPS; other++) {
        if (other == warp) mine = x;
        const float2 total = totals[turn][other];
        x = fmaf(total.x, x, total.y);
      }
      if (threadIdx.x == 0) {
        after[n] = x;
        if (borders) borders[(static_cast<long long>(blockIdx.x) * ((shape.length + CHUNK - 1) / CHUNK) + chunk) * shape.states + n] = start;
      }
      // The state before this thread's steps: by the map of the lanes before it.
      float d = __shfl_up_sync(0xffffffff, map.x, 1), e = __shfl_up_sync(0xffffffff, map.y, 1);
      x = lane == 0 ? mine : fmaf(d, mine, e);
#pragma unroll
      for (int i = 0; i < STEPS; i++) {
        x = fmaf(decay[i], x, drive[i]);
        sum[i] = fmaf(weight[i], x, sum[i]);
      }
    }
    if (z) {
      float gate[4];
      load_steps(z + row, t, shape, gate);
#pragma unroll
      for (int i = 0; i < STEPS; i++) sum[i] *= gate[i] / (1.0f + expf(-gate[i]));
    }
    store_steps(y + row, t, shape, sum);
  }
}

#define KERNEL(T, NAME)                                                                                                          \
  extern "C" __global__ void __launch_bounds__(128) NAME(const T *u, const T *delta, const T *a, const T *b, const T *c,        \
                                                          const T *skip, const T *z, const T *delta_bias, T *y, float *borders,  \
                                                          const Scan shape) {                                                    \
    scan<T>(u, delta, a, b, c, skip, z, delta_bias, y, borders, shape);                                                          \
  }
// dynamic shared memory: 128 bytes for scan_f32 scan_f16 scan_bf16
KERNEL(float, scan_f32)
KERNEL(f16, scan_f16)
KERNEL(bf16, scan_bf16)
