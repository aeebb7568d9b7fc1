// Matrix products on tensor cores from tiles in shared memory: how tiles come, where their elements lie, what a warp does with two of them,
// and how the sums leave.
#pragma once
#include "tomograd.cuh"

constexpr int STAGES = 3;  // pairs of tiles in shared memory

// Goes along a sum: `bring(step, stage)` starts to copy a step's tiles to their stage, two steps ahead of `use(stage)`, which computes with
// them.
template <typename Bring, typename Use>
__device__ __forceinline__ void in_stages(int steps, const Bring &bring, const Use &use) {
  auto start = [&](int step) {
    if (step < steps) bring(step, step % STAGES);
    // A group a step, even an empty one, so that their number says which have arrived.
    cp_async_commit();
  };
  for (int step = 0; step < STAGES - 1; step++) start(step);
  for (int step = 0; step < steps; step++) {
    cp_async_wait<STAGES - 2>();
    // Everyone's copies are there, and everyone has read the tiles that are overwritten next.
    __syncthreads();
    start(step + STAGES - 1);
    use(step % STAGES);
  }
}

// A tile of an operand: LINES rows of A, or columns of B, and of each 64 bytes along k, in pieces of 16 bytes. K_IN_ROWS: the k of a line
// follow one another, otherwise the lines of a k do.
template <typename T, int LINES, bool K_IN_ROWS>
struct Tile {
  static constexpr int PIECE = 16 / sizeof(T);  // elements
  static constexpr int DEPTH = 64 / sizeof(T);  // along k
  static constexpr int SIZE = LINES * DEPTH;
  static constexpr int ACROSS = K_IN_ROWS ? DEPTH / PIECE : LINES / PIECE;  // pieces of a row

  // Where the piece that begins with element (line, k) lies. Those of a row are permuted, so that the eight rows that an ldmatrix reads at
  // once are in different banks; of 4-byte elements that can't be read so, that lines 0 to 7 of four k are.
  static __device__ __forceinline__ int place(int line, int k) {
    const int row = K_IN_ROWS ? line : k, piece = (K_IN_ROWS ? k : line) / PIECE;
    const int turn = !K_IN_ROWS && sizeof(T) == 4 ? (row & 3) * 2 : ACROSS >= 8 ? row & 7 : row / 2 & 3;
    return (row * ACROSS + (piece ^ turn)) * PIECE;
  }

  // Of 4-byte elements where lines follow one another: where element (line + lane / 4, k + lane % 4) lies, for multiples of 8 and of 4. What
  // depends on the lane is apart, so that few registers hold it for all lines.
  static __device__ __forceinline__ int place_of_lane(int line, int k) {
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4, piece = line / PIECE;
    return (k + t) * LINES + piece / 8 * 8 * PIECE + (piece % 8 ^ (g / PIECE ^ t * 2)) * PIECE + g % PIECE;
  }
};

// What a lane has of 16 lines of A from first + line on and 32 bytes of k from `k` on, where `first` is a multiple of 32.
template <int LINES, bool K_IN_ROWS, typename T>
__device__ __forceinline__ void load_a(unsigned (&a)[4], const T *tile, int first, int line, int k) {
  typedef Tile<T, LINES, K_IN_ROWS> Lies;
  // Of the four matrices that ldmatrix reads, this lane has row `r` of number `q`.
  const int lane = threadIdx.x % 32, q = lane / 8, r = lane % 8;
  if constexpr (K_IN_ROWS) {
    ldmatrix_x4(a, tile + Lies::place(first + line + q % 2 * 8 + r, k + q / 2 * Lies::PIECE));
  } else if constexpr (sizeof(T) == 2) {
    ldmatrix_x4_trans(a, tile + Lies::place(first + line + q % 2 * 8, k + q / 2 * 8 + r));
  } else {
#pragma unroll
    for (int i = 0; i < 4; i++) a[i] = __float_as_uint(tile[first + Lies::place_of_lane(line + i % 2 * 8, k + i / 2 * 4)]);
  }
}

