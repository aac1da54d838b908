#pragma once

#include <cstdint>

// With -DCOUNT: how many instructions a launch executes and how it touches global memory. The accesses that a warp's
// lanes make at one line of PTX, each for the k-th time, are one request, as if the lanes ran in step.
namespace ptx {

struct Counts {
  uint64_t threads, instructions, fmas;
  uint64_t bytes_read, bytes_written;  // asked for by all lanes
  uint64_t requests, sectors;          // sectors of 32 bytes that the requests touch
  uint64_t useful_bytes;               // different bytes of those sectors that some lane of the request wants
  uint64_t unique_sectors;             // sectors that the whole launch touches
  uint64_t unique_bytes;               // different bytes of those that some thread wants
};

}  // namespace ptx

#ifndef COUNT

namespace ptx {

inline void count_instruction() {}
inline void count_fma() {}
inline void count_access(uint64_t, unsigned, int, bool) {}
inline Counts counts() { return Counts{}; }

}  // namespace ptx

#else

#include <map>
#include <tuple>

#include "fibres.h"

namespace ptx {

constexpr unsigned kSector = 32;

struct Counter {
  Counts sums;
  std::map<std::tuple<uint64_t, unsigned, int>, unsigned> visits;             // (block, thread, line)
  using Sectors = std::map<uint64_t, uint32_t>;                               // which bytes of each
  std::map<std::tuple<uint64_t, unsigned, int, unsigned>, Sectors> requests;  // (block, warp, line, visit)
};
inline Counter counter;

inline void count_instruction() { counter.sums.instructions++; }
inline void count_fma() { counter.sums.fmas++; }

inline void count_access(uint64_t address, unsigned bytes, int line, bool write) {
  const gpuless::Dim at = gpuless::block_index, size = gpuless::grid_size;
  const uint64_t block = at.x + size.x * (at.y + uint64_t(size.y) * at.z);
  const unsigned thread = gpuless::thread_number(*gpuless::scheduler.current);
  const unsigned visit = counter.visits[{block, thread, line}]++;
  auto& sectors = counter.requests[{block, thread / gpuless::kWarp, line, visit}];
  for (uint64_t byte = address; byte < address + bytes; byte++) sectors[byte / kSector] |= 1u << byte % kSector;
  (write ? counter.sums.bytes_written : counter.sums.bytes_read) += bytes;
}

inline Counts counts() {
  Counts sums = counter.sums;
  sums.threads = gpuless::volume(gpuless::grid_size) * gpuless::volume(gpuless::block_size);
  sums.requests = counter.requests.size();
  Counter::Sectors touched;
  for (const auto& request : counter.requests) {
    sums.sectors += request.second.size();
    for (const auto& sector : request.second) {
      sums.useful_bytes += __builtin_popcount(sector.second);
      touched[sector.first] |= sector.second;
    }
  }
  sums.unique_sectors = touched.size();
  for (const auto& sector : touched) sums.unique_bytes += __builtin_popcount(sector.second);
  return sums;
}

}  // namespace ptx

#endif
