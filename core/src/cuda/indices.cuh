// Places of elements in tensors of several axes. Sizes come with what makes a division by them a multiplication, since a division of
// 64 bits is a hundred instructions that need registers of their own.
#pragma once
#include "tomograd.cuh"

#define AXES 8
// What a thread does of `COUNT` elements, when the grid has any number of blocks along x.
#define FOR_EACH(I, COUNT)                                                                                                \
    for (long long I = blockIdx.x * (long long)blockDim.x + threadIdx.x; I < COUNT; I += gridDim.x * (long long)blockDim.x)

// A divisor, `divisor` of the device layer.
struct Divisor {
    long long size;
    unsigned long long multiplier;
    long long shift;
};

// ⌊n / divisor⌋ for n from 0 to 2⁶² − 1 (Granlund and Montgomery 1994): the multiplier is ⌊2^(62 + shift) / size⌋ + 1.
static __device__ __forceinline__ long long quotient(long long n, const Divisor &divisor) {
    return (long long)(__umul64hi((unsigned long long)n << 2, divisor.multiplier) >> divisor.shift);
}

// Takes the last coordinate off a flat index: n becomes the index without it.
static __device__ __forceinline__ long long last_of(long long &n, const Divisor &size) {
    long long rest = quotient(n, size), last = n - rest * size.size;
    n = rest;
    return last;
}

// A divisor of numbers below 2³¹, `small_divisor` of the device layer: as above with a multiplier of 32 bits, ⌊2^(31 + shift) / size⌋ + 1.
struct SmallDivisor {
    int size;
    unsigned multiplier;
    int shift;
};

static __device__ __forceinline__ int quotient(int n, const SmallDivisor &divisor) {
    return (int)(__umulhi((unsigned)n << 1, divisor.multiplier) >> divisor.shift);
}

static __device__ __forceinline__ int last_of(int &n, const SmallDivisor &size) {
    int rest = quotient(n, size), last = n - rest * size.size;
    n = rest;
    return last;
}

// A common shape, the slowest axis first, and the strides of tensors in it.
template <int TENSORS>
struct Views {
    long long rank;
    Divisor size[AXES];
    long long stride[TENSORS][AXES];
};

// Where a tensor's element for element `flat` (in row-major order) of the common shape lies.
template <int TENSORS>
static __device__ __forceinline__ long long place(const Views<TENSORS> &views, int tensor, long long flat) {
    long long place = 0;
    for (int axis = (int)views.rank - 1; axis > 0; axis--) place += last_of(flat, views.size[axis]) * views.stride[tensor][axis];
    return views.rank > 0 ? place + flat * views.stride[tensor][0] : 0;
}
