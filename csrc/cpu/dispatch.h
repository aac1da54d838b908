#pragma once

#include <string>
#include <vector>

#include "kernels.h"

namespace fastsnn {

// Instruction sets that were compiled in and that this processor runs, best first.
std::vector<std::string> usable_isas();

// The kernels in use: the best instruction set, or the one chosen last.
const Kernels& active_kernels();
bool choose_isa(const std::string& isa);

}  // namespace fastsnn
