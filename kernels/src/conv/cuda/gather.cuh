// What the tensor-core convolutions share: which voxel of an image with its channels last a tap reads, and the order of taps and channels in
// a sum.
#pragma once
#include "indices.cuh"
#include "tiles.cuh"

constexpr int COLUMNS = 128;  // columns of a block's tile

// Blocks of up to 64 rows have four warps side by side, of 128 rows two rows of four.
constexpr int threads_of(int rows) { return rows > 64 ? 256 : 128; }
constexpr int warp_rows(int rows) { return rows > 64 ? 64 : rows; }

// Tap t reads, for output o, voxel o · stride + t · dilation + offset of the image along each axis; nothing outside of it. A dilation may be
// negative.
struct Gather {
  int channels;  // of a group, with those that fill up the last piece
  int taps[3];
  int input[3], stride[3], dilation[3], offset[3];
  SmallDivisor output[3];  // an image's outputs, their height and width
};

// The image's voxel that an output's window begins at.
struct Window {
  int at[3];
  int flat;  // from the first image of the group on
};

// The window of output `output`, counted over all images of a group.
__device__ __forceinline__ Window window_of(const Gather &s, int output) {
  Window window;
  window.flat = quotient(output, s.output[0]);  // the image
  output -= window.flat * s.output[0].size;
  const int x = last_of(output, s.output[2]), y = last_of(output, s.output[1]);
  const int place[3] = {output, y, x};
#pragma unroll
  for (int axis = 0; axis < 3; axis++) {
    window.at[axis] = place[axis] * s.stride[axis] + s.offset[axis];
    window.flat = window.flat * s.input[axis] + window.at[axis];
  }
  return window;
}

// Whether a window's tap at this distance from its beginning reads a voxel of the image.
__device__ __forceinline__ bool inside(const Gather &s, const Window &window, const int (&distance)[3]) {
  bool all = true;
#pragma unroll
  for (int axis = 0; axis < 3; axis++)
    all = all && static_cast<unsigned>(window.at[axis] + distance[axis]) < static_cast<unsigned>(s.input[axis]);
  return all;
}

// The distance of a tap from the beginning of its window, along each axis.
__device__ __forceinline__ void distance_of(const Gather &s, const int (&tap)[3], int (&distance)[3]) {
#pragma unroll
  for (int axis = 0; axis < 3; axis++) distance[axis] = tap[axis] * s.dilation[axis];
}

// The same in voxels of the image.
__device__ __forceinline__ int flat_of(const Gather &s, const int (&distance)[3]) {
  return (distance[0] * s.input[1] + distance[1]) * s.input[2] + distance[2];
}
