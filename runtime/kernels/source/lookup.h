// The form of a matrix for one input vector: inputs are looked up in registers, never gathered from memory.
//
// The inputs are taken in blocks that fit a Table (two registers or more), the outputs in groups, one output to a lane. For
// a block and a group there are m slots: m vectors of weights and, packed several to a word, the inputs' places in the
// block (see lookup_layout.h). What lies outside the m slots of its lane goes to a list of its own (the overflow).
// Within a block, groups are sorted by m, so that the loops run without a branch that depends on data.
#pragma once

#include <cstdint>
#include <vector>

#include "buffer.h"
#include "lookup_layout.h"
#include "sparse_matrix.h"

namespace sparsefx {

constexpr int kMostSlots = 16;

// Cycles, where the weights come from beyond the caches: of a lane's word, an entry of the overflow, a group's sums.
constexpr double kWordCycles = 0.6, kOverflowCycles = 3, kGroupCycles = 2;

// `groups` groups of one block with `slots` slots each; their ids begin at `first_id`.
struct LookupRun {
    uint32_t slots, groups, first_id;
};

// A range of groups, with a stream of its own: what one task works on.
struct LookupPart {
    int64_t first_group = 0, groups = 0;
    std::vector<uint32_t> runs_of_block;  // how many of `runs` belong to each block of inputs
    std::vector<LookupRun> runs;
    std::vector<uint16_t> group_ids;  // within the part, in the order of the stream; runs of the same groups share them
    Buffer stream;                    // the words of every group of a run
    std::vector<uint32_t> overflow_rows, overflow_columns;
    std::vector<float> overflow_values;
};

// A part as the loops see it. They are compiled for one processor, so that no template of the standard library may be
// instantiated there: the linker could choose that instance for all.
struct LookupStream {
    explicit LookupStream(const LookupPart& part);

    const uint32_t* data;
    const LookupRun* runs;
    const uint32_t* runs_of_block;
    const uint16_t* group_ids;
    const uint32_t *overflow_rows, *overflow_columns;
    const float* overflow_values;
    size_t overflow;
};

struct LookupForm {
    int width = 0;  // outputs in a group
    int index_bits = 0;  // a block has 2^index_bits inputs
    int64_t blocks = 0;
    std::vector<int32_t> order;  // order[i]: the output at place i of the groups; -1 pads the last group
    bool in_order = false;       // every output is at its own place
    std::vector<LookupPart> parts;
};

// `parts` or more; the values are those that the precision stores.
LookupForm pack_lookup(const SparseMatrix& matrix, int width, int index_bits, Precision precision, int parts);

constexpr int kTableSizes = 4;

// Tables of 2^least_bits inputs and more, and what a lookup of one vector in each takes.
struct TableSizes {
    int least_bits, most_bits;
    double cycles[kTableSizes];
};

// Of how many bits an index should be: larger blocks are padded less, as long as an output's inputs fit the slots, and
// take longer to look up.
int index_bits_for(const SparseMatrix& matrix, int width, Precision precision, const TableSizes& tables);

// y[0 ... groups * width) += the part's product with x; x is readable up to blocks * 2^index_bits floats.
using RunLookup = void (*)(const LookupStream& part, int64_t blocks, const float* x, float* y);

}  // namespace sparsefx
