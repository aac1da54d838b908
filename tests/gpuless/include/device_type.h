#pragma once

// DLPack's type of the device that operands must be on: the CPU, or another that says so (the fake device's tests)
inline int gpuless_device_type = 1;

extern "C" __attribute__((used, visibility("default"))) inline void gpuless_device(int type) {
  gpuless_device_type = type;
}
