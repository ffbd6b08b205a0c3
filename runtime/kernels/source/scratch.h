// Working memory of a thread, kept from call to call, so that a call allocates nothing once it has run.
#pragma once

#include "buffer.h"

namespace sparsefx {

// What a thread may hold at the same time.
enum class Scratch { inputs, pieces, sums, tile, count };

template <typename T>
T* scratch(Scratch purpose, int64_t count) {
    static thread_local Buffer buffers[static_cast<int>(Scratch::count)];
    Buffer& buffer = buffers[static_cast<int>(purpose)];
    buffer.reserve(static_cast<size_t>(count) * sizeof(T));
    return buffer.as<T>();
}

}  // namespace sparsefx
