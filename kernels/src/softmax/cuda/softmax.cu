// Softmax and its logarithm along the middle axis of (outer, size, inner), forward and backward. A line is done by a block, or by a
// single thread where many lines lie side by side.
#include "indices.cuh"
#include "sums.cuh"

#define THREADS 256

// Joins the values of a block's threads. A single thread has the result already.
template <bool BLOCK, bool MAXIMUM>
static __device__ __forceinline__ float of_line(float *partial, float value) {
    if (!BLOCK) return value;
    return joined<THREADS>(partial, value, [](float a, float b) { return MAXIMUM ? fmaxf(a, b) : a + b; });
}

// x and y are a line's first elements, `inner` apart. A NaN that the maximum passes over comes back with the exponentials.
template <bool BLOCK>
static __device__ __forceinline__ void
forward(const float *x, float *y, long long size, long long inner, int logarithm, float *partial) {
    long long first = BLOCK ? threadIdx.x : 0, step = BLOCK ? THREADS : 1;
    float largest = -INFINITY;
    for (long long i = first; i < size; i += step) largest = fmaxf(largest, x[i * inner]);
    largest = of_line<BLOCK, true>(partial, largest);
    float sum = 0.0f;
    for (long long i = first; i < size; i += step) sum += expf(x[i * inner] - largest);
    sum = of_line<BLOCK, false>(partial, sum);
    float lost = logf(sum), inverse = 1.0f / sum;
    for (long long i = first; i < size; i += step) {
        float shifted = x[i * inner] - largest;
        y[i * inner] = logarithm ? shifted - lost : expf(shifted) * inverse;
    }
}

// dx = y (dy − Σ dy y); of the logarithm, dx = dy − exp(y) Σ dy.
template <bool BLOCK>
static __device__ __forceinline__ void
backward(const float *y, const float *dy, float *dx, long long size, long long inner, int logarithm, float *partial) {
    long long first = BLOCK ? threadIdx.x : 0, step = BLOCK ? THREADS : 1;
    float sum = 0.0f;
    for (long long i = first; i < size; i += step) {
        sum = logarithm ? sum + dy[i * inner] : fmaf(dy[i * inner], y[i * inner], sum);
    }
    sum = of_line<BLOCK, false>(partial, sum);
    for (long long i = first; i < size; i += step) {
        float value = y[i * inner], gradient = dy[i * inner];
        dx[i * inner] = logarithm ? gradient - expf(value) * sum : value * (gradient - sum);
    }
}

// Where line `line` begins.
static __device__ __forceinline__ long long begin(long long line, long long size, const Divisor &inner) {
    long long outer = line, column = last_of(outer, inner);
    return outer * size * inner.size + column;
}

extern "C" __global__ void __launch_bounds__(THREADS)
    softmax_rows(const float *x, float *y, long long size, Divisor inner, int logarithm, long long lines) {
    __shared__ float partial[THREADS];
    for (long long line = blockIdx.x; line < lines; line += gridDim.x) {
        long long place = begin(line, size, inner);
        forward<true>(x + place, y + place, size, inner.size, logarithm, partial);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS)
    softmax_columns(const float *x, float *y, long long size, Divisor inner, int logarithm, long long lines) {
    FOR_EACH(line, lines) {
        long long place = begin(line, size, inner);
        forward<false>(x + place, y + place, size, inner.size, logarithm, (float *)0);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS) softmax_rows_backward(
    const float *y, const float *dy, float *dx, long long size, Divisor inner, int logarithm, long long lines) {
    __shared__ float partial[THREADS];
    for (long long line = blockIdx.x; line < lines; line += gridDim.x) {
        long long place = begin(line, size, inner);
        backward<true>(y + place, dy + place, dx + place, size, inner.size, logarithm, partial);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS) softmax_columns_backward(
    const float *y, const float *dy, float *dx, long long size, Divisor inner, int logarithm, long long lines) {
    FOR_EACH(line, lines) {
        long long place = begin(line, size, inner);
        backward<false>(y + place, dy + place, dx + place, size, inner.size, logarithm, (float *)0);
    }
}
