// Convolution in f32 as matrix products whose operands are gathered from the image while they are brought to shared memory
// (implicit GEMM): forward, and backward with respect to data and weights. Any rank up to 3, stride, padding, dilation and groups.
//
// A block computes a tile of 64 × 64; each of its 256 threads 4 × 4 of it in registers, from slices of 16 terms. Sums go in sequence
// by fused multiply-add.
#include "indices.cuh"

#define TILE 64
#define SLICE 16
#define THREADS 256
// Rows of a slice are longer by 4, so that writes along columns fall into different banks and rows stay aligned.
#define ROW (TILE + 4)

struct Shape {
    long long batch, groups, in_channels, out_channels;
    // Channels of the first of two inputs, or of the only one.
    long long first;
    int input[3], kernel[3], stride[3], padding[3], dilation[3], output[3];
    // Voxels of the input and of the output, the planes and rows that they are counted in, and taps likewise.
    Divisor in_voxels, out_voxels, taps;
    Divisor in_row, in_column, out_row, out_column, kernel_row, kernel_column;
};

// One or two images whose channels follow one another.
struct Images {
    const float *at[2];
};

struct Targets {
    float *at[2];
};

// The three coordinates of a flat index.
struct Place {
    int at[3];
};

static __device__ __forceinline__ Place place_of(const Divisor &row, const Divisor &column, long long flat) {
    Place place;
    place.at[2] = (int)last_of(flat, column);
    place.at[1] = (int)last_of(flat, row);
    place.at[0] = (int)flat;
    return place;
}

// The flat index of the input's voxel that tap `tap` of output `output` reads; −1 in the padding.
static __device__ __forceinline__ long long read_by(const Shape &shape, const Place &output, const Place &tap) {
    long long flat = 0;
#pragma unroll
    for (int axis = 0; axis < 3; axis++) {
        int i = output.at[axis] * shape.stride[axis] + tap.at[axis] * shape.dilation[axis] - shape.padding[axis];
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
        int distance = input.at[axis] + shape.padding[axis] - tap.at[axis] * shape.dilation[axis];
        if (distance < 0) return -1;
        int o = distance / shape.stride[axis];
        if (o * shape.stride[axis] != distance || o >= shape.output[axis]) return -1;
        flat = flat * shape.output[axis] + o;
    }
    return flat;
}

// Image n's channel `channel` of one or two images.
static __device__ __forceinline__ const float *channel_of(const Shape &shape, const Images &x, long long n, long long channel) {
    long long voxels = shape.in_voxels.size;
    if (channel < shape.first) return x.at[0] + (n * shape.first + channel) * voxels;
    return x.at[1] + (n * (shape.in_channels - shape.first) + channel - shape.first) * voxels;
}

typedef float Slice[SLICE][ROW];

// Brings a slice: element (k, line) is value(k, line). LINES_TOGETHER: a warp brings neighbouring lines of one k, otherwise
// neighbouring k of a few lines.
template <bool LINES_TOGETHER, typename Value>
static __device__ __forceinline__ void bring(Slice &slice, const Value &value) {
    for (int i = threadIdx.x; i < TILE * SLICE; i += THREADS) {
        int k = LINES_TOGETHER ? i / TILE : i % SLICE, line = LINES_TOGETHER ? i % TILE : i / SLICE;
        slice[k][line] = value(k, line);
    }
}

// sum += the product of two slices.
static __device__ __forceinline__ void
multiply(const Slice &a_slice, const Slice &b_slice, int ty, int tx, float (&sum)[4][4]) {
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

// The tiles of a block: the first row and column of the result, and a thread's place in it.
struct Tiles {
    long long row, column;
    int ty, tx;
};

static __device__ __forceinline__ Tiles tiles_of(long long columns) {
    int across = (int)((columns + TILE - 1) / TILE), tile = blockIdx.x;
    Tiles tiles;
    tiles.row = tile / across * TILE;
    tiles.column = tile % across * TILE;
    tiles.ty = threadIdx.x / 16 * 4;
    tiles.tx = threadIdx.x % 16 * 4;
    return tiles;
}

// Calls f with row, column and sum of each of a thread's results that are inside.
template <typename F>
static __device__ __forceinline__ void
each_result(const Tiles &tiles, const float (&sum)[4][4], long long rows, long long columns, const F &f) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
#pragma unroll
        for (int j = 0; j < 4; j++) {
            long long r = tiles.row + tiles.ty + i, c = tiles.column + tiles.tx + j;
            if (r < rows && c < columns) f(r, c, sum[i][j]);
        }
    }
}

// sum += Σ over the terms from `begin` to `end` of a(term, row) b(term, column), where a warp brings neighbouring rows (columns) or terms
// as A_TOGETHER (B_TOGETHER) says. Both functions are called with the place in the tile, and give 0 outside.
template <bool A_TOGETHER, bool B_TOGETHER, typename A, typename B>
static __device__ __forceinline__ void
accumulate(float (&sum)[4][4], const Tiles &tiles, long long begin, long long end, const A &a, const B &b) {
    __shared__ Slice a_slice, b_slice;
    for (long long slice = begin; slice < end; slice += SLICE) {
        bring<A_TOGETHER>(a_slice, [&](int k, int line) { return slice + k < end ? a(slice + k, line) : 0.0f; });
        bring<B_TOGETHER>(b_slice, [&](int k, int line) { return slice + k < end ? b(slice + k, line) : 0.0f; });
        __syncthreads();
        multiply(a_slice, b_slice, tiles.ty, tiles.tx, sum);
        // The next slices may be written when these were used.
        __syncthreads();
    }
}

