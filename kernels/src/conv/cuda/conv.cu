// Convolution in f32 as matrix products whose operands are gathered from the image while they are brought to shared memory
// (implicit GEMM): forward, and backward with respect to data and weights. Any rank up to 3, stride, padding, dilation and groups.
//
// A block computes a tile of 64 × 64; each of its 256 threads 4 × 4 of it in registers, from slices of 16 terms. Sums go in sequence
// by fused multiply-add.
#include "tomograd.cuh"

#define TILE 64
#define SLICE 16
#define THREADS 256
// Rows of a slice are longer by 4, so that writes along columns fall into different banks and rows stay aligned.
#define ROW (TILE + 4)

struct Shape {
    long long batch, groups, in_channels, out_channels;
    // Channels of the first of two inputs, or of the only one.
    long long first;
    long long input[3], kernel[3], stride[3], padding[3], dilation[3], output[3];
};

// One or two images whose channels follow one another.
struct Images {
    const float *at[2];
};

struct Targets {
    float *at[2];
};

static __device__ __forceinline__ long long product(const long long (&sizes)[3]) { return sizes[0] * sizes[1] * sizes[2]; }

// The three coordinates of a flat index.
struct Place {
    long long at[3];
};

static __device__ __forceinline__ Place place_of(const long long (&sizes)[3], long long flat) {
    Place place;
    long long rest = flat / sizes[2];
    place.at[2] = flat - rest * sizes[2];
    place.at[0] = rest / sizes[1];
    place.at[1] = rest - place.at[0] * sizes[1];
    return place;
}

// The flat index of the input's voxel that tap `tap` of output `output` reads; −1 in the padding.
static __device__ __forceinline__ long long read_by(const Shape &shape, const Place &output, const Place &tap) {
    long long flat = 0;
#pragma unroll
    for (int axis = 0; axis < 3; axis++) {
        long long i = output.at[axis] * shape.stride[axis] + tap.at[axis] * shape.dilation[axis] - shape.padding[axis];
        if (i < 0 || i >= shape.input[axis]) return -1;
        flat = flat * shape.input[axis] + i;
    }
    return flat;
}

// The flat index of the output whose tap `tap` reads the input's voxel `input`; −1 if there is none.
static __device__ __forceinline__ long long reader_of(const Shape &shape, const Place &input, const Place &tap) {
    long long flat = 0;
#pragma unroll
    for (int axis = 0; axis < 3; axis++) {
        long long distance = input.at[axis] + shape.padding[axis] - tap.at[axis] * shape.dilation[axis];
        if (distance < 0) return -1;
        long long o = distance / shape.stride[axis];
        if (o * shape.stride[axis] != distance || o >= shape.output[axis]) return -1;
        flat = flat * shape.output[axis] + o;
    }
    return flat;
}

// Image n's channel `channel` of one or two images of `voxels` voxels.
static __device__ __forceinline__ const float *
channel_of(const Shape &shape, const Images &x, long long n, long long channel, long long voxels) {
    if (channel < shape.first) return x.at[0] + (n * shape.first + channel) * voxels;
    return x.at[1] + (n * (shape.in_channels - shape.first) + channel - shape.first) * voxels;
}

// sum += the product of two slices.
static __device__ __forceinline__ void
multiply(const float (*a_slice)[ROW], const float (*b_slice)[ROW], int ty, int tx, float (&sum)[4][4]) {
#pragma unroll
    for (int step = 0; step < SLICE; step++) {
        float4 p = *(const float4 *)&a_slice[step][ty], q = *(const float4 *)&b_slice[step][tx];
        float left[4] = {p.x, p.y, p.z, p.w}, right[4] = {q.x, q.y, q.z, q.w};
#pragma unroll
        for (int i = 0; i < 4; i++) {
#pragma unroll
            for (int j = 0; j < 4; j++) sum[i][j] = fmaf(left[i], right[j], sum[i][j]);
        }
    }
}

