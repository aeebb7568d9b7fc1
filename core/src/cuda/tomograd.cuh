// What all kernels share: half types, copies that run beside the computation, tensor cores. No header of CUDA is needed: NVRTC has
// the rest built in, and where TOMOGRAD_EMULATOR is defined the emulator's header stands for it.
#pragma once

#ifdef TOMOGRAD_EMULATOR
#include "emulator.hpp"
#define DYNAMIC_SHARED(T, NAME) T *NAME = reinterpret_cast<T *>(tomograd_dynamic_shared())
#else
#define TOMOGRAD_INLINE __device__ __forceinline__
// The shared memory whose size the launch gives, aligned to 128 bytes.
#define DYNAMIC_SHARED(T, NAME)                                         \
  extern __shared__ __align__(128) unsigned char tomograd_dynamic[];   \
  T *NAME = reinterpret_cast<T *>(tomograd_dynamic)
#define INFINITY __int_as_float(0x7f800000)
#endif

// IEEE 754 binary16.
struct f16 {
  unsigned short bits;
};
// The upper half of a binary32.
struct bf16 {
  unsigned short bits;
};

// ---- conversions: to the nearest, ties to even ----

TOMOGRAD_INLINE float to_float(float x) { return x; }
TOMOGRAD_INLINE float to_float(bf16 x) { return __uint_as_float(static_cast<unsigned>(x.bits) << 16); }
TOMOGRAD_INLINE float to_float(f16 x) {
#ifdef TOMOGRAD_EMULATOR
  // The fraction and exponent moved to their places in a binary32, times 2^112, which also makes subnormal numbers right.
  float magnitude = __uint_as_float((x.bits & 0x7fffu) << 13) * __uint_as_float(0x77800000u);
  if ((x.bits & 0x7c00u) == 0x7c00u) magnitude = __uint_as_float(0x7f800000u | (x.bits & 0x3ffu) << 13);
  return __uint_as_float(__float_as_uint(magnitude) | (x.bits & 0x8000u) << 16);
#else
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
  return y;
#endif
}

#ifdef TOMOGRAD_EMULATOR
TOMOGRAD_INLINE unsigned short tomograd_f16_bits(float x) {
  unsigned bits = __float_as_uint(x), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return 0x7fff;
  if (magnitude >= 0x477ff000u) return static_cast<unsigned short>(sign | 0x7c00u);  // rounds to 65536 or more
  // Adding 0.5 in the scale where an ulp of binary32 is the step of subnormal numbers rounds them.
  if (magnitude < 0x38800000u)
    return static_cast<unsigned short>(sign | (__float_as_uint(__uint_as_float(magnitude) + 0.5f) - 0x3f000000u));
  return static_cast<unsigned short>(sign | ((magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1)) >> 13));
}
TOMOGRAD_INLINE unsigned short tomograd_bf16_bits(float x) {
  unsigned bits = __float_as_uint(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fff;
  return static_cast<unsigned short>((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}
#endif

template <typename T>
TOMOGRAD_INLINE T from_float(float x);
template <>
TOMOGRAD_INLINE float from_float<float>(float x) {
  return x;
}
template <>
TOMOGRAD_INLINE f16 from_float<f16>(float x) {
  f16 y;
#ifdef TOMOGRAD_EMULATOR
  y.bits = tomograd_f16_bits(x);
#else
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
#endif
  return y;
}
template <>
TOMOGRAD_INLINE bf16 from_float<bf16>(float x) {
  bf16 y;
#ifdef TOMOGRAD_EMULATOR
  y.bits = tomograd_bf16_bits(x);
#else
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
#endif
  return y;
}

// Two halves in one register, `low` in the lower bits.
template <typename T>
TOMOGRAD_INLINE unsigned pack(float low, float high) {
  return from_float<T>(low).bits | static_cast<unsigned>(from_float<T>(high).bits) << 16;
}
#ifndef TOMOGRAD_EMULATOR
template <>
TOMOGRAD_INLINE unsigned pack<f16>(float low, float high) {
  unsigned y;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
  return y;
}
template <>
TOMOGRAD_INLINE unsigned pack<bf16>(float low, float high) {
  unsigned y;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
  return y;
}
#endif
template <typename T>
TOMOGRAD_INLINE float2 unpack(unsigned pair) {
  T low, high;
  low.bits = static_cast<unsigned short>(pair);
  high.bits = static_cast<unsigned short>(pair >> 16);
  return make_float2(to_float(low), to_float(high));
}

// The nearest TF32 (8 bits of exponent, 10 of fraction; ties away from zero), as the bits that `mma_1688_tf32` takes.
TOMOGRAD_INLINE unsigned to_tf32(float x) {
#ifdef TOMOGRAD_EMULATOR
  return (__float_as_uint(x) + 0x1000u) & 0xffffe000u;
#else
  unsigned y;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(y) : "f"(x));
  return y;
#endif
}

// 2^x within 2 ulp.
TOMOGRAD_INLINE float exp2_fast(float x) {
#ifdef TOMOGRAD_EMULATOR
  return exp2f(x);
#else
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#endif
}

// ---- copies from global to shared memory that run beside the computation ----

#ifndef TOMOGRAD_EMULATOR
TOMOGRAD_INLINE unsigned shared_address(const void *memory) { return static_cast<unsigned>(__cvta_generic_to_shared(memory)); }
#endif

// Copies BYTES (4, 8 or 16, to which both addresses are aligned): the first `valid` of `global`, then zeros. They are there for the
// thread after `cp_async_wait`, and for the others after a barrier behind it.
template <int BYTES>
TOMOGRAD_INLINE void cp_async(void *shared, const void *global, int valid = BYTES) {
  static_assert(BYTES == 4 || BYTES == 8 || BYTES == 16, "cp.async copies 4, 8 or 16 bytes");
#ifdef TOMOGRAD_EMULATOR
  tomograd_async_copy(shared, global, BYTES, valid);
#else
  if (BYTES == 16)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global), "r"(valid) : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(shared_address(shared)), "l"(global), "n"(BYTES), "r"(valid) : "memory");
#endif
}

