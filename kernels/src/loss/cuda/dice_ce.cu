// Dice and cross-entropy of logits (N, C, voxels) and labels (N, voxels). Sums are in f64 and in a fixed order.
#include "indices.cuh"
#include "sums.cuh"

#define THREADS 256

struct Sizes {
    long long batch, classes, voxels;
    // The label that is ignored, where `ignores` isn't 0.
    long long ignored, ignores;
};

static __device__ __forceinline__ bool counts(const Sizes &sizes, long long label) {
    return !(sizes.ignores && label == sizes.ignored);
}

// shift[n, v] = log Σ_c exp(logit) of each voxel; the flag becomes 1 if a label is none of the classes, nor ignored.
extern "C" __global__ void __launch_bounds__(THREADS)
    dice_ce_shift(const float *logits, const long long *labels, float *shift, int *wrong, Sizes sizes) {
    for (long long i = blockIdx.x * (long long)THREADS + threadIdx.x; i < sizes.batch * sizes.voxels; i += gridDim.x * (long long)THREADS) {
        const float *source = logits + i / sizes.voxels * sizes.classes * sizes.voxels + i % sizes.voxels;
        float largest = source[0];
        for (long long c = 1; c < sizes.classes; c++) largest = fmaxf(largest, source[c * sizes.voxels]);
        float total = 0.0f;
        for (long long c = 0; c < sizes.classes; c++) total += expf(source[c * sizes.voxels] - largest);
        shift[i] = logf(total) + largest;
        long long label = labels[i];
        if ((label < 0 || label >= sizes.classes) && counts(sizes, label)) atomicExch(wrong, 1);
    }
}

// partial[n, chunk] = Σ p t, Σ p and Σ t of each class, Σ w (−log p_t) and Σ w over the `length` voxels of a chunk: 3 C + 2 numbers.
// Grid: x the chunks, y · the images. `weights` may be null.
extern "C" __global__ void __launch_bounds__(THREADS) dice_ce_sums(
    const float *logits, const long long *labels, const float *shift, const double *weights, double *partial, Sizes sizes,
    long long length) {
    __shared__ double sums[THREADS];
    long long first = blockIdx.x * length, end = first + length < sizes.voxels ? first + length : sizes.voxels;
    for (long long n = blockIdx.y; n < sizes.batch; n += gridDim.y) {
        const long long *label_of = labels + n * sizes.voxels;
        const float *shift_of = shift + n * sizes.voxels;
        double *target = partial + (n * gridDim.x + blockIdx.x) * (3 * sizes.classes + 2);
        double entropy = 0.0, weight = 0.0;
        for (long long c = 0; c < sizes.classes; c++) {
            const float *source = logits + (n * sizes.classes + c) * sizes.voxels;
            double intersection = 0.0, probability = 0.0, label = 0.0, of_class = weights ? weights[c] : 1.0;
            for (long long v = first + threadIdx.x; v < end; v += THREADS) {
                if (!counts(sizes, label_of[v])) continue;
                float p = expf(source[v] - shift_of[v]);
                probability += p;
                if (label_of[v] == c) {
                    intersection += p;
                    label += 1.0;
                    entropy += of_class * ((double)shift_of[v] - (double)source[v]);
                    weight += of_class;
                }
            }
            intersection = sum_of_block<THREADS>(sums, intersection);
            probability = sum_of_block<THREADS>(sums, probability);
            label = sum_of_block<THREADS>(sums, label);
            if (threadIdx.x == 0) {
                target[c] = intersection;
                target[sizes.classes + c] = probability;
                target[2 * sizes.classes + c] = label;
            }
        }
        entropy = sum_of_block<THREADS>(sums, entropy);
        weight = sum_of_block<THREADS>(sums, weight);
        if (threadIdx.x == 0) {
            target[3 * sizes.classes] = entropy;
            target[3 * sizes.classes + 1] = weight;
        }
    }
}

// Weights of both parts, s, the first class that counts, and the number of groups.
struct Loss {
    double dice, entropy, smooth;
    long long first, groups;
};

