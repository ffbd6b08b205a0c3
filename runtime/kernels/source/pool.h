// Threads of our own, for callers that have none to lend.
#pragma once

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "threads.h"

namespace sparsefx {

// The caller works too. Workers wait awake for a moment after a job, as the next layer follows at once, then sleep.
class Pool {
public:
    explicit Pool(int threads);
    ~Pool();
    Pool(const Pool&) = delete;
    Pool& operator=(const Pool&) = delete;

    // To be handed to a layer. One job at a time: a second caller waits until the first is done.
    Threads threads();

private:
    struct Job {
        int64_t tasks = 0;
        void (*body)(void*, int64_t) = nullptr;
        void* data = nullptr;
    };

    static void run(void* self, int64_t tasks, void (*body)(void*, int64_t), void* data);
    void work();
    void do_tasks(const Job& job);

    std::mutex one_job_, mutex_;
    std::condition_variable wake_;
    Job job_;
    std::atomic<uint64_t> number_{0};  // of the job
    std::atomic<int64_t> next_task_{0};
    std::atomic<int> busy_{0};
    bool stop_ = false;
    std::vector<std::thread> workers_;
};

}  // namespace sparsefx
