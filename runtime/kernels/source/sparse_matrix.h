// Weights in compressed rows, as they come from outside.
#pragma once

#include <cstdint>

namespace sparsefx {

// Row n has the columns `columns[starts[n]]` to `columns[starts[n + 1] - 1]`, each at most once, with their `values`.
struct SparseMatrix {
    int64_t rows, columns_count;
    const int64_t* starts;
    const int32_t* columns;
    const float* values;

    int64_t nonzeros() const { return starts[rows]; }
};

// Nothing, or what is wrong with it. Only a matrix that passed is given to anything else.
const char* problem_of(const SparseMatrix& matrix, int64_t nonzeros);

}  // namespace sparsefx