// y[n, o, p] = bias[o] + Σ_{c, k} w[o, c, k] x[n, c, p · stride + k · dilation − padding]. Grid: x the tiles (output channels of a
// group by voxels), y the groups, z · the images. `bias` may be null.
extern "C" __global__ void __launch_bounds__(THREADS, 1) conv_forward(
    const __grid_constant__ Images x, const float *weight, const float *bias, float *y, const __grid_constant__ Shape shape) {
    long long voxels = shape.out_voxels.size, inputs = shape.in_channels / shape.groups, outputs = shape.out_channels / shape.groups;
    long long terms = inputs * shape.taps.size, group = blockIdx.y;
    Tiles tiles = tiles_of(voxels);
    // A thread gathers for one voxel.
    long long mine = tiles.column + threadIdx.x % TILE;
    Place voxel = place_of(shape.out_row, shape.out_column, mine < voxels ? mine : 0);
    for (long long n = blockIdx.z; n < shape.batch; n += gridDim.z) {
        float sum[4][4] = {};
        accumulate<false, true>(
            sum, tiles, 0, terms,
            [&](long long term, int line) {
                long long o = tiles.row + line;
                return o < outputs ? weight[(group * outputs + o) * terms + term] : 0.0f;
            },
            [&](long long term, int) {
                if (mine >= voxels) return 0.0f;
                long long tap = last_of(term, shape.taps);
                long long place = read_by(shape, voxel, place_of(shape.kernel_row, shape.kernel_column, tap));
                return place < 0 ? 0.0f : channel_of(shape, x, n, group * inputs + term)[place];
            });
        each_result(tiles, sum, outputs, voxels, [&](long long o, long long p, float value) {
            long long channel = group * outputs + o;
            y[(n * shape.out_channels + channel) * voxels + p] = value + (bias ? bias[channel] : 0.0f);
        });
    }
}

// dx[n, c, q] = bias[c] + Σ_{o, k} w[o, c, k] dy[n, o, (q + padding − k · dilation) / stride], where that is an output. Grid: x the
// tiles (input channels of a group by voxels), y the groups, z · the images. The bias is that of a transposed convolution, or null.
extern "C" __global__ void __launch_bounds__(THREADS, 1) conv_backward_data(
    const float *dy, const float *weight, const float *bias, const __grid_constant__ Targets dx, const __grid_constant__ Shape shape) {
    long long voxels = shape.in_voxels.size, taps = shape.taps.size;
    long long inputs = shape.in_channels / shape.groups, outputs = shape.out_channels / shape.groups, group = blockIdx.y;
    Tiles tiles = tiles_of(voxels);
    long long mine = tiles.column + threadIdx.x % TILE;
    Place voxel = place_of(shape.in_row, shape.in_column, mine < voxels ? mine : 0);
    for (long long n = blockIdx.z; n < shape.batch; n += gridDim.z) {
        float sum[4][4] = {};
        accumulate<false, true>(
            sum, tiles, 0, outputs * taps,
            [&](long long term, int line) {
                long long c = tiles.row + line, tap = last_of(term, shape.taps);
                return c < inputs ? weight[((group * outputs + term) * inputs + c) * taps + tap] : 0.0f;
            },
            [&](long long term, int) {
                if (mine >= voxels) return 0.0f;
                long long tap = last_of(term, shape.taps);
                long long place = reader_of(shape, voxel, place_of(shape.kernel_row, shape.kernel_column, tap));
                return place < 0 ? 0.0f : dy[(n * shape.out_channels + group * outputs + term) * shape.out_voxels.size + place];
            });
        each_result(tiles, sum, inputs, voxels, [&](long long c, long long q, float value) {
            long long channel = group * inputs + c;
            value += bias ? bias[channel] : 0.0f;
            if (channel < shape.first) {
                dx.at[0][(n * shape.first + channel) * voxels + q] = value;
            } else {
                dx.at[1][(n * (shape.in_channels - shape.first) + channel - shape.first) * voxels + q] = value;
            }
        });
    }
}

// dw[part, o, c, k] = Σ over the `length` (n, p) of a part of dy[n, o, p] x[n, c, p · stride + k · dilation − padding]. Grid: x the
// tiles (output channels of a group by (c, k)), y the groups, z the parts.
extern "C" __global__ void __launch_bounds__(THREADS, 1) conv_backward_weights(
    const __grid_constant__ Images x, const float *dy, float *dw, const __grid_constant__ Shape shape, long long length) {
    long long voxels = shape.out_voxels.size, inputs = shape.in_channels / shape.groups, outputs = shape.out_channels / shape.groups;
    long long columns = inputs * shape.taps.size, group = blockIdx.y;
    long long terms = shape.batch * voxels, first = blockIdx.z * length, end = first + length < terms ? first + length : terms;
    Tiles tiles = tiles_of(columns);
    float sum[4][4] = {};
    accumulate<false, false>(
        sum, tiles, first, end,
        [&](long long n, int line) {
            long long o = tiles.row + line, p = last_of(n, shape.out_voxels);
            return o < outputs ? dy[(n * shape.out_channels + group * outputs + o) * voxels + p] : 0.0f;
        },
        [&](long long n, int line) {
            long long c = tiles.column + line, p = last_of(n, shape.out_voxels);
            if (c >= columns) return 0.0f;
            long long tap = last_of(c, shape.taps);
            Place voxel = place_of(shape.out_row, shape.out_column, p);
            long long place = read_by(shape, voxel, place_of(shape.kernel_row, shape.kernel_column, tap));
            return place < 0 ? 0.0f : channel_of(shape, x, n, group * inputs + c)[place];
        });
    float *target = dw + (long long)blockIdx.z * shape.out_channels * columns;
    each_result(tiles, sum, outputs, columns, [&](long long o, long long c, float value) { target[(group * outputs + o) * columns + c] = value; });
}
