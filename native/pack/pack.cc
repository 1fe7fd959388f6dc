#include "pack.h"

#include <algorithm>
#include <chrono>
#include <exception>
#include <mutex>
#include <set>
#include <thread>

#include "../error.h"
#include "io_error.h"
#include "slices.h"

namespace upgc::pack {
namespace {

using Clock = std::chrono::steady_clock;

/// What is lost at most when the machine stops. Threads go on while one waits for the disk.
constexpr uint64_t checkpoint_bytes = 32 << 20;
constexpr std::chrono::milliseconds notify_interval{100};

class Packing {
 public:
  Packing(const PackSpec& spec, Progress& progress, const std::function<void()>& notify)
      : spec_(spec), progress_(progress), notify_(notify), slices_(spec) {
    for (const std::string& file : spec.files) files_.emplace_back(file);
  }

  PackStats run() {
    const auto start = Clock::now();
    PartialFile partial(spec_.partial, spec_.bytes, spec_.fingerprint);
    partial_ = &partial;
    next_ = std::min(partial.mark(), slices_.count());
    const uint64_t resumed = slices_.bytes_before(next_);
    progress_.done = resumed;
    progress_.resumed = resumed;
    progress_.total = slices_.bytes_before(slices_.count());
    notify_();

    const uint64_t left = slices_.count() - next_;
    const auto threads = unsigned(std::min<uint64_t>(spec_.threads, std::max<uint64_t>(left, 1)));
    std::vector<std::thread> others;
    others.reserve(threads);
    try {
      for (unsigned i = 1; i < threads; i++) others.emplace_back([this] { work(); });
    } catch (const std::system_error&) {
      // As many as there can be.
    }
    const auto used = unsigned(others.size() + 1);
    work();
    for (std::thread& thread : others) thread.join();

    if (progress_.abort && next_ < slices_.count()) fail(std::make_exception_ptr(Error(code::aborted, "aborted")));
    if (error_) {
      keep_or_remove();
      std::rethrow_exception(error_);
    }
    partial.complete(spec_.file);
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    return {bytes_read_, progress_.done - resumed, resumed, buffer_bytes_, used, seconds};
  }

 private:
  void work() {
    try {
      SliceMaker maker(spec_, files_);
      for (uint64_t index; take(index);) {
        const Slices::Slice slice = slices_[index];
        maker.make(slice, *partial_);
        give_back(index, Slices::bytes(slice));
      }
      const std::lock_guard<std::mutex> lock(mutex_);
      bytes_read_ += maker.bytes_read();
      buffer_bytes_ += maker.buffer_bytes();
    } catch (...) {
      fail(std::current_exception());
    }
  }

  bool take(uint64_t& index) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (error_ || progress_.abort || next_ == slices_.count()) return false;
    index = next_++;
    running_.insert(index);
    return true;
  }

  void give_back(uint64_t index, uint64_t bytes) {
    progress_.done += bytes;
    bool due, tell;
    uint64_t mark;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      running_.erase(index);
      unmarked_ += bytes;
      mark = finished();
      due = unmarked_ >= checkpoint_bytes && !marking_;
      if (due) {
        marking_ = true;
        unmarked_ = 0;
      }
      const auto now = Clock::now();
      tell = now - last_notice_ >= notify_interval;
      if (tell) last_notice_ = now;
    }
    if (tell) notify_();
    if (!due) return;
    partial_->checkpoint(mark);
    const std::lock_guard<std::mutex> lock(mutex_);
    marking_ = false;
  }

  /// All slices before this one are in the file.
  uint64_t finished() const { return running_.empty() ? next_ : *running_.begin(); }

  void fail(std::exception_ptr error) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!error_) error_ = std::move(error);
  }

  /// Nothing runs any more. Slices that failed are still among the running ones.
  void keep_or_remove() {
    try {
      std::rethrow_exception(error_);
    } catch (const IoError& error) {
      // A source that cannot be read will have changed when it can.
      if (!error.writing) return partial_->remove();
    } catch (const Error& error) {
      if (error.code() != code::aborted) return partial_->remove();
    } catch (...) {
      return partial_->remove();
    }
    try {
      partial_->checkpoint(finished());
    } catch (const Error&) {
      // The disk is full or gone: what was marked before still counts.
    }
    if (partial_->mark() == 0) partial_->remove();
  }

  const PackSpec& spec_;
  Progress& progress_;
  const std::function<void()>& notify_;
  Slices slices_;
  std::vector<SourceFile> files_;
  PartialFile* partial_ = nullptr;

  std::mutex mutex_;
  /// The next slice to be made, and those that are being made.
  uint64_t next_ = 0;
  std::set<uint64_t> running_;
  uint64_t unmarked_ = 0;
  bool marking_ = false;
  Clock::time_point last_notice_ = Clock::now();
  std::exception_ptr error_;
  uint64_t bytes_read_ = 0;
  uint64_t buffer_bytes_ = 0;
};

}  // namespace

PackStats pack(const PackSpec& spec, Progress& progress, const std::function<void()>& notify) {
  return Packing(spec, progress, notify).run();
}

}  // namespace upgc::pack
