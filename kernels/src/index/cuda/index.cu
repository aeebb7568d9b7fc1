// Operations that move elements, by their size in bytes: concatenation, padding, choice; one-hot labels.
#include "tomograd.cuh"

#define AXES 8
#define FOR_EACH(I, COUNT)                                                                                                \
    for (long long I = blockIdx.x * (long long)blockDim.x + threadIdx.x; I < COUNT; I += gridDim.x * (long long)blockDim.x)

// y[o, start + i] = x[o, i] for rows of `from` elements in rows of `to`.
#define CONCAT(NAME, T)                                                                                                   \
    extern "C" __global__ void __launch_bounds__(256)                                                                     \
        NAME(const T *x, T *y, long long from, long long to, long long start, long long count) {                          \
        FOR_EACH(i, count) y[i / from * to + start + i % from] = x[i];                                                    \
    }

CONCAT(concat_1, unsigned char)
CONCAT(concat_2, unsigned short)
CONCAT(concat_4, unsigned int)
CONCAT(concat_8, unsigned long long)

enum { CONSTANT, REFLECT, REPLICATE };

// The axes of a padded tensor: sizes before and after, and the elements in front.
struct Padding {
    long long rank, mode;
    long long from[AXES], to[AXES], before[AXES];
};

// The element of an axis that element i of the padded axis copies; −1 for a constant.
static __device__ __forceinline__ long long source(const Padding &padding, int axis, long long i) {
    long long place = i - padding.before[axis], size = padding.from[axis];
    if (place >= 0 && place < size) return place;
    if (padding.mode == CONSTANT) return -1;
    if (padding.mode == REFLECT) return place < 0 ? -place : 2 * (size - 1) - place;
    return place < 0 ? 0 : size - 1;
}

#define PAD(NAME, T)                                                                                                      \
    extern "C" __global__ void __launch_bounds__(256)                                                                     \
        NAME(const T *x, T *y, Padding padding, unsigned long long constant, long long count) {                           \
        FOR_EACH(i, count) {                                                                                              \
            long long rest = i, place = 0, stride = 1;                                                                    \
            bool inside = true;                                                                                           \
            for (int axis = (int)padding.rank - 1; axis >= 0; axis--) {                                                   \
                long long next = rest / padding.to[axis];                                                                 \
                long long from = source(padding, axis, rest - next * padding.to[axis]);                                   \
                inside = inside && from >= 0;                                                                             \
                place += from * stride;                                                                                   \
                stride *= padding.from[axis];                                                                             \
                rest = next;                                                                                              \
            }                                                                                                             \
            y[i] = inside ? x[place] : (T)constant;                                                                       \
        }                                                                                                                 \
    }

PAD(pad_1, unsigned char)
PAD(pad_2, unsigned short)
PAD(pad_4, unsigned int)
PAD(pad_8, unsigned long long)

// An axis of a padded gradient: elements in front, behind, and between them.
struct Border {
    long long before, size, after, inner;
};

// dx[o, i] = the sum of the padded gradient's elements that element i of an axis was copied to, in their order.
extern "C" __global__ void __launch_bounds__(256)
    fold_border(const float *dy, float *dx, Border border, int mode, long long count) {
    FOR_EACH(i, count) {
        long long column = i % border.inner, row = i / border.inner, place = row % border.size;
        long long padded = border.before + border.size + border.after;
        const float *source = dy + row / border.size * padded * border.inner + column;
        float sum = 0.0f;
        if (mode == REFLECT) {
            if (place >= 1 && place <= border.before) sum += source[(border.before - place) * border.inner];
            sum += source[(border.before + place) * border.inner];
            long long mirrored = 2 * (border.size - 1) - place;
            if (place < border.size - 1 && mirrored < border.size + border.after) {
                sum += source[(border.before + mirrored) * border.inner];
            }
        } else {
            long long first = place == 0 ? 0 : border.before + place;
            long long last = place == border.size - 1 ? padded - 1 : border.before + place;
            for (long long j = first; j <= last; j++) sum += source[j * border.inner];
        }
        dx[i] = sum;
    }
}

// The common shape, and the strides of condition, a and b in it.
struct Views {
    long long rank;
    long long size[AXES];
    long long stride[3][AXES];
};

static __device__ __forceinline__ long long place(const Views &views, int input, long long flat) {
    long long place = 0;
    for (int axis = (int)views.rank - 1; axis >= 0; axis--) {
        long long rest = flat / views.size[axis];
        place += (flat - rest * views.size[axis]) * views.stride[input][axis];
        flat = rest;
    }
    return place;
}

#define CHOOSE(NAME, T)                                                                                                   \
    extern "C" __global__ void __launch_bounds__(256)                                                                     \
        NAME(const unsigned char *condition, const T *a, const T *b, T *y, Views views, long long count) {                \
        FOR_EACH(i, count) y[i] = condition[place(views, 0, i)] ? a[place(views, 1, i)] : b[place(views, 2, i)];          \
    }

CHOOSE(choose_1, unsigned char)
CHOOSE(choose_2, unsigned short)
CHOOSE(choose_4, unsigned int)
CHOOSE(choose_8, unsigned long long)

// y[o, c, i] = `one` where c is the label [o, i], otherwise 0; the flag becomes 1 if a label is none of the classes.
#define ONE_HOT(NAME, T)                                                                                                  \
    extern "C" __global__ void __launch_bounds__(256) NAME(                                                               \
        const long long *labels, T *y, int *wrong, unsigned long long one, long long classes, long long inner,            \
        long long count) {                                                                                                \
        FOR_EACH(i, count) {                                                                                              \
            long long c = i / inner % classes, label = labels[i / inner / classes * inner + i % inner];                   \
            if (label < 0 || label >= classes) atomicExch(wrong, 1);                                                      \
            y[i] = label == c ? (T)one : (T)0;                                                                            \
        }                                                                                                                 \
    }

ONE_HOT(one_hot_1, unsigned char)
ONE_HOT(one_hot_2, unsigned short)
ONE_HOT(one_hot_4, unsigned int)
ONE_HOT(one_hot_8, unsigned long long)
