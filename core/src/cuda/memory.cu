// Fill, strided copy and conversion: what a tensor needs of a device without an operation.
#include "indices.cuh"

// y[i] = the low bits of `pattern`.
#define FILL(NAME, T)                                                                                                    \
    extern "C" __global__ void __launch_bounds__(256) NAME(T *y, long long count, unsigned long long pattern) {          \
        FOR_EACH(i, count) y[i] = (T)pattern;                                           \
    }

FILL(fill_1, unsigned char)
FILL(fill_2, unsigned short)
FILL(fill_4, unsigned int)
FILL(fill_8, unsigned long long)

// y[i] = element i of the view of x.
#define COPY(NAME, T)                                                                                                    \
    extern "C" __global__ void __launch_bounds__(256) NAME(const T *x, T *y, long long count, Views<1> view) {               \
        FOR_EACH(i, count) y[i] = x[place(view, 0, i)];                                    \
    }

COPY(copy_1, unsigned char)
COPY(copy_2, unsigned short)
COPY(copy_4, unsigned int)
COPY(copy_8, unsigned long long)

// A float that rounds to the nearest half-precision number as the double does: towards zero, with the last bit set if that
// lost something. (Rounding twice to the nearest could round up twice.)
static __device__ __forceinline__ float narrowed(double value) {
    float near = (float)value;
    if ((double)near == value || value != value || fabsf(near) > 3.4028234e38f) return near;
    unsigned bits = __float_as_uint(near);
    if (fabs((double)near) > fabs(value)) bits -= 1;
    return __uint_as_float(bits | 1);
}

// The number of a dtype (by its code: f32 f64 f16 bf16 i64 i32 u8 bool) at x[place], as a double.
static __device__ double load(const void *x, int code, long long place) {
    switch (code) {
        case 0: return ((const float *)x)[place];
        case 1: return ((const double *)x)[place];
        case 2: return to_float(((const f16 *)x)[place]);
        case 3: return to_float(((const bf16 *)x)[place]);
        case 4: return (double)((const long long *)x)[place];
        case 5: return ((const int *)x)[place];
        case 6: return ((const unsigned char *)x)[place];
        default: return ((const unsigned char *)x)[place] ? 1.0 : 0.0;
    }
}

// The integer nearest to zero, within bounds that are doubles; 0 for NaN.
static __device__ __forceinline__ double limited(double value, double least, double greatest) {
    return value != value ? 0.0 : value < least ? least : value > greatest ? greatest : value;
}

static __device__ void store(void *y, int code, long long place, double value) {
    switch (code) {
        case 0: ((float *)y)[place] = (float)value; break;
        case 1: ((double *)y)[place] = value; break;
        case 2: ((f16 *)y)[place] = from_float<f16>(narrowed(value)); break;
        case 3: ((bf16 *)y)[place] = from_float<bf16>(narrowed(value)); break;
        case 4:
            // 2^63 isn't an i64, and the largest double below it is.
            ((long long *)y)[place] = value >= 9223372036854775808.0
                ? 0x7fffffffffffffffLL
                : (long long)limited(value, -9223372036854775808.0, 9223372036854774784.0);
            break;
        case 5: ((int *)y)[place] = (int)limited(value, -2147483648.0, 2147483647.0); break;
        case 6: ((unsigned char *)y)[place] = (unsigned char)(int)limited(value, 0.0, 255.0); break;
        default: ((unsigned char *)y)[place] = value != 0.0; break;
    }
}

// y[i] = element i of the view of x, in another dtype.
extern "C" __global__ void __launch_bounds__(256)
    convert(const void *x, int from, void *y, int to, long long count, Views<1> view) {
    FOR_EACH(i, count) store(y, to, i, load(x, from, place(view, 0, i)));
}
