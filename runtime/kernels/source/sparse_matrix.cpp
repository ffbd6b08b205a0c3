#include "sparse_matrix.h"

#include <limits>

namespace sparsefx {

const char* problem_of(const SparseMatrix& m, int64_t nonzeros) {
    constexpr int64_t most = std::numeric_limits<int32_t>::max();
    if (m.rows < 1 || m.columns_count < 1 || m.rows > most || m.columns_count > most) return "a size is out of range";
    if (m.starts[0] != 0) return "the first row does not start at 0";
    for (int64_t n = 0; n < m.rows; n++)
        if (m.starts[n + 1] < m.starts[n]) return "a row ends before it starts";
    if (m.nonzeros() != nonzeros) return "the last row does not end with the values";
    for (int64_t n = 0; n < m.rows; n++)
        for (int64_t i = m.starts[n]; i < m.starts[n + 1]; i++) {
            if (m.columns[i] < 0 || m.columns[i] >= m.columns_count) return "a column is out of range";
            if (i > m.starts[n] && m.columns[i] <= m.columns[i - 1]) return "the columns of a row do not rise";
        }
    return nullptr;
}

}  // namespace sparsefx
