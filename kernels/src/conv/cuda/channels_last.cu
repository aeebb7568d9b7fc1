// Images with their channels last, as the tensor-core convolutions gather them: (groups, images, voxels, channels of a group, filled up with
// zeros to a multiple of 16 bytes) from one or two images (images, channels, voxels) whose channels follow one another.
//
// A block turns 128 voxels of 32 channels in shared memory. Grid: x the blocks of voxels, y the blocks of channels of each group, z · the
// images; 256 threads.
#include "tomograd.cuh"

struct Turned {
  int images, groups, voxels;
  int channels, padded;  // of a group
  int first, all;        // channels of the first of two images, and of both
};

template <typename T>
struct Images {
  const T *at[2];
};

constexpr int THREADS = 256, VOXELS = 128, CHANNELS = 32;

// Elements as they are stored: halves are copied, f32 becomes TF32.
__device__ __forceinline__ unsigned short stored(unsigned short x) { return x; }
__device__ __forceinline__ unsigned stored(unsigned x) { return to_tf32(__uint_as_float(x)); }

// A piece of 16 bytes from elements that lie `row` apart.
__device__ __forceinline__ uint4 piece_of(const unsigned short *x, int row) {
  unsigned pairs[4];
#pragma unroll
  for (int i = 0; i < 4; i++) pairs[i] = x[2 * i * row] | static_cast<unsigned>(x[(2 * i + 1) * row]) << 16;
  return make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
}
__device__ __forceinline__ uint4 piece_of(const unsigned *x, int row) { return make_uint4(x[0], x[row], x[2 * row], x[3 * row]); }

template <typename T>
__device__ __forceinline__ void channels_last(const Images<T> &x, T *y, const Turned &s) {
  constexpr int PIECE = 16 / sizeof(T);
  // Rows are longer by 4 bytes, so that the pieces that a warp reads of neighbouring voxels lie in different banks.
  constexpr int ROW = VOXELS + 4 / sizeof(T);
  __shared__ T tile[CHANNELS * ROW];
  const int blocks = (s.padded + CHANNELS - 1) / CHANNELS, group = blockIdx.y / blocks;
  const int first_channel = blockIdx.y % blocks * CHANNELS, first_voxel = blockIdx.x * VOXELS;
  const int pieces = min(s.padded - first_channel, CHANNELS) / PIECE, voxels = min(s.voxels - first_voxel, VOXELS);
  for (int n = blockIdx.z; n < s.images; n += gridDim.z) {
    const int voxel = threadIdx.x % VOXELS;
    for (int row = threadIdx.x / VOXELS; row < pieces * PIECE; row += THREADS / VOXELS) {
      if (voxel >= voxels) continue;
      const int in_group = first_channel + row, channel = group * s.channels + in_group;
      T value = 0;
      if (in_group < s.channels) {
        const bool second = channel >= s.first;
        const long long image = second ? n * static_cast<long long>(s.all - s.first) + channel - s.first : n * static_cast<long long>(s.first) + channel;
        value = (second ? x.at[1] : x.at[0])[image * s.voxels + first_voxel + voxel];
      }
      tile[row * ROW + voxel] = stored(value);
    }
    __syncthreads();
    T *to = y + ((static_cast<long long>(group) * s.images + n) * s.voxels + first_voxel) * s.padded + first_channel;
    for (int i = threadIdx.x; i < voxels * pieces; i += THREADS) {
      const int at = i / pieces, piece = i % pieces * PIECE;
      *reinterpret_cast<uint4 *>(to + static_cast<long long>(at) * s.padded + piece) = piece_of(tile + piece * ROW + at, ROW);
    }
    // The next image's tile may be written when this one was read.
    __syncthreads();
  }
}

extern "C" __global__ void __launch_bounds__(THREADS)
    channels_last_16(const Images<unsigned short> x, unsigned short *y, const Turned sizes) {
  channels_last(x, y, sizes);
}
extern "C" __global__ void __launch_bounds__(THREADS) channels_last_tf32(const Images<unsigned> x, unsigned *y, const Turned sizes) {
  channels_last(x, y, sizes);
}
