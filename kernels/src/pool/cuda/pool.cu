// Maximum and average pooling of (planes, D, H, W), forward and backward. A thread does one output, or one element of the gradient,
// which it gathers from the windows that hold it: so no two threads add to one number, and the order is fixed.
#include "indices.cuh"

// An axis and its windows: strided ones, or `adaptive` ones, which share the input evenly.
struct Axis {
    int input, output, kernel, stride, padding, dilation, adaptive, unused;
    Divisor inputs, outputs;
};

struct Axes {
    Axis axis[3];
};

// The voxels of a window, clipped to the input: `count` from `start` on, `step` apart.
struct Window {
    int start, count, step;
};

static __device__ __forceinline__ Window window_of(const Axis &axis, int o) {
    Window window;
    if (axis.adaptive) {
        window.start = (int)quotient((long long)o * axis.input, axis.outputs);
        window.count = (int)quotient((o + 1LL) * axis.input + axis.output - 1, axis.outputs) - window.start;
        window.step = 1;
        return window;
    }
    int start = o * axis.stride - axis.padding;
    int skipped = start < 0 ? (-start + axis.dilation - 1) / axis.dilation : 0;
    if (skipped > axis.kernel) skipped = axis.kernel;
    window.start = start + skipped * axis.dilation;
    if (window.start < 0) window.start = 0;
    window.step = axis.dilation;
    window.count = axis.kernel - skipped;
    int room = axis.input > window.start ? (axis.input - window.start + axis.dilation - 1) / axis.dilation : 0;
    if (window.count > room) window.count = room;
    return window;
}

// The windows of an output.
struct Windows {
    Window d, h, w;
    int od, oh, ow;
    long long plane;
};

static __device__ __forceinline__ Windows windows_of(const Axes &axes, long long output) {
    Windows windows;
    windows.ow = (int)last_of(output, axes.axis[2].outputs);
    windows.oh = (int)last_of(output, axes.axis[1].outputs);
    windows.od = (int)last_of(output, axes.axis[0].outputs);
    windows.plane = output;
    windows.d = window_of(axes.axis[0], windows.od);
    windows.h = window_of(axes.axis[1], windows.oh);
    windows.w = window_of(axes.axis[2], windows.ow);
    return windows;
}

// Calls f with each voxel of the windows, in row-major order.
template <typename F>
static __device__ __forceinline__ void each_voxel(const float *x, const Axes &axes, const Windows &windows, const F &f) {
    const Window &d = windows.d, &h = windows.h, &w = windows.w;
    long long height = axes.axis[1].input, width = axes.axis[2].input;
    x += windows.plane * axes.axis[0].input * height * width;
    for (int a = 0; a < d.count; a++) {
        for (int b = 0; b < h.count; b++) {
            const float *row = x + ((d.start + a * d.step) * height + h.start + b * h.step) * width + w.start;
            for (int c = 0; c < w.count; c++) f(row[c * w.step]);
        }
    }
}

// The outputs whose windows may hold voxel i: from `first` to `last`.
struct Range {
    int first, last;
};

static __device__ __forceinline__ Range range_of(const Axis &axis, int i) {
    Range range;
    if (axis.adaptive) {
        range.first = (int)quotient((long long)i * axis.output, axis.inputs);
        range.last = (int)quotient((i + 1LL) * axis.output - 1, axis.inputs);
    } else {
        int reach = axis.dilation * (axis.kernel - 1), end = i + axis.padding;
        range.first = end > reach ? (end - reach + axis.stride - 1) / axis.stride : 0;
        range.last = end / axis.stride;
    }
    if (range.last >= axis.output) range.last = axis.output - 1;
    return range;
}

// The place of voxel i in a window; −1 if it isn't there.
static __device__ __forceinline__ int place_in(const Window &window, int i) {
    int distance = i - window.start, place = distance / window.step;
    return distance < 0 || place * window.step != distance || place >= window.count ? -1 : place;
}

