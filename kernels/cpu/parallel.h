// Independent pieces of work side by side on the library's own threads (pool.cpp).
#pragma once
#include <cstdint>

// Calls work(context, piece, thread) once for every piece 0 .. pieces-1, on at most `threads` threads, the caller being
// thread 0. Pieces are handed out in order, to whichever thread is free; a result must not depend on which one it was.
extern "C" void minitorch_run_pieces(std::int64_t threads, std::int64_t pieces,
                                     void (*work)(void* context, std::int64_t piece, std::int64_t thread), void* context);

namespace ISA {

template <class Work>
static inline void parallel(std::int64_t threads, std::int64_t pieces, Work work) {
  minitorch_run_pieces(
      threads, pieces,
      [](void* context, std::int64_t piece, std::int64_t thread) { (*static_cast<Work*>(context))(piece, thread); }, &work);
}

// The same over 0 .. n-1 in `pieces` ranges of equal size (at most n): work(first, end, piece, thread).
template <class Work>
static inline void parallel_ranges(std::int64_t threads, std::int64_t n, std::int64_t pieces, Work work) {
  if (pieces > n) pieces = n;
  parallel(threads, pieces, [=](std::int64_t piece, std::int64_t thread) {
    work(n * piece / pieces, n * (piece + 1) / pieces, piece, thread);
  });
}

}  // namespace ISA
