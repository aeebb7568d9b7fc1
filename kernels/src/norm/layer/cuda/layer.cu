// Layer norm of rows of `length` elements, a block for each row. Sums are in f64 and in a fixed order.
#include "indices.cuh"
#include "sums.cuh"

#define THREADS 256

// kept[row] = the mean as the sum of two numbers, 1 / √(variance + ε), and 0.
extern "C" __global__ void __launch_bounds__(THREADS)
    layer_norm_statistics(const float *x, float *kept, double epsilon, long long length, long long rows) {
    __shared__ Pair sums[THREADS];
    for (long long row = blockIdx.x; row < rows; row += gridDim.x) {
        const float *source = x + row * length;
        // Differences from the first element, so that a large mean costs no digits.
        double origin = source[0];
        Pair sum = pair(0.0, 0.0);
        for (long long i = threadIdx.x; i < length; i += THREADS) {
            double distance = source[i] - origin;
            sum.x += distance;
            sum.y += distance * distance;
        }
        sum = sum_of_block<THREADS>(sums, sum);
        if (threadIdx.x == 0) {
            double squares = sum.y - sum.x * (sum.x / length), mean = origin + sum.x / length;
            if (squares < 0.0) squares = 0.0;
            kept[4 * row] = (float)mean;
            kept[4 * row + 1] = (float)(mean - (double)(float)mean);
            kept[4 * row + 2] = (float)(1.0 / sqrt(squares / length + epsilon));
            kept[4 * row + 3] = 0.0f;
        }
    }
}

static __device__ __forceinline__ float normal(const float *kept, long long row, float x) {
    return ((x - kept[4 * row]) - kept[4 * row + 1]) * kept[4 * row + 2];
}

// y = γ x̂ + β; γ and β may be null.
extern "C" __global__ void __launch_bounds__(THREADS) layer_norm_apply(
    const float *x, const float *kept, const float *gamma, const float *beta, float *y, Divisor length, long long count) {
    FOR_EACH(i, count) {
        long long row = i, column = last_of(row, length);
        float value = normal(kept, row, x[i]);
        y[i] = gamma ? fmaf(gamma[column], value, beta[column]) : value;
    }
}

// dx = (γ dy − mean(γ dy) − x̂ mean(γ dy x̂)) / deviation.
extern "C" __global__ void __launch_bounds__(THREADS) layer_norm_backward(
    const float *x, const float *dy, const float *kept, const float *gamma, float *dx, long long length, long long rows) {
    __shared__ Pair sums[THREADS];
    for (long long row = blockIdx.x; row < rows; row += gridDim.x) {
        Pair sum = pair(0.0, 0.0);
        for (long long i = threadIdx.x; i < length; i += THREADS) {
            double g = dy[row * length + i] * (gamma ? gamma[i] : 1.0f);
            sum.x += g;
            sum.y += g * normal(kept, row, x[row * length + i]);
        }
        sum = sum_of_block<THREADS>(sums, sum);
        float mean = (float)(sum.x / length), slope = (float)(sum.y / length);
        for (long long i = threadIdx.x; i < length; i += THREADS) {
            float g = dy[row * length + i] * (gamma ? gamma[i] : 1.0f), value = normal(kept, row, x[row * length + i]);
            dx[row * length + i] = (g - mean - value * slope) * kept[4 * row + 2];
        }
    }
}

// partial (2, segments, length) = Σ dy x̂ and Σ dy over the rows of each segment. Grid: x · the columns, y the segments of `rows_of`
// rows.
extern "C" __global__ void __launch_bounds__(THREADS) layer_norm_parameters(
    const float *x, const float *dy, const float *kept, double *partial, long long length, long long rows, long long rows_of) {
    long long first = blockIdx.y * rows_of, end = first + rows_of < rows ? first + rows_of : rows;
    for (long long i = blockIdx.x * (long long)THREADS + threadIdx.x; i < length; i += gridDim.x * (long long)THREADS) {
        Pair sum = pair(0.0, 0.0);
        for (long long row = first; row < end; row++) {
            double g = dy[row * length + i];
            sum.x += g * normal(kept, row, x[row * length + i]);
            sum.y += g;
        }
        partial[blockIdx.y * length + i] = sum.x;
        partial[((long long)gridDim.y + blockIdx.y) * length + i] = sum.y;
    }
}
