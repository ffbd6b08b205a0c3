// How a layer spreads its tasks: by whoever calls it, for instance over ONNX Runtime's own threads.
#pragma once

#include <cstdint>

namespace sparsefx {

struct Threads {
    int count = 1;
    // Calls body(data, task) for every task from 0 to `tasks` - 1, on any thread, and returns when all are done.
    void (*run)(void* self, int64_t tasks, void (*body)(void* data, int64_t task), void* data) = nullptr;
    void* self = nullptr;

    template <typename Body>
    void for_each(int64_t tasks, Body&& body) const {
        if (count <= 1 || tasks <= 1 || run == nullptr) {
            for (int64_t task = 0; task < tasks; task++) body(task);
            return;
        }
        auto call = [](void* data, int64_t task) { (*static_cast<Body*>(data))(task); };
        run(self, tasks, call, &body);
    }
};

}  // namespace sparsefx
