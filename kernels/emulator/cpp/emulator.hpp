// CUDA C as the host's compiler sees it: what NVRTC has built in. `tomograd.cuh` includes it where TOMOGRAD_EMULATOR is defined.
#ifndef TOMOGRAD_EMULATOR_HPP
#define TOMOGRAD_EMULATOR_HPP

#include <math.h>
#include <stdint.h>
#include <string.h>

#include <utility>

#include "interface.h"

#define __global__
#define __device__
#define __host__
#define __constant__ const
#define __shared__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __launch_bounds__(...)
#define __grid_constant__
#define __restrict__ __restrict
#define TOMOGRAD_INLINE inline __attribute__((always_inline))
// Where an operation stands in a kernel.
#define TOMOGRAD_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()

#define threadIdx (tomograd_place.thread)
#define blockIdx (tomograd_place.block)
#define blockDim (tomograd_place.block_size)
#define gridDim (tomograd_place.grid_size)
constexpr int warpSize = 32;

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

// Vector types whose copies are one access each, as they are on a device; that checks their alignment.
#define TOMOGRAD_VECTOR_COPY(NAME)                                                          \
  NAME() = default;                                                                         \
  TOMOGRAD_INLINE NAME(const NAME &other) { tomograd_copy(this, &other, sizeof(NAME)); }    \
  TOMOGRAD_INLINE NAME &operator=(const NAME &other) {                                      \
    tomograd_copy(this, &other, sizeof(NAME));                                              \
    return *this;                                                                           \
  }
#define TOMOGRAD_VECTOR(T, NAME)                                                            \
  struct __align__(2 * sizeof(T)) NAME##2 {                                                 \
    T x, y;                                                                                 \
    TOMOGRAD_INLINE NAME##2(T x, T y) : x(x), y(y) {}                                       \
    TOMOGRAD_VECTOR_COPY(NAME##2)                                                           \
  };                                                                                        \
  struct __align__(4 * sizeof(T)) NAME##4 {                                                 \
    T x, y, z, w;                                                                           \
    TOMOGRAD_INLINE NAME##4(T x, T y, T z, T w) : x(x), y(y), z(z), w(w) {}                 \
    TOMOGRAD_VECTOR_COPY(NAME##4)                                                           \
  };                                                                                        \
  TOMOGRAD_INLINE NAME##2 make_##NAME##2(T x, T y) { return NAME##2(x, y); }                \
  TOMOGRAD_INLINE NAME##4 make_##NAME##4(T x, T y, T z, T w) { return NAME##4(x, y, z, w); }
TOMOGRAD_VECTOR(float, float)
TOMOGRAD_VECTOR(int, int)
TOMOGRAD_VECTOR(unsigned, uint)
TOMOGRAD_VECTOR(unsigned short, ushort)
TOMOGRAD_VECTOR(unsigned char, uchar)
struct __align__(16) double2 {
  double x, y;
  TOMOGRAD_INLINE double2(double x, double y) : x(x), y(y) {}
  TOMOGRAD_VECTOR_COPY(double2)
};
TOMOGRAD_INLINE double2 make_double2(double x, double y) { return double2(x, y); }

TOMOGRAD_INLINE void __syncthreads(TOMOGRAD_HERE) {
  asm volatile("" ::: "memory");
  tomograd_sync_block(file, line);
  asm volatile("" ::: "memory");
}
TOMOGRAD_INLINE void __syncwarp(unsigned mask = 0xffffffffu, TOMOGRAD_HERE) {
  asm volatile("" ::: "memory");
  tomograd_sync_warp(mask, file, line);
  asm volatile("" ::: "memory");
}
TOMOGRAD_INLINE void __threadfence() {}
TOMOGRAD_INLINE void __threadfence_block() {}

template <typename T>
TOMOGRAD_INLINE T tomograd_shuffled(int how, unsigned mask, T value, int argument, int width, const char *file, int line) {
  static_assert(sizeof(T) <= 8, "a shuffle moves 8 bytes at most");
  unsigned long bits = 0;
  __builtin_memcpy(&bits, &value, sizeof(T));
  bits = tomograd_shuffle(how, mask, bits, argument, width, file, line);
  __builtin_memcpy(&value, &bits, sizeof(T));
  return value;
}
template <typename T>
TOMOGRAD_INLINE T __shfl_sync(unsigned mask, T value, int lane, int width = 32, TOMOGRAD_HERE) {
  return tomograd_shuffled(TOMOGRAD_INDEX, mask, value, lane, width, file, line);
}
template <typename T>
TOMOGRAD_INLINE T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, TOMOGRAD_HERE) {
  return tomograd_shuffled(TOMOGRAD_UP, mask, value, static_cast<int>(delta), width, file, line);
}
template <typename T>
TOMOGRAD_INLINE T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, TOMOGRAD_HERE) {
  return tomograd_shuffled(TOMOGRAD_DOWN, mask, value, static_cast<int>(delta), width, file, line);
}
template <typename T>
TOMOGRAD_INLINE T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, TOMOGRAD_HERE) {
  return tomograd_shuffled(TOMOGRAD_XOR, mask, value, lanes, width, file, line);
}
TOMOGRAD_INLINE unsigned __ballot_sync(unsigned mask, int predicate, TOMOGRAD_HERE) { return tomograd_ballot(mask, predicate, file, line); }
TOMOGRAD_INLINE int __any_sync(unsigned mask, int predicate, TOMOGRAD_HERE) { return tomograd_ballot(mask, predicate, file, line) != 0; }
TOMOGRAD_INLINE int __all_sync(unsigned mask, int predicate, TOMOGRAD_HERE) { return tomograd_ballot(mask, !predicate, file, line) == 0; }

