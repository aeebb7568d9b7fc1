// What kernels and the host see of the emulator's runtime: plain C.
#ifndef TOMOGRAD_EMULATOR_INTERFACE_H
#define TOMOGRAD_EMULATOR_INTERFACE_H

extern "C" {

// Three sizes or indices, as CUDA's uint3 and dim3.
struct TomogradIndex {
  unsigned x, y, z;
};

// Where the running thread is.
struct TomogradPlace {
  TomogradIndex thread, block, block_size, grid_size;
};

// What can be wrong with a launch.
enum TomogradFault {
  TOMOGRAD_NONE = 0,
  TOMOGRAD_LAUNCH = 1,         // sizes that no device takes
  TOMOGRAD_OUT_OF_BOUNDS = 2,  // an access outside every allocation, or across the end of one
  TOMOGRAD_UNWRITTEN = 3,      // a read of bytes that nobody wrote
  TOMOGRAD_RACE = 4,           // two accesses of one byte, at least one of them a write, with no barrier between them
  TOMOGRAD_DIVERGED = 5,       // a barrier or warp operation that some of its threads don't reach
  TOMOGRAD_MISALIGNED = 6,     // an address that isn't a multiple of the access's size
  TOMOGRAD_PENDING = 7,        // an access to bytes whose asynchronous copy wasn't waited for
  TOMOGRAD_SHUFFLE = 8,        // a shuffle that reads a lane which takes no part
};

// The accesses of one instruction, over a launch.
struct TomogradSite {
  unsigned long instruction;  // address behind the call, relative to the kernel's library
  unsigned size;              // bytes of an access
  unsigned shared;            // 1: shared memory, 0: global
  unsigned write;             // 1: a store, 0: a load, 2: an atomic operation
  unsigned long requests;     // groups of the k-th accesses of a warp's lanes
  unsigned long accesses;     // accesses of single threads
  unsigned long moved;        // global: 32-byte sectors touched; shared: cycles of the banks
  unsigned long ideal;        // the least of the same for these bytes
};

// What a launch found and what it cost. `size` is set by the caller to sizeof(TomogradEmulatorReport), `count_costs` by wish.
struct TomogradEmulatorReport {
  unsigned long size;
  unsigned long count_costs;
  unsigned long fault;  // a TomogradFault
  unsigned long barriers;  // block barriers that completed
  unsigned long warp_operations;  // shuffles, votes and warp barriers
  unsigned long tensor_operations;  // mma instructions, one a warp
  unsigned long load_sectors, load_ideal;    // sectors of loads from global memory
  unsigned long store_sectors, store_ideal;  // sectors of stores and atomics to global memory
  unsigned long shared_cycles, shared_ideal; // cycles of shared memory's banks
  unsigned long site_count;
  const TomogradSite *sites;  // valid until the next launch
  char message[2048];         // of the fault
};

// A kernel of a library: how it is called with the arguments of cuLaunchKernel.
struct TomogradKernel {
  const char *name;
  void (*invoke)(void **arguments);
  unsigned most_threads;  // of __launch_bounds__, or 0
  unsigned parameter_count;
  const unsigned *parameter_sizes;
};

// Global memory: what exists, what the host has written, what is gone.
void tomograd_emulator_allocated(const void *memory, unsigned long bytes);
void tomograd_emulator_written(const void *memory, unsigned long bytes);
void tomograd_emulator_freed(const void *memory);
// The host has copied from one range of global memory to another; what was unwritten there is so here.
void tomograd_emulator_copied(void *to, const void *from, unsigned long bytes);
// How many bytes of a range nobody wrote; ~0 where it isn't inside one allocation.
unsigned long tomograd_emulator_unwritten(const void *memory, unsigned long bytes);

// Runs a kernel. `begin` and `end` bound the library's variables, which are its static shared memory.
int tomograd_runtime_launch(const TomogradKernel *kernel, char *begin, char *end, const unsigned grid[3],
                            const unsigned block[3], unsigned long shared_bytes, void **arguments,
                            TomogradEmulatorReport *report);

// The running thread's indices. The runtime changes them when it switches threads; to a thread they are constant.
extern const TomogradPlace tomograd_place;
char *tomograd_dynamic_shared();

void tomograd_sync_block(const char *file, int line);
void tomograd_sync_warp(unsigned mask, const char *file, int line);
enum TomogradShuffle { TOMOGRAD_INDEX, TOMOGRAD_UP, TOMOGRAD_DOWN, TOMOGRAD_XOR };
unsigned long tomograd_shuffle(int how, unsigned mask, unsigned long value, int argument, int width, const char *file, int line);
unsigned tomograd_ballot(unsigned mask, int predicate, const char *file, int line);

// A copy of a vector type in one access (4, 8 or 16 bytes).
void tomograd_copy(void *to, const void *from, unsigned bytes);
// Reads what an atomic operation changes, and writes what it became.
void tomograd_atomic_begin(void *memory, void *before, unsigned bytes);
void tomograd_atomic_end(void *memory, const void *after, unsigned bytes);

// Copies the first `valid` of `bytes`, then zeros; there once its group has been waited for.
void tomograd_async_copy(void *shared, const void *global, unsigned bytes, int valid);
void tomograd_async_commit();
void tomograd_async_wait(unsigned groups);

enum TomogradElement { TOMOGRAD_F16, TOMOGRAD_BF16, TOMOGRAD_TF32 };
void tomograd_mma(int element, float *d, const unsigned *a, const unsigned *b, const char *file, int line);
void tomograd_ldmatrix(unsigned count, int transposed, unsigned *r, const void *row, const char *file, int line);
}

#endif