// Calls f with each output whose windows hold a voxel, its windows, and the voxel's place in them, in row-major order.
template <typename F>
static __device__ __forceinline__ void each_window(const Axes &axes, long long voxel, const F &f) {
    const Axis &d = axes.axis[0], &h = axes.axis[1], &w = axes.axis[2];
    int iw = (int)last_of(voxel, w.inputs), ih = (int)last_of(voxel, h.inputs), id = (int)last_of(voxel, d.inputs);
    Range of_d = range_of(d, id), of_h = range_of(h, ih), of_w = range_of(w, iw);
    Windows windows;
    windows.plane = voxel;
    for (windows.od = of_d.first; windows.od <= of_d.last; windows.od++) {
        windows.d = window_of(d, windows.od);
        int a = place_in(windows.d, id);
        if (a < 0) continue;
        for (windows.oh = of_h.first; windows.oh <= of_h.last; windows.oh++) {
            windows.h = window_of(h, windows.oh);
            int b = place_in(windows.h, ih);
            if (b < 0) continue;
            long long row = ((voxel * d.output + windows.od) * h.output + windows.oh) * w.output;
            for (windows.ow = of_w.first; windows.ow <= of_w.last; windows.ow++) {
                windows.w = window_of(w, windows.ow);
                int c = place_in(windows.w, iw);
                if (c >= 0) f(row + windows.ow, windows, (a * windows.h.count + b) * windows.w.count + c);
            }
        }
    }
}

// y = the maximum of each window, and its place in the window in row-major order where `winners` isn't null; a NaN is larger than
// all else, and of equal elements the first counts. The gradient is the sum of dy over the windows whose maximum a voxel is.
#define MAXIMUM(SUFFIX, PLACE)                                                                                            \
    extern "C" __global__ void __launch_bounds__(256, 1)                                                                  \
        max_pool_##SUFFIX(const float *x, float *y, PLACE *winners, const __grid_constant__ Axes axes, long long count) { \
        FOR_EACH(i, count) {                                                                                              \
            float best = -INFINITY;                                                                                       \
            int winner = 0, place = 0;                                                                                    \
            each_voxel(x, axes, windows_of(axes, i), [&](float value) {                                                   \
                if (value > best || (value != value && best == best)) {                                                   \
                    best = value;                                                                                         \
                    winner = place;                                                                                       \
                }                                                                                                         \
                place++;                                                                                                  \
            });                                                                                                           \
            y[i] = best;                                                                                                  \
            if (winners) winners[i] = (PLACE)winner;                                                                      \
        }                                                                                                                 \
    }                                                                                                                     \
    extern "C" __global__ void __launch_bounds__(256, 1) max_pool_gradient_##SUFFIX(                                      \
        const float *dy, const PLACE *winners, float *dx, const __grid_constant__ Axes axes, long long count) {           \
        FOR_EACH(i, count) {                                                                                              \
            float sum = 0.0f;                                                                                             \
            each_window(axes, i, [&](long long output, const Windows &, int place) {                                      \
                if ((int)winners[output] == place) sum += dy[output];                                                     \
            });                                                                                                           \
            dx[i] = sum;                                                                                                  \
        }                                                                                                                 \
    }

MAXIMUM(u8, unsigned char)
MAXIMUM(i32, int)

// By how many voxels the sum along an axis is divided: those of the window, or of the padded one.
static __device__ __forceinline__ float divisor(const Axis &axis, const Window &window, int o, int padded) {
    int end = axis.input + 2 * axis.padding - o * axis.stride;
    return (float)(!padded ? window.count : axis.kernel < end ? axis.kernel : end);
}

static __device__ __forceinline__ float divisor_of(const Axes &axes, const Windows &windows, int padded) {
    return divisor(axes.axis[0], windows.d, windows.od, padded) * divisor(axes.axis[1], windows.h, windows.oh, padded) *
           divisor(axes.axis[2], windows.w, windows.ow, padded);
}

extern "C" __global__ void __launch_bounds__(256, 1)
    average_pool(const float *x, float *y, const __grid_constant__ Axes axes, int padded, long long count) {
    FOR_EACH(i, count) {
        Windows windows = windows_of(axes, i);
        float sum = 0.0f;
        each_voxel(x, axes, windows, [&](float value) { sum += value; });
        y[i] = sum / divisor_of(axes, windows, padded);
    }
}

extern "C" __global__ void __launch_bounds__(256, 1)
    average_pool_gradient(const float *dy, float *dx, const __grid_constant__ Axes axes, int padded, long long count) {
    FOR_EACH(i, count) {
        float sum = 0.0f;
        each_window(axes, i, [&](long long output, const Windows &windows, int) { sum += dy[output] / divisor_of(axes, windows, padded); });
        dx[i] = sum;
    }
}
