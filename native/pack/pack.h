// Turns tensors of checkpoints into weights.bin: with several threads, in bounded memory, so that it can be continued.
#pragma once

#include <atomic>
#include <functional>

#include "pack_spec.h"

namespace upgc::pack {

/// Shared between the packing and who watches it.
struct Progress {
  /// Bytes in the file by now, those of an earlier process included; of all.
  std::atomic<uint64_t> done{0};
  std::atomic<uint64_t> total{0};
  /// Bytes that an earlier process has left.
  std::atomic<uint64_t> resumed{0};
  /// Whether anybody has been told; of the JavaScript thread.
  bool told = false;
  /// Set to have the packing end early.
  std::atomic<bool> abort{false};
};

struct PackStats {
  uint64_t bytes_read;
  uint64_t bytes_written;
  /// Bytes that an earlier process had written.
  uint64_t resumed_bytes;
  uint64_t buffer_bytes;
  unsigned threads;
  double seconds;
};

/**
 * Writes the file. Throws UPGC_IO, UPGC_BUSY while another process writes the same, UPGC_NOT_FINITE, or UPGC_ABORTED.
 * What it has written by then stays under the partial name when a later call can go on from there.
 * @param notify called from any of the threads, at most every 100 ms, and once before anything is written
 */
PackStats pack(const PackSpec& spec, Progress& progress, const std::function<void()>& notify);

}  // namespace upgc::pack
