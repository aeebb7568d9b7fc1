// Maximum and average pooling of (planes, D, H, W), forward and backward. A thread does one output, or one element of the gradient,
// which it gathers from the windows that hold it: so no two threads add to one number, and the order is fixed.
#include "tomograd.cuh"

#define FOR_EACH(I, COUNT)                                                                                                \
    for (long long I = blockIdx.x * (long long)blockDim.x + threadIdx.x; I < COUNT; I += gridDim.x * (long long)blockDim.x)

// An axis and its windows: strided ones, or `adaptive` ones, which share the input evenly.
struct Axis {
    long long input, output, kernel, stride, padding, dilation, adaptive;
};

struct Axes {
    Axis axis[3];
};

// The voxels of a window, clipped to the input: `count` from `start` on, `step` apart.
struct Window {
    long long start, count, step;
};

static __device__ __forceinline__ Window window_of(const Axis &axis, long long o) {
    Window window;
    if (axis.adaptive) {
        window.start = o * axis.input / axis.output;
        window.count = ((o + 1) * axis.input + axis.output - 1) / axis.output - window.start;
        window.step = 1;
        return window;
    }
    long long start = o * axis.stride - axis.padding;
    long long skipped = start < 0 ? (-start + axis.dilation - 1) / axis.dilation : 0;
    if (skipped > axis.kernel) skipped = axis.kernel;
    window.start = start + skipped * axis.dilation;
    if (window.start < 0) window.start = 0;
    window.step = axis.dilation;
    window.count = axis.kernel - skipped;
    long long room = axis.input > window.start ? (axis.input - window.start + axis.dilation - 1) / axis.dilation : 0;
    if (window.count > room) window.count = room;
    return window;
}

// The windows that may hold voxel i: from `first` to `last`.
static __device__ __forceinline__ void windows_with(const Axis &axis, long long i, long long &first, long long &last) {
    if (axis.adaptive) {
        first = i * axis.output / axis.input;
        last = ((i + 1) * axis.output - 1) / axis.input;
    } else {
        long long reach = axis.dilation * (axis.kernel - 1), end = i + axis.padding;
        first = end > reach ? (end - reach + axis.stride - 1) / axis.stride : 0;
        last = end / axis.stride;
    }
    if (last >= axis.output) last = axis.output - 1;
}

// The place of voxel i in a window; −1 if it isn't there.
static __device__ __forceinline__ long long place_in(const Window &window, long long i) {
    long long distance = i - window.start;
    if (distance < 0 || distance % window.step != 0) return -1;
    long long place = distance / window.step;
    return place < window.count ? place : -1;
}

// y = the maximum of each window, and its place in the window in row-major order where `winners` isn't null; a NaN is larger than
// all else, and of equal elements the first counts.
template <typename Place>
static __device__ __forceinline__ void maximum(const float *x, float *y, Place *winners, const Axes &axes, long long count) {
    const Axis &d = axes.axis[0], &h = axes.axis[1], &w = axes.axis[2];
    FOR_EACH(i, count) {
        long long rest = i;
        long long ow = rest % w.output;
        rest /= w.output;
        long long oh = rest % h.output;
        rest /= h.output;
        long long od = rest % d.output, plane = rest / d.output;
        Window wd = window_of(d, od), wh = window_of(h, oh), ww = window_of(w, ow);
        const float *source = x + plane * d.input * h.input * w.input;
        float best = -INFINITY;
        long long winner = 0, place = 0;
        for (long long a = 0; a < wd.count; a++) {
            for (long long b = 0; b < wh.count; b++) {
                const float *row = source + ((wd.start + a * wd.step) * h.input + wh.start + b * wh.step) * w.input + ww.start;
                for (long long c = 0; c < ww.count; c++, place++) {
                    float value = row[c * ww.step];
                    if (value > best || (value != value && best == best)) {
                        best = value;
                        winner = place;
                    }
                }
            }
        }
        y[i] = best;
        if (winners) winners[i] = (Place)winner;
    }
}

