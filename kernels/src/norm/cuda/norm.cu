// Norms of (N, C, voxels), whose statistics are over sets of rows: a row is the voxels of one channel of one image. Sums are in f64
// and in a fixed order: each thread sums in sequence, a tree joins a block, and segments are joined in order.
#include "indices.cuh"
#include "sums.cuh"
#include "../../elementwise/cuda/function.cuh"

#define THREADS 256

// Which rows share a set. The set of row n C + c is n · images + c / width.
struct Sets {
    long long batch;
    // `width` is the channels of a set, `images` the sets of an image (0 where a set takes a channel of all images).
    Divisor channels, voxels, width, images;
    long long count;
};

static __device__ __forceinline__ long long set_of(const Sets &sets, long long row) {
    long long channel = last_of(row, sets.channels);
    return row * sets.images.size + quotient(channel, sets.width);
}

// Row `k` of a set.
static __device__ __forceinline__ long long row_of(const Sets &sets, long long set, long long k) {
    if (sets.images.size == 0) return k * sets.channels.size + set;
    long long of_image = last_of(set, sets.images);
    return set * sets.channels.size + of_image * sets.width.size + k;
}

static __device__ __forceinline__ long long rows_of(const Sets &sets) { return sets.images.size == 0 ? sets.batch : sets.width.size; }

// partial[set, segment] = Σ (x − o) and Σ (x − o)² of the segment's elements, where o is the set's first element: so a large mean
// costs no digits. Grid: x the segments of `length` elements, y · the sets.
extern "C" __global__ void __launch_bounds__(THREADS) norm_moments(const float *x, Pair *partial, Sets sets, long long length) {
    __shared__ Pair sums[THREADS];
    long long elements = rows_of(sets) * sets.voxels.size;
    long long first = blockIdx.x * length, end = first + length < elements ? first + length : elements;
    for (long long set = blockIdx.y; set < sets.count; set += gridDim.y) {
        double origin = x[row_of(sets, set, 0) * sets.voxels.size];
        Pair sum = pair(0.0, 0.0);
        for (long long i = first + threadIdx.x; i < end; i += THREADS) {
            long long row = i, voxel = last_of(row, sets.voxels);
            double distance = x[row_of(sets, set, row) * sets.voxels.size + voxel] - origin;
            sum.x += distance;
            sum.y += distance * distance;
        }
        sum = sum_of_block<THREADS>(sums, sum);
        if (threadIdx.x == 0) partial[set * gridDim.x + blockIdx.x] = sum;
    }
}

// statistics (3, sets) = mean, 0 and √(variance + ε) of each set, from its segments' sums; where they aren't null, the mean and the
// unbiased variance as outputs.
extern "C" __global__ void __launch_bounds__(THREADS) norm_statistics(
    const float *x, const Pair *partial, double *statistics, float *mean, float *unbiased, Sets sets, long long segments,
    double epsilon) {
    for (long long set = blockIdx.x * (long long)THREADS + threadIdx.x; set < sets.count; set += gridDim.x * (long long)THREADS) {
        Pair sum = pair(0.0, 0.0);
        for (long long segment = 0; segment < segments; segment++) {
            sum.x += partial[set * segments + segment].x;
            sum.y += partial[set * segments + segment].y;
        }
        double count = (double)(rows_of(sets) * sets.voxels.size);
        double squares = count > 0.0 ? sum.y - sum.x * (sum.x / count) : 0.0;
        // Rounding may make it negative; a NaN is kept.
        if (squares < 0.0) squares = 0.0;
        double center = count > 0.0 ? x[row_of(sets, set, 0) * sets.voxels.size] + sum.x / count : 0.0;
        statistics[set] = center;
        statistics[sets.count + set] = 0.0;
        statistics[2 * sets.count + set] = sqrt((count > 0.0 ? squares / count : 0.0) + epsilon);
        if (mean) mean[set] = (float)center;
        if (unbiased) unbiased[set] = (float)(squares / (count - 1.0));
    }
}

// The same statistics from a given mean and variance of each channel.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    norm_given(const float *mean, const float *variance, double *statistics, double epsilon, long long channels) {
    for (long long c = blockIdx.x * (long long)THREADS + threadIdx.x; c < channels; c += gridDim.x * (long long)THREADS) {
        statistics[c] = mean[c];
        statistics[channels + c] = 0.0;
        statistics[2 * channels + c] = sqrt((double)variance[c] + epsilon);
    }
}

// x̂ = (x − mean) / deviation, where the mean is the sum of two numbers of f32.
struct Scaling {
    float high, low, inverse;
};

static __device__ __forceinline__ Scaling scaling_of(const double *statistics, const Sets &sets, long long row) {
    long long set = set_of(sets, row);
    Scaling scaling;
    scaling.high = (float)statistics[set];
    scaling.low = (float)(statistics[set] - (double)scaling.high);
    scaling.inverse = (float)(1.0 / statistics[2 * sets.count + set]);
    return scaling;
}

static __device__ __forceinline__ float normal(const Scaling &scaling, float x) {
    return ((x - scaling.high) - scaling.low) * scaling.inverse;
}

// y = activation(γ x̂ + β); γ and β may be null.
extern "C" __global__ void __launch_bounds__(THREADS) norm_apply(
    const float *x, const double *statistics, const float *gamma, const float *beta, float *y, Function activation, Sets sets) {
    long long count = sets.batch * sets.channels.size * sets.voxels.size;
    for (long long i = blockIdx.x * (long long)THREADS + threadIdx.x; i < count; i += gridDim.x * (long long)THREADS) {
        long long row = quotient(i, sets.voxels), image = row, channel = last_of(image, sets.channels);
        float value = normal(scaling_of(statistics, sets, row), x[i]);
        if (gamma) value = fmaf(gamma[channel], value, beta[channel]);
        y[i] = value_of(activation, value);
    }
}

