// All memory of a program on the CPU device. Every allocation goes through `Memory::allocate` or `map_file`, so
// NativeStats.allocations is a count, not a claim.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace upgc {

/// An open file, closed with this object.
class Descriptor {
 public:
  explicit Descriptor(int number) : number_(number) {}
  Descriptor(Descriptor&& other) noexcept;
  Descriptor& operator=(Descriptor&&) = delete;
  ~Descriptor();
  int number() const { return number_; }

 private:
  int number_;
};

/// A page-aligned piece of address space between `guard` bytes on either side that nobody may touch, unmapped with this
/// object. Empty mappings have no pages.
class Mapping {
 public:
  Mapping() = default;
  Mapping(void* address, size_t bytes, size_t guard)
      : address_(static_cast<unsigned char*>(address)), bytes_(bytes), guard_(guard) {}
  Mapping(Mapping&& other) noexcept;
  Mapping& operator=(Mapping&& other) noexcept;
  ~Mapping();

  unsigned char* data() const { return address_; }
  size_t size() const { return bytes_; }
  /// Makes any access to these pages fault.
  void forbid(size_t offset, size_t bytes);
  /// Puts the file's content there, which other places may share.
  void place(size_t offset, size_t bytes, const Descriptor& file, bool writable);

 private:
  unsigned char* address_ = nullptr;
  size_t bytes_ = 0;
  size_t guard_ = 0;
};

class Memory {
 public:
  /// Zero-filled memory; `what` names it in the UPGC_BAD_PLAN error when the machine has not that much.
  Mapping allocate(uint64_t bytes, const std::string& what);
  /// Addresses without memory: it is there once they are written, up to `bytes`, as far as the machine has it.
  Mapping reserve(uint64_t bytes, const std::string& what);
  /// Zero-filled memory without addresses: Mapping::place gives it some, several times if need be.
  Descriptor shareable(uint64_t bytes, const std::string& what);
  /// The first `bytes` bytes of a file, read-only. UPGC_IO when the file is shorter or cannot be read.
  Mapping map_file(const std::string& path, uint64_t bytes);
  /// A file of at least `bytes` bytes. UPGC_IO as above.
  Descriptor open_file(const std::string& path, uint64_t bytes);
  Mapping map(const Descriptor& file, uint64_t bytes, bool writable);

  uint64_t allocations() const { return allocations_; }
  uint64_t allocated_bytes() const { return allocated_bytes_; }

 private:
  /// Memory with guards around it. With `file`, its content.
  Mapping guarded(uint64_t bytes, int protection, const Descriptor* file, const std::string& what);
  Mapping counted(void* address, uint64_t bytes, size_t guard);

  uint64_t allocations_ = 0;
  uint64_t allocated_bytes_ = 0;
};

size_t page_size();

}  // namespace upgc
