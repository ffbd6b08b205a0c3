// Where the words of a group hold its slots: the same for whoever packs them and for the loops that read them.
//
// Every lane has the same layout. float32: words of indices, several to a word, then a word for each weight. bfloat16:
// half words, the lower half first: the indices of as many slots as fit (three of five bits, four of four), then
// their weights; and so on. Three slots of five bits fill two words.
#pragma once

#include "precision.h"

namespace sparsefx {

// A word of the lane, and the first of its bits.
struct LanePlace {
    int word, bit;
};

// Functions of internal linkage: the linker must not choose one that was compiled for another processor.
static constexpr int words_of(Precision precision, int slots, int index_bits) {
    const int together = (precision == Precision::bfloat16 ? 16 : 32) / index_bits;
    const int indices = (slots + together - 1) / together;
    return precision == Precision::bfloat16 ? (slots + indices + 1) / 2 : slots + indices;
}

static constexpr LanePlace place_of_index(Precision precision, int slot, int index_bits) {
    const int together = (precision == Precision::bfloat16 ? 16 : 32) / index_bits;
    const int part = slot / together, bit = slot % together * index_bits;
    if (precision == Precision::float32) return {part, bit};
    const int half = part * (together + 1);
    return {half / 2, half % 2 * 16 + bit};
}

static constexpr LanePlace place_of_weight(Precision precision, int slots, int slot, int index_bits) {
    if (precision == Precision::float32) return {words_of(precision, slots, index_bits) - slots + slot, 0};
    const int half = slot + slot / (16 / index_bits) + 1;
    return {half / 2, half % 2 * 16};
}

}  // namespace sparsefx
