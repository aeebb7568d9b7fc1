// Sums of a block's threads in a fixed tree, so that they have the same bits each time.
#pragma once
#include "tomograd.cuh"

// Two sums.
struct Pair {
    double x, y;
};

static __device__ __forceinline__ Pair pair(double x, double y) {
    Pair both = {x, y};
    return both;
}

// Joins the values of a block's THREADS threads, a power of two, by `join(a, b)`; all threads get the result. `partial` has room for
// THREADS values, and may be used again when this returns.
template <int THREADS, typename T, typename Join>
static __device__ __forceinline__ T joined(T *partial, T value, const Join &join) {
    partial[threadIdx.x] = value;
    __syncthreads();
    for (int width = THREADS / 2; width > 0; width /= 2) {
        if (threadIdx.x < width) partial[threadIdx.x] = join(partial[threadIdx.x], partial[threadIdx.x + width]);
        __syncthreads();
    }
    T result = partial[0];
    __syncthreads();
    return result;
}

template <int THREADS, typename T>
static __device__ __forceinline__ T sum_of_block(T *partial, T value) {
    return joined<THREADS>(partial, value, [](T a, T b) { return a + b; });
}
template <int THREADS>
static __device__ __forceinline__ Pair sum_of_block(Pair *partial, Pair value) {
    return joined<THREADS>(partial, value, [](Pair a, Pair b) { return pair(a.x + b.x, a.y + b.y); });
}
