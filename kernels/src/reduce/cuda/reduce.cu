// Reductions along the middle axis of (outer, terms, inner), in f64 and in a fixed order: each thread combines its terms in
// sequence, and a tree joins the threads. Long reductions are cut into segments, whose results are reduced again.
#include "indices.cuh"
#include "sums.cuh"

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
rows(const X *x, Y *y, int how, double factor, long long terms, const Divisor &inner, long long length, const Divisor &segments, long long count) {
    __shared__ double partial[THREADS];
    for (long long output = blockIdx.x; output < count; output += gridDim.x) {
        long long plane = output, column = last_of(plane, inner), segment = last_of(plane, segments);
        long long first = segment * length, end = first + length < terms ? first + length : terms;
        const X *source = x + plane * terms * inner.size + column;
        double sum = start(how);
        for (long long term = first + threadIdx.x; term < end; term += THREADS) {
            sum = combined(how, sum, (double)source[term * inner.size]);
        }
        sum = joined<THREADS>(partial, sum, [how](double a, double b) { return combined(how, a, b); });
        if (threadIdx.x == 0) y[output] = (Y)(sum * factor);
    }
}

// The same, one thread for each: for many columns that lie side by side.
template <typename X, typename Y>
static __device__ __forceinline__ void
columns(const X *x, Y *y, int how, double factor, long long terms, const Divisor &inner, long long length, const Divisor &segments, long long count) {
    FOR_EACH(output, count) {
        long long plane = output, column = last_of(plane, inner), segment = last_of(plane, segments);
        long long first = segment * length, end = first + length < terms ? first + length : terms;
        const X *source = x + plane * terms * inner.size + column;
        double sum = start(how);
        for (long long term = first; term < end; term++) sum = combined(how, sum, (double)source[term * inner.size]);
        y[output] = (Y)(sum * factor);
    }
}

#define REDUCTION(NAME, BODY, X, Y)                                                                                       \
    extern "C" __global__ void __launch_bounds__(THREADS) NAME(                                                           \
        const X *x, Y *y, int how, double factor, long long terms, Divisor inner, long long length, Divisor segments,     \
        long long count) {                                                                                                \
        BODY(x, y, how, factor, terms, inner, length, segments, count);                                                   \
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
        long long first = joined<THREADS>(partial, found, [](long long a, long long b) { return b < a ? b : a; });
        for (long long term = threadIdx.x; term < terms; term += THREADS) {
            dx[row * terms + term] = term == first ? dy[row] : 0.0f;
        }
    }
}

// A number and its position.
struct Candidate {
    long long position;
    float value;
    int unused;
};

// The larger of two, the first of equal ones; a NaN counts as the largest.
static __device__ __forceinline__ Candidate larger(const Candidate &a, const Candidate &b) {
    bool same = a.value == b.value || (a.value != a.value && b.value != b.value);
    bool greater = b.value > a.value || (b.value != b.value && a.value == a.value);
    return b.position != NOWHERE && (a.position == NOWHERE || greater || (same && b.position < a.position)) ? b : a;
}

// y[o, i] = the position of the first largest x[o, t, i] along t. A block for each.
extern "C" __global__ void __launch_bounds__(THREADS)
    arg_max(const float *x, long long *y, long long terms, Divisor inner, long long count) {
    __shared__ Candidate partial[THREADS];
    for (long long output = blockIdx.x; output < count; output += gridDim.x) {
        long long plane = output, column = last_of(plane, inner);
        const float *source = x + plane * terms * inner.size + column;
        Candidate best = {NOWHERE, -INFINITY, 0};
        for (long long term = threadIdx.x; term < terms; term += THREADS) {
            Candidate other = {term, source[term * inner.size], 0};
            best = larger(best, other);
        }
        best = joined<THREADS>(partial, best, [](const Candidate &a, const Candidate &b) { return larger(a, b); });
        if (threadIdx.x == 0) y[output] = best.position;
    }
}
