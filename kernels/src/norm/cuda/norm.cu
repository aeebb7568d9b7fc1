// Norms of (N, C, voxels), whose statistics are over sets of rows: a row is the voxels of one channel of one image. Sums are in f64
// and in a fixed order: each thread sums in sequence, a tree joins a block, and segments are joined in order.
#include "tomograd.cuh"
#include "../../elementwise/cuda/function.cuh"

#define THREADS 256

// Two sums.
struct Pair {
    double x, y;
};

static __device__ __forceinline__ Pair pair(double x, double y) {
    Pair both = {x, y};
    return both;
}

// Which rows share a set. The set of row n C + c is n · images + c / width.
struct Sets {
    long long batch, channels, voxels;
    // Channels of a set, sets of an image (0 where a set takes a channel of all images), and their number.
    long long width, images, count;
};

static __device__ __forceinline__ long long set_of(const Sets &sets, long long row) {
    return row / sets.channels * sets.images + row % sets.channels / sets.width;
}

// Row `k` of a set.
static __device__ __forceinline__ long long row_of(const Sets &sets, long long set, long long k) {
    if (sets.images == 0) return k * sets.channels + set;
    return set / sets.images * sets.channels + set % sets.images * sets.width + k;
}

static __device__ __forceinline__ long long rows_of(const Sets &sets) { return sets.images == 0 ? sets.batch : sets.width; }

// Joins two sums of each thread in a fixed tree; all threads get them.
static __device__ __forceinline__ Pair joined(Pair *partial, Pair sum) {
    partial[threadIdx.x] = sum;
    __syncthreads();
    for (int width = THREADS / 2; width > 0; width /= 2) {
        if (threadIdx.x < width) {
            partial[threadIdx.x].x += partial[threadIdx.x + width].x;
            partial[threadIdx.x].y += partial[threadIdx.x + width].y;
        }
        __syncthreads();
    }
    Pair result = partial[0];
    __syncthreads();
    return result;
}

// partial[set, segment] = Σ (x − o) and Σ (x − o)² of the segment's elements, where o is the set's first element: so a large mean
// costs no digits. Grid: x the segments of `length` elements, y · the sets.
extern "C" __global__ void __launch_bounds__(THREADS) norm_moments(const float *x, Pair *partial, Sets sets, long long length) {
    __shared__ Pair sums[THREADS];
    long long elements = rows_of(sets) * sets.voxels;
    long long first = blockIdx.x * length, end = first + length < elements ? first + length : elements;
    for (long long set = blockIdx.y; set < sets.count; set += gridDim.y) {
        double origin = x[row_of(sets, set, 0) * sets.voxels];
        Pair sum = pair(0.0, 0.0);
        for (long long i = first + threadIdx.x; i < end; i += THREADS) {
            double distance = x[row_of(sets, set, i / sets.voxels) * sets.voxels + i % sets.voxels] - origin;
            sum.x += distance;
            sum.y += distance * distance;
        }
        sum = joined(sums, sum);
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
        double count = (double)(rows_of(sets) * sets.voxels);
        double squares = count > 0.0 ? sum.y - sum.x * (sum.x / count) : 0.0;
        // Rounding may make it negative; a NaN is kept.
        if (squares < 0.0) squares = 0.0;
        double center = count > 0.0 ? x[row_of(sets, set, 0) * sets.voxels] + sum.x / count : 0.0;
        statistics[set] = center;
        statistics[sets.count + set] = 0.0;
        statistics[2 * sets.count + set] = sqrt((count > 0.0 ? squares / count : 0.0) + epsilon);
        if (mean) mean[set] = (float)center;
        if (unbiased) unbiased[set] = (float)(squares / (count - 1.0));
    }
}

// The same statistics from a given mean and variance of each channel.
extern "C" __global__ void __launch_bounds__(THREADS)
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
    long long count = sets.batch * sets.channels * sets.voxels;
    for (long long i = blockIdx.x * (long long)THREADS + threadIdx.x; i < count; i += gridDim.x * (long long)THREADS) {
        long long row = i / sets.voxels, channel = row % sets.channels;
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
    long long first = blockIdx.x * length, end = first + length < sets.voxels ? first + length : sets.voxels;
    for (long long row = blockIdx.y; row < sets.batch * sets.channels; row += gridDim.y) {
        Scaling scaling = scaling_of(statistics, sets, row);
        Pair sum = pair(0.0, 0.0);
        for (long long i = first + threadIdx.x; i < end; i += THREADS) {
            float value = normal(scaling, x[row * sets.voxels + i]);
            double g = before(value, dy[row * sets.voxels + i], gamma, beta, row % sets.channels, activation);
            sum.x += g;
            sum.y += g * value;
        }
        sum = joined(sums, sum);
        if (threadIdx.x == 0) partial[row * gridDim.x + blockIdx.x] = sum;
    }
}

// Of each channel: dγ = Σ g x̂ and dβ = Σ g over all images; and where they aren't null, the gradients of a given mean, −γ Σ g / d,
// and of a given variance, −½ γ Σ g x̂ / d², with the deviation d.
extern "C" __global__ void __launch_bounds__(THREADS) norm_parameters(
    const Pair *partial, const double *statistics, const float *gamma, float *dgamma, float *dbeta, float *dmean,
    float *dvariance, Sets sets, long long segments) {
    for (long long c = blockIdx.x * (long long)THREADS + threadIdx.x; c < sets.channels; c += gridDim.x * (long long)THREADS) {
        Pair sum = pair(0.0, 0.0);
        for (long long n = 0; n < sets.batch; n++) {
            for (long long segment = 0; segment < segments; segment++) {
                Pair part = partial[(n * sets.channels + c) * segments + segment];
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
            double slope = gamma ? gamma[row % sets.channels] : 1.0;
            for (long long segment = 0; segment < segments; segment++) {
                Pair part = partial[row * segments + segment];
                sum.x += slope * part.x;
                sum.y += slope * part.y;
            }
        }
        double count = (double)(rows_of(sets) * sets.voxels), deviation = statistics[2 * sets.count + set];
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
    long long count = sets.batch * sets.channels * sets.voxels;
    for (long long i = blockIdx.x * (long long)THREADS + threadIdx.x; i < count; i += gridDim.x * (long long)THREADS) {
        long long row = i / sets.voxels, channel = row % sets.channels;
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
