// The gradients of the selective scan (see scan.cu). With g_t = ∂loss/∂x_t, which is c_t dy'_t + exp(Δ_{t+1} a) g_{t+1} for
// dy' = dy silu(z): dc_t = dy'_t x_t, db_t = g_t Δ_t u_t, du_t = skip dy'_t + Σ_n g_t Δ_t b_t, dΔ_t = Σ_n g_t (a exp(Δ_t a) x_{t−1} + b_t u_t),
// da = Σ_t g_t Δ_t exp(Δ_t a) x_{t−1}.
//
// Launch: grid (B · G · parts, 1, 1), 128 threads, shared memory of 6 N floats. A block has a part of a group's channels, one after another,
// and goes over the chunks of 512 steps from the last to the first. In a chunk the states are recomputed from those before it (`borders`,
// which the forward pass left), and the adjoint recurrence runs the other way by the same kind of scan. b and c belong to all channels of a
// group: a block adds its channels' shares in their order to `db` and `dc` (parts, B, G, N, L), which are added later. Of a, skip and
// delta_bias a block writes the sums over time: da (B, D, N), dskip and ddelta_bias (B, D). No thread adds to what another one writes.
#include "scan.cuh"

struct Inputs {
  const void *u, *delta, *a, *b, *c, *skip, *z, *delta_bias, *dy;
};
struct Outputs {
  void *du, *ddelta, *dz;
  float *da, *db, *dc, *dskip, *ddelta_bias;
};

__device__ __forceinline__ float sum_of_warp(float value) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) value += __shfl_xor_sync(0xffffffff, value, distance);
  return value;
}

// Adds to four steps of a row of sums, or writes them if they are the first.
__device__ __forceinline__ void add_steps(float *row, int t, const Scan &shape, bool first, float (&values)[4]) {
  if (!first) {
    float before[4];
    load_steps(row, t, shape, before);
#pragma unroll
    for (int i = 0; i < STEPS; i++) values[i] += before[i];
  }
  store_steps(row, t, shape, values);
}

