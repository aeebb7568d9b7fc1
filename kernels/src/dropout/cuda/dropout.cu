// Dropout with the random numbers of the CPU: Philox 4×32-10 (Salmon et al. 2011), of which two words are a draw.
#include "indices.cuh"

// The words of a seed.
struct Seed {
    unsigned long long key, stream;
};

struct Words {
    unsigned at[4];
};

// Block number `counter` of the stream.
static __device__ __forceinline__ Words philox(const Seed &seed, unsigned long long counter) {
    unsigned low = (unsigned)seed.key, high = (unsigned)(seed.key >> 32);
    Words x = {{(unsigned)counter, (unsigned)(counter >> 32), (unsigned)seed.stream, (unsigned)(seed.stream >> 32)}};
#pragma unroll
    for (int round = 0; round < 10; round++) {
        unsigned long long first = x.at[0] * 0xd2511f53ull, second = x.at[2] * 0xcd9e8d57ull;
        Words next = {{(unsigned)(second >> 32) ^ x.at[1] ^ low, (unsigned)second, (unsigned)(first >> 32) ^ x.at[3] ^ high, (unsigned)first}};
        x = next;
        low += 0x9e3779b9u;
        high += 0xbb67ae85u;
    }
    return x;
}

// The factor of a draw: 0 with the probability, otherwise `scale`.
static __device__ __forceinline__ float factor(unsigned high, unsigned low, double probability, float scale) {
    unsigned long long bits = (unsigned long long)high << 32 | low;
    return (double)(bits >> 11) * 1.1102230246251565e-16 < probability ? 0.0f : scale;
}

// y[i] = x[i] times the factor of draw i: a thread has the two draws of a block. x is `aligned` where two elements may be read at once.
extern "C" __global__ void __launch_bounds__(256)
    dropout(const float *x, float *y, Seed seed, double probability, float scale, int aligned, long long count) {
    FOR_EACH(pair, (count + 1) / 2) {
        Words words = philox(seed, pair);
        float first = factor(words.at[0], words.at[1], probability, scale);
        if (2 * pair + 1 < count) {
            float second = factor(words.at[2], words.at[3], probability, scale);
            float2 both = aligned ? ((const float2 *)x)[pair] : make_float2(x[2 * pair], x[2 * pair + 1]);
            ((float2 *)y)[pair] = make_float2(both.x * first, both.y * second);
        } else {
            y[2 * pair] = x[2 * pair] * first;
        }
    }
}

// The same, where `shared` elements that follow one another have a draw.
extern "C" __global__ void __launch_bounds__(256)
    dropout_channels(const float *x, float *y, Seed seed, double probability, float scale, Divisor shared, long long count) {
    FOR_EACH(i, count) {
        long long draw = quotient(i, shared);
        Words words = philox(seed, draw / 2);
        bool second = draw % 2;
        y[i] = x[i] * factor(second ? words.at[2] : words.at[0], second ? words.at[3] : words.at[1], probability, scale);
    }
}
