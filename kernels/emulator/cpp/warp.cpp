// Operations of a warp: barriers, shuffles, votes, tensor cores, loads of matrices.
#include <cmath>
#include <cstdio>
#include <cstring>

#include "runtime.hpp"

namespace tomograd {

// The lanes of the running thread's warp that exist.
static unsigned existing(unsigned warp) {
  unsigned first = warp * LANES, lanes = state->thread_count - first;
  return lanes >= LANES ? ~0u : (1u << lanes) - 1;
}

// Brings `deposit` and waits until all lanes of its mask have come to the same place with the same.
static void rendezvous(Deposit deposit, const char *file, int line, const void *instruction) {
  const unsigned warp = state->now / LANES, first = warp * LANES;
  Thread &self = state->threads[state->now];
  deposit.mask &= existing(warp);
  if (!(deposit.mask >> (state->now - first) & 1))
    fail(TOMOGRAD_DIVERGED, instruction, "a warp operation whose mask %#x lacks the calling lane", deposit.mask);
  self.deposit = deposit;
  self.wait = Wait::WARP;
  self.file = file;
  self.line = line;
  for (unsigned lane = 0; lane < LANES; lane++) {
    if (!(deposit.mask >> lane & 1)) continue;
    const Thread &other = state->threads[first + lane];
    bool here = other.wait == Wait::WARP && other.deposit.operation == deposit.operation && other.deposit.mask == deposit.mask &&
                other.line == line && !strcmp(other.file, file);
    if (!here) {
      yield();
      return;
    }
  }
  if (deposit.operation == Operation::MMA || deposit.operation == Operation::LDMATRIX) {
    if (deposit.mask != ~0u) fail(TOMOGRAD_DIVERGED, instruction, "mma and ldmatrix need all 32 lanes of a warp");
  }
  if (deposit.operation != Operation::MMA) state->report->warp_operations++;
  complete(warp, deposit.mask, instruction);
  if (deposit.mask == existing(warp)) {
    flush_costs(warp);
    if (deposit.operation == Operation::SYNC) state->step[warp]++;
  }
  for (unsigned lane = 0; lane < LANES; lane++)
    if (deposit.mask >> lane & 1) state->threads[first + lane].wait = Wait::READY;
}

static void complete_shuffle(unsigned first, unsigned mask, const void *instruction) {
  for (unsigned lane = 0; lane < LANES; lane++) {
    if (!(mask >> lane & 1)) continue;
    const Deposit &own = state->threads[first + lane].deposit;
    int width = own.width, begin = static_cast<int>(lane) & ~(width - 1), end = begin + width, self = static_cast<int>(lane);
    int from = self;
    switch (own.how) {
      case TOMOGRAD_INDEX: from = begin + (own.argument & (width - 1)); break;
      case TOMOGRAD_UP: from = self - own.argument; break;
      case TOMOGRAD_DOWN: from = self + own.argument; break;
      case TOMOGRAD_XOR: from = self ^ own.argument; break;
    }
    // Beyond its part of the warp, a lane keeps its own value; xor may read parts before its own.
    if (from >= end || (from < begin && own.how != TOMOGRAD_XOR) || from < 0) from = self;
    if (!(mask >> from & 1)) fail(TOMOGRAD_SHUFFLE, instruction, "lane %u shuffles from lane %d, which takes no part", lane, from);
    memcpy(own.out, &state->threads[first + static_cast<unsigned>(from)].deposit.value, sizeof(unsigned long));
  }
}

static float f16_value(unsigned bits) {
  unsigned exponent = bits >> 10 & 31, fraction = bits & 1023;
  float magnitude = exponent == 31  ? (fraction ? NAN : INFINITY)
                    : exponent == 0 ? std::ldexp(static_cast<float>(fraction), -24)
                                    : std::ldexp(static_cast<float>(1024 + fraction), static_cast<int>(exponent) - 25);
  return bits >> 15 & 1 ? -magnitude : magnitude;
}

static float float_of(unsigned bits) {
  float value;
  memcpy(&value, &bits, sizeof(value));
  return value;
}

static float element(int type, const unsigned *registers, unsigned index) {
  if (type == TOMOGRAD_TF32) return float_of(registers[index] & 0xffffe000u);  // the hardware doesn't look at the last 13 bits
  unsigned bits = registers[index / 2] >> (index % 2 * 16) & 0xffff;
  return type == TOMOGRAD_BF16 ? float_of(bits << 16) : f16_value(bits);
}

// Towards zero, as the adders of tensor cores cut what doesn't fit; so a sum has a bias here too.
static float truncated(double value) {
  float nearest = static_cast<float>(value);
  if (std::isfinite(nearest) && std::fabs(static_cast<double>(nearest)) > std::fabs(value)) nearest = std::nextafterf(nearest, 0.0f);
  return nearest;
}

// d += a b for a of 16 × K, b of K × 8: PTX ISA, "Matrix fragments for mma.m16n8k16" and "mma.m16n8k8" (tf32).
static void complete_mma(unsigned first, int type) {
  const unsigned k_size = type == TOMOGRAD_TF32 ? 8 : 16;
  float a[16][16], b[16][8];
  for (unsigned lane = 0; lane < LANES; lane++) {
    const Deposit &own = state->threads[first + lane].deposit;
    auto *ra = static_cast<const unsigned *>(own.in[0]), *rb = static_cast<const unsigned *>(own.in[1]);
    const unsigned group = lane / 4, place = lane % 4;
    if (type == TOMOGRAD_TF32) {
      for (unsigned i = 0; i < 4; i++) a[group + i % 2 * 8][place + i / 2 * 4] = element(type, ra, i);
      for (unsigned i = 0; i < 2; i++) b[place + i * 4][group] = element(type, rb, i);
    } else {
      for (unsigned i = 0; i < 8; i++) a[group + i / 2 % 2 * 8][place * 2 + i % 2 + i / 4 * 8] = element(type, ra, i);
      for (unsigned i = 0; i < 4; i++) b[place * 2 + i % 2 + i / 2 * 8][group] = element(type, rb, i);
    }
  }
  for (unsigned lane = 0; lane < LANES; lane++) {
    auto *d = static_cast<float *>(state->threads[first + lane].deposit.out);
    for (unsigned i = 0; i < 4; i++) {
      const unsigned row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
      double sum = d[i];
      for (unsigned k = 0; k < k_size; k++) sum += static_cast<double>(a[row][k]) * static_cast<double>(b[k][column]);
      d[i] = truncated(sum);
    }
  }
  state->report->tensor_operations++;
}

// Matrices of 8 × 8 halves: lane 8 m + r has the address of row r of matrix m; PTX ISA, "ldmatrix".
static void complete_ldmatrix(unsigned first, unsigned count, bool transposed, const void *instruction) {
  const unsigned caller = state->now;
  unsigned short rows[32][8];
  for (unsigned lane = 0; lane < count * 8; lane++) {
    const void *row = state->threads[first + lane].deposit.in[0];
    state->now = first + lane;
    touch(reinterpret_cast<uintptr_t>(row), 16, Kind::READ, instruction);
    memcpy(rows[lane], row, 16);
  }
  state->now = caller;
  for (unsigned lane = 0; lane < LANES; lane++) {
    auto *out = static_cast<unsigned *>(state->threads[first + lane].deposit.out);
    for (unsigned m = 0; m < count; m++) {
      const unsigned r = lane / 4, c = lane % 4 * 2;
      unsigned low = transposed ? rows[m * 8 + c][r] : rows[m * 8 + r][c], high = transposed ? rows[m * 8 + c + 1][r] : rows[m * 8 + r][c + 1];
      out[m] = low | high << 16;
    }
  }
}

void complete(unsigned warp, unsigned mask, const void *instruction) {
  const unsigned first = warp * LANES;
  const Deposit &deposit = state->threads[state->now].deposit;
  switch (deposit.operation) {
    case Operation::SYNC: break;
    case Operation::SHUFFLE: complete_shuffle(first, mask, instruction); break;
    case Operation::BALLOT: {
      unsigned votes = 0;
      for (unsigned lane = 0; lane < LANES; lane++)
        if (mask >> lane & 1 && state->threads[first + lane].deposit.value) votes |= 1u << lane;
      for (unsigned lane = 0; lane < LANES; lane++)
        if (mask >> lane & 1) *static_cast<unsigned *>(state->threads[first + lane].deposit.out) = votes;
      break;
    }
    case Operation::MMA: complete_mma(first, deposit.how); break;
    case Operation::LDMATRIX: complete_ldmatrix(first, static_cast<unsigned>(deposit.how), deposit.argument, instruction); break;
  }
}

}  // namespace tomograd

