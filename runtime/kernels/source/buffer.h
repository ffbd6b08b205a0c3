// Aligned memory that frees itself; large pieces ask for huge pages, as random rows of a tile miss the TLB otherwise.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>
#include <vector>

namespace sparsefx {

class Buffer {
public:
    Buffer() = default;
    explicit Buffer(size_t bytes) { allocate(bytes); }
    Buffer(Buffer&& other) noexcept : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
    Buffer& operator=(Buffer&& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(bytes_, other.bytes_);
        return *this;
    }
    ~Buffer() { std::free(data_); }

    // A copy of `values`, followed by `more` bytes of zeros.
    template <typename T>
    static Buffer of(const std::vector<T>& values, size_t more = 0) {
        Buffer buffer(values.size() * sizeof(T) + more);
        if (!values.empty()) std::memcpy(buffer.data_, values.data(), values.size() * sizeof(T));
        return buffer;
    }

    // Zeroed memory of at least `bytes`; what was there is lost. Does nothing where there is enough already.
    void reserve(size_t bytes) {
        if (bytes <= bytes_) return;
        std::free(data_);
        data_ = nullptr;
        bytes_ = 0;
        allocate(bytes);
    }

    template <typename T>
    T* as() const { return static_cast<T*>(data_); }

private:
    static constexpr size_t kLine = 64, kHugePage = size_t{2} << 20, kLarge = size_t{256} << 10;

    void allocate(size_t bytes) {
        const size_t alignment = bytes >= kLarge ? kHugePage : kLine;
        bytes_ = (bytes + alignment - 1) / alignment * alignment;
        if (bytes_ == 0) bytes_ = alignment;
        data_ = std::aligned_alloc(alignment, bytes_);
        if (data_ == nullptr) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
        if (alignment == kHugePage) madvise(data_, bytes_, MADV_HUGEPAGE);
#endif
        std::memset(data_, 0, bytes_);
    }

    void* data_ = nullptr;
    size_t bytes_ = 0;
};

}  // namespace sparsefx
