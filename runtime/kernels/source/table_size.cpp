// The size of tables that suits a matrix, by what each would take.

#include <algorithm>
#include <limits>

#include "lookup.h"

namespace sparsefx {

namespace {

constexpr int64_t kSample = 256;  // outputs that decide

double cycles_of(const LookupForm& form, Precision precision, double lookup_cycles) {
    double cycles = 0;
    for (const LookupPart& part : form.parts) {
        for (const LookupRun& run : part.runs) {
            const int slots = static_cast<int>(run.slots);
            const double read = kWordCycles * form.width * words_of(precision, slots, form.index_bits);
            cycles += run.groups * (kGroupCycles + std::max(read, lookup_cycles * slots));
        }
        cycles += kOverflowCycles * static_cast<double>(part.overflow_rows.size());
    }
    return cycles;
}

}  // namespace

int index_bits_for(const SparseMatrix& matrix, int width, Precision precision, const TableSizes& tables) {
    SparseMatrix sample = matrix;
    sample.rows = std::min(matrix.rows, kSample);
    int best = tables.least_bits;
    double least = std::numeric_limits<double>::infinity();
    for (int bits = tables.least_bits; bits <= tables.most_bits; bits++) {
        const LookupForm form = pack_lookup(sample, width, bits, precision, 1);
        const double cycles = cycles_of(form, precision, tables.cycles[bits - tables.least_bits]);
        if (cycles < least) least = cycles, best = bits;
    }
    return best;
}

}  // namespace sparsefx