using namespace tomograd;

void tomograd_sync_warp(unsigned mask, const char *file, int line) {
  rendezvous({Operation::SYNC, mask, 0, 0, 0, 0, {}, nullptr}, file, line, __builtin_return_address(0));
}

unsigned long tomograd_shuffle(int how, unsigned mask, unsigned long value, int argument, int width, const char *file, int line) {
  unsigned long result = 0;
  rendezvous({Operation::SHUFFLE, mask, how, argument, width, value, {}, &result}, file, line, __builtin_return_address(0));
  return result;
}

unsigned tomograd_ballot(unsigned mask, int predicate, const char *file, int line) {
  unsigned result = 0;
  rendezvous({Operation::BALLOT, mask, 0, 0, 0, predicate != 0, {}, &result}, file, line, __builtin_return_address(0));
  return result;
}

void tomograd_mma(int type, float *d, const unsigned *a, const unsigned *b, const char *file, int line) {
  rendezvous({Operation::MMA, ~0u, type, 0, 0, 0, {a, b}, d}, file, line, __builtin_return_address(0));
}

void tomograd_ldmatrix(unsigned count, int transposed, unsigned *r, const void *row, const char *file, int line) {
  rendezvous({Operation::LDMATRIX, ~0u, static_cast<int>(count), transposed, 0, 0, {row}, r}, file, line, __builtin_return_address(0));
}
