// A pool of threads that lives as long as the process. One job runs at a time; a caller that finds the pool busy
// does its own work alone, with the same result.
#pragma once
#include <cstdint>

namespace surprisal {

// Calls `body(context, begin, end)` over disjoint ranges that cover [0, count), on the calling thread and up to
// `threads - 1` others, each range at most `grain` long, and returns when all are done. Which thread takes which
// range is not fixed: bodies must write only what belongs to their range.
void parallel_ranges(int64_t count, int64_t grain, int threads, void (*body)(void*, int64_t, int64_t), void* context);

template <class Body>
void parallel_for(int64_t count, int64_t grain, int threads, Body&& body) {
  parallel_ranges(
      count, grain, threads,
      [](void* context, int64_t begin, int64_t end) { (*static_cast<Body*>(context))(begin, end); }, &body);
}

}  // namespace surprisal
