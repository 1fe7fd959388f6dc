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

Mapping::Mapping(Mapping&& other) noexcept
    : address_(std::exchange(other.address_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}

Mapping& Mapping::operator=(Mapping&& other) noexcept {
  std::swap(address_, other.address_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

Mapping::~Mapping() {
  if (bytes_ != 0) munmap(address_, bytes_);
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
  return counted(address, bytes);
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

Mapping Memory::counted(void* address, uint64_t bytes) {
  allocations_++;
  allocated_bytes_ += bytes;
  return Mapping(address, bytes);
}

Mapping Memory::allocate(uint64_t bytes, const std::string& what) {
  if (bytes == 0) return Mapping();
  void* address = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (address == MAP_FAILED)
    throw Error(code::bad_plan, concat("cannot allocate ", bytes, " bytes for ", what, ": ", std::strerror(errno)));
  return counted(address, bytes);
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
  if (bytes == 0) return Mapping();
  const int protection = writable ? PROT_READ | PROT_WRITE : PROT_READ;
  void* const address = mmap(nullptr, bytes, protection, writable ? MAP_SHARED : MAP_PRIVATE, file.number(), 0);
  if (address == MAP_FAILED) throw Error(code::io, concat("cannot map memory: ", std::strerror(errno)));
  return counted(address, bytes);
}

size_t page_size() {
  static const size_t size = sysconf(_SC_PAGESIZE);
  return size;
}

}  // namespace upgc
