// How weights are stored. Inputs, sums and outputs are always float32.
#pragma once

#include <cstdint>
#include <vector>

#include "sparse_matrix.h"

namespace sparsefx {

enum class Precision : int32_t { float32 = 0, bfloat16 = 1 };

// The nearest bfloat16, to even where two are as near; NaN stays NaN.
float rounded_to_bfloat16(float value);

// The matrix's values as they are stored; every kernel multiplies with these.
std::vector<float> stored_values(const SparseMatrix& matrix, Precision precision);

}  // namespace sparsefx