// The gradient before the activation.
static __device__ __forceinline__ float
before(float normal, float dy, const float *gamma, const float *beta, long long channel, const Function &activation) {
    float value = gamma ? fmaf(gamma[channel], normal, beta[channel]) : normal;
    return dy * derivative_of(activation, value);
}

// sums[row, segment] = Σ g and Σ g x̂ of the row's elements, where g is the gradient before the activation. Grid: x the segments of
// `length` voxels, y · the rows.
extern "C" __global__ void __launch_bounds__(THREADS) norm_backward_sums(
    const float *x, const float *dy, const double *statistics, const float *gamma, const float *beta, Pair *partial,
    Function activation, Sets sets, long long length) {
    __shared__ Pair sums[THREADS];
    long long first = blockIdx.x * length, end = first + length < sets.voxels.size ? first + length : sets.voxels.size;
    for (long long row = blockIdx.y; row < sets.batch * sets.channels.size; row += gridDim.y) {
        Scaling scaling = scaling_of(statistics, sets, row);
        long long image = row, channel = last_of(image, sets.channels);
        Pair sum = pair(0.0, 0.0);
        for (long long i = first + threadIdx.x; i < end; i += THREADS) {
            float value = normal(scaling, x[row * sets.voxels.size + i]);
            double g = before(value, dy[row * sets.voxels.size + i], gamma, beta, channel, activation);
            sum.x += g;
            sum.y += g * value;
        }
        sum = sum_of_block<THREADS>(sums, sum);
        if (threadIdx.x == 0) partial[row * gridDim.x + blockIdx.x] = sum;
    }
}

// Of each channel: dγ = Σ g x̂ and dβ = Σ g over all images; and where they aren't null, the gradients of a given mean, −γ Σ g / d,
// and of a given variance, −½ γ Σ g x̂ / d², with the deviation d.
extern "C" __global__ void __launch_bounds__(THREADS) norm_parameters(
    const Pair *partial, const double *statistics, const float *gamma, float *dgamma, float *dbeta, float *dmean,
    float *dvariance, Sets sets, long long segments) {
    for (long long c = blockIdx.x * (long long)THREADS + threadIdx.x; c < sets.channels.size; c += gridDim.x * (long long)THREADS) {
        Pair sum = pair(0.0, 0.0);
        for (long long n = 0; n < sets.batch; n++) {
            for (long long segment = 0; segment < segments; segment++) {
                Pair part = partial[(n * sets.channels.size + c) * segments + segment];
                sum.x += part.x;
                sum.y += part.y;
            }
        }
        if (dgamma) dgamma[c] = (float)sum.y;
        if (dbeta) dbeta[c] = (float)sum.x;
        double slope = gamma ? gamma[c] : 1.0;
        if (dmean) dmean[c] = (float)(-slope * sum.x / statistics[2 * sets.count + c]);
        if (dvariance) {
            double deviation = statistics[2 * sets.count + c];
            dvariance[c] = (float)(-0.5 * slope * sum.y / (deviation * deviation));
        }
    }
}

// through[set] = the coefficients of 1 and of x̂ in dx, which the statistics bring in: −Σ γ g / (d n) and −Σ γ g x̂ / (d n) over the
// set; and the gradients of a batch's mean and unbiased variance, where they aren't null.
extern "C" __global__ void __launch_bounds__(THREADS) norm_through(
    const Pair *partial, const double *statistics, const float *gamma, const float *of_mean, const float *of_variance,
    Pair *through, Sets sets, long long segments) {
    for (long long set = blockIdx.x * (long long)THREADS + threadIdx.x; set < sets.count; set += gridDim.x * (long long)THREADS) {
        Pair sum = pair(0.0, 0.0);
        for (long long k = 0; k < rows_of(sets); k++) {
            long long row = row_of(sets, set, k);
            long long image = row, channel = last_of(image, sets.channels);
            double slope = gamma ? gamma[channel] : 1.0;
            for (long long segment = 0; segment < segments; segment++) {
                Pair part = partial[row * segments + segment];
                sum.x += slope * part.x;
                sum.y += slope * part.y;
            }
        }
        double count = (double)(rows_of(sets) * sets.voxels.size), deviation = statistics[2 * sets.count + set];
        Pair result = pair(-sum.x / (deviation * count), -sum.y / (deviation * count));
        if (of_mean) result.x += of_mean[set] / count;
        if (of_variance) result.y += 2.0 * of_variance[set] * deviation / (count - 1.0);
        through[set] = result;
    }
}

// dx = γ g / d + through; `through` is null for given statistics.
extern "C" __global__ void __launch_bounds__(THREADS) norm_backward_data(
    const float *x, const float *dy, const double *statistics, const float *gamma, const float *beta, const Pair *through,
    float *dx, Function activation, Sets sets) {
    long long count = sets.batch * sets.channels.size * sets.voxels.size;
    for (long long i = blockIdx.x * (long long)THREADS + threadIdx.x; i < count; i += gridDim.x * (long long)THREADS) {
        long long row = quotient(i, sets.voxels), image = row, channel = last_of(image, sets.channels);
        Scaling scaling = scaling_of(statistics, sets, row);
        float value = normal(scaling, x[i]);
        float gradient = before(value, dy[i], gamma, beta, channel, activation) * scaling.inverse;
        if (gamma) gradient *= gamma[channel];
        if (through) {
            Pair coefficients = through[set_of(sets, row)];
            gradient += fmaf((float)coefficients.y, value, (float)coefficients.x);
        }
        dx[i] = gradient;
    }
}