template <typename T>
__device__ __forceinline__ void backward(const Inputs &in, const float *borders, const Outputs &out, const Scan &shape, int parts) {
  const T *u = static_cast<const T *>(in.u), *delta = static_cast<const T *>(in.delta), *dy = static_cast<const T *>(in.dy);
  const T *z = static_cast<const T *>(in.z);
  DYNAMIC_SHARED(float, shared);
  // What the later chunk passes to this one and this one to the earlier, in turns; and each warp's sums of da.
  float *carried = shared, *rates = shared + 2 * shape.states;
  __shared__ float2 totals[2][WARPS], back_totals[2][WARPS];
  __shared__ float of_warp[2][WARPS];
  const int pair = blockIdx.x / parts, part = blockIdx.x % parts, batch = pair / shape.groups, group = pair % shape.groups;
  const int of_group = shape.channels / shape.groups, of_part = (of_group + parts - 1) / parts;
  const int begin = part * of_part, end = min(begin + of_part, of_group);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, chunks = (shape.length + CHUNK - 1) / CHUNK;
  const long long of_states = static_cast<long long>(pair) * shape.states * shape.length;
  const T *b = static_cast<const T *>(in.b) + of_states, *c = static_cast<const T *>(in.c) + of_states;
  const long long all = static_cast<long long>(gridDim.x / parts) * shape.states * shape.length;
  float *db = out.db + part * all + of_states, *dc = out.dc + part * all + of_states;
  int turn = 0;
  for (int place = begin; place < end; place++) {
    const int channel = group * of_group + place;
    const long long line = static_cast<long long>(batch) * shape.channels + channel, row = line * shape.length;
    const T *a = static_cast<const T *>(in.a) + static_cast<long long>(channel) * shape.states;
    const float bias = in.delta_bias ? to_float(static_cast<const T *>(in.delta_bias)[channel]) : 0.0f;
    const float bypass = in.skip ? to_float(static_cast<const T *>(in.skip)[channel]) : 0.0f;
    for (int n = threadIdx.x; n < shape.states; n += THREADS) carried[(chunks - 1) % 2 * shape.states + n] = 0.0f;
    if (lane == 0)
      for (int n = 0; n < shape.states; n++) rates[n * WARPS + warp] = 0.0f;
    float of_skip = 0.0f, of_bias = 0.0f;
    for (int chunk = chunks - 1; chunk >= 0; chunk--) {
      const int t = chunk * CHUNK + threadIdx.x * STEPS;
      const float *after = carried + chunk % 2 * shape.states;
      float *before = carried + (chunk + 1) % 2 * shape.states;
      float input[4], raw[4], step[4], gradient[4], gate[4], sum[4], of_input[4], of_step[4];
      load_steps(u + row, t, shape, input);
      load_steps(delta + row, t, shape, raw);
      load_steps(dy + row, t, shape, gradient);
      if (z) load_steps(z + row, t, shape, gate);
#pragma unroll
      for (int i = 0; i < STEPS; i++) {
        raw[i] += bias;
        step[i] = t + i < shape.length ? step_of(raw[i], shape) : 0.0f;
        sum[i] = bypass * input[i];
        // gradient is dy, then dy'.
        if (z) {
          const float s = sigmoid(gate[i]), given = gradient[i];
          gradient[i] *= gate[i] * s;
          gate[i] = given * s * (1.0f + gate[i] * (1.0f - s));
        }
        of_input[i] = bypass * gradient[i];
        of_skip = fmaf(gradient[i], input[i], of_skip);
        of_step[i] = 0.0f;
      }
      for (int n = 0; n < shape.states; n++, turn ^= 1) {
        const float rate = to_float(a[n]);
        float drive[4], weight[4], decay[4], state[4];
        load_steps(b + static_cast<long long>(n) * shape.length, t, shape, drive);
        load_steps(c + static_cast<long long>(n) * shape.length, t, shape, weight);
        // Forward, the map of the steps up to and with this thread's; backward, that of the steps from the last down to this thread's.
        float2 map = make_float2(1.0f, 0.0f), back = make_float2(1.0f, 0.0f);
#pragma unroll
        for (int i = 0; i < STEPS; i++) {
          decay[i] = exp2_fast(step[i] * (rate * 1.4426950408889634f));
          map.x *= decay[i];
          map.y = fmaf(decay[i], map.y, drive[i] * (step[i] * input[i]));
        }
#pragma unroll
        for (int i = STEPS - 1; i >= 0; i--) back.y = decay[i] * fmaf(weight[i], gradient[i], back.y);
        back.x = map.x;
#pragma unroll
        for (int distance = 1; distance < 32; distance *= 2) {
          const float d = __shfl_up_sync(0xffffffff, map.x, distance), e = __shfl_up_sync(0xffffffff, map.y, distance);
          const float p = __shfl_down_sync(0xffffffff, back.x, distance), q = __shfl_down_sync(0xffffffff, back.y, distance);
          if (lane >= distance) {
            map.y = fmaf(map.x, e, map.y);
            map.x *= d;
          }
          if (lane + distance < 32) {
            back.y = fmaf(back.x, q, back.y);
            back.x *= p;
          }
        }
        if (lane == 31) totals[turn][warp] = map;
        if (lane == 0) back_totals[turn][warp] = back;
        // One barrier a state: the totals of the one before aren't read after it, and those take turns.
        __syncthreads();
        float x = borders[(line * chunks + chunk) * shape.states + n], mine = x;
#pragma unroll
        for (int other = 0; other < WARPS; other++) {
          if (other == warp) mine = x;
          const float2 total = totals[turn][other];
          x = fmaf(total.x, x, total.y);
        }
        float h = after[n], later = h;
#pragma unroll
        for (int other = WARPS - 1; other >= 0; other--) {
          if (other == warp) later = h;
          const float2 total = back_totals[turn][other];
          h = fmaf(total.x, h, total.y);
        }
        if (threadIdx.x == 0) before[n] = h;
        // The state before this thread's steps, and what the steps behind them pass on: by the maps of the lanes beside it.
        const float d = __shfl_up_sync(0xffffffff, map.x, 1), e = __shfl_up_sync(0xffffffff, map.y, 1);
        const float p = __shfl_down_sync(0xffffffff, back.x, 1), q = __shfl_down_sync(0xffffffff, back.y, 1);
        x = lane == 0 ? mine : fmaf(d, mine, e);
        h = lane == 31 ? later : fmaf(p, later, q);
#pragma unroll
        for (int i = 0; i < STEPS; i++) {
          state[i] = x;
          x = fmaf(decay[i], x, drive[i] * (step[i] * input[i]));
          sum[i] = fmaf(weight[i], x, sum[i]);
        }
        float of_rate = 0.0f, of_weight[4], of_drive[4];
#pragma unroll
        for (int i = STEPS - 1; i >= 0; i--) {
          const float g = fmaf(weight[i], gradient[i], h);
          h = decay[i] * g;
          of_weight[i] = gradient[i] * fmaf(decay[i], state[i], drive[i] * (step[i] * input[i]));
          of_drive[i] = g * (step[i] * input[i]);
          of_input[i] = fmaf(g * step[i], drive[i], of_input[i]);
          // h x_{t−1} is what both the rate and the step change the decay by.
          of_step[i] += fmaf(rate * h, state[i], g * (drive[i] * input[i]));
          of_rate = fmaf(h * step[i], state[i], of_rate);
        }
        add_steps(dc + static_cast<long long>(n) * shape.length, t, shape, place == begin, of_weight);
        add_steps(db + static_cast<long long>(n) * shape.length, t, shape, place == begin, of_drive);
        of_rate = sum_of_warp(of_rate);
        if (lane == 0) rates[n * WARPS + warp] += of_rate;
      }
#pragma unroll
      for (int i = 0; i < STEPS; i++) {
        if (z) gate[i] *= sum[i];
        if (shape.softplus) of_step[i] *= sigmoid(raw[i]);
        if (t + i < shape.length) of_bias += of_step[i];
      }
      store_steps(static_cast<T *>(out.du) + row, t, shape, of_input);
      store_steps(static_cast<T *>(out.ddelta) + row, t, shape, of_step);
      if (z) store_steps(static_cast<T *>(out.dz) + row, t, shape, gate);
    }
    of_skip = sum_of_warp(of_skip);
    of_bias = sum_of_warp(of_bias);
    if (lane == 0) of_warp[0][warp] = of_skip, of_warp[1][warp] = of_bias;
    __syncthreads();
    for (int n = threadIdx.x; n < shape.states; n += THREADS) {
      float total = 0.0f;
#pragma unroll
      for (int other = 0; other < WARPS; other++) total += rates[n * WARPS + other];
      out.da[line * shape.states + n] = total;
    }
    if (threadIdx.x < 2) {
      float total = 0.0f;
#pragma unroll
      for (int other = 0; other < WARPS; other++) total += of_warp[threadIdx.x][other];
      float *to = threadIdx.x == 0 ? out.dskip : out.ddelta_bias;
      if (to) to[line] = total;
    }
    // The next channel's sums may be written when this one's were read.
    __syncthreads();
  }
}

#define KERNEL(T, NAME)                                                                                                             \
  extern "C" __global__ void __launch_bounds__(128) NAME(const Inputs in, const float *borders, const Outputs out, const Scan shape, \
                                                         int parts) {                                                               \
    backward<T>(in, borders, out, shape, parts);                                                                                    \
  }
// dynamic shared memory: 384 bytes for scan_backward_f32 scan_backward_f16 scan_backward_bf16
KERNEL(float, scan_backward_f32)
KERNEL(f16, scan_backward_f16)
KERNEL(bf16, scan_backward_bf16)