// y[n, o, p] = bias[o] + Σ_{c, k} w[o, c, k] x[n, c, p · stride + k · dilation − padding]. Grid: x the tiles (output channels of a
// group by voxels), y the groups, z · the images. `bias` may be null.
extern "C" __global__ void __launch_bounds__(THREADS)
    conv_forward(Images x, const float *weight, const float *bias, float *y, Shape shape) {
    __shared__ float a_slice[SLICE][ROW];
    __shared__ float b_slice[SLICE][ROW];
    long long voxels = product(shape.output), in_voxels = product(shape.input), taps = product(shape.kernel);
    long long inputs = shape.in_channels / shape.groups, outputs = shape.out_channels / shape.groups;
    long long terms = inputs * taps, tiles = (voxels + TILE - 1) / TILE, group = blockIdx.y;
    long long row = blockIdx.x / tiles * TILE, column = blockIdx.x % tiles * TILE;
    int thread = threadIdx.x, ty = thread / 16 * 4, tx = thread % 16 * 4;
    // A thread gathers for one voxel.
    long long mine = column + thread % TILE;
    Place voxel = place_of(shape.output, mine < voxels ? mine : 0);
    for (long long n = blockIdx.z; n < shape.batch; n += gridDim.z) {
        float sum[4][4] = {};
        for (long long slice = 0; slice < terms; slice += SLICE) {
            for (int i = thread; i < TILE * SLICE; i += THREADS) {
                int r = i / SLICE, c = i % SLICE;
                bool inside = row + r < outputs && slice + c < terms;
                a_slice[c][r] = inside ? weight[(group * outputs + row + r) * terms + slice + c] : 0.0f;
            }
            for (int i = thread; i < TILE * SLICE; i += THREADS) {
                long long term = slice + i / TILE;
                float value = 0.0f;
                if (term < terms && mine < voxels) {
                    long long c = term / taps;
                    long long place = read_by(shape, voxel, place_of(shape.kernel, term - c * taps));
                    if (place >= 0) value = channel_of(shape, x, n, group * inputs + c, in_voxels)[place];
                }
                b_slice[i / TILE][i % TILE] = value;
            }
            __syncthreads();
            multiply(a_slice, b_slice, ty, tx, sum);
            __syncthreads();
        }
        for (int i = 0; i < 4; i++) {
            for (int j = 0; j < 4; j++) {
                long long r = row + ty + i, c = column + tx + j, channel = group * outputs + r;
                if (r < outputs && c < voxels) {
                    y[(n * shape.out_channels + channel) * voxels + c] = sum[i][j] + (bias ? bias[channel] : 0.0f);
                }
            }
        }
    }
}

// dx[n, c, q] = bias[c] + Σ_{o, k} w[o, c, k] dy[n, o, (q + padding − k · dilation) / stride], where that is an output. Grid: x the
// tiles (input channels of a group by voxels), y the groups, z · the images. The bias is that of a transposed convolution, or null.
extern "C" __global__ void __launch_bounds__(THREADS)
    conv_backward_data(const float *dy, const float *weight, const float *bias, Targets dx, Shape shape) {
    __shared__ float a_slice[SLICE][ROW];
    __shared__ float b_slice[SLICE][ROW];
    long long voxels = product(shape.input), out_voxels = product(shape.output), taps = product(shape.kernel);
    long long inputs = shape.in_channels / shape.groups, outputs = shape.out_channels / shape.groups;
    long long terms = outputs * taps, tiles = (voxels + TILE - 1) / TILE, group = blockIdx.y;
    long long row = blockIdx.x / tiles * TILE, column = blockIdx.x % tiles * TILE;
    int thread = threadIdx.x, ty = thread / 16 * 4, tx = thread % 16 * 4;
    long long mine = column + thread % TILE;
    Place voxel = place_of(shape.input, mine < voxels ? mine : 0);
    for (long long n = blockIdx.z; n < shape.batch; n += gridDim.z) {
        float sum[4][4] = {};
        for (long long slice = 0; slice < terms; slice += SLICE) {
            for (int i = thread; i < TILE * SLICE; i += THREADS) {
                long long term = slice + i % SLICE, r = row + i / SLICE, o = term / taps;
                bool inside = r < inputs && term < terms;
                a_slice[i % SLICE][i / SLICE] =
                    inside ? weight[((group * outputs + o) * inputs + r) * taps + term - o * taps] : 0.0f;
            }
            for (int i = thread; i < TILE * SLICE; i += THREADS) {
                long long term = slice + i / TILE;
                float value = 0.0f;
                if (term < terms && mine < voxels) {
                    long long o = term / taps;
                    long long place = reader_of(shape, voxel, place_of(shape.kernel, term - o * taps));
                    if (place >= 0) value = dy[(n * shape.out_channels + group * outputs + o) * out_voxels + place];
                }
                b_slice[i / TILE][i % TILE] = value;
            }
            __syncthreads();
            multiply(a_slice, b_slice, ty, tx, sum);
            __syncthreads();
        }
        for (int i = 0; i < 4; i++) {
            for (int j = 0; j < 4; j++) {
                long long r = row + ty + i, c = column + tx + j, channel = group * inputs + r;
                if (r >= inputs || c >= voxels) continue;
                float value = sum[i][j] + (bias ? bias[channel] : 0.0f);
                if (channel < shape.first) {
                    dx.at[0][(n * shape.first + channel) * voxels + c] = value;
                } else {
                    dx.at[1][(n * (shape.in_channels - shape.first) + channel - shape.first) * voxels + c] = value;
                }
            }
        }
    }
}

