// The parts of the runtime and the state that they share.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "interface.h"

// The definition behind what kernels see as a constant.
extern "C" TomogradPlace tomograd_place_now asm("tomograd_place");

namespace tomograd {

constexpr unsigned LANES = 32;
constexpr unsigned MOST_THREADS = 1024;
constexpr unsigned long MOST_SHARED = 99 * 1024;

// What is known of one byte. Times are epochs: an epoch lasts from one block barrier to the next, and no two blocks share one.
// Within an epoch a warp counts its full barriers as steps.
struct Shadow {
  uint32_t written;       // epoch of the last write; NEVER, or HOST
  uint16_t writer;        // thread, with ATOMIC or PENDING
  uint16_t written_step;
  uint32_t read;          // epoch of the last read
  uint16_t reader;        // thread, with MANY_LANES or MANY_WARPS: others of the same epoch
  uint16_t read_step;
};
constexpr uint32_t NEVER = 0, HOST = 1, FIRST_EPOCH = 2;
constexpr uint16_t THREAD = 0x03ff, ATOMIC = 0x8000, PENDING = 0x4000, MANY_LANES = 0x8000, MANY_WARPS = 0x4000;

enum class Space { GLOBAL, SHARED };
enum class Kind { READ, WRITE, ATOMIC };

// Memory that threads share.
struct Region {
  uintptr_t begin = 0, end = 0;
  Shadow *shadow = nullptr;
  Space space = Space::GLOBAL;
  const char *name = nullptr;  // of a static array
};

// An asynchronous copy under way.
struct Copy {
  uintptr_t to;
  unsigned bytes;
  unsigned group;
  unsigned char data[16];
};

enum class Wait { READY, BLOCK, WARP, ENDED };
enum class Operation { SYNC, SHUFFLE, BALLOT, MMA, LDMATRIX };

// What a lane brings to an operation of its warp, and takes from it.
struct Deposit {
  Operation operation;
  unsigned mask;
  int how, argument, width;
  unsigned long value;
  const void *in[3];
  void *out;
};

struct Thread {
  void *stack_pointer = nullptr;
  Wait wait = Wait::READY;
  const char *file = nullptr;  // of the barrier or operation it waits at
  int line = 0;
  Deposit deposit;
  std::vector<Copy> copies;
  unsigned group = 0;  // of the copies that come next
};

struct State {
  const TomogradKernel *kernel = nullptr;
  void **arguments = nullptr;
  TomogradEmulatorReport *report = nullptr;
  Thread threads[MOST_THREADS];
  unsigned thread_count = 0, warp_count = 0;
  TomogradIndex thread_index[MOST_THREADS];
  unsigned now = 0;  // the running thread
  bool running = false;
  uint32_t epoch = FIRST_EPOCH, launch_epoch = 0, block_epoch = 0;
  uint16_t step[MOST_THREADS / LANES];
  Region dynamic;
  char *stacks = nullptr;
  size_t stacks_bytes = 0;
  char *library_begin = nullptr, *library_end = nullptr;
};
extern State *state;

// Fills the report's fault; `instruction` is the address behind the call, or null.
void set_fault(TomogradFault fault, const void *instruction, const char *format, ...) __attribute__((format(printf, 3, 4)));
// The same of the running thread, which isn't resumed.
[[noreturn]] void fail(TomogradFault fault, const void *instruction, const char *format, ...) __attribute__((format(printf, 3, 4)));

// fibers.cpp
void run_block();
void yield();
[[noreturn]] void stop();
void prepare_stacks(unsigned threads);
const char *threads_text(const std::vector<unsigned> &threads, char *text, size_t bytes);

// memory.cpp
void touch(uintptr_t address, unsigned bytes, Kind kind, const void *instruction, bool aligned = true);
void issue_copy(uintptr_t to, unsigned bytes, const void *instruction);
void finish_copy(const Copy &copy);
bool on_stack(const void *memory);
void use_library(char *begin, char *end);
void prepare_memory();

// costs.cpp
void count(Space space, Kind kind, uintptr_t address, unsigned bytes, const void *instruction);
void flush_costs(unsigned warp);
void begin_costs();
void end_costs(TomogradEmulatorReport *report);

// warp.cpp
void complete(unsigned warp, unsigned mask, const void *instruction);

}  // namespace tomograd
