#include "lookup.h"

#include <algorithm>
#include <climits>
#include <numeric>

namespace sparsefx {

namespace {

constexpr int kLeastLanes = 2;      // a slot that fewer lanes need goes to the overflow
constexpr size_t kCandidates = 256;  // outputs looked at for each place of a group

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

// Greedily, outputs that need many slots in the same blocks share a group: less padding.
std::vector<int32_t> arrange(const Blocks& blocks, int64_t rows, int width) {
    std::vector<int32_t> left(static_cast<size_t>(rows)), order;
    std::iota(left.begin(), left.end(), 0);
    std::vector<int64_t> slots(static_cast<size_t>(blocks.count()));
    while (!left.empty()) {
        if (order.size() % static_cast<size_t>(width) == 0) std::fill(slots.begin(), slots.end(), 0);
        int64_t least = INT64_MAX;
        size_t best = 0;
        for (size_t i = 0; i < std::min(left.size(), kCandidates); i++) {
            int64_t more = 0;
            for (int64_t b = 0; b < blocks.count() && more < least; b++)
                more += std::max<int64_t>(0, blocks.at(left[i], b).size() - slots[static_cast<size_t>(b)]);
            if (more < least) least = more, best = i;
        }
        const int32_t row = left[best];
        for (int64_t b = 0; b < blocks.count(); b++) {
            int64_t& most = slots[static_cast<size_t>(b)];
            most = std::max(most, blocks.at(row, b).size());
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
    PartPacker(const SparseMatrix& matrix, const Blocks& blocks, const LookupForm& form, int index_bits)
        : matrix_(matrix), blocks_(blocks), form_(form), index_bits_(index_bits), per_word_(32 / index_bits) {}

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
        std::vector<std::vector<uint32_t>> with_slots(kMostSlots + 1);
        for (int64_t g = 0; g < part.groups; g++) {
            const int m = slots_of(part.first_group + g, b);
            with_slots[static_cast<size_t>(m)].push_back(static_cast<uint32_t>(g));
            overflow(part, g, b, m);
        }
        const size_t before = part.runs.size();
        for (uint32_t m = 1; m <= kMostSlots; m++) {
            if (with_slots[m].empty()) continue;
            part.runs.push_back({m, static_cast<uint32_t>(with_slots[m].size())});
            for (uint32_t g : with_slots[m]) {
                part.group_ids.push_back(g);
                pack_group(part.first_group + g, b, static_cast<int>(m));
            }
        }
        part.runs_of_block.push_back(static_cast<uint32_t>(part.runs.size() - before));
    }

    Span span(int64_t group, int lane, int64_t b) const {
        return blocks_.at(form_.order[static_cast<size_t>(group * form_.width + lane)], b);
    }

    int slots_of(int64_t group, int64_t b) const {
        int64_t most = 0;
        for (int lane = 0; lane < form_.width; lane++) most = std::max(most, span(group, lane, b).size());
        int m = static_cast<int>(std::min<int64_t>(most, kMostSlots));
        for (; m > 0; m--) {
            int lanes = 0;
            for (int lane = 0; lane < form_.width; lane++) lanes += span(group, lane, b).size() >= m;
            if (lanes >= std::min(kLeastLanes, form_.width)) break;
        }
        return m;
    }

    void pack_group(int64_t group, int64_t b, int m) {
        const size_t width = static_cast<size_t>(form_.width), words = (static_cast<size_t>(m) + per_word_ - 1) / per_word_;
        const size_t start = stream_.size();
        stream_.resize(start + (words + static_cast<size_t>(m)) * width);
        for (size_t lane = 0; lane < width; lane++) {
            const Span s = span(group, static_cast<int>(lane), b);
            for (size_t slot = 0; slot < std::min<size_t>(static_cast<size_t>(m), static_cast<size_t>(s.size())); slot++) {
                const int64_t i = s.begin + static_cast<int64_t>(slot);
                const uint32_t place = static_cast<uint32_t>(matrix_.columns[i] - (b << index_bits_));
                stream_[start + slot / per_word_ * width + lane] |= place << (slot % per_word_ * static_cast<size_t>(index_bits_));
                std::memcpy(&stream_[start + (words + slot) * width + lane], &matrix_.values[i], sizeof(float));
            }
        }
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
    const size_t per_word_;
    std::vector<uint32_t> stream_;
};

}  // namespace

LookupForm pack_lookup(const SparseMatrix& matrix, int width, int index_bits, int parts) {
    const Blocks blocks(matrix, 1 << index_bits);
    LookupForm form;
    form.width = width;
    form.blocks = blocks.count();
    form.order = arrange(blocks, matrix.rows, width);
    const int64_t groups = static_cast<int64_t>(form.order.size()) / width;
    for (int64_t p = 0; p < parts; p++) {
        const int64_t first = groups * p / parts, next = groups * (p + 1) / parts;
        form.parts.push_back(PartPacker(matrix, blocks, form, index_bits).pack(first, next - first));
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
