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
  const auto fail = [&](const std::string& why) { throw Error(code::io, concat(path, ": ", why)); };
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) fail(std::strerror(errno));
  struct stat status;
  const bool known = fstat(file, &status) == 0 && S_ISREG(status.st_mode);
  const uint64_t size = known ? status.st_size : 0;
  void* address = nullptr;
  int error = 0;
  if (known && bytes != 0 && bytes <= size) {
    address = mmap(nullptr, bytes, PROT_READ, MAP_PRIVATE, file, 0);
    error = address == MAP_FAILED ? errno : 0;
  }
  ::close(file);
  if (!known) fail("not a regular file");
  if (bytes > size) fail(concat("has ", size, " bytes, the plan needs ", bytes));
  if (error != 0) fail(std::strerror(error));
  return bytes == 0 ? Mapping() : counted(address, bytes);
}

size_t page_size() {
  static const size_t size = sysconf(_SC_PAGESIZE);
  return size;
}

}  // namespace upgc