// dx = the sum of dy over the windows whose maximum the voxel is.
template <typename Place>
static __device__ __forceinline__ void
maximum_gradient(const float *dy, const Place *winners, float *dx, const Axes &axes, long long count) {
    const Axis &d = axes.axis[0], &h = axes.axis[1], &w = axes.axis[2];
    FOR_EACH(i, count) {
        long long rest = i;
        long long iw = rest % w.input;
        rest /= w.input;
        long long ih = rest % h.input;
        rest /= h.input;
        long long id = rest % d.input, plane = rest / d.input;
        long long first_d, last_d, first_h, last_h, first_w, last_w;
        windows_with(d, id, first_d, last_d);
        windows_with(h, ih, first_h, last_h);
        windows_with(w, iw, first_w, last_w);
        float sum = 0.0f;
        for (long long od = first_d; od <= last_d; od++) {
            Window wd = window_of(d, od);
            long long a = place_in(wd, id);
            if (a < 0) continue;
            for (long long oh = first_h; oh <= last_h; oh++) {
                Window wh = window_of(h, oh);
                long long b = place_in(wh, ih);
                if (b < 0) continue;
                for (long long ow = first_w; ow <= last_w; ow++) {
                    Window ww = window_of(w, ow);
                    long long c = place_in(ww, iw);
                    if (c < 0) continue;
                    long long output = ((plane * d.output + od) * h.output + oh) * w.output + ow;
                    if ((long long)winners[output] == (a * wh.count + b) * ww.count + c) sum += dy[output];
                }
            }
        }
        dx[i] = sum;
    }
}

extern "C" __global__ void __launch_bounds__(256)
    max_pool_u8(const float *x, float *y, unsigned char *winners, Axes axes, long long count) {
    maximum(x, y, winners, axes, count);
}

extern "C" __global__ void __launch_bounds__(256)
    max_pool_i32(const float *x, float *y, int *winners, Axes axes, long long count) {
    maximum(x, y, winners, axes, count);
}

extern "C" __global__ void __launch_bounds__(256)
    max_pool_gradient_u8(const float *dy, const unsigned char *winners, float *dx, Axes axes, long long count) {
    maximum_gradient(dy, winners, dx, axes, count);
}

extern "C" __global__ void __launch_bounds__(256)
    max_pool_gradient_i32(const float *dy, const int *winners, float *dx, Axes axes, long long count) {
    maximum_gradient(dy, winners, dx, axes, count);
}

// By how many voxels the sum along an axis is divided: those of the window, or of the padded one.
static __device__ __forceinline__ float divisor(const Axis &axis, const Window &window, long long o, int padded) {
    if (!padded) return (float)window.count;
    long long end = axis.input + 2 * axis.padding - o * axis.stride;
    return (float)(axis.kernel < end ? axis.kernel : end);
}

extern "C" __global__ void __launch_bounds__(256)
    average_pool(const float *x, float *y, Axes axes, int padded, long long count) {
    const Axis &d = axes.axis[0], &h = axes.axis[1], &w = axes.axis[2];
    FOR_EACH(i, count) {
        long long rest = i;
        long long ow = rest % w.output;
        rest /= w.output;
        long long oh = rest % h.output;
        rest /= h.output;
        long long od = rest % d.output, plane = rest / d.output;
        Window wd = window_of(d, od), wh = window_of(h, oh), ww = window_of(w, ow);
        const float *source = x + plane * d.input * h.input * w.input;
        float sum = 0.0f;
        for (long long a = 0; a < wd.count; a++) {
            for (long long b = 0; b < wh.count; b++) {
                const float *row = source + ((wd.start + a) * h.input + wh.start + b) * w.input + ww.start;
                for (long long c = 0; c < ww.count; c++) sum += row[c];
            }
        }
        y[i] = sum / (divisor(d, wd, od, padded) * divisor(h, wh, oh, padded) * divisor(w, ww, ow, padded));
    }
}

extern "C" __global__ void __launch_bounds__(256)
    average_pool_gradient(const float *dy, float *dx, Axes axes, int padded, long long count) {
    const Axis &d = axes.axis[0], &h = axes.axis[1], &w = axes.axis[2];
    FOR_EACH(i, count) {
        long long rest = i;
        long long iw = rest % w.input;
        rest /= w.input;
        long long ih = rest % h.input;
        rest /= h.input;
        long long id = rest % d.input, plane = rest / d.input;
        long long first_d, last_d, first_h, last_h, first_w, last_w;
        windows_with(d, id, first_d, last_d);
        windows_with(h, ih, first_h, last_h);
        windows_with(w, iw, first_w, last_w);
        float sum = 0.0f;
        for (long long od = first_d; od <= last_d; od++) {
            Window wd = window_of(d, od);
            if (place_in(wd, id) < 0) continue;
            for (long long oh = first_h; oh <= last_h; oh++) {
                Window wh = window_of(h, oh);
                if (place_in(wh, ih) < 0) continue;
                for (long long ow = first_w; ow <= last_w; ow++) {
                    Window ww = window_of(w, ow);
                    if (place_in(ww, iw) < 0) continue;
                    float parts = divisor(d, wd, od, padded) * divisor(h, wh, oh, padded) * divisor(w, ww, ow, padded);
                    sum += dy[((plane * d.output + od) * h.output + oh) * w.output + ow] / parts;
                }
            }
        }
        dx[i] = sum;
    }
}
