// What the passes of attention in f16 and bf16 share: tiles of rows in shared memory, and what a warp does with 16 rows of one and all rows
// of another on tensor cores.
#pragma once
#include "attention.cuh"

// Where 8 halves of a tile's row lie: permuted, so that eight rows of one column are in different banks.
template <int D>
__device__ __forceinline__ int place(int row, int column) {
  constexpr int GROUPS = D / 8;
  return row * D + ((column / 8 ^ (GROUPS >= 8 ? row & 7 : row / (8 / GROUPS) & (GROUPS - 1))) * 8);
}

// Starts to bring ROWS rows of `columns` elements; zeros beyond.
template <typename T, int D, int ROWS, int THREADS>
__device__ __forceinline__ void bring(T *tile, const T *x, int first, int rows, int columns, bool aligned) {
  auto piece = [&](int i, auto copy) {
    const int group = threadIdx.x + i * THREADS, row = group / (D / 8), column = group % (D / 8) * 8;
    const int valid = first + row < rows ? min(max(columns - column, 0), 8) : 0;
    copy(tile + place<D>(row, column), valid ? x + static_cast<long long>(first + row) * columns + column : x, valid);
  };
  if (aligned) {
#pragma unroll
    for (int i = 0; i < ROWS * D / 8 / THREADS; i++) piece(i, [](T *to, const T *from, int valid) { cp_async<16>(to, from, valid * 2); });
  } else {
#pragma unroll 1
    for (int i = 0; i < ROWS * D / 8 / THREADS; i++)
      piece(i, [](T *to, const T *from, int valid) {
        for (int j = 0; j < 8; j++) to[j].bits = j < valid ? from[j].bits : 0;
      });
  }
}

// A warp's 16 rows of a tile from `row` on as a left operand. They stay in registers where there are enough of these; the tile must be there
// when they are made.
template <typename T, int D>
struct Rows {
  static constexpr bool KEPT = D <= 64;
  const T *tile;
  int row;
  unsigned kept[KEPT ? D / 16 : 1][4];

  __device__ __forceinline__ Rows(const T *tile, int row) : tile(tile), row(row) {
    if (KEPT) {
#pragma unroll
      for (int i = 0; i < D / 16; i++) load(kept[i], i);
    }
  }
  // Columns 16 i to 16 i + 15.
  __device__ __forceinline__ void load(unsigned (&fragment)[4], int i) const {
    const int lane = threadIdx.x % 32, q = lane / 8, r = lane % 8;
    ldmatrix_x4(fragment, tile + place<D>(row + q % 2 * 8 + r, i * 16 + q / 2 * 8));
  }
};

// sums += left rightᵀ, where `right` has 8 COUNT rows: of this lane's sums of column 8 j, the first two are in row lane / 4 and columns
// lane % 4 · 2 and the next one, and the last two eight rows below.
template <int COUNT, typename T, int D>
__device__ __forceinline__ void multiply(float (&sums)[COUNT][4], Rows<T, D> &left, const T *right) {
  const int lane = threadIdx.x % 32, q = lane / 8, r = lane % 8;
#pragma unroll
  for (int i = 0; i < D / 16; i++) {
    unsigned(&fragment)[4] = left.kept[Rows<T, D>::KEPT ? i : 0];
    if (!Rows<T, D>::KEPT) left.load(fragment, i);
#pragma unroll
    for (int j = 0; j < COUNT; j += 2) {
      unsigned both[4];
      ldmatrix_x4(both, right + place<D>(j * 8 + q / 2 * 8 + r, i * 16 + q % 2 * 8));
      const unsigned first[2] = {both[0], both[1]}, second[2] = {both[2], both[3]};
      mma_16816<T>(sums[j], fragment, first);
      mma_16816<T>(sums[j + 1], fragment, second);
    }
  }
}

// out += factors values, where `values` has 8 COUNT rows: the factors, which lie as `multiply` leaves sums, are rounded, and are then where a
// left operand has them.
template <int D, int COUNT, typename T>
__device__ __forceinline__ void accumulate(float (&out)[D / 8][4], const float (&factors)[COUNT][4], const T *values) {
  const int lane = threadIdx.x % 32, q = lane / 8, r = lane % 8;
#pragma unroll
  for (int i = 0; i < COUNT / 2; i++) {
    const unsigned left[4] = {pack<T>(factors[2 * i][0], factors[2 * i][1]), pack<T>(factors[2 * i][2], factors[2 * i][3]),
                              pack<T>(factors[2 * i + 1][0], factors[2 * i + 1][1]), pack<T>(factors[2 * i + 1][2], factors[2 * i + 1][3])};
#pragma unroll
    for (int j = 0; j < D / 8; j += 2) {
      unsigned both[4];
      ldmatrix_x4_trans(both, values + place<D>(i * 16 + q % 2 * 8 + r, j * 8 + q / 2 * 8));
      const unsigned first[2] = {both[0], both[1]}, second[2] = {both[2], both[3]};
      mma_16816<T>(out[j], left, first);
      mma_16816<T>(out[j + 1], left, second);
    }
  }
}

// Writes a warp's 16 rows of `out`, times the factors of this lane's two, to rows first.. of x (rows, columns). They go through the warp's
// rows of a tile from `row` on, which no other warp may use, so that they are written in whole sectors.
template <int D, typename T>
__device__ __forceinline__ void store(T *x, const float (&out)[D / 8][4], const float (&factors)[2], T *tile, int row, int first, int rows,
                                      int columns, bool aligned) {
  const int lane = threadIdx.x % 32;
  // Other lanes may have read these rows.
  __syncwarp();
#pragma unroll
  for (int h = 0; h < 2; h++)
#pragma unroll
    for (int j = 0; j < D / 8; j++)
      *reinterpret_cast<unsigned *>(tile + place<D>(row + lane / 4 + h * 8, j * 8) + lane % 4 * 2) =
          pack<T>(out[j][h * 2] * factors[h], out[j][h * 2 + 1] * factors[h]);
  __syncwarp();
#pragma unroll
  for (int i = 0; i < 16 * D / 8 / 32; i++) {
    const int group = lane + i * 32, down = group / (D / 8), column = group % (D / 8) * 8;
    const int valid = min(columns - column, 8);
    if (first + down >= rows) continue;
    const T *from = tile + place<D>(row + down, column);
    T *to = x + static_cast<long long>(first + down) * columns + column;
    if (aligned && valid == 8) {
      *reinterpret_cast<uint4 *>(to) = *reinterpret_cast<const uint4 *>(from);
    } else {
      for (int j = 0; j < valid; j++) to[j].bits = from[j].bits;
    }
  }
}
