// One fiber a CUDA thread. A block's threads run one after another, each until a barrier or an operation of its warp.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sys/mman.h>
#if !defined(__x86_64__) || defined(TOMOGRAD_UCONTEXT)
#include <ucontext.h>
#define TOMOGRAD_PORTABLE 1
#endif

#include "runtime.hpp"

namespace tomograd {

constexpr size_t STACK = 256 * 1024;
static bool stop_asked __attribute__((section(".data"))) = false;

static void thread_main() {
  state->kernel->invoke(state->arguments);
  state->threads[state->now].wait = Wait::ENDED;
  yield();
  abort();  // an ended thread isn't resumed
}

#ifdef TOMOGRAD_PORTABLE
static ucontext_t contexts[MOST_THREADS], scheduler;
static void start(unsigned thread) {
  getcontext(&contexts[thread]);
  contexts[thread].uc_stack.ss_sp = state->stacks + thread * STACK;
  contexts[thread].uc_stack.ss_size = STACK;
  contexts[thread].uc_link = nullptr;
  makecontext(&contexts[thread], thread_main, 0);
}
static void enter(unsigned thread) { swapcontext(&scheduler, &contexts[thread]); }
static void leave() { swapcontext(&contexts[state->now], &scheduler); }
#else
// Saves the registers that a function keeps and the stack pointer, and goes on where another fiber did so.
asm(R"(
.text
.local tomograd_switch
.type tomograd_switch, @function
tomograd_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size tomograd_switch, .-tomograd_switch
)");
extern "C" void tomograd_switch(void **save, void *load) asm("tomograd_switch");
static void *scheduler;
static void start(unsigned thread) {
  // As `tomograd_switch` leaves a stack: six registers, then where to go on. A function begins 8 bytes off a multiple of 16.
  void **top = reinterpret_cast<void **>(state->stacks + (thread + 1) * STACK);
  top[-1] = nullptr;
  top[-2] = reinterpret_cast<void *>(thread_main);
  memset(top - 8, 0, 6 * sizeof(void *));
  state->threads[thread].stack_pointer = top - 8;
}
static void enter(unsigned thread) { tomograd_switch(&scheduler, state->threads[thread].stack_pointer); }
static void leave() { tomograd_switch(&state->threads[state->now].stack_pointer, scheduler); }
#endif

void prepare_stacks(unsigned threads) {
  if (state->stacks_bytes >= threads * STACK) return;
  if (state->stacks) munmap(state->stacks, state->stacks_bytes);
  state->stacks_bytes = threads * STACK;
  void *memory = mmap(nullptr, state->stacks_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    perror("emulator: no memory for stacks");
    abort();
  }
  state->stacks = static_cast<char *>(memory);
  // A thread that needs more stack ends the process here, and not by writing over another's.
  for (unsigned thread = 0; thread < threads; thread++) mprotect(state->stacks + thread * STACK, 4096, PROT_NONE);
}

void yield() { leave(); }

void stop() {
  stop_asked = true;
  leave();
  abort();  // not resumed
}

// "0-31, 40" of ascending numbers.
const char *threads_text(const std::vector<unsigned> &threads, char *text, size_t bytes) {
  size_t used = 0;
  text[0] = 0;
  for (size_t i = 0; i < threads.size() && used + 32 < bytes;) {
    size_t end = i;
    while (end + 1 < threads.size() && threads[end + 1] == threads[end] + 1) end++;
    used += snprintf(text + used, bytes - used, end > i ? "%s%u-%u" : "%s%u", i ? ", " : "", threads[i], threads[end]);
    i = end + 1;
  }
  return text;
}

static const char *name_of(const Thread &thread) {
  if (thread.wait == Wait::BLOCK) return "__syncthreads";
  switch (thread.deposit.operation) {
    case Operation::SYNC: return "__syncwarp";
    case Operation::SHUFFLE: return "a shuffle";
    case Operation::BALLOT: return "a vote";
    case Operation::MMA: return "mma";
    case Operation::LDMATRIX: return "ldmatrix";
  }
  return "";
}

// Nobody can go on: says who waits where.
static void report_divergence() {
  char text[1500], list[200];
  size_t used = 0;
  bool told[MOST_THREADS] = {};
  for (unsigned first = 0; first < state->thread_count && used + 400 < sizeof(text); first++) {
    if (told[first]) continue;
    const Thread &one = state->threads[first];
    std::vector<unsigned> same;
    for (unsigned other = first; other < state->thread_count; other++) {
      const Thread &two = state->threads[other];
      bool alike = one.wait == two.wait;
      if (alike && one.wait != Wait::ENDED) alike = one.line == two.line && !strcmp(one.file, two.file);
      if (alike && one.wait == Wait::WARP) alike = one.deposit.operation == two.deposit.operation && one.deposit.mask == two.deposit.mask;
      if (alike) told[other] = true, same.push_back(other);
    }
    threads_text(same, list, sizeof(list));
    if (one.wait == Wait::ENDED) {
      used += snprintf(text + used, sizeof(text) - used, "%sthreads %s have ended", used ? "; " : "", list);
    } else {
      used += snprintf(text + used, sizeof(text) - used, "%sthreads %s wait at %s (%s:%d", used ? "; " : "", list, name_of(one),
                       one.file, one.line);
      if (one.wait == Wait::WARP) used += snprintf(text + used, sizeof(text) - used, ", mask %#x", one.deposit.mask);
      used += snprintf(text + used, sizeof(text) - used, ")");
    }
  }
  set_fault(TOMOGRAD_DIVERGED, nullptr, "diverged barrier: %s", text);
}

static void new_epoch() {
  state->epoch++;
  memset(state->step, 0, sizeof(state->step));
}

// Whether all threads wait at one block barrier.
static bool all_at_barrier() {
  const Thread &first = state->threads[0];
  for (unsigned thread = 0; thread < state->thread_count; thread++) {
    const Thread &other = state->threads[thread];
    if (other.wait != Wait::BLOCK || other.line != first.line || strcmp(other.file, first.file)) return false;
  }
  return true;
}

void run_block() {
  new_epoch();
  state->block_epoch = state->epoch;
  stop_asked = false;
  for (unsigned thread = 0; thread < state->thread_count; thread++) {
    state->threads[thread].wait = Wait::READY;
    state->threads[thread].copies.clear();
    state->threads[thread].group = 0;
    start(thread);
  }
  for (;;) {
    unsigned ended = 0;
    for (unsigned warp = 0; warp < state->warp_count; warp++) {
      unsigned first = warp * LANES, end = first + LANES < state->thread_count ? first + LANES : state->thread_count;
      // An operation of the warp that the last lane completes makes others ready.
      for (bool ran = true; ran;) {
        ran = false;
        for (unsigned thread = first; thread < end; thread++) {
          if (state->threads[thread].wait != Wait::READY) continue;
          ran = true;
          state->now = thread;
          tomograd_place_now.thread = state->thread_index[thread];
          enter(thread);
          if (stop_asked) return;
        }
      }
      flush_costs(warp);
      for (unsigned thread = first; thread < end; thread++) ended += state->threads[thread].wait == Wait::ENDED;
    }
    if (ended == state->thread_count) return;
    if (!all_at_barrier()) {
      report_divergence();
      return;
    }
    state->report->barriers++;
    new_epoch();
    for (unsigned thread = 0; thread < state->thread_count; thread++) state->threads[thread].wait = Wait::READY;
  }
}

}  // namespace tomograd

using namespace tomograd;

void tomograd_sync_block(const char *file, int line) {
  Thread &thread = state->threads[state->now];
  thread.wait = Wait::BLOCK;
  thread.file = file;
  thread.line = line;
  yield();
}