// Ends a group of copies.
TOMOGRAD_INLINE void cp_async_commit() {
#ifdef TOMOGRAD_EMULATOR
  tomograd_async_commit();
#else
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits for all of the thread's groups but the last GROUPS.
template <int GROUPS>
TOMOGRAD_INLINE void cp_async_wait() {
#ifdef TOMOGRAD_EMULATOR
  tomograd_async_wait(GROUPS);
#else
  asm volatile("cp.async.wait_group %0;" ::"n"(GROUPS) : "memory");
#endif
}

// ---- tensor cores: operations of a whole warp ----
// With g = lane / 4 and t = lane % 4, of m16n8k16 a lane holds: of a (16 × 16) the pairs (g, 2t), (g + 8, 2t), (g, 2t + 8) and
// (g + 8, 2t + 8); of b (16 × 8) the pairs of rows 2t and 2t + 8 in column g; of d (16 × 8) the pairs (g, 2t) and (g + 8, 2t).
// Of m16n8k8: of a (16 × 8) (g, t), (g + 8, t), (g, t + 4), (g + 8, t + 4); of b (8 × 8) (t, g), (t + 4, g); of d the same.

#ifdef TOMOGRAD_EMULATOR
#define TOMOGRAD_PLACE , TOMOGRAD_HERE
#else
#define TOMOGRAD_PLACE
#endif

template <typename A, typename B>
struct same_type {
  static constexpr bool value = false;
};
template <typename A>
struct same_type<A, A> {
  static constexpr bool value = true;
};

// d += a b of f16 or bf16, with sums in f32.
template <typename T>
TOMOGRAD_INLINE void mma_16816(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2] TOMOGRAD_PLACE) {
  static_assert(same_type<T, f16>::value || same_type<T, bf16>::value, "tensor cores take f16 or bf16 here");
#ifdef TOMOGRAD_EMULATOR
  tomograd_mma(same_type<T, f16>::value ? TOMOGRAD_F16 : TOMOGRAD_BF16, d, a, b, file, line);
#else
#define TOMOGRAD_MMA(TYPE)                                                                                                            \
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." TYPE "." TYPE ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};" \
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                                                                       \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))
  if (same_type<T, f16>::value)
    TOMOGRAD_MMA("f16");
  else
    TOMOGRAD_MMA("bf16");
#undef TOMOGRAD_MMA
#endif
}

// d += a b of TF32 (see `to_tf32`), with sums in f32.
TOMOGRAD_INLINE void mma_1688_tf32(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2] TOMOGRAD_PLACE) {
#ifdef TOMOGRAD_EMULATOR
  tomograd_mma(TOMOGRAD_TF32, d, a, b, file, line);
#else
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

// Loads 8 × 8 matrices of halves from shared memory: lane 8 m + r gives the address of row r of matrix m, 8 halves aligned to 16 bytes.
// A lane gets elements (lane / 4, 2 (lane % 4)) and the one beside it of each matrix; of its transpose by the second function.
TOMOGRAD_INLINE void ldmatrix_x4(unsigned (&r)[4], const void *row TOMOGRAD_PLACE) {
#ifdef TOMOGRAD_EMULATOR
  tomograd_ldmatrix(4, 0, r, row, file, line);
#else
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
#endif
}
TOMOGRAD_INLINE void ldmatrix_x4_trans(unsigned (&r)[4], const void *row TOMOGRAD_PLACE) {
#ifdef TOMOGRAD_EMULATOR
  tomograd_ldmatrix(4, 1, r, row, file, line);
#else
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
#endif
}
// The same of two matrices, whose addresses are those of lanes 0 to 15.
TOMOGRAD_INLINE void ldmatrix_x2(unsigned (&r)[2], const void *row TOMOGRAD_PLACE) {
#ifdef TOMOGRAD_EMULATOR
  tomograd_ldmatrix(2, 0, r, row, file, line);
#else
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];" : "=r"(r[0]), "=r"(r[1]) : "r"(shared_address(row)) : "memory");
#endif
}
TOMOGRAD_INLINE void ldmatrix_x2_trans(unsigned (&r)[2], const void *row TOMOGRAD_PLACE) {
#ifdef TOMOGRAD_EMULATOR
  tomograd_ldmatrix(2, 1, r, row, file, line);
#else
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];" : "=r"(r[0]), "=r"(r[1]) : "r"(shared_address(row)) : "memory");
#endif
}
