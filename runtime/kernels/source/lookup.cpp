#include "lookup.h"

#include <algorithm>
#include <climits>
#include <limits>
#include <numeric>

namespace sparsefx {

namespace {

constexpr int64_t kMostGroups = 1 << 16;  // of a part, which numbers them with 16 bits
constexpr size_t kCandidates = 256;      // outputs looked at for each place of a group

// The entries of one output in one block.
struct Span {
    int64_t begin = 0, end = 0;
    int64_t size() const { return end - begin; }
};

// Where each output's entries of each block lie, and the arrangement of outputs in groups.
class Blocks {
public:
    Blocks(const SparseMatrix& matrix, int block) : count_((matrix.columns_count + block - 1) / block) {
        spans_.resize(static_cast<size_t>(matrix.rows * count_));
        for (int64_t n = 0; n < matrix.rows; n++) {
            int64_t i = matrix.starts[n];
            for (int64_t b = 0; b < count_; b++) {
                const int64_t begin = i;
                while (i < matrix.starts[n + 1] && matrix.columns[i] < (b + 1) * block) i++;
                spans_[static_cast<size_t>(n * count_ + b)] = {begin, i};
            }
        }
    }

    int64_t count() const { return count_; }
    Span at(int32_t row, int64_t block) const {
        return row < 0 ? Span{} : spans_[static_cast<size_t>(row * count_ + block)];
    }

private:
    int64_t count_;
    std::vector<Span> spans_;
};

// Words of a lane by its number of slots.
class Words {
public:
    Words(Precision precision, int index_bits) {
        for (int slots = 0; slots <= 1 << index_bits; slots++) words_.push_back(words_of(precision, slots, index_bits));
    }

    int64_t of(int64_t slots) const { return words_[static_cast<size_t>(slots)]; }

private:
    std::vector<int64_t> words_;
};

// Greedily, outputs that need many words in the same blocks share a group: less padding.
std::vector<int32_t> arrange(const Blocks& blocks, const Words& words, int64_t rows, int width) {
    std::vector<int32_t> left(static_cast<size_t>(rows)), order;
    std::iota(left.begin(), left.end(), 0);
    std::vector<int64_t> most(static_cast<size_t>(blocks.count()));  // words of the group so far
    while (!left.empty()) {
        if (order.size() % static_cast<size_t>(width) == 0) std::fill(most.begin(), most.end(), 0);
        int64_t least = INT64_MAX;
        size_t best = 0;
        for (size_t i = 0; i < std::min(left.size(), kCandidates); i++) {
            int64_t more = 0;
            for (int64_t b = 0; b < blocks.count() && more < least; b++)
                more += std::max<int64_t>(0, words.of(blocks.at(left[i], b).size()) - most[static_cast<size_t>(b)]);
            if (more < least) least = more, best = i;
        }
        const int32_t row = left[best];
        for (int64_t b = 0; b < blocks.count(); b++) {
            int64_t& own = most[static_cast<size_t>(b)];
            own = std::max(own, words.of(blocks.at(row, b).size()));
        }
        order.push_back(row);
        left.erase(left.begin() + static_cast<ptrdiff_t>(best));
    }
    while (order.size() % static_cast<size_t>(width) != 0) order.push_back(-1);
    return order;
}

// Packs the groups of one part.
class PartPacker {
public:
    PartPacker(
        const SparseMatrix& matrix, const Blocks& blocks, const LookupForm& form, int index_bits, Precision precision)
        : matrix_(matrix), blocks_(blocks), form_(form), index_bits_(index_bits), precision_(precision) {}

    LookupPart pack(int64_t first_group, int64_t groups) {
        LookupPart part;
        part.first_group = first_group;
        part.groups = groups;
        for (int64_t b = 0; b < form_.blocks; b++) pack_block(part, b);
        part.stream = Buffer::of(stream_);
        return part;
    }

private:
    void pack_block(LookupPart& part, int64_t b) {
        std::vector<std::vector<uint16_t>> with_slots(kMostSlots + 1);
        for (int64_t g = 0; g < part.groups; g++) {
            const int m = slots_of(part.first_group + g, b);
            with_slots[static_cast<size_t>(m)].push_back(static_cast<uint16_t>(g));
            overflow(part, g, b, m);
        }
        const size_t before = part.runs.size();
        for (uint32_t m = 1; m <= kMostSlots; m++) {
            const std::vector<uint16_t>&own = with_slots[m], &all = part.group_ids;
            if (own.empty()) continue;
            if (own.size() > all.size() || !std::equal(own.rbegin(), own.rend(), all.rbegin()))
                part.group_ids.insert(all.end(), own.begin(), own.end());
            part.runs.push_back({m, static_cast<uint32_t>(own.size()), static_cast<uint32_t>(all.size() - own.size())});
            for (uint16_t g : own) pack_group(part.first_group + g, b, static_cast<int>(m));
        }
        part.runs_of_block.push_back(static_cast<uint32_t>(part.runs.size() - before));
    }

