// The functions of one and two numbers that are the steps of chains, and the activations of norms. Codes as in mod.rs.
#pragma once
#include "tomograd.cuh"

// A function and its numbers.
struct Function {
    int code;
    float a, b;
};

enum {
    NEG, ABS, EXP, LOG, SQRT, SQUARE, RECIPROCAL, RELU, LEAKY_RELU, ELU, GELU, GELU_TANH, SILU, SIGMOID, TANH, SOFTPLUS, MISH,
    HARDSWISH, ADD_NUMBER, MULTIPLY_NUMBER, CLAMP, POWER, INTEGER_POWER, IDENTITY
};

static __device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

// log(1 + e^x), without overflow.
static __device__ __forceinline__ float softplus(float x) {
    return x != x ? x : (x > 0.0f ? x : 0.0f) + log1pf(expf(-fabsf(x)));
}

// The cumulative distribution function of the normal distribution.
static __device__ __forceinline__ float normal_cdf(float x) { return fmaf(erff(x * 0.707106781f), 0.5f, 0.5f); }

static __device__ __forceinline__ float gelu_argument(float x) {
    return fmaf(x * x, 0.044715f, 1.0f) * x * 0.797884561f;
}

// x to an integer power, by repeated squaring.
static __device__ __forceinline__ float integer_power(float x, int power) {
    float result = 1.0f;
    for (int rest = power < 0 ? -power : power; rest > 0; rest >>= 1) {
        if (rest & 1) result *= x;
        x *= x;
    }
    return power < 0 ? 1.0f / result : result;
}

// f(x). NaN gives NaN.
static __device__ float value_of(Function f, float x) {
    switch (f.code) {
        case NEG: return -x;
        case ABS: return fabsf(x);
        case EXP: return expf(x);
        case LOG: return logf(x);
        case SQRT: return sqrtf(x);
        case SQUARE: return x * x;
        case RECIPROCAL: return 1.0f / x;
        case RELU: return x <= 0.0f ? 0.0f : x;
        case LEAKY_RELU: return x > 0.0f ? x : x * f.a;
        case ELU: return x > 0.0f ? x : expm1f(x) * f.a;
        case GELU: return x * normal_cdf(x);
        case GELU_TANH: return x * 0.5f * (1.0f + tanhf(gelu_argument(x)));
        case SILU: return x * sigmoid(x);
        case SIGMOID: return sigmoid(x);
        case TANH: return tanhf(x);
        case SOFTPLUS: return softplus(x);
        case MISH: return x * tanhf(softplus(x));
        case HARDSWISH: {
            float gate = x + 3.0f;
            gate = gate < 0.0f ? 0.0f : gate > 6.0f ? 6.0f : gate;
            return x * gate * (1.0f / 6.0f);
        }
        case ADD_NUMBER: return x + f.a;
        case MULTIPLY_NUMBER: return x * f.a;
        case CLAMP: return x < f.a ? f.a : x > f.b ? f.b : x;
        case POWER: return expf(logf(x) * f.a);
        case INTEGER_POWER: return integer_power(x, (int)f.a);
        default: return x;
    }
}

// f'(x); at a kink as on the CPU.
static __device__ float derivative_of(Function f, float x) {
    switch (f.code) {
        case NEG: return -1.0f;
        case ABS: return x > 0.0f ? 1.0f : x < 0.0f ? -1.0f : 0.0f;
        case EXP: return expf(x);
        case LOG: return 1.0f / x;
        case SQRT: return 0.5f / sqrtf(x);
        case SQUARE: return x + x;
        case RECIPROCAL: return -1.0f / (x * x);
        case RELU: return x > 0.0f ? 1.0f : 0.0f;
        case LEAKY_RELU: return x > 0.0f ? 1.0f : f.a;
        case ELU: return x > 0.0f ? 1.0f : expf(x) * f.a;
        case GELU: return fmaf(x, expf(x * x * -0.5f) * 0.398942280f, normal_cdf(x));
        case GELU_TANH: {
            float t = tanhf(gelu_argument(x));
            float slope = fmaf(x * x, 3.0f * 0.044715f, 1.0f) * 0.797884561f;
            return 0.5f * (1.0f + t) + x * 0.5f * (1.0f - t * t) * slope;
        }
        case SILU: {
            float gate = sigmoid(x);
            return gate * fmaf(x, 1.0f - gate, 1.0f);
        }
        case SIGMOID: {
            float gate = sigmoid(x);
            return gate * (1.0f - gate);
        }
        case TANH: {
            float t = tanhf(x);
            return 1.0f - t * t;
        }
        case SOFTPLUS: return sigmoid(x);
        case MISH: {
            float t = tanhf(softplus(x));
            return fmaf(x * sigmoid(x), 1.0f - t * t, t);
        }
        case HARDSWISH: return x <= -3.0f ? 0.0f : x < 3.0f ? fmaf(x, 1.0f / 3.0f, 0.5f) : 1.0f;
        case ADD_NUMBER: return 1.0f;
        case MULTIPLY_NUMBER: return f.a;
        case CLAMP: return f.a <= x && x <= f.b ? 1.0f : 0.0f;
        case POWER: return f.a == 0.0f ? 0.0f : expf(logf(x) * (f.a - 1.0f)) * f.a;
        case INTEGER_POWER: return f.a == 0.0f ? 0.0f : integer_power(x, (int)f.a - 1) * f.a;
        default: return 1.0f;
    }
}

enum { ADD, SUB, MUL, DIV, REVERSE_SUB, REVERSE_DIV, MAX, MIN };

// f(x, y). A NaN gives NaN.
static __device__ __forceinline__ float value_of_two(int code, float x, float y) {
    switch (code) {
        case ADD: return x + y;
        case SUB: return x - y;
        case MUL: return x * y;
        case DIV: return x / y;
        case REVERSE_SUB: return y - x;
        case REVERSE_DIV: return y / x;
        case MAX: return x != x || x > y ? x : y;
        default: return x != x || x < y ? x : y;
    }
}

// 1 where a > b, half of it where they are equal.
static __device__ __forceinline__ float share(float a, float b) { return a > b ? 1.0f : a == b ? 0.5f : 0.0f; }

// ∂f/∂x and ∂f/∂y.
static __device__ __forceinline__ float2 derivatives_of_two(int code, float x, float y) {
    switch (code) {
        case ADD: return make_float2(1.0f, 1.0f);
        case SUB: return make_float2(1.0f, -1.0f);
        case MUL: return make_float2(y, x);
        case DIV: return make_float2(1.0f / y, -(x / (y * y)));
        case REVERSE_SUB: return make_float2(-1.0f, 1.0f);
        case REVERSE_DIV: return make_float2(-(y / (x * x)), 1.0f / x);
        case MAX: return make_float2(share(x, y), share(y, x));
        default: return make_float2(share(y, x), share(x, y));
    }
}
