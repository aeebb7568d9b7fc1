// Interpolation of (planes, D, H, W) to another size, and its gradient, which is gathered axis by axis: so no two threads add to one
// number, and the order is fixed.
#include "indices.cuh"

enum { NEAREST, LINEAR, LINEAR_CORNERS };

// The sizes of an axis, and the distance of neighbouring outputs in voxels of the input (of the linear modes).
struct Axis {
    long long input, output;
    double ratio;
};

struct Axes {
    Axis axis[3];
    Divisor output[3];
};

// Output o is (1 − part) · voxel `below` + part · the voxel behind it. A voxel with weight 0 isn't read.
struct Taps {
    long long below;
    double part;
};

static __device__ __forceinline__ Taps taps_of(int mode, const Axis &axis, long long o) {
    Taps taps;
    double position;
    if (mode == NEAREST) {
        taps.below = o * axis.input / axis.output;
        taps.part = 0.0;
        return taps;
    }
    // Rounded after each step, as on the CPU.
    double last = (double)(axis.input - 1);
    if (mode == LINEAR) {
        position = __dadd_rn(__dmul_rn((double)o + 0.5, axis.ratio), -0.5);
        position = position < 0.0 ? 0.0 : position;
    } else {
        position = axis.output == 1 ? 0.0 : __dmul_rn((double)o, axis.ratio);
    }
    position = position > last ? last : position;
    double below = floor(position);
    taps.below = (long long)below;
    taps.part = position - below;
    return taps;
}

extern "C" __global__ void __launch_bounds__(256)
    interpolate(const float *x, float *y, Axes axes, int mode, long long count) {
    FOR_EACH(i, count) {
        long long rest = i;
        Taps w = taps_of(mode, axes.axis[2], last_of(rest, axes.output[2]));
        Taps h = taps_of(mode, axes.axis[1], last_of(rest, axes.output[1]));
        Taps d = taps_of(mode, axes.axis[0], last_of(rest, axes.output[0]));
        const float *plane = x + rest * axes.axis[0].input * axes.axis[1].input * axes.axis[2].input;
        float sum = 0.0f;
        for (int a = 0; a < (d.part == 0.0 ? 1 : 2); a++) {
            for (int b = 0; b < (h.part == 0.0 ? 1 : 2); b++) {
                const float *row = plane + ((d.below + a) * axes.axis[1].input + h.below + b) * axes.axis[2].input + w.below;
                float value = w.part == 0.0 ? row[0] : fmaf(row[1], (float)w.part, row[0] * (float)(1.0 - w.part));
                sum = fmaf(value, (float)((a ? d.part : 1.0 - d.part) * (b ? h.part : 1.0 - h.part)), sum);
            }
        }
        y[i] = sum;
    }
}

// dx[o, i, j] of (outer, input, inner) = Σ over the outputs that read voxel i, in their order, of weight · dy[o, output, j].
extern "C" __global__ void __launch_bounds__(256) interpolate_gradient(
    const float *dy, float *dx, Axis axis, int mode, Divisor input, Divisor inner, long long count) {
    FOR_EACH(i, count) {
        long long row = i, column = last_of(row, inner), voxel = last_of(row, input);
        const float *source = dy + row * axis.output * inner.size + column;
        // Outputs are at o · scale + shift; those within a voxel's distance, one more on each side for rounding, and at the ends all
        // that were clamped.
        double scale = mode == NEAREST ? (double)axis.input / (double)axis.output : axis.ratio;
        double shift = mode == LINEAR ? 0.5 * scale - 0.5 : 0.0;
        long long first = 0, last = axis.output - 1;
        if (voxel > 0 && scale > 0.0) {
            double from = floor(((double)(voxel - 1) - shift) / scale) - 1.0;
            if (from > 0.0) first = from < (double)last ? (long long)from : last;
        }
        if (voxel < axis.input - 1 && scale > 0.0) {
            double to = ceil(((double)(voxel + 1) - shift) / scale) + 1.0;
            if (to < (double)last) last = to > 0.0 ? (long long)to : 0;
        }
        float sum = 0.0f;
        for (long long o = first; o <= last; o++) {
            Taps taps = taps_of(mode, axis, o);
            if (taps.below == voxel) {
                sum = fmaf((float)(1.0 - taps.part), source[o * inner.size], sum);
            } else if (taps.below + 1 == voxel && taps.part != 0.0) {
                sum = fmaf((float)taps.part, source[o * inner.size], sum);
            }
        }
        dx[i] = sum;
    }
}
