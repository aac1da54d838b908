#pragma once

#include "ptx_runtime.h"

// The main program around a translated kernel: reads a job file, runs the kernel, writes what it left in memory.
// All fields are uint64: grid, block, order, bytes of dynamic shared memory, bytes of parameters, number of buffers and
// of pointers; then the parameters; then for each pointer its offset in the parameters and its buffer; then for each
// buffer its bytes, its address modulo 256, and its content. The answer holds the buffers and ptx::Counts.
namespace ptx {

constexpr size_t kAlignment = 256;

struct Job {
  uint64_t grid[3], block[3], order, dynamic_bytes, param_bytes, buffers, pointers;
};
struct Pointer {
  uint64_t offset, buffer;
};
struct Buffer {
  uint64_t bytes, misalignment;
  char* at;
};

inline void read_all(void* to, size_t bytes, FILE* file) {
  if (bytes && std::fread(to, 1, bytes, file) != bytes) gpuless::fail("the job file ends early");
}
template <class T>
T* read_array(size_t n, FILE* file) {
  T* array = static_cast<T*>(std::malloc(n * sizeof(T)));
  read_all(array, n * sizeof(T), file);
  return array;
}

inline Buffer read_buffer(FILE* file) {
  Buffer buffer{};
  read_all(&buffer, 2 * sizeof(uint64_t), file);
  void* memory = nullptr;
  if (posix_memalign(&memory, kAlignment, buffer.misalignment + buffer.bytes)) gpuless::fail("no memory for a buffer");
  buffer.at = static_cast<char*>(memory) + buffer.misalignment;
  read_all(buffer.at, buffer.bytes, file);
  return buffer;
}

// A translated kernel
struct Program {
  void (*kernel)(const unsigned char* params);
  SharedArrays arrays;
};

// False: there is no such grid or block.
inline bool launch(const Program& program, gpuless::Dim grid, gpuless::Dim block, size_t dynamic_bytes, int order,
                   const unsigned char* params) {
  if (!gpuless::fits(grid, block)) return false;
  shared_arrays = program.arrays;
  shared_arrays.dynamic_bytes = dynamic_bytes;
  gpuless_order(order);
  gpuless::launch(grid, block, dynamic_bytes, [&] { program.kernel(params); });
  return true;
}

inline int run_job(const char* from, const char* to, const Program& program) {
  FILE* file = std::fopen(from, "rb");
  if (!file) gpuless::fail("no job file %s", from);
  Job job;
  read_all(&job, sizeof job, file);
  unsigned char* params = read_array<unsigned char>(job.param_bytes, file);
  Pointer* pointers = read_array<Pointer>(job.pointers, file);
  Buffer* buffers = static_cast<Buffer*>(std::malloc(job.buffers * sizeof(Buffer)));
  for (uint64_t i = 0; i < job.buffers; i++) buffers[i] = read_buffer(file);
  std::fclose(file);
  for (uint64_t i = 0; i < job.pointers; i++) {
    std::memcpy(params + pointers[i].offset, &buffers[pointers[i].buffer].at, sizeof(char*));
  }

  const gpuless::Dim grid{unsigned(job.grid[0]), unsigned(job.grid[1]), unsigned(job.grid[2])};
  const gpuless::Dim block{unsigned(job.block[0]), unsigned(job.block[1]), unsigned(job.block[2])};
  if (!launch(program, grid, block, job.dynamic_bytes, int(job.order), params)) gpuless::fail("no such grid or block");

  file = std::fopen(to, "wb");
  for (uint64_t i = 0; i < job.buffers; i++) std::fwrite(buffers[i].at, 1, buffers[i].bytes, file);
  const Counts sums = counts();
  std::fwrite(&sums, sizeof sums, 1, file);
  return std::fclose(file);
}

}  // namespace ptx