// The same of 16 columns of B: two fragments of 8.
template <int LINES, bool K_IN_ROWS, typename T>
__device__ __forceinline__ void load_b(unsigned (&left)[2], unsigned (&right)[2], const T *tile, int first, int line, int k) {
  typedef Tile<T, LINES, K_IN_ROWS> Lies;
  const int lane = threadIdx.x % 32, q = lane / 8, r = lane % 8;
  unsigned both[4];
  if constexpr (K_IN_ROWS) {
    ldmatrix_x4(both, tile + Lies::place(first + line + q / 2 * 8 + r, k + q % 2 * Lies::PIECE));
  } else if constexpr (sizeof(T) == 2) {
    ldmatrix_x4_trans(both, tile + Lies::place(first + line + q / 2 * 8, k + q % 2 * 8 + r));
  } else {
#pragma unroll
    for (int i = 0; i < 4; i++) both[i] = __float_as_uint(tile[first + Lies::place_of_lane(line + i / 2 * 8, k + i % 2 * 4)]);
  }
  left[0] = both[0], left[1] = both[1];
  right[0] = both[2], right[1] = both[3];
}

// The elements of a fragment as TF32.
template <int COUNT>
__device__ __forceinline__ void round_to_tf32(unsigned (&fragment)[COUNT]) {
#pragma unroll
  for (int i = 0; i < COUNT; i++) fragment[i] = to_tf32(__uint_as_float(fragment[i]));
}

// sums += the product of a tile of ROWS lines of A and one of COLUMNS lines of B, of which this warp has M · 16 from `row` on by N · 8 from
// `column` on. f32 are multiplied as TF32, to which they are rounded here (ROUND) or were before.
template <int ROWS, int COLUMNS, bool A_K_IN_ROWS, bool B_K_IN_ROWS, bool ROUND = false, typename T, int M, int N>
__device__ __forceinline__ void multiply(float (&sums)[M][N][4], const T *a, const T *b, int row, int column) {
#pragma unroll
  for (int k = 0; k < 64 / sizeof(T); k += 32 / sizeof(T)) {
    unsigned fragment_a[M][4], fragment_b[N][2];
#pragma unroll
    for (int i = 0; i < M; i++) load_a<ROWS, A_K_IN_ROWS>(fragment_a[i], a, row, i * 16, k);
#pragma unroll
    for (int j = 0; j < N; j += 2) load_b<COLUMNS, B_K_IN_ROWS>(fragment_b[j], fragment_b[j + 1], b, column, j * 8, k);
    if constexpr (ROUND) {
#pragma unroll
      for (int i = 0; i < M; i++) round_to_tf32(fragment_a[i]);
#pragma unroll
      for (int j = 0; j < N; j++) round_to_tf32(fragment_b[j]);
    }
#pragma unroll
    for (int i = 0; i < M; i++)
#pragma unroll
      for (int j = 0; j < N; j++) {
        if constexpr (sizeof(T) == 4)
          mma_1688_tf32(sums[i][j], fragment_a[i], fragment_b[j]);
        else
          mma_16816<T>(sums[i][j], fragment_a[i], fragment_b[j]);
      }
  }
}

// Calls f(down, across, left, right) with each two neighbours of this lane's sums: those in row 8 down + lane / 4 and columns
// 8 across + lane % 4 · 2 and the next one, counted from the warp's first on.
template <int M, int N, typename F>
__device__ __forceinline__ void each_pair(const float (&sums)[M][N][4], const F &f) {
#pragma unroll
  for (int i = 0; i < M; i++)
#pragma unroll
    for (int j = 0; j < N; j++) {
      f(i * 2, j, sums[i][j][0], sums[i][j][1]);
      f(i * 2 + 1, j, sums[i][j][2], sums[i][j][3]);
    }
}

// The distance of rows of a tile that `to_shared` writes: a little more than their columns, so that a lane's neighbours are in other banks.
constexpr int shared_row(int columns) { return columns + 8; }

// Writes a block's sums, rounded, to shared memory, as rows of COLUMNS of which this warp's first element is (row, column), so that all threads
// can write them from there in whole sectors. Before, `last(down, across, left, right)` changes two neighbours of `each_pair`.
template <int COLUMNS, typename T, int M, int N, typename Last>
__device__ __forceinline__ void to_shared(T *shared, const float (&sums)[M][N][4], int row, int column, const Last &last) {
  const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
  // Nobody reads the tiles any more.
  __syncthreads();
  each_pair(sums, [&](int down, int across, float left, float right) {
    last(down, across, left, right);
    T *to = shared + (row + down * 8 + g) * shared_row(COLUMNS) + column + across * 8 + t * 2;
    *reinterpret_cast<unsigned *>(to) = pack<T>(left, right);
  });
  __syncthreads();
}
