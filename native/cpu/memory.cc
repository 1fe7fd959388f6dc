#include "memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "../error.h"

namespace upgc {
namespace {

/// More than what a loop that runs a little too far steps over.
constexpr size_t guard_bytes = 64 * 1024;

uint64_t whole_pages(uint64_t bytes) { return (bytes + page_size() - 1) / page_size() * page_size(); }

}  // namespace

Mapping::Mapping(Mapping&& other) noexcept
    : address_(std::exchange(other.address_, nullptr)),
      bytes_(std::exchange(other.bytes_, 0)),
      guard_(other.guard_) {}

Mapping& Mapping::operator=(Mapping&& other) noexcept {
  std::swap(address_, other.address_);
  std::swap(bytes_, other.bytes_);
  std::swap(guard_, other.guard_);
  return *this;
}

Mapping::~Mapping() {
  if (bytes_ != 0) munmap(address_ - guard_, whole_pages(bytes_) + 2 * guard_);
}

void Mapping::forbid(size_t offset, size_t bytes) {
  if (mprotect(address_ + offset, bytes, PROT_NONE) != 0)
    throw Error(code::io, concat("cannot protect memory: ", std::strerror(errno)));
}

void Mapping::place(size_t offset, size_t bytes, const Descriptor& file, bool writable) {
  const int protection = writable ? PROT_READ | PROT_WRITE : PROT_READ;
  if (mmap(address_ + offset, bytes, protection, MAP_SHARED | MAP_FIXED, file.number(), 0) == MAP_FAILED)
    throw Error(code::io, concat("cannot map memory: ", std::strerror(errno)));
}

Descriptor::Descriptor(Descriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}

Descriptor::~Descriptor() {
  if (number_ >= 0) ::close(number_);
}

Mapping Memory::reserve(uint64_t bytes, const std::string& what) {
  if (bytes == 0) return Mapping();
  void* address = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (address == MAP_FAILED)
    throw Error(code::bad_plan, concat("cannot reserve ", bytes, " bytes for ", what, ": ", std::strerror(errno)));
  return counted(address, bytes, 0);
}

Descriptor Memory::shareable(uint64_t bytes, const std::string& what) {
#ifdef __APPLE__
  // Nobody else can open it: the name is gone at once.
  const std::string name = concat("/upgc-", getpid(), "-", allocations_);
  Descriptor file(shm_open(name.c_str(), O_RDWR | O_CREAT | O_EXCL, 0600));
  shm_unlink(name.c_str());
#else
  Descriptor file(memfd_create("upgc", MFD_CLOEXEC));
#endif
  if (file.number() < 0 || ftruncate(file.number(), bytes) != 0)
    throw Error(code::bad_plan, concat("cannot allocate ", bytes, " bytes for ", what, ": ", std::strerror(errno)));
  allocations_++;
  allocated_bytes_ += bytes;
  return file;
}

Mapping Memory::counted(void* address, uint64_t bytes, size_t guard) {
  allocations_++;
  allocated_bytes_ += bytes;
  return Mapping(address, bytes, guard);
}

Mapping Memory::guarded(uint64_t bytes, int protection, const Descriptor* file, const std::string& what) {
  if (bytes == 0) return Mapping();
  const auto fail = [&] {
    throw Error(code::bad_plan, concat("cannot allocate ", bytes, " bytes for ", what, ": ", std::strerror(errno)));
  };
  const uint64_t size = whole_pages(bytes) + 2 * guard_bytes;
  void* const all = mmap(nullptr, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (all == MAP_FAILED) fail();
  Mapping mapping = counted(static_cast<unsigned char*>(all) + guard_bytes, bytes, guard_bytes);
  const bool shared = file != nullptr && (protection & PROT_WRITE) != 0;
  const int flags = MAP_FIXED | (shared ? MAP_SHARED : MAP_PRIVATE) | (file == nullptr ? MAP_ANONYMOUS : 0);
  const int descriptor = file == nullptr ? -1 : file->number();
  if (mmap(mapping.data(), bytes, protection, flags, descriptor, 0) == MAP_FAILED) fail();
  return mapping;
}

Mapping Memory::allocate(uint64_t bytes, const std::string& what) {
  return guarded(bytes, PROT_READ | PROT_WRITE, nullptr, what);
}

Mapping Memory::map_file(const std::string& path, uint64_t bytes) {
  return map(open_file(path, bytes), bytes, false);
}

Descriptor Memory::open_file(const std::string& path, uint64_t bytes) {
  const auto fail = [&](const std::string& why) { throw Error(code::io, concat(path, ": ", why)); };
  Descriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.number() < 0) fail(std::strerror(errno));
  struct stat status;
  if (fstat(file.number(), &status) != 0 || !S_ISREG(status.st_mode)) fail("not a regular file");
  const uint64_t size = status.st_size;
  if (bytes > size) fail(concat("has ", size, " bytes, the plan needs ", bytes));
  return file;
}

Mapping Memory::map(const Descriptor& file, uint64_t bytes, bool writable) {
  return guarded(bytes, writable ? PROT_READ | PROT_WRITE : PROT_READ, &file, "a mapped file");
}

size_t page_size() {
  static const size_t size = sysconf(_SC_PAGESIZE);
  return size;
}

}  // namespace upgc