// Atomic operations: threads run one after another, each until a barrier, so a plain change is one. The runtime reads and writes,
// so that these aren't taken for plain accesses.
template <typename T, typename F>
TOMOGRAD_INLINE T tomograd_change(T *memory, F change) {
  T before, after;
  tomograd_atomic_begin(memory, &before, sizeof(T));
  after = change(before);
  tomograd_atomic_end(memory, &after, sizeof(T));
  return before;
}
#define TOMOGRAD_ATOMIC_ADD(T) \
  TOMOGRAD_INLINE T atomicAdd(T *memory, T value) { return tomograd_change(memory, [value](T old) { return static_cast<T>(old + value); }); }
#define TOMOGRAD_ATOMICS(T)                                                                                                              \
  TOMOGRAD_ATOMIC_ADD(T)                                                                                                                 \
  TOMOGRAD_INLINE T atomicMax(T *memory, T value) { return tomograd_change(memory, [value](T old) { return old > value ? old : value; }); } \
  TOMOGRAD_INLINE T atomicMin(T *memory, T value) { return tomograd_change(memory, [value](T old) { return old < value ? old : value; }); } \
  TOMOGRAD_INLINE T atomicOr(T *memory, T value) { return tomograd_change(memory, [value](T old) { return old | value; }); }              \
  TOMOGRAD_INLINE T atomicAnd(T *memory, T value) { return tomograd_change(memory, [value](T old) { return old & value; }); }             \
  TOMOGRAD_INLINE T atomicExch(T *memory, T value) { return tomograd_change(memory, [value](T) { return value; }); }                      \
  TOMOGRAD_INLINE T atomicCAS(T *memory, T expected, T value) {                                                                           \
    return tomograd_change(memory, [expected, value](T old) { return old == expected ? value : old; });                                   \
  }
TOMOGRAD_ATOMICS(int)
TOMOGRAD_ATOMICS(unsigned)
TOMOGRAD_ATOMICS(unsigned long long)
TOMOGRAD_ATOMIC_ADD(float)
TOMOGRAD_ATOMIC_ADD(double)

// Mathematics that NVRTC has built in under these names.
template <typename T>
TOMOGRAD_INLINE T __ldg(const T *memory) { return *memory; }
template <typename T>
TOMOGRAD_INLINE T __ldcs(const T *memory) { return *memory; }
template <typename T>
TOMOGRAD_INLINE void __stcs(T *memory, T value) { *memory = value; }
#define TOMOGRAD_MIN_MAX(A, B, T)                                                                              \
  constexpr T min(A a, B b) { return static_cast<T>(a) < static_cast<T>(b) ? static_cast<T>(a) : static_cast<T>(b); } \
  constexpr T max(A a, B b) { return static_cast<T>(a) > static_cast<T>(b) ? static_cast<T>(a) : static_cast<T>(b); }
