#include "precision.h"

#include <cmath>
#include <cstring>

namespace sparsefx {

float rounded_to_bfloat16(float value) {
    if (std::isnan(value)) return value;
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    bits += 0x7fff + (bits >> 16 & 1);  // carries into the upper half where the lower one rounds up
    bits &= 0xffff0000;
    std::memcpy(&value, &bits, sizeof bits);
    return value;
}

std::vector<float> stored_values(const SparseMatrix& matrix, Precision precision) {
    std::vector<float> values(matrix.values, matrix.values + matrix.nonzeros());
    if (precision == Precision::bfloat16)
        for (float& value : values) value = rounded_to_bfloat16(value);
    return values;
}

}  // namespace sparsefx
