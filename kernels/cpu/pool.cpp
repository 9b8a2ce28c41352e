// The library's threads: started when they are first needed, asleep when there is no work.
//
// A thread that has just worked looks for more for a moment before it falls asleep, since the next call usually follows
// at once and waking costs more than a small layer. A thread that wakes late finds the work done and is not waited for.
// One caller at a time has the threads; another one, meanwhile, does its work alone. A forked child starts its own.
#include "parallel.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#if !defined(_WIN32)
#include <pthread.h>
#endif

namespace {

using Clock = std::chrono::steady_clock;
constexpr auto PATIENCE = std::chrono::microseconds(60);

void pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Look for `ready` for a while; whether it came.
template <class Ready>
bool spin(Ready ready) {
  auto end = Clock::now() + PATIENCE;
  do {
    for (int i = 0; i < 32; i++) {
      if (ready()) return true;
      pause();
    }
  } while (Clock::now() < end);
  return ready();
}

class Pool {
 public:
  void run(int64_t threads, int64_t pieces, void (*work)(void*, int64_t, int64_t), void* context) {
    int64_t helpers = (threads < pieces ? threads : pieces) - 1;
    std::unique_lock<std::mutex> sole(caller_, std::defer_lock);
    if (helpers < 1 || !sole.try_lock()) {
      for (int64_t piece = 0; piece < pieces; piece++) work(context, piece, 0);
      return;
    }
    {
      std::lock_guard<std::mutex> lock(mutex_);
      work_ = work, context_ = context, pieces_ = pieces;
      next_.store(0);
      joined_ = 0, places_ = helpers;
      job_.store(job_.load() + 1);
      for (; started_ < helpers; started_++) std::thread([this] { serve(); }).detach();
    }
    wake_.notify_all();
    take(0);
    std::unique_lock<std::mutex> lock(mutex_);
    places_ = 0;  // who has not come yet need not come any more
    if (busy_.load()) {
      lock.unlock();
      spin([this] { return !busy_.load(); });
      lock.lock();
      done_.wait(lock, [this] { return !busy_.load(); });
    }
  }

 private:
  void take(int64_t thread) {
    for (int64_t piece = next_.fetch_add(1); piece < pieces_; piece = next_.fetch_add(1)) work_(context_, piece, thread);
  }

  void serve() {
    uint64_t seen = 0;
    for (;;) {
      spin([&] { return job_.load() != seen; });
      std::unique_lock<std::mutex> lock(mutex_);
      wake_.wait(lock, [&] { return job_.load() != seen; });
      seen = job_.load();
      if (!places_) continue;
      places_--;
      int64_t thread = ++joined_;
      busy_.fetch_add(1);
      lock.unlock();
      take(thread);
      lock.lock();
      if (busy_.fetch_sub(1) == 1) done_.notify_one();
    }
  }

  std::mutex caller_;  // held by the caller whose pieces are being worked on
  std::mutex mutex_;   // guards what follows but the atomics
  std::condition_variable wake_, done_;
  void (*work_)(void*, int64_t, int64_t) = nullptr;
  void* context_ = nullptr;
  int64_t pieces_ = 0, started_ = 0, joined_ = 0, places_ = 0;
  std::atomic<int64_t> next_{0}, busy_{0};
  std::atomic<uint64_t> job_{0};
};

// Never destroyed: its threads may still look at it while the process ends.
Pool* pool = nullptr;

Pool* the_pool() {
  static std::once_flag once;
  std::call_once(once, [] {
    pool = new Pool;
#if !defined(_WIN32)
    // The child has none of the threads, and the locks are as some thread held them: it begins anew.
    pthread_atfork(nullptr, nullptr, [] { pool = new Pool; });
#endif
  });
  return pool;
}

}  // namespace

extern "C" void minitorch_run_pieces(int64_t threads, int64_t pieces, void (*work)(void*, int64_t, int64_t), void* context) {
  the_pool()->run(threads, pieces, work, context);
}
