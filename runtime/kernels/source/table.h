// 2^bits floats in registers, as two tables of half the size: the highest bit of an index chooses between them.
// The smallest one is the processor's own.
template <int bits>
class Table {
public:
    explicit Table(const float* inputs) : low_(inputs), high_(inputs + (1 << (bits - 1))) {}

    // The entries that the indices from this bit on of a vector of words say.
    Vector at(const uint32_t* words, int bit) const {
        return Vector::choose(words, bit + bits - 1, low_.at(words, bit), high_.at(words, bit));
    }

private:
    Table<bits - 1> low_, high_;
};
