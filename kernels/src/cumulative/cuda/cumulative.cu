// Cumulative sums along the middle axis of (outer, size, inner), in f64; `reverse` ones begin at its end.
#include "indices.cuh"

#define THREADS 256

// A thread for each line, where many lie side by side.
extern "C" __global__ void __launch_bounds__(THREADS)
    cumsum_columns(const float *x, float *y, int reverse, long long size, Divisor inner, long long lines) {
    FOR_EACH(line, lines) {
        long long outer = line, first = last_of(outer, inner) + outer * size * inner.size;
        double sum = 0.0;
        for (long long i = 0; i < size; i++) {
            long long at = first + (reverse ? size - 1 - i : i) * inner.size;
            sum += x[at];
            y[at] = (float)sum;
        }
    }
}

// A block for each line, which it goes along in pieces: in each, every thread adds what is half, a quarter ... of the piece before it.
extern "C" __global__ void __launch_bounds__(THREADS)
    cumsum_rows(const float *x, float *y, int reverse, long long size, Divisor inner, long long lines) {
    __shared__ double sums[2][THREADS];
    for (long long line = blockIdx.x; line < lines; line += gridDim.x) {
        long long outer = line, first = last_of(outer, inner) + outer * size * inner.size;
        double before = 0.0;
        for (long long begin = 0; begin < size; begin += THREADS) {
            long long i = begin + threadIdx.x, at = first + (reverse ? size - 1 - i : i) * inner.size;
            int turn = 0;
            sums[0][threadIdx.x] = i < size ? x[at] : 0.0;
            __syncthreads();
            for (int distance = 1; distance < THREADS; distance *= 2, turn ^= 1) {
                double sum = sums[turn][threadIdx.x];
                if (threadIdx.x >= distance) sum += sums[turn][threadIdx.x - distance];
                sums[turn ^ 1][threadIdx.x] = sum;
                __syncthreads();
            }
            if (i < size) y[at] = (float)(before + sums[turn][threadIdx.x]);
            before += sums[turn][THREADS - 1];
            __syncthreads();
        }
    }
}
