// The gradient of a slice of one axis of (outer, size, inner): the slice's gradient in its places, and zeros between them.
#include "tomograd.cuh"

struct Slice {
    long long size, inner, start, step, length;
};

#define UNSLICE(NAME, T)                                                                                                  \
    extern "C" __global__ void __launch_bounds__(256) NAME(const T *dy, T *dx, Slice slice, long long count) {            \
        long long first = blockIdx.x * (long long)blockDim.x + threadIdx.x;                                               \
        for (long long i = first; i < count; i += gridDim.x * (long long)blockDim.x) {                                    \
            long long column = i % slice.inner, row = i / slice.inner, place = row % slice.size - slice.start;            \
            long long taken = place / slice.step;                                                                         \
            bool inside = place >= 0 && taken * slice.step == place && taken < slice.length;                              \
            dx[i] = inside ? dy[(row / slice.size * slice.length + taken) * slice.inner + column] : (T)0;                 \
        }                                                                                                                 \
    }

UNSLICE(unslice_2, unsigned short)
UNSLICE(unslice_4, unsigned int)
UNSLICE(unslice_8, unsigned long long)
