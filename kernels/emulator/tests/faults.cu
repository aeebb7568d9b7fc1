// Kernels that each have one fault, beside the same without it.
#include "tomograd.cuh"

// A neighbour's value through shared memory.
template <bool BARRIER>
__device__ void neighbour(const float *x, float *y) {
  __shared__ float tile[64];
  tile[threadIdx.x] = x[threadIdx.x];
  if (BARRIER) __syncthreads();
  y[threadIdx.x] = tile[threadIdx.x / 2];
}
extern "C" __global__ void right_neighbour(const float *x, float *y) { neighbour<true>(x, y); }
extern "C" __global__ void race_read_after_write(const float *x, float *y) { neighbour<false>(x, y); }

// A second round over one tile, whose reads must end first.
template <bool BARRIER>
__device__ void rounds(const float *x, float *y) {
  __shared__ float tile[64];
  for (int round = 0; round < 2; round++) {
    tile[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    y[threadIdx.x] = tile[63 - threadIdx.x];
    if (BARRIER) __syncthreads();
  }
}
extern "C" __global__ void right_rounds(const float *x, float *y) { rounds<true>(x, y); }
extern "C" __global__ void race_write_after_read(const float *x, float *y) { rounds<false>(x, y); }

// Within a warp, where a barrier of the warp is enough.
template <bool BARRIER>
__device__ void lanes(const float *x, float *y) {
  __shared__ float tile[64];
  tile[threadIdx.x] = x[threadIdx.x];
  if (BARRIER) __syncwarp();
  y[threadIdx.x] = tile[threadIdx.x / 32 * 32];
}
extern "C" __global__ void right_lanes(const float *x, float *y) { lanes<true>(x, y); }
extern "C" __global__ void race_lanes(const float *x, float *y) { lanes<false>(x, y); }

extern "C" __global__ void race_write_write(const float *x, float *y) {
  __shared__ float one;
  one = x[threadIdx.x];
  __syncthreads();
  y[threadIdx.x] = one;
}
// All blocks write the same elements.
extern "C" __global__ void race_blocks(const float *x, float *y) { y[threadIdx.x] = x[threadIdx.x]; }
extern "C" __global__ void race_global(const float *x, float *y) {
  y[threadIdx.x] = x[threadIdx.x];
  if (threadIdx.x == 63) y[0] = 1.0f;
}

extern "C" __global__ void right_atomic(const float *x, float *y) {
  __shared__ int count;
  if (threadIdx.x == 0) count = 0;
  __syncthreads();
  atomicAdd(&count, 1);
  __syncthreads();
  y[threadIdx.x] = x[threadIdx.x] * count;
}
extern "C" __global__ void race_atomic(const float *x, float *y) {
  __shared__ int count;
  if (threadIdx.x == 0) count = 0;
  __syncthreads();
  atomicAdd(&count, 1);
  y[threadIdx.x] = x[threadIdx.x] * count;
}

extern "C" __global__ void unwritten_shared(const float *x, float *y) {
  __shared__ float tile[65];
  tile[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  y[threadIdx.x] = tile[threadIdx.x + 1];
}
// y is read before anybody wrote it.
extern "C" __global__ void unwritten_global(const float *x, float *y) { y[threadIdx.x] += x[threadIdx.x]; }
extern "C" __global__ void unwritten_dynamic(const float *x, float *y) {
  DYNAMIC_SHARED(float, tile);
  y[threadIdx.x] = tile[threadIdx.x] + x[threadIdx.x];
}

extern "C" __global__ void bounds_read(const float *x, float *y) { y[threadIdx.x] = x[threadIdx.x + 1]; }
extern "C" __global__ void bounds_write(const float *x, float *y) { y[threadIdx.x * 2] = x[threadIdx.x]; }
extern "C" __global__ void bounds_before(const float *x, float *y) { y[threadIdx.x] = x[(int)threadIdx.x - 1]; }
extern "C" __global__ void bounds_shared(const float *x, float *y) {
  __shared__ float tile[63];
  tile[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  y[threadIdx.x] = tile[threadIdx.x];
}
extern "C" __global__ void bounds_dynamic(const float *x, float *y) {
  DYNAMIC_SHARED(float, tile);
  tile[threadIdx.x + 16] = x[threadIdx.x];
  __syncthreads();
  y[threadIdx.x] = tile[threadIdx.x + 16];
}
// The last vector ends beyond the allocation.
extern "C" __global__ void bounds_vector(const float *x, float *y) {
  if (threadIdx.x < 16) *reinterpret_cast<float4 *>(y + threadIdx.x * 4 + 4) = *reinterpret_cast<const float4 *>(x + threadIdx.x * 4);
}

extern "C" __global__ void diverged_branch(const float *x, float *y) {
  if (threadIdx.x < 40) __syncthreads();
  y[threadIdx.x] = x[threadIdx.x];
}
extern "C" __global__ void diverged_return(const float *x, float *y) {
  if (threadIdx.x >= 50) return;
  y[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
}
extern "C" __global__ void diverged_lines(const float *x, float *y) {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    y[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
  }
}
extern "C" __global__ void diverged_shuffle(const float *x, float *y) {
  float value = x[threadIdx.x];
  if (threadIdx.x % 32 < 16) value += __shfl_xor_sync(0xffffffff, value, 1);
  y[threadIdx.x] = value;
}
extern "C" __global__ void right_half_shuffle(const float *x, float *y) {
  float value = x[threadIdx.x];
  if (threadIdx.x % 32 < 16) value += __shfl_xor_sync(0x0000ffff, value, 1);
  y[threadIdx.x] = value;
}
extern "C" __global__ void shuffle_beyond(const float *x, float *y) {
  float value = x[threadIdx.x];
  if (threadIdx.x % 32 < 16) value += __shfl_xor_sync(0x0000ffff, value, 16);
  y[threadIdx.x] = value;
}

extern "C" __global__ void misaligned_vector(const float *x, float *y) {
  if (threadIdx.x < 8) *reinterpret_cast<float4 *>(y + threadIdx.x * 4) = *reinterpret_cast<const float4 *>(x + threadIdx.x * 4 + 1);
}
extern "C" __global__ void right_vector(const float *x, float *y) {
  if (threadIdx.x < 16) *reinterpret_cast<float4 *>(y + threadIdx.x * 4) = *reinterpret_cast<const float4 *>(x + threadIdx.x * 4);
}

extern "C" __global__ void right_vectors_in_shared(const float *x, float *y) {
  __shared__ float2 tile[2][32];
  tile[threadIdx.x / 32][threadIdx.x % 32] = make_float2(x[threadIdx.x], 1.0f);
  __syncthreads();
  const float2 other = tile[1 - threadIdx.x / 32][threadIdx.x % 32];
  y[threadIdx.x] = other.x * other.y;
}

template <bool WAIT, bool BARRIER>
__device__ void copies(const float *x, float *y) {
  __shared__ float tile[64];
  cp_async<4>(tile + threadIdx.x, x + threadIdx.x);
  cp_async_commit();
  if (WAIT) cp_async_wait<0>();
  if (BARRIER) __syncthreads();
  y[threadIdx.x] = tile[threadIdx.x / 2];
}
extern "C" __global__ void right_copy(const float *x, float *y) { copies<true, true>(x, y); }
extern "C" __global__ void pending_no_wait(const float *x, float *y) { copies<false, true>(x, y); }
extern "C" __global__ void race_copy_no_barrier(const float *x, float *y) { copies<true, false>(x, y); }
// Two groups, of which the second is read.
extern "C" __global__ void pending_wrong_group(const float *x, float *y) {
  __shared__ float tile[128];
  cp_async<4>(tile + threadIdx.x, x + threadIdx.x);
  cp_async_commit();
  cp_async<4>(tile + 64 + threadIdx.x, x + threadIdx.x);
  cp_async_commit();
  cp_async_wait<1>();
  __syncthreads();
  y[threadIdx.x] = tile[64 + threadIdx.x];
}
extern "C" __global__ void misaligned_copy(const float *x, float *y) {
  __shared__ __align__(16) float tile[68];
  if (threadIdx.x < 8) cp_async<16>(tile + threadIdx.x * 4, x + threadIdx.x * 4 + 2);
  cp_async_commit();
  cp_async_wait<0>();
  __syncthreads();
  if (threadIdx.x < 8) y[threadIdx.x] = tile[threadIdx.x];
}
// Overwrites what others may still read.
extern "C" __global__ void race_copy_over_reads(const float *x, float *y) {
  __shared__ float tile[64];
  tile[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  y[threadIdx.x] = tile[63 - threadIdx.x];
  cp_async<4>(tile + threadIdx.x, x + threadIdx.x);
  cp_async_commit();
  cp_async_wait<0>();
}
extern "C" __global__ void __launch_bounds__(32) launch_bounds(const float *x, float *y) { y[threadIdx.x] = x[threadIdx.x]; }