// The loss from the sums of the groups (groups, 3 C + 2), by one thread.
extern "C" __global__ void __launch_bounds__(THREADS) dice_ce_value(const double *sums, float *loss, Sizes sizes, Loss of) {
    long long classes = sizes.classes, width = 3 * classes + 2;
    double value = 0.0, quotients = 0.0, entropy = 0.0, weight = 0.0;
    for (long long group = 0; group < of.groups; group++) {
        const double *row = sums + group * width;
        for (long long c = of.first; c < classes; c++) {
            double denominator = row[classes + c] + row[2 * classes + c] + of.smooth;
            quotients += denominator == 0.0 ? 1.0 : (2.0 * row[c] + of.smooth) / denominator;
        }
        entropy += row[3 * classes];
        weight += row[3 * classes + 1];
    }
    long long count = (classes - of.first) * of.groups;
    if (of.dice != 0.0 && count > 0) value += of.dice * (1.0 - quotients / (double)count);
    if (of.entropy != 0.0) value += weight == 0.0 ? of.entropy * entropy : of.entropy * entropy / weight;
    loss[0] = (float)value;
}

// slopes (groups, 3, C): of each class, what ∂loss/∂p_c of a voxel is, what is added if c is its label, and the entropy's part.
extern "C" __global__ void __launch_bounds__(THREADS)
    dice_ce_slopes(const double *sums, const double *weights, float *slopes, Sizes sizes, Loss of) {
    long long classes = sizes.classes, width = 3 * classes + 2;
    double weight = 0.0;
    for (long long group = 0; group < of.groups; group++) weight += sums[group * width + 3 * classes + 1];
    double count = (double)((classes - of.first) * of.groups);
    for (long long i = blockIdx.x * (long long)THREADS + threadIdx.x; i < of.groups * classes; i += gridDim.x * (long long)THREADS) {
        long long group = i / classes, c = i % classes;
        const double *row = sums + group * width;
        double denominator = row[classes + c] + row[2 * classes + c] + of.smooth, slope = 0.0, bonus = 0.0;
        if (of.dice != 0.0 && c >= of.first && denominator != 0.0) {
            bonus = -2.0 * of.dice / (count * denominator);
            slope = of.dice * (2.0 * row[c] + of.smooth) / (count * denominator * denominator);
        }
        slopes[(group * 3) * classes + c] = (float)slope;
        slopes[(group * 3 + 1) * classes + c] = (float)bonus;
        slopes[(group * 3 + 2) * classes + c] =
            (float)(weight == 0.0 ? 0.0 : of.entropy * (weights ? weights[c] : 1.0) / weight);
    }
}

// dx = the loss's gradient · ∂loss/∂logits. `images` is the number of images of a group.
extern "C" __global__ void __launch_bounds__(THREADS) dice_ce_gradient(
    const float *logits, const long long *labels, const float *slopes, const float *gradient, float *dx, Sizes sizes, long long images) {
    long long classes = sizes.classes;
    float factor = gradient[0];
    for (long long i = blockIdx.x * (long long)THREADS + threadIdx.x; i < sizes.batch * sizes.voxels; i += gridDim.x * (long long)THREADS) {
        long long n = i / sizes.voxels, v = i % sizes.voxels, label = labels[i];
        const float *source = logits + n * classes * sizes.voxels + v;
        const float *slope = slopes + n / images * 3 * classes, *bonus = slope + classes, *scale = bonus + classes;
        float *target = dx + n * classes * sizes.voxels + v;
        if (!counts(sizes, label)) {
            for (long long c = 0; c < classes; c++) target[c * sizes.voxels] = 0.0f;
            continue;
        }
        float largest = source[0];
        for (long long c = 1; c < classes; c++) largest = fmaxf(largest, source[c * sizes.voxels]);
        float total = 0.0f;
        for (long long c = 0; c < classes; c++) total += expf(source[c * sizes.voxels] - largest);
        float inverse = 1.0f / total, mean = 0.0f;
        for (long long c = 0; c < classes; c++) {
            float p = expf(source[c * sizes.voxels] - largest) * inverse;
            mean += p * (c == label ? slope[c] + bonus[c] : slope[c]);
        }
        for (long long c = 0; c < classes; c++) {
            float p = expf(source[c * sizes.voxels] - largest) * inverse;
            float value = p * (slope[c] - mean + scale[label]);
            if (c == label) value += p * bonus[c] - scale[label];
            target[c * sizes.voxels] = value * factor;
        }
    }
}
