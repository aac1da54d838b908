#pragma once

#include <sys/mman.h>

#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "context.h"
#include "sanitizers.h"

// A grid of CUDA threads on one CPU thread: blocks run one by one, each CUDA thread is a fibre with its own stack.
// A fibre runs until it waits at a barrier, in a warp operation, or ends. What the hardware would leave undefined
// (a barrier that some threads miss, a shuffle from an absent lane) aborts and names the block and the thread.
namespace gpuless {

struct Dim {
  unsigned x, y, z;
};

inline uint64_t volume(Dim d) { return uint64_t(d.x) * d.y * d.z; }

// Indices of the thread that runs now
inline Dim thread_index, block_index, block_size, grid_size;

enum class State { ready, at_barrier, in_warp_operation, done };
enum class WarpOperation { sync, vote, shuffle };

struct Place {
  const char* file;
  int line;
};

struct Fibre {
  State state;
  Dim index;
  char* stack;
  Context context;
  KnownStack known;
  RaceFibre race;
  bool kept;  // race and stack serve a thread of the next launch, too
  Place barrier;
  unsigned barriers_passed, warp_syncs_passed;
  // The warp operation it waits in, and what came of it
  WarpOperation operation;
  unsigned mask, source_lane;
  uint64_t value, result;
};

constexpr int kWarp = 32, kMaxThreads = 1024, kMaxShared = 64;
constexpr int kMostKept = 2048;
constexpr size_t kStackBytes = 256 * 1024, kGuardBytes = 64 * 1024;

struct Shared {
  const void* key;
  void* memory;
};

// What only lives as long as its block. The keys carry the order of barriers: two phases, as a thread may arrive at
// the next barrier before the last one has left this one.
struct Block {
  char barrier_keys[2], warp_keys[kMaxThreads / kWarp][2];
  Shared shared[kMaxShared];
  int shared_count;
  void* dynamic_shared;
};

// What ThreadSanitizer takes long to make. Launches are in order and their threads are not: one serves once a launch.
struct Kept {
  RaceFibre race;
  char* stack;
};

struct Scheduler {
  Fibre fibres[kMaxThreads];
  unsigned sequence[kMaxThreads];  // the order in which threads run
  unsigned threads;
  Fibre* current;
  Block* block;
  Context host;
  KnownStack host_known;
  RaceFibre host_race;
  char start_key, launch_key;
  Kept kept[kMostKept];
  int kept_count, kept_taken;
  char* free_stacks[kMaxThreads];
  int free_stack_count;
  void (*body)(const void*);
  const void* body_context;
  int order;
  unsigned long launches, barriers;
};

inline Scheduler scheduler = [] {
  Scheduler s{};
  const char* order = std::getenv("GPULESS_ORDER");
  s.order = order ? std::atoi(order) : 0;
  return s;
}();

[[noreturn]] GPULESS_UNSEEN inline void fail(const char* format, ...) {
  std::fprintf(stderr, "gpuless: ");
  va_list arguments;
  va_start(arguments, format);
  std::vfprintf(stderr, format, arguments);
  va_end(arguments);
  const Dim b = block_index, t = thread_index;
  std::fprintf(stderr, " (block %u,%u,%u thread %u,%u,%u)\n", b.x, b.y, b.z, t.x, t.y, t.z);
  std::abort();
}

// Back to the scheduler ("host")
GPULESS_UNSEEN inline void to_host(Fibre& f, bool forever) {
  Scheduler& s = scheduler;
  stack_leave(forever ? nullptr : &f.known, s.host_known);
  race_fibre_enter(s.host_race);
  context_switch(f.context, s.host);
  stack_enter(f.known, &s.host_known);
}

// Barriers

GPULESS_UNSEEN inline void barrier(Place place) {
  Fibre& f = *scheduler.current;
  char& key = scheduler.block->barrier_keys[f.barriers_passed++ % 2];
  f.state = State::at_barrier;
  f.barrier = place;
  race_release(key);
  to_host(f, false);
  race_acquire(key);
}

inline bool same(Place a, Place b) { return a.line == b.line && std::strcmp(a.file, b.file) == 0; }

// Every thread has ended or waits, none can go on: opens the barrier, or says what is wrong. False: all have ended.
GPULESS_UNSEEN inline bool open_barrier() {
  Scheduler& s = scheduler;
  const Fibre *waiting = nullptr, *ended = nullptr;
  for (unsigned i = 0; i < s.threads; i++) {
    const Fibre& f = s.fibres[i];
    thread_index = f.index;
    if (f.state == State::in_warp_operation) {
      fail("deadlock: lanes that mask %08x of a warp operation names never arrive", f.mask);
    }
    if (f.state == State::done) ended = &f;
    if (f.state != State::at_barrier) continue;
    if (waiting && !same(waiting->barrier, f.barrier)) {
      fail("divergent barrier: threads wait at %s:%d and at %s:%d", waiting->barrier.file, waiting->barrier.line,
           f.barrier.file, f.barrier.line);
    }
    waiting = &f;
  }
  if (!waiting) return false;
  if (ended) {
    thread_index = ended->index;
    fail("divergent barrier: a thread ended while others wait at %s:%d", waiting->barrier.file, waiting->barrier.line);
  }
  for (unsigned i = 0; i < s.threads; i++) s.fibres[i].state = State::ready;
  s.barriers++;
  return true;
}

// Warp operations complete when every lane of the mask has arrived. Lanes beyond the end of the block may be named
// (a full mask is usual there) but not read.

inline unsigned thread_number(const Fibre& f) { return unsigned(&f - scheduler.fibres); }
inline unsigned lane() { return thread_number(*scheduler.current) % kWarp; }

struct Warp {
  Fibre* lanes;
  unsigned size;
  bool names(unsigned mask, unsigned lane) const { return lane < size && (mask >> lane & 1); }
};

inline Warp warp_of(const Fibre& f) {
  const unsigned first = thread_number(f) / kWarp * kWarp, left = scheduler.threads - first;
  return Warp{scheduler.fibres + first, left < kWarp ? left : kWarp};
}

GPULESS_UNSEEN inline bool all_arrived(const Fibre& f, const Warp& warp) {
  bool all = true;
  for (unsigned i = 0; i < kWarp; i++) {
    if (!warp.names(f.mask, i)) continue;
    const Fibre& other = warp.lanes[i];
    if (other.state == State::done) fail("absent lane: mask %08x names lane %u, which has ended", f.mask, i);
    if (other.state != State::in_warp_operation) {
      all = false;
    } else if (other.operation != f.operation || other.mask != f.mask) {
      fail("bad mask: lanes of mask %08x wait in another operation or with mask %08x", f.mask, other.mask);
    }
  }
  return all;
}

GPULESS_UNSEEN inline void complete(const Fibre& f, const Warp& warp) {
  uint64_t votes = 0;
  for (unsigned i = 0; i < kWarp; i++) {
    if (warp.names(f.mask, i)) votes |= uint64_t(warp.lanes[i].value != 0) << i;
  }
  for (unsigned i = 0; i < kWarp; i++) {
    if (!warp.names(f.mask, i)) continue;
    Fibre& to = warp.lanes[i];
    to.state = State::ready;
    to.result = votes;
    if (to.operation != WarpOperation::shuffle) continue;
    thread_index = to.index;
    if (!warp.names(f.mask, to.source_lane))
      fail("absent lane: lane %u reads lane %u, which takes no part", i, to.source_lane);
    to.result = warp.lanes[to.source_lane].value;
  }
  thread_index = scheduler.current->index;
}

GPULESS_UNSEEN inline uint64_t warp_operation(WarpOperation operation, unsigned mask, uint64_t value,
                                              unsigned source_lane) {
  Fibre& f = *scheduler.current;
  if (!(mask >> lane() & 1)) fail("bad mask: mask %08x does not name the calling lane %u", mask, lane());
  f.state = State::in_warp_operation;
  f.operation = operation;
  f.mask = mask;
  f.value = value;
  f.source_lane = source_lane;
  const Warp warp = warp_of(f);
  if (all_arrived(f, warp)) {
    complete(f, warp);
  } else {
    to_host(f, false);
  }
  return f.result;
}

// A lane that ends while its warp waits for it
GPULESS_UNSEEN inline void exit_warp(Fibre& f) {
  const Warp warp = warp_of(f);
  for (unsigned i = 0; i < warp.size; i++) {
    const Fibre& other = warp.lanes[i];
    if (other.state == State::in_warp_operation && warp.names(other.mask, lane())) all_arrived(other, warp);
  }
}

// Orders memory among the lanes of the mask; votes and shuffles do not.
GPULESS_UNSEEN inline void warp_sync(unsigned mask) {
  Fibre& f = *scheduler.current;
  char& key = scheduler.block->warp_keys[thread_number(f) / kWarp][f.warp_syncs_passed++ % 2];
  race_release(key);
  warp_operation(WarpOperation::sync, mask, 0, 0);
  race_acquire(key);
}

GPULESS_UNSEEN inline unsigned warp_vote(unsigned mask, bool vote) {
  return unsigned(warp_operation(WarpOperation::vote, mask, vote, 0));
}

enum class Shuffle { up, down, butterfly, index };

struct Source {
  unsigned lane;
  bool in_range;
};

// PTX's shfl.sync: b is the lane or the distance, c holds the clamp (bits 0-4) and the segment mask (bits 8-12).
inline Source shuffle_source(Shuffle mode, unsigned b, unsigned c) {
  const int own = int(lane()), segment = int(c >> 8 & 31), clamp = int(c & 31), distance = int(b & 31);
  const int first = own & segment, last = first | (clamp & ~segment);
  const int from = mode == Shuffle::up          ? own - distance
                   : mode == Shuffle::down      ? own + distance
                   : mode == Shuffle::butterfly ? own ^ distance
                                                : first | (distance & ~segment);
  const bool in_range = mode == Shuffle::up ? from >= last : from <= last;
  return Source{unsigned(in_range ? from : own), in_range};
}

GPULESS_UNSEEN inline uint64_t warp_shuffle(unsigned mask, uint64_t value, unsigned source_lane) {
  return warp_operation(WarpOperation::shuffle, mask, value, source_lane);
}

// Shared memory: every byte 0xff (NaN) at the start of a block, and exactly as long as declared

GPULESS_UNSEEN inline void* fresh(size_t bytes) {
  const Unwatched unwatched;
  void* memory = std::malloc(bytes);
  if (!memory) fail("no memory for %zu bytes of shared memory", bytes);
  return std::memset(memory, 0xff, bytes);
}

GPULESS_UNSEEN inline void* shared_array(const void* key, size_t bytes) {
  Block& block = *scheduler.block;
  for (int i = 0; i < block.shared_count; i++) {
    if (block.shared[i].key == key) return block.shared[i].memory;
  }
  if (block.shared_count == kMaxShared) fail("more than %d shared arrays", kMaxShared);
  void* memory = fresh(bytes);
  block.shared[block.shared_count++] = Shared{key, memory};
  return memory;
}

GPULESS_UNSEEN inline void* dynamic_shared() { return scheduler.block->dynamic_shared; }

GPULESS_UNSEEN inline Block* block_create(size_t dynamic_bytes) {
  const Unwatched unwatched;
  Block* block = static_cast<Block*>(std::calloc(1, sizeof(Block)));
  if (dynamic_bytes) block->dynamic_shared = fresh(dynamic_bytes);
  return block;
}

GPULESS_UNSEEN inline void block_destroy(Block* block) {
  const Unwatched unwatched;
  for (int i = 0; i < block->shared_count; i++) std::free(block->shared[i].memory);
  std::free(block->dynamic_shared);
  std::free(block);
}

// Stacks. Each lies above pages that no one may touch, so that an overflow ends the run.

GPULESS_UNSEEN inline char* take_stack() {
  Scheduler& s = scheduler;
  if (s.free_stack_count) return s.free_stacks[--s.free_stack_count];
  const Unwatched unwatched;
  void* pages = mmap(nullptr, kGuardBytes + kStackBytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (pages == MAP_FAILED) fail("no memory for the stack of a thread");
  mprotect(pages, kGuardBytes, PROT_NONE);
  return static_cast<char*>(pages) + kGuardBytes;
}

// A stack that is watched for races has one owner: its next one would seem to race with it.
GPULESS_UNSEEN inline void give_stack(char* stack) {
  Scheduler& s = scheduler;
  if (!kWatchedForRaces) {
    s.free_stacks[s.free_stack_count++] = stack;
    return;
  }
  const Unwatched unwatched;
  munmap(stack - kGuardBytes, kGuardBytes + kStackBytes);
}

GPULESS_UNSEEN inline void fibre_main() {
  Scheduler& s = scheduler;
  Fibre& f = *s.current;
  stack_enter(f.known, &s.host_known);
  race_acquire(s.start_key);
  s.body(s.body_context);
  race_release(s.launch_key);
  f.state = State::done;
  exit_warp(f);
  to_host(f, true);
  __builtin_unreachable();
}

GPULESS_UNSEEN inline void start(Fibre& f) {
  Scheduler& s = scheduler;
  f.kept = kWatchedForRaces && s.kept_taken < kMostKept;
  if (f.kept && s.kept_taken < s.kept_count) {
    f.race = s.kept[s.kept_taken].race;
    f.stack = s.kept[s.kept_taken].stack;
  } else {
    f.race = race_fibre_create();
    f.stack = take_stack();
    if (f.kept) s.kept[s.kept_count++] = Kept{f.race, f.stack};
  }
  s.kept_taken += f.kept;
  f.known = KnownStack{nullptr, f.stack, kStackBytes};
  context_start(f.context, f.stack, kStackBytes, fibre_main);
  if (!kWatchedForRaces) return;
  char name[64];
  std::snprintf(name, sizeof name, "block %u,%u,%u thread %u,%u,%u", block_index.x, block_index.y, block_index.z,
                f.index.x, f.index.y, f.index.z);
  race_fibre_name(f.race, name);
}

GPULESS_UNSEEN inline void finish(Fibre& f) {
  if (f.kept) return;
  race_fibre_destroy(f.race);
  give_stack(f.stack);
}

GPULESS_UNSEEN inline void resume(Fibre& f) {
  Scheduler& s = scheduler;
  if (!f.stack) start(f);
  s.current = &f;
  thread_index = f.index;
  stack_leave(&s.host_known, f.known);
  race_fibre_enter(f.race);
  context_switch(s.host, f.context);
  stack_enter(s.host_known, nullptr);
  if (f.state == State::done) finish(f);
}

// Launches

// order 0: ascending, 1: descending, any other number: shuffled with that seed
GPULESS_UNSEEN inline void arrange(unsigned* sequence, unsigned n, int order, unsigned seed) {
  for (unsigned i = 0; i < n; i++) sequence[i] = order == 1 ? n - 1 - i : i;
  if (order == 0 || order == 1) return;
  uint64_t random = uint64_t(order) * 0x9e3779b97f4a7c15u + seed;
  for (unsigned i = n; i > 1; i--) {
    random = random * 6364136223846793005u + 1442695040888963407u;
    const unsigned j = unsigned((random >> 33) % i), swapped = sequence[i - 1];
    sequence[i - 1] = sequence[j];
    sequence[j] = swapped;
  }
}

inline Dim index_at(uint64_t i, Dim size) {
  return Dim{unsigned(i % size.x), unsigned(i / size.x % size.y), unsigned(i / size.x / size.y)};
}

GPULESS_UNSEEN inline void run_block(unsigned number, size_t dynamic_bytes) {
  Scheduler& s = scheduler;
  block_index = index_at(number, grid_size);
  s.block = block_create(dynamic_bytes);
  for (unsigned i = 0; i < s.threads; i++) {
    Fibre& f = s.fibres[i];
    f.state = State::ready;
    f.stack = nullptr;
    f.barriers_passed = f.warp_syncs_passed = 0;
  }
  arrange(s.sequence, s.threads, s.order, number);
  bool ran;
  do {
    ran = false;
    for (unsigned i = 0; i < s.threads; i++) {
      Fibre& f = s.fibres[s.sequence[i]];
      if (f.state != State::ready) continue;
      resume(f);
      ran = true;
    }
  } while (ran || open_barrier());
  block_destroy(s.block);
}

GPULESS_UNSEEN inline void run(Dim grid, Dim block, size_t dynamic_bytes, void (*body)(const void*),
                               const void* context) {
  Scheduler& s = scheduler;
  const unsigned blocks = unsigned(volume(grid));
  s.threads = unsigned(volume(block));
  s.body = body;
  s.body_context = context;
  s.host_race = race_fibre_current();
  race_release(s.start_key);
  s.kept_taken = 0;
  s.launches++;
  grid_size = grid;
  block_size = block;
  for (unsigned i = 0; i < s.threads; i++) s.fibres[i].index = index_at(i, block);
  unsigned* sequence = static_cast<unsigned*>(std::malloc(blocks * sizeof(unsigned)));
  arrange(sequence, blocks, s.order, blocks);
  for (unsigned i = 0; i < blocks; i++) run_block(sequence[i], dynamic_bytes);
  std::free(sequence);
  race_acquire(s.launch_key);
}

constexpr bool fits(Dim grid, Dim block) {
  return grid.x && grid.y && grid.z && grid.x <= 0x7fffffff && grid.y <= 65535 && grid.z <= 65535 && block.x &&
         block.y && block.z && block.z <= 64 && uint64_t(block.x) * block.y * block.z <= kMaxThreads;
}

// Runs body() once for every thread of the grid.
template <class Body>
void launch(Dim grid, Dim block, size_t dynamic_bytes, const Body& body) {
  run(grid, block, dynamic_bytes, [](const void* b) { (*static_cast<const Body*>(b))(); }, &body);
}

}  // namespace gpuless

// For ctypes: 0 ascending, 1 descending, any other number shuffles threads and blocks with that seed.
#define GPULESS_EXPORT extern "C" __attribute__((used, visibility("default"))) inline
GPULESS_EXPORT void gpuless_order(int order) { gpuless::scheduler.order = order; }
GPULESS_EXPORT unsigned long gpuless_launches() { return gpuless::scheduler.launches; }
GPULESS_EXPORT unsigned long gpuless_barriers() { return gpuless::scheduler.barriers; }
