// A launch: checks its sizes, runs its blocks in order, and puts faults into words.
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <dlfcn.h>
#include <mutex>

#include "runtime.hpp"

TomogradPlace tomograd_place_now;

namespace tomograd {

State *state = new State;

// "file.cu:12" of an address behind a call, by binutils' addr2line; the address alone where there is none.
static void place_of(const void *instruction, char *text, size_t bytes) {
  Dl_info library;
  const char *before = static_cast<const char *>(instruction) - 1;
  text[0] = 0;
  if (!dladdr(before, &library) || !library.dli_fname) return;
  unsigned long offset = before - static_cast<const char *>(library.dli_fbase);
  snprintf(text, bytes, "%#lx", offset);
  char command[1200];
  if (strchr(library.dli_fname, '\'')) return;
  snprintf(command, sizeof(command), "addr2line -i -s -e '%s' %#lx 2>/dev/null", library.dli_fname, offset);
  FILE *output = popen(command, "r");
  if (!output) return;
  char line[300];
  size_t used = 0;
  while (fgets(line, sizeof(line), output) && used + sizeof(line) + 4 < bytes) {
    line[strcspn(line, "\n")] = 0;
    if (strchr(line, '?') || strstr(line, ".hpp:") || strstr(line, "tomograd.cuh:")) continue;
    if (char *note = strstr(line, " (discriminator")) *note = 0;
    used += snprintf(text + used, bytes - used, "%s%s", used ? ", called at " : "", line);
  }
  pclose(output);
}

static void write_fault(TomogradFault fault, const void *instruction, const char *where, const char *format, va_list arguments) {
  TomogradEmulatorReport &report = *state->report;
  if (report.fault != TOMOGRAD_NONE) return;
  report.fault = fault;
  char what[1700], place[800] = "";
  vsnprintf(what, sizeof(what), format, arguments);
  if (instruction) place_of(instruction, place, sizeof(place));
  TomogradIndex block = tomograd_place_now.block;
  snprintf(report.message, sizeof(report.message), "%s, block (%u, %u, %u)%s: %.1600s%s%.300s%s", state->kernel->name, block.x, block.y,
           block.z, where, what, place[0] ? " (" : "", place, place[0] ? ")" : "");
}

void set_fault(TomogradFault fault, const void *instruction, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  write_fault(fault, instruction, "", format, arguments);
  va_end(arguments);
}

void fail(TomogradFault fault, const void *instruction, const char *format, ...) {
  char where[80];
  snprintf(where, sizeof(where), ", thread %u", state->now);
  va_list arguments;
  va_start(arguments, format);
  write_fault(fault, instruction, where, format, arguments);
  va_end(arguments);
  stop();
}

static const char *check_sizes(const TomogradKernel *kernel, const unsigned grid[3], const unsigned block[3], unsigned long shared_bytes) {
  if (!grid[0] || !grid[1] || !grid[2] || !block[0] || !block[1] || !block[2]) return "a grid or block of no threads";
  if (grid[0] > 0x7fffffffu || grid[1] > 65535 || grid[2] > 65535) return "a grid of more than 2147483647 × 65535 × 65535 blocks";
  if (block[0] > 1024 || block[1] > 1024 || block[2] > 64) return "a block of more than 1024 × 1024 × 64 threads";
  unsigned long threads = 1ul * block[0] * block[1] * block[2];
  if (threads > MOST_THREADS) return "a block of more than 1024 threads";
  if (kernel->most_threads && threads > kernel->most_threads) return "a block of more threads than __launch_bounds__ allows";
  if (shared_bytes > MOST_SHARED) return "more than 99 KB of shared memory";
  return nullptr;
}

}  // namespace tomograd

using namespace tomograd;

int tomograd_runtime_launch(const TomogradKernel *kernel, char *begin, char *end, const unsigned grid[3], const unsigned block[3],
                            unsigned long shared_bytes, void **arguments, TomogradEmulatorReport *report) {
  // One launch at a time: blocks run on the caller's thread.
  static std::mutex turn;
  std::lock_guard<std::mutex> lock(turn);
  unsigned long size = report->size, costs = report->count_costs;
  if (size != sizeof(TomogradEmulatorReport)) return -1;
  memset(report, 0, sizeof(*report));
  report->size = size;
  report->count_costs = costs;
  if (const char *wrong = check_sizes(kernel, grid, block, shared_bytes)) {
    report->fault = TOMOGRAD_LAUNCH;
    snprintf(report->message, sizeof(report->message), "%s: %s: grid (%u, %u, %u), block (%u, %u, %u), %lu bytes of shared memory",
             kernel->name, wrong, grid[0], grid[1], grid[2], block[0], block[1], block[2], shared_bytes);
    return TOMOGRAD_LAUNCH;
  }
  state->kernel = kernel;
  state->arguments = arguments;
  state->report = report;
  state->thread_count = block[0] * block[1] * block[2];
  state->warp_count = (state->thread_count + LANES - 1) / LANES;
  for (unsigned thread = 0; thread < state->thread_count; thread++)
    state->thread_index[thread] = {thread % block[0], thread / block[0] % block[1], thread / block[0] / block[1]};
  prepare_stacks(state->thread_count);
  prepare_memory();
  use_library(begin, end);
  state->dynamic.end = state->dynamic.begin + shared_bytes;
  state->launch_epoch = state->epoch + 1;
  tomograd_place_now.block_size = {block[0], block[1], block[2]};
  tomograd_place_now.grid_size = {grid[0], grid[1], grid[2]};
  begin_costs();
  state->running = true;
  for (unsigned z = 0; z < grid[2] && !report->fault; z++)
    for (unsigned y = 0; y < grid[1] && !report->fault; y++)
      for (unsigned x = 0; x < grid[0] && !report->fault; x++) {
        tomograd_place_now.block = {x, y, z};
        if (state->epoch > 0xf0000000u) {
          set_fault(TOMOGRAD_LAUNCH, nullptr, "the emulator has counted 4 billion barriers and must be started anew");
          break;
        }
        run_block();
      }
  state->running = false;
  end_costs(report);
  return static_cast<int>(report->fault);
}

char *tomograd_dynamic_shared() { return reinterpret_cast<char *>(state->dynamic.begin); }
