#include "thread_pool.hpp"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

namespace surprisal {
namespace {

constexpr int kMostThreads = 256;

struct Job {
  void (*body)(void*, int64_t, int64_t);
  void* context;
  int64_t count;
  int64_t grain;
  std::atomic<int64_t> next{0};

  void work() {
    for (;;) {
      const int64_t begin = next.fetch_add(grain, std::memory_order_relaxed);
      if (begin >= count) return;
      body(context, begin, std::min(begin + grain, count));
    }
  }
};

struct Pool {
  std::mutex busy;  // held by the caller whose job runs
  std::mutex lock;  // guards what follows
  std::condition_variable start;
  std::condition_variable done;
  Job* job = nullptr;
  uint64_t generation = 0;
  int wanted = 0;   // helpers that may still join the job
  int working = 0;  // helpers inside the job
  int helpers = 0;

  void help() {
    uint64_t seen = 0;
    std::unique_lock<std::mutex> hold(lock);
    for (;;) {
      start.wait(hold, [&] { return generation != seen && wanted > 0; });
      seen = generation;
      wanted--;
      working++;
      Job* mine = job;
      hold.unlock();
      mine->work();
      hold.lock();
      if (--working == 0) done.notify_one();
    }
  }
};

// Never destroyed: its threads sleep on its members until the process ends.
Pool& pool() {
  static Pool* one = new Pool;
  return *one;
}

}  // namespace

void parallel_ranges(int64_t count, int64_t grain, int threads, void (*body)(void*, int64_t, int64_t), void* context) {
  if (count <= 0) return;
  grain = std::max<int64_t>(grain, 1);
  Job job{body, context, count, grain};
  const int64_t pieces = (count + grain - 1) / grain;
  const int helpers = static_cast<int>(std::min<int64_t>({pieces, threads, kMostThreads}) - 1);
  Pool& shared = pool();
  if (helpers <= 0 || !shared.busy.try_lock()) {
    job.work();
    return;
  }
  {
    std::lock_guard<std::mutex> hold(shared.lock);
    try {
      for (; shared.helpers < helpers; shared.helpers++) std::thread([&shared] { shared.help(); }).detach();
    } catch (...) {
      // The system gives no more threads: those that exist, and the caller, do the work.
    }
    shared.job = &job;
    shared.wanted = std::min(helpers, shared.helpers);
    shared.generation++;
  }
  shared.start.notify_all();
  job.work();
  {
    std::unique_lock<std::mutex> hold(shared.lock);
    shared.wanted = 0;
    shared.done.wait(hold, [&] { return shared.working == 0; });
    shared.job = nullptr;
  }
  shared.busy.unlock();
}

}  // namespace surprisal