// dw[part, o, c, k] = Σ over the `length` (n, p) of a part of dy[n, o, p] x[n, c, p · stride + k · dilation − padding]. Grid: x the
// tiles (output channels of a group by (c, k)), y the groups, z the parts.
extern "C" __global__ void __launch_bounds__(THREADS)
    conv_backward_weights(Images x, const float *dy, float *dw, Shape shape, long long length) {
    __shared__ float a_slice[SLICE][ROW];
    __shared__ float b_slice[SLICE][ROW];
    long long voxels = product(shape.output), in_voxels = product(shape.input), taps = product(shape.kernel);
    long long inputs = shape.in_channels / shape.groups, outputs = shape.out_channels / shape.groups;
    long long columns = inputs * taps, tiles = (columns + TILE - 1) / TILE, group = blockIdx.y;
    long long row = blockIdx.x / tiles * TILE, column = blockIdx.x % tiles * TILE;
    long long terms = shape.batch * voxels, first = blockIdx.z * length;
    long long end = first + length < terms ? first + length : terms;
    int thread = threadIdx.x, ty = thread / 16 * 4, tx = thread % 16 * 4;
    float sum[4][4] = {};
    for (long long slice = first; slice < end; slice += SLICE) {
        // A thread brings one term of each slice: its image and voxel are found once.
        long long term = slice + thread % SLICE;
        bool there = term < end;
        long long n = there ? term / voxels : 0, p = there ? term - n * voxels : 0;
        Place voxel = place_of(shape.output, p);
        for (int i = thread; i < TILE * SLICE; i += THREADS) {
            long long r = row + i / SLICE;
            bool inside = there && r < outputs;
            a_slice[i % SLICE][i / SLICE] =
                inside ? dy[(n * shape.out_channels + group * outputs + r) * voxels + p] : 0.0f;
        }
        for (int i = thread; i < TILE * SLICE; i += THREADS) {
            long long j = column + i / SLICE, c = j / taps;
            float value = 0.0f;
            if (there && j < columns) {
                long long place = read_by(shape, voxel, place_of(shape.kernel, j - c * taps));
                if (place >= 0) value = channel_of(shape, x, n, group * inputs + c, in_voxels)[place];
            }
            b_slice[i % SLICE][i / SLICE] = value;
        }
        __syncthreads();
        multiply(a_slice, b_slice, ty, tx, sum);
        __syncthreads();
    }
    float *target = dw + (long long)blockIdx.z * shape.out_channels * columns;
    for (int i = 0; i < 4; i++) {
        for (int j = 0; j < 4; j++) {
            long long r = row + ty + i, c = column + tx + j;
            if (r < outputs && c < columns) target[(group * outputs + r) * columns + c] = sum[i][j];
        }
    }
}
