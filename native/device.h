// What a device implements. A device is stateless; a program owns everything that it allocated.
#pragma once

#include <memory>
#include <vector>

#include "program_spec.h"

namespace upgc {

/// See NativeStats in src/runtime/native.ts.
struct Stats {
  uint64_t allocations;
  uint64_t allocated_bytes;
  uint64_t submissions;
  uint64_t dispatches;
};

/// A compiled program. Indices and ranges are checked by the caller. One call at a time, except `stats`.
class Program {
 public:
  virtual ~Program() = default;
  virtual void write(size_t arena, uint64_t offset, const void* data, size_t bytes) = 0;
  virtual void read(size_t arena, uint64_t offset, void* into, size_t bytes) = 0;
  virtual void clear(size_t arena) = 0;
  /// Allocates anew what the spec has as `arena`, no file, and frees what was there. Fails as creation does.
  virtual void reallocate(size_t index, const Arena& arena) = 0;
  /// Runs one entry to its end `steps` times, with a barrier between one time and the next. Throws UPGC_KERNEL when a
  /// kernel misbehaves.
  virtual void run(size_t entry, uint64_t steps) = 0;
  virtual Stats stats() const = 0;
};

class Device {
 public:
  virtual ~Device() = default;
  virtual const char* name() const = 0;
  /// Whether this machine has it. On the JavaScript thread.
  virtual bool present() const { return true; }
  /// Compiles and allocates; `spec` has passed `check_program`. Called on a worker thread.
  virtual std::unique_ptr<Program> create(const ProgramSpec& spec) const = 0;
};

/// Devices of this build, present or not, best first.
const std::vector<const Device*>& devices();

}  // namespace upgc
