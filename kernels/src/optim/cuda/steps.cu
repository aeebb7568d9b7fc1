// Optimizer steps, averages, scaling and clipping, in place. Each element is treated alone, in the order of roundings of the CPU's
// kernels.
#include "tomograd.cuh"

#define FOR_EACH(I, COUNT)                                                                                                \
    for (long long I = blockIdx.x * (long long)blockDim.x + threadIdx.x; I < COUNT; I += gridDim.x * (long long)blockDim.x)

// Learning rate, weight decay, momentum and 1 − dampening.
struct SgdNumbers {
    float rate, decay, momentum, keep;
};

// `buffer` may be null.
extern "C" __global__ void __launch_bounds__(256)
    sgd_step(float *value, const float *gradient, float *buffer, SgdNumbers numbers, int nesterov, long long count) {
    FOR_EACH(i, count) {
        float direction = fmaf(numbers.decay, value[i], gradient[i]);
        if (buffer) {
            float moved = numbers.momentum * buffer[i] + numbers.keep * direction;
            buffer[i] = moved;
            direction = nesterov ? direction + numbers.momentum * moved : moved;
        }
        value[i] -= numbers.rate * direction;
    }
}

// β₁, β₂, 1 − β₁, 1 − β₂; 1 − rate · λ of AdamW, λ of Adam; rate / (1 − β₁ᵗ), √(1 − β₂ᵗ), ε.
struct AdamNumbers {
    float betas[2], rests[2], shrink, coupled, step, root, epsilon;
};

extern "C" __global__ void __launch_bounds__(256)
    adam_step(float *value, const float *gradient, float *first, float *second, AdamNumbers numbers, long long count) {
    FOR_EACH(i, count) {
        float slope = fmaf(numbers.coupled, value[i], gradient[i]);
        float mean = numbers.betas[0] * first[i] + numbers.rests[0] * slope;
        float square = numbers.betas[1] * second[i] + numbers.rests[1] * slope * slope;
        first[i] = mean;
        second[i] = square;
        value[i] = value[i] * numbers.shrink - numbers.step * mean / (sqrtf(square) / numbers.root + numbers.epsilon);
    }
}

extern "C" __global__ void __launch_bounds__(256)
    ema_step(float *average, const float *value, float decay, float keep, long long count) {
    FOR_EACH(i, count) average[i] = decay * average[i] + keep * value[i];
}

extern "C" __global__ void __launch_bounds__(256) scale(float *x, float factor, long long count) {
    FOR_EACH(i, count) x[i] *= factor;
}

// partial[block] = Σ x² over the block's elements, in f64 and in a fixed order: those of the grid's size, which depends on the
// count alone.
extern "C" __global__ void __launch_bounds__(256) sum_of_squares(const float *x, double *partial, long long count) {
    __shared__ double sums[256];
    double sum = 0.0;
    FOR_EACH(i, count) sum += (double)x[i] * (double)x[i];
    sums[threadIdx.x] = sum;
    __syncthreads();
    for (int width = 128; width > 0; width /= 2) {
        if (threadIdx.x < width) sums[threadIdx.x] += sums[threadIdx.x + width];
        __syncthreads();
    }
    if (threadIdx.x == 0) partial[blockIdx.x] = sums[0];
}

// all[start + i] = part[i].
extern "C" __global__ void __launch_bounds__(256) put(const double *part, double *all, long long start, long long count) {
    FOR_EACH(i, count) all[start + i] = part[i];
}

// norm[0] = √Σ partial, by one block.
extern "C" __global__ void __launch_bounds__(256) norm_of(const double *partial, float *norm, double *exact, long long count) {
    __shared__ double sums[256];
    double sum = 0.0;
    for (long long i = threadIdx.x; i < count; i += 256) sum += partial[i];
    sums[threadIdx.x] = sum;
    __syncthreads();
    for (int width = 128; width > 0; width /= 2) {
        if (threadIdx.x < width) sums[threadIdx.x] += sums[threadIdx.x + width];
        __syncthreads();
    }
    if (threadIdx.x == 0) {
        exact[0] = sqrt(sums[0]);
        norm[0] = (float)exact[0];
    }
}

// x ← x · max / (norm + 10⁻⁶) where the norm is finite and that factor below 1.
extern "C" __global__ void __launch_bounds__(256) clip(float *x, const double *norm, double most, long long count) {
    double factor = most / (norm[0] + 1e-6);
    if (!(norm[0] < (double)INFINITY) || !(factor < 1.0)) return;
    FOR_EACH(i, count) x[i] *= (float)factor;
}
