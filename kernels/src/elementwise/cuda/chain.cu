// Chains of elementwise steps: one pass over memory, forward and backward, whatever the steps are. A step's function is chosen by
// a switch that all threads take the same way, which costs less than the memory that is read meanwhile.
#include "indices.cuh"
#include "function.cuh"

#define MOST_STEPS 8
#define MOST_INPUTS 10

struct Step {
    Function function;
    // The other input of a function of two numbers; 0 for a function of one.
    int input;
};

struct Steps {
    int count;
    int unused;
    Step step[MOST_STEPS];
};

struct Inputs {
    const float *at[MOST_INPUTS];
};

struct Outputs {
    float *at[MOST_INPUTS];
};

static __device__ __forceinline__ float loaded(const Inputs &x, const Views<MOST_INPUTS> &views, int input, long long flat) {
    return x.at[input][place(views, input, flat)];
}

static __device__ __forceinline__ float applied(const Step &step, float x, float y) {
    return step.input > 0 ? value_of_two(step.function.code, x, y) : value_of(step.function, x);
}

// y[i] = the chain of the inputs at i.
extern "C" __global__ void __launch_bounds__(256)
    chain_forward(const __grid_constant__ Inputs x, const __grid_constant__ Views<MOST_INPUTS> views, const __grid_constant__ Steps steps,
                  float *y, long long count) {
    FOR_EACH(i, count) {
        float value = loaded(x, views, 0, i);
        for (int k = 0; k < steps.count; k++) {
            int input = steps.step[k].input;
            value = applied(steps.step[k], value, input > 0 ? loaded(x, views, input, i) : 0.0f);
        }
        y[i] = value;
    }
}

// dx.at[k][i] = the gradient of input k at output i, before it is summed over the axes along which the input was broadcast; null
// pointers for gradients that nobody needs. dy is the output's gradient: input `MOST_INPUTS - 1` of the views says where it lies.
extern "C" __global__ void __launch_bounds__(256)
    chain_backward(const __grid_constant__ Inputs x, const __grid_constant__ Views<MOST_INPUTS> views, const __grid_constant__ Steps steps,
                   const float *dy, const __grid_constant__ Outputs dx, long long count) {
    FOR_EACH(i, count) {
        // x before each step, the step's other input, and what the step adds to that one's gradient. The loops are unrolled, so
        // that these stay in registers.
        float before[MOST_STEPS], other[MOST_STEPS], share[MOST_STEPS];
        float value = loaded(x, views, 0, i);
#pragma unroll
        for (int k = 0; k < MOST_STEPS; k++) {
            before[k] = value;
            other[k] = 0.0f;
            if (k < steps.count) {
                int input = steps.step[k].input;
                if (input > 0) other[k] = loaded(x, views, input, i);
                if (k < steps.count - 1) value = applied(steps.step[k], value, other[k]);
            }
        }
        float gradient = dy[place(views, MOST_INPUTS - 1, i)];
#pragma unroll
        for (int k = MOST_STEPS - 1; k >= 0; k--) {
            share[k] = 0.0f;
            if (k < steps.count) {
                const Step &step = steps.step[k];
                if (step.input > 0) {
                    float2 slopes = derivatives_of_two(step.function.code, before[k], other[k]);
                    share[k] = gradient * slopes.y;
                    gradient *= slopes.x;
                } else {
                    gradient *= derivative_of(step.function, before[k]);
                }
            }
        }
        if (dx.at[0]) dx.at[0][i] = gradient;
        for (int input = 1; input < MOST_INPUTS - 1; input++) {
            if (!dx.at[input]) continue;
            float sum = 0.0f;
#pragma unroll
            for (int k = MOST_STEPS - 1; k >= 0; k--) {
                if (k < steps.count && steps.step[k].input == input) sum += share[k];
            }
            dx.at[input][i] = sum;
        }
    }
}

// y[i] = x[i] + number; the flag becomes 1 if a sum leaves the range of its type.
extern "C" __global__ void __launch_bounds__(256)
    increment(const long long *x, long long *y, long long number, int *overflow, long long count) {
    FOR_EACH(i, count) {
        unsigned long long sum = (unsigned long long)x[i] + (unsigned long long)number;
        bool lost = number >= 0 ? (long long)sum < x[i] : (long long)sum > x[i];
        if (lost) atomicExch(overflow, 1);
        y[i] = (long long)sum;
    }
}
