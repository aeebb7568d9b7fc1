// The batched matrix product y[b, i, j] = bias[j] + Σ_k a[b, i, k] b[b, k, j] in f32, of operands with any strides.
//
// A block computes a tile of 64 × 64; each of its 256 threads 4 × 4 of it in registers, from slices of 16 along k that the block
// has brought to shared memory. Sums over k go in sequence by fused multiply-add. A long k may be cut into parts, each of which is
// a product of its own that is added later, so that few tiles fill the device.
#include "indices.cuh"

#define TILE 64
#define SLICE 16
#define THREADS 256

// Sizes, and the strides of the operands along their axes.
struct Sizes {
    long long m, n, k;
    // Terms of a part of k.
    long long length;
    long long a_row, a_column, b_row, b_column;
    // Tiles of a row of y.
    Divisor tiles;
};

// Grid: x the tiles of a matrix, y the parts of k, z · `batches` the matrices. y is (parts, batches, m, n).
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    matmul(const float *a, const float *b, const float *bias, float *y, Views<2> batch, Sizes sizes, long long batches) {
    // Rows are longer by 4, so that the columns that a warp writes lie in different banks and rows stay aligned.
    __shared__ float a_slice[SLICE][TILE + 4];
    __shared__ float b_slice[SLICE][TILE + 4];
    long long row = blockIdx.x, column = last_of(row, sizes.tiles) * TILE;
    row *= TILE;
    long long first = blockIdx.y * sizes.length;
    long long end = first + sizes.length < sizes.k ? first + sizes.length : sizes.k;
    int thread = threadIdx.x, ty = thread / 16 * 4, tx = thread % 16 * 4;
    for (long long matrix = blockIdx.z; matrix < batches; matrix += gridDim.z) {
        const float *a_matrix = a + place(batch, 0, matrix), *b_matrix = b + place(batch, 1, matrix);
        float sum[4][4] = {};
        for (long long slice = first; slice < end; slice += SLICE) {
            // Neighbouring threads read along the axis whose elements are neighbours in memory.
            for (int i = thread; i < TILE * SLICE; i += THREADS) {
                int r = sizes.a_column == 1 ? i / SLICE : i % TILE, c = sizes.a_column == 1 ? i % SLICE : i / TILE;
                bool inside = row + r < sizes.m && slice + c < end;
                a_slice[c][r] = inside ? a_matrix[(row + r) * sizes.a_row + (slice + c) * sizes.a_column] : 0.0f;
            }
            for (int i = thread; i < TILE * SLICE; i += THREADS) {
                int r = sizes.b_column == 1 ? i / TILE : i % SLICE, c = sizes.b_column == 1 ? i % TILE : i / SLICE;
                bool inside = slice + r < end && column + c < sizes.n;
                b_slice[r][c] = inside ? b_matrix[(slice + r) * sizes.b_row + (column + c) * sizes.b_column] : 0.0f;
            }
            __syncthreads();
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
            // The next slice may be written when this one was used.
            __syncthreads();
        }
        float *target = y + ((long long)blockIdx.y * batches + matrix) * sizes.m * sizes.n;
        for (int i = 0; i < 4; i++) {
            for (int j = 0; j < 4; j++) {
                long long r = row + ty + i, c = column + tx + j;
                if (r < sizes.m && c < sizes.n) target[r * sizes.n + c] = sum[i][j] + (bias ? bias[c] : 0.0f);
            }
        }
    }
}
