// Sorting of lines of 64-bit keys, which are all different, by a bitonic network (Batcher 1968): lines have a power of two places. Keys of
// numbers have their order in the upper 32 bits and their position in the lower ones, so that the sort is stable.
#include "indices.cuh"

#define THREADS 256
// Keys that a block sorts in shared memory.
#define CHUNK 1024

// The bits of a number in the order of numbers; a NaN is the largest, and zeros of both signs are equal.
static __device__ __forceinline__ unsigned ordered(float x) {
    if (x != x) return 0xffffffffu;
    unsigned bits = x == 0.0f ? 0u : __float_as_uint(x);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// keys[o, j, i] of element i of line (o, j) of x (outer, size, inner), in lines of `padded` places; behind them what is larger than all.
extern "C" __global__ void __launch_bounds__(THREADS)
    sort_keys(const float *x, unsigned long long *keys, int descending, long long size, Divisor inner, Divisor padded, long long count) {
    FOR_EACH(i, count) {
        long long line = i, at = last_of(line, padded), column = last_of(line, inner);
        unsigned long long key = ~0ull;
        if (at < size) {
            unsigned order = ordered(x[(line * size + at) * inner.size + column]);
            key = (unsigned long long)(descending ? ~order : order) << 32 | (unsigned long long)at;
        }
        keys[i] = key;
    }
}

static __device__ __forceinline__ void exchange(unsigned long long &a, unsigned long long &b, bool rising) {
    if ((a > b) == rising) {
        unsigned long long first = a;
        a = b;
        b = first;
    }
}

// The steps of the network from `width` down, at distances within a chunk. `base` is the place of the chunk among all lines.
static __device__ __forceinline__ void steps(unsigned long long *chunk, long long base, long long padded, long long width) {
    for (int distance = width / 2 < CHUNK / 2 ? (int)(width / 2) : CHUNK / 2; distance > 0; distance /= 2) {
        for (int pair = threadIdx.x; pair < CHUNK / 2; pair += THREADS) {
            int a = (pair & ~(distance - 1)) * 2 + (pair & (distance - 1));
            exchange(chunk[a], chunk[a + distance], ((base + a) & (padded - 1) & width) == 0);
        }
        __syncthreads();
    }
}

// Sorts the chunks of all lines for themselves (`first` = 2), or takes the last steps of width `first`.
static __device__ __forceinline__ void in_shared(unsigned long long *keys, long long padded, long long first, long long last, long long count) {
    __shared__ unsigned long long chunk[CHUNK];
    long long base = blockIdx.x * (long long)CHUNK;
    for (int i = threadIdx.x; i < CHUNK; i += THREADS) chunk[i] = base + i < count ? keys[base + i] : ~0ull;
    __syncthreads();
    for (long long width = first; width <= last; width *= 2) steps(chunk, base, padded, width);
    for (int i = threadIdx.x; i < CHUNK; i += THREADS)
        if (base + i < count) keys[base + i] = chunk[i];
}

extern "C" __global__ void __launch_bounds__(THREADS) sort_chunks(unsigned long long *keys, long long padded, long long count) {
    in_shared(keys, padded, 2, padded < CHUNK ? padded : CHUNK, count);
}

extern "C" __global__ void __launch_bounds__(THREADS)
    sort_merge(unsigned long long *keys, long long padded, long long width, long long count) {
    in_shared(keys, padded, width, width, count);
}

// The step of width `width` at a distance of a chunk or more. `pairs` is half of the keys.
extern "C" __global__ void __launch_bounds__(THREADS)
    sort_exchange(unsigned long long *keys, long long padded, long long width, long long distance, long long pairs) {
    FOR_EACH(pair, pairs) {
        long long a = (pair & ~(distance - 1)) * 2 + (pair & (distance - 1));
        exchange(keys[a], keys[a + distance], (a & (padded - 1) & width) == 0);
    }
}

// values and places (outer, taken, inner): the first `taken` elements of each line of x (outer, size, inner), in the order of the keys.
extern "C" __global__ void __launch_bounds__(THREADS) sort_take(
    const float *x, const unsigned long long *keys, float *values, long long *places, long long size, long long padded, Divisor taken,
    Divisor inner, long long count) {
    FOR_EACH(i, count) {
        long long row = i, column = last_of(row, inner), at = last_of(row, taken);
        long long from = (long long)(keys[(row * inner.size + column) * padded + at] & 0xffffffffull);
        values[i] = x[(row * size + from) * inner.size + column];
        places[i] = from;
    }
}