TOMOGRAD_MIN_MAX(int, int, int)
TOMOGRAD_MIN_MAX(unsigned, unsigned, unsigned)
TOMOGRAD_MIN_MAX(int, unsigned, unsigned)
TOMOGRAD_MIN_MAX(unsigned, int, unsigned)
TOMOGRAD_MIN_MAX(long, long, long)
TOMOGRAD_MIN_MAX(long long, long long, long long)
TOMOGRAD_MIN_MAX(unsigned long, unsigned long, unsigned long)
TOMOGRAD_MIN_MAX(unsigned long long, unsigned long long, unsigned long long)
TOMOGRAD_INLINE float min(float a, float b) { return fminf(a, b); }
TOMOGRAD_INLINE float max(float a, float b) { return fmaxf(a, b); }
TOMOGRAD_INLINE double min(double a, double b) { return fmin(a, b); }
TOMOGRAD_INLINE double max(double a, double b) { return fmax(a, b); }
TOMOGRAD_INLINE float rsqrtf(float x) { return 1.0f / sqrtf(x); }
TOMOGRAD_INLINE double rsqrt(double x) { return 1.0 / sqrt(x); }
TOMOGRAD_INLINE float __fdividef(float a, float b) { return a / b; }
TOMOGRAD_INLINE float __saturatef(float x) { return fminf(fmaxf(x, 0.0f), 1.0f); }
// The C library has these names for itself.
#define __expf(x) expf(x)
#define __logf(x) logf(x)
#define __log2f(x) log2f(x)
#define __sinf(x) sinf(x)
#define __cosf(x) cosf(x)
#define __powf(x, y) powf(x, y)
#define __frsqrt_rn(x) rsqrtf(x)
#define __fsqrt_rn(x) sqrtf(x)
#define __fdiv_rn(a, b) ((a) / (b))
#define __fmaf_rn(a, b, c) fmaf(a, b, c)
#define __fadd_rn(a, b) ((a) + (b))
#define __fmul_rn(a, b) ((a) * (b))
#define __dadd_rn(a, b) ((a) + (b))
#define __dmul_rn(a, b) ((a) * (b))

template <typename To, typename From>
TOMOGRAD_INLINE To tomograd_bits(From from) {
  static_assert(sizeof(To) == sizeof(From), "the same bits");
  To to;
  __builtin_memcpy(&to, &from, sizeof(To));
  return to;
}
TOMOGRAD_INLINE int __float_as_int(float x) { return tomograd_bits<int>(x); }
TOMOGRAD_INLINE unsigned __float_as_uint(float x) { return tomograd_bits<unsigned>(x); }
TOMOGRAD_INLINE float __int_as_float(int x) { return tomograd_bits<float>(x); }
TOMOGRAD_INLINE float __uint_as_float(unsigned x) { return tomograd_bits<float>(x); }
TOMOGRAD_INLINE int __popc(unsigned x) { return __builtin_popcount(x); }
TOMOGRAD_INLINE int __clz(int x) { return x ? __builtin_clz(static_cast<unsigned>(x)) : 32; }
TOMOGRAD_INLINE int __ffs(int x) { return __builtin_ffs(x); }
TOMOGRAD_INLINE unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>((static_cast<unsigned long>(a) * b) >> 32); }
TOMOGRAD_INLINE unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return static_cast<unsigned long long>((static_cast<unsigned __int128>(a) * b) >> 64);
}

// The kernels of a library: behind the source stand TOMOGRAD_KERNEL(name, most_threads) for each, and TOMOGRAD_KERNELS once.
template <typename... A, size_t... I>
__attribute__((no_sanitize("thread"))) void tomograd_call(void (*kernel)(A...), void **arguments, std::index_sequence<I...>) {
  kernel(*static_cast<A *>(arguments[I])...);
}
template <auto KERNEL, typename... A>
struct TomogradEntry {
  static void invoke(void **arguments) { tomograd_call(KERNEL, arguments, std::index_sequence_for<A...>()); }
  static constexpr unsigned sizes[] = {sizeof(A)..., 0};
};
template <auto KERNEL, typename... A>
constexpr TomogradKernel tomograd_entry(const char *name, unsigned most_threads, void (*)(A...)) {
  return {name, TomogradEntry<KERNEL, A...>::invoke, most_threads, sizeof...(A), TomogradEntry<KERNEL, A...>::sizes};
}
#define TOMOGRAD_KERNEL(NAME, MOST_THREADS) static constexpr TomogradKernel tomograd_kernel_##NAME = tomograd_entry<&NAME>(#NAME, MOST_THREADS, &NAME);
// Also the function that launches them, with cuLaunchKernel's arguments. The linker's names bound the library's variables.
#define TOMOGRAD_KERNELS(...)                                                                                                     \
  extern "C" {                                                                                                                    \
  extern char __bss_start[] __attribute__((visibility("hidden"))), _end[] __attribute__((visibility("hidden")));                  \
  extern __attribute__((visibility("default"))) const TomogradKernel *const tomograd_kernels[];                                   \
  const TomogradKernel *const tomograd_kernels[] = {__VA_ARGS__, nullptr};                                                        \
  __attribute__((visibility("default"), no_sanitize("thread"))) int tomograd_emulator_launch(                                     \
      const char *kernel, const unsigned grid[3], const unsigned block[3], unsigned long shared_bytes, void **arguments,          \
      TomogradEmulatorReport *report) {                                                                                           \
    for (const TomogradKernel *const *entry = tomograd_kernels; *entry; entry++)                                                  \
      if (!strcmp((*entry)->name, kernel))                                                                                        \
        return tomograd_runtime_launch(*entry, __bss_start, _end, grid, block, shared_bytes, arguments, report);                  \
    return -1;                                                                                                                    \
  }                                                                                                                               \
  }

#endif
