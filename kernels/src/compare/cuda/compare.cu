// Comparisons of two tensors of any type, broadcast to a common shape.
#include "indices.cuh"

enum { EQUAL, NOT_EQUAL, LESS, LESS_EQUAL, GREATER, GREATER_EQUAL };

template <typename T>
static __device__ __forceinline__ bool holds(int how, T x, T y) {
    switch (how) {
        case EQUAL: return x == y;
        case NOT_EQUAL: return x != y;
        case LESS: return x < y;
        case LESS_EQUAL: return x <= y;
        case GREATER: return x > y;
        default: return x >= y;
    }
}

#define COMPARE(NAME, T, VALUE)                                                                                           \
    extern "C" __global__ void __launch_bounds__(256)                                                                     \
        NAME(const T *x, const T *y, unsigned char *z, Views<2> views, int how, long long count) {                        \
        FOR_EACH(i, count) z[i] = holds(how, VALUE(x[place(views, 0, i)]), VALUE(y[place(views, 1, i)]));                 \
    }

COMPARE(compare_f32, float, )
COMPARE(compare_f64, double, )
COMPARE(compare_f16, f16, to_float)
COMPARE(compare_bf16, bf16, to_float)
COMPARE(compare_i64, long long, )
COMPARE(compare_i32, int, )
COMPARE(compare_u8, unsigned char, )
