// Shadow memory by byte: bounds, what nobody wrote, races, copies under way.
#include <cxxabi.h>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <elf.h>
#include <map>
#include <mutex>
#include <string>
#include <sys/mman.h>

#include "runtime.hpp"

namespace tomograd {

static std::map<uintptr_t, Region> allocations;
static std::mutex allocations_lock;
// The static shared arrays of libraries that have been launched from.
struct Library {
  std::map<uintptr_t, Region> arrays;
};
static std::map<char *, Library> libraries;
static Library *library;
static Region *last_global, *last_array;

static Shadow *new_shadow(unsigned long bytes) {
  // Zeroed pages that take memory once they are touched.
  void *memory = mmap(nullptr, bytes * sizeof(Shadow) + 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    perror("emulator: no memory for the shadow");
    abort();
  }
  return static_cast<Shadow *>(memory);
}

static Region *find(std::map<uintptr_t, Region> &regions, uintptr_t address) {
  auto after = regions.upper_bound(address);
  if (after == regions.begin()) return nullptr;
  Region &region = (--after)->second;
  return address < region.end ? &region : nullptr;
}

bool on_stack(const void *memory) { return static_cast<size_t>(static_cast<const char *>(memory) - state->stacks) < state->stacks_bytes; }

void prepare_memory() {
  last_global = nullptr;
  if (state->dynamic.begin) return;
  // Room around it, so that what goes beyond it isn't something else.
  char *memory = static_cast<char *>(mmap(nullptr, 3 * 128 * 1024, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  if (memory == MAP_FAILED) abort();
  state->dynamic.begin = reinterpret_cast<uintptr_t>(memory + 128 * 1024);
  state->dynamic.space = Space::SHARED;
  state->dynamic.name = "dynamic shared memory";
  state->dynamic.shadow = new_shadow(MOST_SHARED);
}

// The variables of a library between two addresses, from its symbols.
static void read_symbols(char *begin, char *end, Library &found) {
  Dl_info info;
  if (!dladdr(begin, &info) && !dladdr(end, &info)) return;
  FILE *file = fopen(info.dli_fname, "rb");
  if (!file) return;
  std::string bytes;
  char part[65536];
  for (size_t n; (n = fread(part, 1, sizeof(part), file)) > 0;) bytes.append(part, n);
  fclose(file);
  auto *header = reinterpret_cast<const Elf64_Ehdr *>(bytes.data());
  auto *sections = reinterpret_cast<const Elf64_Shdr *>(bytes.data() + header->e_shoff);
  auto base = reinterpret_cast<uintptr_t>(info.dli_fbase);
  for (int s = 0; s < header->e_shnum; s++) {
    if (sections[s].sh_type != SHT_SYMTAB) continue;
    const char *names = bytes.data() + sections[sections[s].sh_link].sh_offset;
    auto *symbols = reinterpret_cast<const Elf64_Sym *>(bytes.data() + sections[s].sh_offset);
    for (size_t i = 0; i < sections[s].sh_size / sizeof(Elf64_Sym); i++) {
      uintptr_t address = base + symbols[i].st_value;
      if (ELF64_ST_TYPE(symbols[i].st_info) != STT_OBJECT || !symbols[i].st_size) continue;
      if (address < reinterpret_cast<uintptr_t>(begin) || address >= reinterpret_cast<uintptr_t>(end)) continue;
      // "tile" of "kernel<false>(float const*)::tile".
      std::string name = names + symbols[i].st_name;
      if (char *plain = abi::__cxa_demangle(name.c_str(), nullptr, nullptr, nullptr)) {
        name = plain;
        free(plain);
      }
      size_t last = name.rfind("::");
      if (last != std::string::npos) name = name.substr(last + 2);
      Region region;
      region.begin = address;
      region.end = address + symbols[i].st_size;
      region.space = Space::SHARED;
      region.name = strdup(name.c_str());
      // What a compiler keeps to start an array once (GCC, for arrays of vectors) is nobody's memory.
      if (strncmp(names + symbols[i].st_name, "_ZGV", 4)) region.shadow = new_shadow(symbols[i].st_size);
      found.arrays[address] = region;
    }
  }
}

void use_library(char *begin, char *end) {
  auto known = libraries.find(begin);
  if (known == libraries.end()) {
    known = libraries.emplace(begin, Library()).first;
    read_symbols(begin, end, known->second);
  }
  library = &known->second;
  last_array = nullptr;
  state->library_begin = begin;
  state->library_end = end;
}

static const char *KIND[] = {"a read", "a write", "an atomic operation"};

// "byte 12 of `tile` (64 bytes)".
static void describe(const Region &region, uintptr_t address, char *text, size_t bytes) {
  if (region.name)
    snprintf(text, bytes, "byte %ld of %s (%lu bytes)", static_cast<long>(address - region.begin), region.name, region.end - region.begin);
  else
    snprintf(text, bytes, "byte %ld of global memory of %lu bytes", static_cast<long>(address - region.begin), region.end - region.begin);
}

[[noreturn]] static void out_of_bounds(uintptr_t address, unsigned bytes, Kind kind, const void *instruction) {
  // The nearest region, to say by how much.
  char text[200] = "no memory of the kernel's";
  uintptr_t nearest = ~static_cast<uintptr_t>(0);
  auto look = [&](const Region &region) {
    if (region.begin == region.end) return;
    uintptr_t distance = address < region.begin ? region.begin - address : address - region.end;
    if (address >= region.begin && address < region.end) distance = 0;
    if (distance >= nearest) return;
    nearest = distance;
    describe(region, address, text, sizeof(text));
  };
  for (auto &entry : allocations) look(entry.second);
  for (auto &entry : library->arrays) look(entry.second);
  look(state->dynamic);
  fail(TOMOGRAD_OUT_OF_BOUNDS, instruction, "out of bounds: %s of %u bytes at %s", KIND[static_cast<int>(kind)], bytes, text);
}

// The region that an access lies in; null for memory that only the thread has, and constants.
static Region *region_of(uintptr_t address, unsigned bytes, Kind kind, const void *instruction) {
  if (address - reinterpret_cast<uintptr_t>(state->stacks) < state->stacks_bytes) return nullptr;
  // Clang doesn't leave out what is declared constant: threadIdx and the like.
  if (address - reinterpret_cast<uintptr_t>(&tomograd_place_now) < sizeof(tomograd_place_now)) return nullptr;
  Region *region = nullptr;
  if (address >= state->dynamic.begin && address < state->dynamic.end) {
    region = &state->dynamic;
  } else if (address >= reinterpret_cast<uintptr_t>(state->library_begin) && address < reinterpret_cast<uintptr_t>(state->library_end)) {
    if (!last_array || address < last_array->begin || address >= last_array->end) last_array = find(library->arrays, address);
    region = last_array;
  } else {
    if (!last_global || address < last_global->begin || address >= last_global->end) last_global = find(allocations, address);
    region = last_global;
    if (!region && kind == Kind::READ) {
      // A table of constants lies in the file that the instruction is of.
      Dl_info data, code;
      if (dladdr(reinterpret_cast<void *>(address), &data) && dladdr(instruction, &code) && data.dli_fbase == code.dli_fbase) return nullptr;
    }
  }
  if (!region || address + bytes > region->end) out_of_bounds(address, bytes, kind, instruction);
  return region->shadow ? region : nullptr;
}

[[noreturn]] static void race(const Region &region, uintptr_t address, Kind kind, const char *other, unsigned thread, const void *instruction) {
  char text[200];
  describe(region, address, text, sizeof(text));
  if (thread == MOST_THREADS)
    fail(TOMOGRAD_RACE, instruction, "race: %s at %s, with %s of another block", KIND[static_cast<int>(kind)], text, other);
  fail(TOMOGRAD_RACE, instruction, "race: %s at %s, with %s of thread %u and no barrier between them", KIND[static_cast<int>(kind)], text,
       other, thread);
}

// Whether the thread that noted (thread, step) in this epoch may be at it at the same time as the running one.
static inline bool unordered(unsigned thread, unsigned step) {
  if (thread == state->now) return false;
  unsigned warp = state->now / LANES;
  return thread / LANES != warp || step == state->step[warp];
}

static inline void note_write(Shadow &byte, uint16_t flags) {
  byte.written = state->epoch;
  byte.writer = static_cast<uint16_t>(state->now | flags);
  byte.written_step = state->step[state->now / LANES];
}

static void check_byte(Region &region, Shadow &byte, uintptr_t address, Kind kind, const void *instruction) {
  const uint32_t epoch = state->epoch;
  const bool in_block = byte.written >= state->block_epoch;
  if (in_block && byte.writer & PENDING) {
    char text[200];
    describe(region, address, text, sizeof(text));
    fail(TOMOGRAD_PENDING, instruction, "%s at %s, whose asynchronous copy by thread %u hasn't been waited for", KIND[static_cast<int>(kind)],
         text, byte.writer & THREAD);
  }
  const bool unwritten = region.space == Space::SHARED ? !in_block : byte.written == NEVER;
  if (unwritten && kind != Kind::WRITE) {
    char text[200];
    describe(region, address, text, sizeof(text));
    fail(TOMOGRAD_UNWRITTEN, instruction, "%s of what nobody wrote: %s", KIND[static_cast<int>(kind)], text);
  }
  const bool both_atomic = kind == Kind::ATOMIC && byte.writer & ATOMIC;
  if (!both_atomic) {
    if (byte.written == epoch && unordered(byte.writer & THREAD, byte.written_step))
      race(region, address, kind, byte.writer & ATOMIC ? "an atomic operation" : "a write", byte.writer & THREAD, instruction);
    if (region.space == Space::GLOBAL && byte.written >= state->launch_epoch && !in_block)
      race(region, address, kind, "a write", MOST_THREADS, instruction);
  }
  if (kind == Kind::READ) {
    const unsigned warp = state->now / LANES, thread = byte.reader & THREAD;
    const uint16_t step = state->step[warp];
    if (byte.read != epoch) {
      byte.reader = static_cast<uint16_t>(state->now);
    } else if (byte.reader & MANY_WARPS) {
      return;
    } else if (thread / LANES != warp) {
      byte.reader |= MANY_WARPS;
    } else if (byte.read_step != step) {
      byte.reader = static_cast<uint16_t>(state->now);
    } else if (thread != state->now) {
      byte.reader |= MANY_LANES;
    }
    byte.read = epoch;
    byte.read_step = step;
    return;
  }
  if (byte.read == epoch && (byte.reader & MANY_WARPS || unordered(byte.reader & THREAD, byte.read_step) ||
                             (byte.reader & MANY_LANES && byte.read_step == state->step[state->now / LANES])))
    race(region, address, kind, "a read", byte.reader & THREAD, instruction);
  if (region.space == Space::GLOBAL && byte.read >= state->launch_epoch && byte.read < state->block_epoch)
    race(region, address, kind, "a read", MOST_THREADS, instruction);
}

static void check_alignment(uintptr_t address, unsigned bytes, Kind kind, const void *instruction) {
  if (address & (bytes - 1))
    fail(TOMOGRAD_MISALIGNED, instruction, "misaligned: %s of %u bytes at an address that is %lu beyond a multiple of them",
         KIND[static_cast<int>(kind)], bytes, address & (bytes - 1));
}

void touch(uintptr_t address, unsigned bytes, Kind kind, const void *instruction, bool aligned) {
  if (!state->running) return;
  Region *region = region_of(address, bytes, kind, instruction);
  if (!region) return;
  if (aligned) check_alignment(address, bytes, kind, instruction);
  Shadow *shadow = region->shadow + (address - region->begin);
  for (unsigned i = 0; i < bytes; i++) {
    check_byte(*region, shadow[i], address + i, kind, instruction);
    if (kind != Kind::READ) note_write(shadow[i], kind == Kind::ATOMIC ? ATOMIC : 0);
  }
  if (state->report->count_costs) count(region->space, kind, address, bytes, instruction);
}

void issue_copy(uintptr_t to, unsigned bytes, const void *instruction) {
  check_alignment(to, bytes, Kind::WRITE, instruction);
  Region *region = region_of(to, bytes, Kind::WRITE, instruction);
  if (!region || region->space != Space::SHARED)
    fail(TOMOGRAD_OUT_OF_BOUNDS, instruction, "an asynchronous copy to memory that isn't shared");
  Shadow *shadow = region->shadow + (to - region->begin);
  for (unsigned i = 0; i < bytes; i++) {
    check_byte(*region, shadow[i], to + i, Kind::WRITE, instruction);
    note_write(shadow[i], PENDING);
  }
  if (state->report->count_costs) count(Space::SHARED, Kind::WRITE, to, bytes, instruction);
}

void finish_copy(const Copy &copy) {
  Region *region = region_of(copy.to, copy.bytes, Kind::WRITE, nullptr);
  Shadow *shadow = region->shadow + (copy.to - region->begin);
  for (unsigned i = 0; i < copy.bytes; i++) note_write(shadow[i], 0);
  memcpy(reinterpret_cast<void *>(copy.to), copy.data, copy.bytes);
}

}  // namespace tomograd

using namespace tomograd;

void tomograd_emulator_allocated(const void *memory, unsigned long bytes) {
  std::lock_guard<std::mutex> lock(allocations_lock);
  uintptr_t begin = reinterpret_cast<uintptr_t>(memory);
  Region &region = allocations[begin];
  if (region.shadow) munmap(region.shadow, (region.end - region.begin) * sizeof(Shadow) + 1);
  region = Region();
  region.begin = begin;
  region.end = begin + bytes;
  region.shadow = new_shadow(bytes);
  last_global = nullptr;
}

void tomograd_emulator_freed(const void *memory) {
  std::lock_guard<std::mutex> lock(allocations_lock);
  auto found = allocations.find(reinterpret_cast<uintptr_t>(memory));
  if (found == allocations.end()) return;
  munmap(found->second.shadow, (found->second.end - found->second.begin) * sizeof(Shadow) + 1);
  allocations.erase(found);
  last_global = nullptr;
}

void tomograd_emulator_written(const void *memory, unsigned long bytes) {
  std::lock_guard<std::mutex> lock(allocations_lock);
  uintptr_t begin = reinterpret_cast<uintptr_t>(memory);
  Region *region = find(allocations, begin);
  if (!region) return;
  unsigned long end = begin + bytes < region->end ? begin + bytes : region->end;
  for (uintptr_t address = begin; address < end; address++) region->shadow[address - region->begin].written = HOST;
}

// The shadow of a range inside one allocation; null otherwise.
static Shadow *shadow_of(const void *memory, unsigned long bytes) {
  uintptr_t begin = reinterpret_cast<uintptr_t>(memory);
  Region *region = find(allocations, begin);
  return region && bytes <= region->end - begin ? region->shadow + (begin - region->begin) : nullptr;
}

unsigned long tomograd_emulator_unwritten(const void *memory, unsigned long bytes) {
  std::lock_guard<std::mutex> lock(allocations_lock);
  if (bytes == 0) return 0;
  const Shadow *shadow = shadow_of(memory, bytes);
  if (!shadow) return ~0ul;
  unsigned long unwritten = 0;
  for (unsigned long i = 0; i < bytes; i++) unwritten += shadow[i].written == NEVER;
  return unwritten;
}

void tomograd_emulator_copied(void *to, const void *from, unsigned long bytes) {
  std::lock_guard<std::mutex> lock(allocations_lock);
  Shadow *target = shadow_of(to, bytes);
  const Shadow *source = shadow_of(from, bytes);
  if (!target || !source) return;
  for (unsigned long i = 0; i < bytes; i++) target[i].written = source[i].written == NEVER ? NEVER : HOST;
}

void tomograd_copy(void *to, const void *from, unsigned bytes) {
  const void *instruction = __builtin_return_address(0);
  if (state->running) {
    if (!on_stack(from)) touch(reinterpret_cast<uintptr_t>(from), bytes, Kind::READ, instruction);
    if (!on_stack(to)) touch(reinterpret_cast<uintptr_t>(to), bytes, Kind::WRITE, instruction);
  }
  memcpy(to, from, bytes);
}

void tomograd_atomic_begin(void *memory, void *before, unsigned bytes) {
  touch(reinterpret_cast<uintptr_t>(memory), bytes, Kind::ATOMIC, __builtin_return_address(0));
  memcpy(before, memory, bytes);
}

void tomograd_atomic_end(void *memory, const void *after, unsigned bytes) { memcpy(memory, after, bytes); }

void tomograd_async_copy(void *shared, const void *global, unsigned bytes, int valid) {
  const void *instruction = __builtin_return_address(0);
  Thread &thread = state->threads[state->now];
  Copy copy;
  copy.to = reinterpret_cast<uintptr_t>(shared);
  copy.bytes = bytes;
  copy.group = thread.group;
  memset(copy.data, 0, sizeof(copy.data));
  if (valid < 0 || valid > static_cast<int>(bytes))
    fail(TOMOGRAD_OUT_OF_BOUNDS, instruction, "an asynchronous copy of %u bytes of which %d are valid", bytes, valid);
  if (valid) {
    check_alignment(reinterpret_cast<uintptr_t>(global), bytes, Kind::READ, instruction);
    touch(reinterpret_cast<uintptr_t>(global), static_cast<unsigned>(valid), Kind::READ, instruction, false);
    memcpy(copy.data, global, static_cast<size_t>(valid));
  }
  issue_copy(copy.to, bytes, instruction);
  thread.copies.push_back(copy);
}

void tomograd_async_commit() { state->threads[state->now].group++; }

// All but the last `groups` groups are there afterwards.
void tomograd_async_wait(unsigned groups) {
  Thread &thread = state->threads[state->now];
  size_t kept = 0;
  for (const Copy &copy : thread.copies) {
    if (copy.group + groups < thread.group)
      finish_copy(copy);
    else
      thread.copies[kept++] = copy;
  }
  thread.copies.resize(kept);
}

// What the compiler puts before each access of a kernel (-fsanitize=thread); none of the sanitizer's own runtime is linked.
#define INSTRUCTION __builtin_return_address(0)
#define CALLBACKS(bytes)                                                                                                              \
  void __tsan_read##bytes(void *p) { touch(reinterpret_cast<uintptr_t>(p), bytes, Kind::READ, INSTRUCTION); }                       \
  void __tsan_write##bytes(void *p) { touch(reinterpret_cast<uintptr_t>(p), bytes, Kind::WRITE, INSTRUCTION); }                     \
  void __tsan_unaligned_read##bytes(void *p) { touch(reinterpret_cast<uintptr_t>(p), bytes, Kind::READ, INSTRUCTION); }             \
  void __tsan_unaligned_write##bytes(void *p) { touch(reinterpret_cast<uintptr_t>(p), bytes, Kind::WRITE, INSTRUCTION); }           \
  void __tsan_read##bytes##_pc(void *p, void *pc) { touch(reinterpret_cast<uintptr_t>(p), bytes, Kind::READ, pc); }                 \
  void __tsan_write##bytes##_pc(void *p, void *pc) { touch(reinterpret_cast<uintptr_t>(p), bytes, Kind::WRITE, pc); }
extern "C" {
CALLBACKS(1)
CALLBACKS(2)
CALLBACKS(4)
CALLBACKS(8)
CALLBACKS(16)
void __tsan_read_range(void *p, unsigned long bytes) { touch(reinterpret_cast<uintptr_t>(p), static_cast<unsigned>(bytes), Kind::READ, INSTRUCTION, false); }
void __tsan_write_range(void *p, unsigned long bytes) { touch(reinterpret_cast<uintptr_t>(p), static_cast<unsigned>(bytes), Kind::WRITE, INSTRUCTION, false); }
void *__tsan_memcpy(void *to, const void *from, unsigned long bytes) {
  touch(reinterpret_cast<uintptr_t>(from), static_cast<unsigned>(bytes), Kind::READ, INSTRUCTION, false);
  touch(reinterpret_cast<uintptr_t>(to), static_cast<unsigned>(bytes), Kind::WRITE, INSTRUCTION, false);
  return memcpy(to, from, bytes);
}
void *__tsan_memset(void *to, int value, unsigned long bytes) {
  touch(reinterpret_cast<uintptr_t>(to), static_cast<unsigned>(bytes), Kind::WRITE, INSTRUCTION, false);
  return memset(to, value, bytes);
}
void __tsan_init() {}
void __tsan_func_entry(void *) {}
void __tsan_func_exit() {}
}
