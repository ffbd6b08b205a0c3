#include "pool.h"

#include <chrono>

namespace sparsefx {

namespace {

constexpr auto kAwake = std::chrono::microseconds(100);

void pause() {
#ifdef SPARSEFX_X86
    __builtin_ia32_pause();
#endif
}

}  // namespace

Pool::Pool(int threads) {
    for (int i = 1; i < threads; i++) workers_.emplace_back([this] { work(); });
}

Pool::~Pool() {
    {
        std::lock_guard lock(mutex_);
        stop_ = true;
        number_.fetch_add(1);
    }
    wake_.notify_all();
    for (std::thread& worker : workers_) worker.join();
}

Threads Pool::threads() { return {static_cast<int>(workers_.size()) + 1, run, this}; }

void Pool::run(void* self, int64_t tasks, void (*body)(void*, int64_t), void* data) {
    Pool& pool = *static_cast<Pool*>(self);
    std::lock_guard one_job(pool.one_job_);
    {
        std::lock_guard lock(pool.mutex_);
        pool.job_ = {tasks, body, data};
        pool.next_task_ = 0;
        pool.busy_ = static_cast<int>(pool.workers_.size());
        pool.number_.fetch_add(1, std::memory_order_release);
    }
    pool.wake_.notify_all();
    pool.do_tasks(pool.job_);
    while (pool.busy_.load(std::memory_order_acquire) > 0) pause();
}

void Pool::do_tasks(const Job& job) {
    for (int64_t task; (task = next_task_.fetch_add(1)) < job.tasks;) job.body(job.data, task);
}

void Pool::work() {
    uint64_t seen = 0;
    while (true) {
        const auto since = std::chrono::steady_clock::now();
        while (number_.load(std::memory_order_acquire) == seen && std::chrono::steady_clock::now() - since < kAwake) pause();
        Job job;
        {
            std::unique_lock lock(mutex_);
            wake_.wait(lock, [&] { return number_ != seen; });
            seen = number_;
            if (stop_) return;
            job = job_;
        }
        do_tasks(job);
        busy_.fetch_sub(1, std::memory_order_release);
    }
}

}  // namespace sparsefx
