// Reductions along the middle axis of (outer, terms, inner), in f64 and in a fixed order: each thread combines its terms in
// sequence, and a tree joins the threads. Long reductions are cut into segments, whose results are reduced again.
#include "tomograd.cuh"

#define THREADS 256

enum { SUM, LARGER, SMALLER };

// A NaN is larger than every number, and smaller than every number.
static __device__ __forceinline__ double combined(int how, double a, double b) {
    switch (how) {
        case SUM: return a + b;
        case LARGER: return b > a || b != b ? b : a;
        default: return b < a || b != b ? b : a;
    }
}

static __device__ __forceinline__ double start(int how) {
    return how == SUM ? 0.0 : how == LARGER ? -(double)INFINITY : (double)INFINITY;
}

// y[o, s, i] = factor · the reduction of x[o, t, i] over the `length` terms of segment s, one block for each.
template <typename X, typename Y>
static __device__ __forceinline__ void
rows(const X *x, Y *y, int how, double factor, long long terms, long long inner, long long length, long long count) {
    __shared__ double partial[THREADS];
    long long segments = (terms + length - 1) / length;
    for (long long output = blockIdx.x; output < count; output += gridDim.x) {
        long long column = output % inner, segment = output / inner % segments, plane = output / inner / segments;
        long long first = segment * length, end = first + length < terms ? first + length : terms;
        const X *source = x + plane * terms * inner + column;
        double sum = start(how);
        for (long long term = first + threadIdx.x; term < end; term += THREADS) {
            sum = combined(how, sum, (double)source[term * inner]);
        }
        partial[threadIdx.x] = sum;
        __syncthreads();
        for (int width = THREADS / 2; width > 0; width /= 2) {
            if (threadIdx.x < width) {
                partial[threadIdx.x] = combined(how, partial[threadIdx.x], partial[threadIdx.x + width]);
            }
            __syncthreads();
        }
        if (threadIdx.x == 0) y[output] = (Y)(partial[0] * factor);
        // The next output's sums may be written when this one's was read.
        __syncthreads();
    }
}

// The same, one thread for each: for many columns that lie side by side.
template <typename X, typename Y>
static __device__ __forceinline__ void
columns(const X *x, Y *y, int how, double factor, long long terms, long long inner, long long length, long long count) {
    long long segments = (terms + length - 1) / length;
    for (long long output = blockIdx.x * (long long)THREADS + threadIdx.x; output < count; output += gridDim.x * (long long)THREADS) {
        long long column = output % inner, segment = output / inner % segments, plane = output / inner / segments;
        long long first = segment * length, end = first + length < terms ? first + length : terms;
        const X *source = x + plane * terms * inner + column;
        double sum = start(how);
        for (long long term = first; term < end; term++) sum = combined(how, sum, (double)source[term * inner]);
        y[output] = (Y)(sum * factor);
    }
}

#define REDUCTION(NAME, BODY, X, Y)                                                                                       \
    extern "C" __global__ void __launch_bounds__(THREADS) NAME(                                                           \
        const X *x, Y *y, int how, double factor, long long terms, long long inner, long long length, long long count) { \
        BODY(x, y, how, factor, terms, inner, length, count);                                                             \
    }

REDUCTION(reduce_rows, rows, float, float)
REDUCTION(reduce_rows_to_partial, rows, float, double)
REDUCTION(reduce_partial_rows, rows, double, float)
REDUCTION(reduce_partial_rows_to_partial, rows, double, double)
REDUCTION(reduce_columns, columns, float, float)
REDUCTION(reduce_columns_to_partial, columns, float, double)
REDUCTION(reduce_partial_columns, columns, double, float)
REDUCTION(reduce_partial_columns_to_partial, columns, double, double)

// A position that is behind all others.
#define NOWHERE 0x7fffffffffffffffLL

// The first position of a block's threads, which each have one; all threads get it.
static __device__ __forceinline__ long long first_of(long long *partial, long long position) {
    partial[threadIdx.x] = position;
    __syncthreads();
    for (int width = THREADS / 2; width > 0; width /= 2) {
        if (threadIdx.x < width && partial[threadIdx.x + width] < partial[threadIdx.x]) {
            partial[threadIdx.x] = partial[threadIdx.x + width];
        }
        __syncthreads();
    }
    long long first = partial[0];
    __syncthreads();
    return first;
}

// The gradient of a maximum or minimum y[r] of x[r, t]: dx[r, t] is dy[r] at the first t whose element equals y[r], otherwise 0.
extern "C" __global__ void __launch_bounds__(THREADS)
    first_equal(const float *x, const float *y, const float *dy, float *dx, long long terms, long long count) {
    __shared__ long long partial[THREADS];
    for (long long row = blockIdx.x; row < count; row += gridDim.x) {
        float value = y[row];
        long long found = NOWHERE;
        for (long long term = threadIdx.x; term < terms; term += THREADS) {
            float other = x[row * terms + term];
            // Of a NaN, any element that can't be compared is the first.
            if (found == NOWHERE && !(other < value || other > value)) found = term;
        }
        long long first = first_of(partial, found);
        for (long long term = threadIdx.x; term < terms; term += THREADS) {
            dx[row * terms + term] = term == first ? dy[row] : 0.0f;
        }
    }
}

// y[o, i] = the position of the first largest x[o, t, i] along t; a NaN counts as the largest. A block for each.
extern "C" __global__ void __launch_bounds__(THREADS)
    arg_max(const float *x, long long *y, long long terms, long long inner, long long count) {
    __shared__ long long partial[THREADS];
    __shared__ float largest[THREADS];
    for (long long output = blockIdx.x; output < count; output += gridDim.x) {
        const float *source = x + output / inner * terms * inner + output % inner;
        long long place = NOWHERE;
        float best = -INFINITY;
        for (long long term = threadIdx.x; term < terms; term += THREADS) {
            float value = source[term * inner];
            if (place == NOWHERE || value > best || (value != value && best == best)) {
                best = value;
                place = term;
            }
        }
        largest[threadIdx.x] = best;
        partial[threadIdx.x] = place;
        __syncthreads();
        for (int width = THREADS / 2; width > 0; width /= 2) {
            if (threadIdx.x < width) {
                float a = largest[threadIdx.x], b = largest[threadIdx.x + width];
                long long p = partial[threadIdx.x], q = partial[threadIdx.x + width];
                bool same = a == b || (a != a && b != b);
                bool larger = b > a || (b != b && a == a);
                if (q != NOWHERE && (p == NOWHERE || larger || (same && q < p))) {
                    largest[threadIdx.x] = b;
                    partial[threadIdx.x] = q;
                }
            }
            __syncthreads();
        }
        if (threadIdx.x == 0) y[output] = partial[0];
        __syncthreads();
    }
}
