// Operations that move elements, by their size in bytes: concatenation, padding, choice, selection by index; one-hot labels; sums at
// indices, in the order of their source.
#include "indices.cuh"

// y[o, start + i] = x[o, i] for rows of `from` elements in rows of `to`.
#define CONCAT(NAME, T)                                                                                                   \
    extern "C" __global__ void __launch_bounds__(256)                                                                     \
        NAME(const T *x, T *y, Divisor from, long long to, long long start, long long count) {                            \
        FOR_EACH(i, count) {                                                                                              \
            long long row = i, column = last_of(row, from);                                                               \
            y[row * to + start + column] = x[i];                                                                          \
        }                                                                                                                 \
    }

CONCAT(concat_1, unsigned char)
CONCAT(concat_2, unsigned short)
CONCAT(concat_4, unsigned int)
CONCAT(concat_8, unsigned long long)

enum { CONSTANT, REFLECT, REPLICATE };

// The axes of a padded tensor: sizes before and after, and the elements in front.
struct Padding {
    long long rank, mode;
    long long from[AXES], before[AXES];
    Divisor to[AXES];
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
                long long from = source(padding, axis, last_of(rest, padding.to[axis]));                                  \
                inside = inside && from >= 0;                                                                             \
                place += from * stride;                                                                                   \
                stride *= padding.from[axis];                                                                             \
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
    long long before, after;
    Divisor size, inner;
};

// dx[o, i] = the sum of the padded gradient's elements that element i of an axis was copied to, in their order.
extern "C" __global__ void __launch_bounds__(256)
    fold_border(const float *dy, float *dx, Border border, int mode, long long count) {
    FOR_EACH(i, count) {
        long long row = i, column = last_of(row, border.inner), place = last_of(row, border.size);
        long long size = border.size.size, inner = border.inner.size, padded = border.before + size + border.after;
        const float *source = dy + row * padded * inner + column;
        float sum = 0.0f;
        if (mode == REFLECT) {
            if (place >= 1 && place <= border.before) sum += source[(border.before - place) * inner];
            sum += source[(border.before + place) * inner];
            long long mirrored = 2 * (size - 1) - place;
            if (place < size - 1 && mirrored < size + border.after) {
                sum += source[(border.before + mirrored) * inner];
            }
        } else {
            long long first = place == 0 ? 0 : border.before + place;
            long long last = place == size - 1 ? padded - 1 : border.before + place;
            for (long long j = first; j <= last; j++) sum += source[j * inner];
        }
        dx[i] = sum;
    }
}

// y = a where the condition is true, otherwise b; views of condition, a and b.
#define CHOOSE(NAME, T)                                                                                                   \
    extern "C" __global__ void __launch_bounds__(256)                                                                     \
        NAME(const unsigned char *condition, const T *a, const T *b, T *y, Views<3> views, long long count) {                \
        FOR_EACH(i, count) y[i] = condition[place(views, 0, i)] ? a[place(views, 1, i)] : b[place(views, 2, i)];          \
    }

CHOOSE(choose_1, unsigned char)
CHOOSE(choose_2, unsigned short)
CHOOSE(choose_4, unsigned int)
CHOOSE(choose_8, unsigned long long)

// y[o, c, i] = `one` where c is the label [o, i], otherwise 0; the flag becomes 1 if a label is none of the classes.
#define ONE_HOT(NAME, T)                                                                                                  \
    extern "C" __global__ void __launch_bounds__(256) NAME(                                                               \
        const long long *labels, T *y, int *wrong, unsigned long long one, Divisor classes, Divisor inner,                \
        long long count) {                                                                                                \
        FOR_EACH(i, count) {                                                                                              \
            long long row = i, column = last_of(row, inner), c = last_of(row, classes);                                   \
            long long label = labels[row * inner.size + column];                                                          \
            if (label < 0 || label >= classes.size) atomicExch(wrong, 1);                                                 \
            y[i] = label == c ? (T)one : (T)0;                                                                            \
        }                                                                                                                 \
    }

ONE_HOT(one_hot_1, unsigned char)
ONE_HOT(one_hot_2, unsigned short)
ONE_HOT(one_hot_4, unsigned int)
ONE_HOT(one_hot_8, unsigned long long)

// y[o, i, j] = x[o, index, j] of an axis of `size`, where the index is [o, i, j], or [i] if it is `shared`; the flag becomes 1 if an index
// is outside of the axis.
#define GATHER(NAME, T)                                                                                                   \
    extern "C" __global__ void __launch_bounds__(256) NAME(                                                               \
        const T *x, const long long *index, T *y, int *wrong, long long size, Divisor length, Divisor inner, int shared,  \
        long long count) {                                                                                                \
        FOR_EACH(i, count) {                                                                                              \
            long long row = i, column = last_of(row, inner), from = last_of(row, length);                                 \
            from = index[shared ? from : i];                                                                              \
            bool inside = from >= 0 && from < size;                                                                       \
            if (!inside) atomicExch(wrong, 1);                                                                            \
            y[i] = inside ? x[(row * size + from) * inner.size + column] : (T)0;                                          \
        }                                                                                                                 \
    }

GATHER(gather_1, unsigned char)
GATHER(gather_2, unsigned short)
GATHER(gather_4, unsigned int)
GATHER(gather_8, unsigned long long)

// keys[line, i] = the index and, below it, i, for a line of `length` places in one of `padded`; behind the length what is larger than all
// others. Lines are (outer, inner), or one if the index is shared. The flag becomes 1 if an index is outside of the axis.
extern "C" __global__ void __launch_bounds__(256) scatter_keys(
    const long long *index, unsigned long long *keys, int *wrong, long long size, long long length, Divisor inner, Divisor padded,
    long long count) {
    FOR_EACH(i, count) {
        long long line = i, at = last_of(line, padded), column = last_of(line, inner);
        unsigned long long key = ~0ull;
        if (at < length) {
            long long to = index[(line * length + at) * inner.size + column];
            if (to < 0 || to >= size) atomicExch(wrong, 1);
            key = (unsigned long long)to << 32 | (unsigned long long)at;
        }
        keys[i] = key;
    }
}

// y[o, s, j] = x[o, s, j] + Σ source[o, i, j] over the places i, in ascending order, whose index is s: they follow one another in the
// sorted keys. x may be null, for zeros.
extern "C" __global__ void __launch_bounds__(256) scatter_sums(
    const float *x, const float *source, const unsigned long long *keys, float *y, long long length, long long padded, Divisor size,
    Divisor inner, int shared, long long count) {
    FOR_EACH(i, count) {
        long long row = i, column = last_of(row, inner), at = last_of(row, size);
        const unsigned long long *line = keys + (shared ? 0 : (row * inner.size + column) * padded);
        unsigned long long first = (unsigned long long)at << 32;
        long long low = 0, high = length;
        while (low < high) {
            long long middle = (low + high) / 2;
            if (line[middle] < first) low = middle + 1;
            else high = middle;
        }
        float sum = x ? x[i] : 0.0f;
        for (; low < length && line[low] >> 32 == (unsigned long long)at; low++) {
            sum += source[(row * length + (long long)(line[low] & 0xffffffffull)) * inner.size + column];
        }
        y[i] = sum;
    }
}