    Span span(int64_t group, int lane, int64_t b) const {
        return blocks_.at(form_.order[static_cast<size_t>(group * form_.width + lane)], b);
    }

    // The number of slots that costs least.
    int slots_of(int64_t group, int64_t b) const {
        int best = 0;
        double least = std::numeric_limits<double>::infinity();
        for (int m = 0; m <= kMostSlots; m++) {
            double cycles = kWordCycles * form_.width * words_of(precision_, m, index_bits_);
            for (int lane = 0; lane < form_.width; lane++)
                cycles += kOverflowCycles * static_cast<double>(std::max<int64_t>(0, span(group, lane, b).size() - m));
            if (cycles < least) least = cycles, best = m;
        }
        return best;
    }

    void pack_group(int64_t group, int64_t b, int m) {
        const size_t start = stream_.size();
        stream_.resize(start + static_cast<size_t>(words_of(precision_, m, index_bits_) * form_.width));
        for (int lane = 0; lane < form_.width; lane++) {
            const Span s = span(group, lane, b);
            for (int slot = 0; slot < std::min<int64_t>(m, s.size()); slot++) {
                const int64_t i = s.begin + slot;
                const uint32_t column = static_cast<uint32_t>(matrix_.columns[i] - (b << index_bits_));
                put(start, lane, place_of_index(precision_, slot, index_bits_), column);
                put(start, lane, place_of_weight(precision_, m, slot, index_bits_), weight_bits(matrix_.values[i]));
            }
        }
    }

    void put(size_t start, int lane, LanePlace place, uint32_t bits) {
        stream_[start + static_cast<size_t>(place.word * form_.width + lane)] |= bits << place.bit;
    }

    uint32_t weight_bits(float value) const {
        uint32_t bits;
        std::memcpy(&bits, &value, sizeof bits);
        return precision_ == Precision::bfloat16 ? bits >> 16 : bits;
    }

    void overflow(LookupPart& part, int64_t g, int64_t b, int m) const {
        for (int lane = 0; lane < form_.width; lane++) {
            const Span s = span(part.first_group + g, lane, b);
            for (int64_t i = s.begin + m; i < s.end; i++) {
                part.overflow_rows.push_back(static_cast<uint32_t>(g * form_.width + lane));
                part.overflow_columns.push_back(static_cast<uint32_t>(matrix_.columns[i]));
                part.overflow_values.push_back(matrix_.values[i]);
            }
        }
    }

    const SparseMatrix& matrix_;
    const Blocks& blocks_;
    const LookupForm& form_;
    const int index_bits_;
    const Precision precision_;
    std::vector<uint32_t> stream_;
};

}  // namespace

LookupForm pack_lookup(const SparseMatrix& matrix, int width, int index_bits, Precision precision, int parts) {
    const Blocks blocks(matrix, 1 << index_bits);
    LookupForm form;
    form.width = width;
    form.index_bits = index_bits;
    form.blocks = blocks.count();
    form.order = arrange(blocks, Words(precision, index_bits), matrix.rows, width);
    form.in_order = std::is_sorted(form.order.begin(), form.order.begin() + static_cast<ptrdiff_t>(matrix.rows));
    const int64_t groups = static_cast<int64_t>(form.order.size()) / width;
    const int64_t count = std::max<int64_t>(parts, (groups + kMostGroups - 1) / kMostGroups);
    for (int64_t p = 0; p < count; p++) {
        const int64_t first = groups * p / count, next = groups * (p + 1) / count;
        form.parts.push_back(PartPacker(matrix, blocks, form, index_bits, precision).pack(first, next - first));
    }
    return form;
}

LookupStream::LookupStream(const LookupPart& part)
    : data(part.stream.as<uint32_t>()),
      runs(part.runs.data()),
      runs_of_block(part.runs_of_block.data()),
      group_ids(part.group_ids.data()),
      overflow_rows(part.overflow_rows.data()),
      overflow_columns(part.overflow_columns.data()),
      overflow_values(part.overflow_values.data()),
      overflow(part.overflow_rows.size()) {}

}  // namespace sparsefx
