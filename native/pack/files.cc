#include "files.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "io_error.h"

namespace upgc::pack {
namespace {

// One call moves at most 2 GiB, on macOS less.
constexpr uint64_t largest_transfer = 1 << 30;

/// What stands behind the data of a partial file, twice, written by turns: one of the two is always whole.
struct Record {
  char magic[8];
  char fingerprint[64];
  uint64_t mark;
  uint64_t check;
};
constexpr char magic[8] = {'u', 'p', 'g', 'c', 'p', 'a', 'c', '1'};
constexpr unsigned slots = 2;

uint64_t check_of(const Record& record) {
  uint64_t hash = 0xcbf29ce484222325;
  const auto* bytes = reinterpret_cast<const unsigned char*>(&record);
  for (size_t i = 0; i < offsetof(Record, check); i++) hash = (hash ^ bytes[i]) * 0x100000001b3;
  return hash;
}

int retrying_open(const char* path, int flags) {
  int descriptor;
  do descriptor = ::open(path, flags | O_CLOEXEC, 0666);
  while (descriptor < 0 && errno == EINTR);
  return descriptor;
}

bool truncate_to(const File& file, uint64_t bytes) {
  int result;
  do result = ftruncate(file.descriptor(), off_t(bytes));
  while (result != 0 && errno == EINTR);
  return result == 0;
}

bool sync(const File& file) {
  int result;
  do result = fsync(file.descriptor());
  while (result != 0 && errno == EINTR);
  return result == 0;
}

}  // namespace

void fail_reading(const std::string& path) {
  const int number = errno;
  throw IoError(concat("cannot read ", path, ": ", std::strerror(number)), path, false, number);
}

void fail_writing(const std::string& path) {
  const int number = errno;
  throw IoError(concat("cannot write ", path, ": ", std::strerror(number)), path, true, number);
}

File& File::operator=(File&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  return *this;
}

File::~File() {
  if (descriptor_ >= 0) close(descriptor_);
}

SourceFile::SourceFile(std::string path) : path_(std::move(path)) {
  // Opening a pipe would wait for its other end.
  file_ = File(retrying_open(path_.c_str(), O_RDONLY | O_NONBLOCK));
  struct stat status;
  if (file_.descriptor() < 0 || fstat(file_.descriptor(), &status) != 0) fail_reading(path_);
  if (S_ISREG(status.st_mode)) return;
  errno = S_ISDIR(status.st_mode) ? EISDIR : EINVAL;
  fail_reading(path_);
}

void SourceFile::read(uint64_t offset, uint64_t bytes, uint8_t* to) const {
  while (bytes > 0) {
    const ssize_t count = pread(file_.descriptor(), to, std::min(bytes, largest_transfer), off_t(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail_reading(path_);
    if (count == 0) {
      IoError error(concat(path_, " ends at byte ", offset, ", expected ", bytes, " more"), path_, false, 0);
      error.position = offset;
      error.missing = bytes;
      throw error;
    }
    to += count;
    offset += uint64_t(count);
    bytes -= uint64_t(count);
  }
}

PartialFile::PartialFile(std::string path, uint64_t bytes, std::string fingerprint)
    : path_(std::move(path)), bytes_(bytes), fingerprint_(std::move(fingerprint)) {
  while (!open()) {
  }
  Record best{};
  struct stat status;
  if (fstat(file_.descriptor(), &status) != 0) fail_writing(path_);
  if (uint64_t(status.st_size) == bytes_ + slots * sizeof(Record)) {
    for (unsigned slot = 0; slot < slots; slot++) {
      Record record;
      const auto at = off_t(bytes_ + slot * sizeof record);
      if (pread(file_.descriptor(), &record, sizeof record, at) != ssize_t(sizeof record)) continue;
      const bool ours = std::memcmp(record.magic, magic, sizeof magic) == 0 &&
                        std::memcmp(record.fingerprint, fingerprint_.data(), sizeof record.fingerprint) == 0;
      if (!ours || record.check != check_of(record) || record.mark <= best.mark) continue;
      best = record;
      slot_ = slot + 1;
    }
  }
  mark_ = best.mark;
  if (mark_ != 0) return;
  // What is never written reads as zero: that is the padding.
  if (!truncate_to(file_, 0) || !truncate_to(file_, bytes_ + slots * sizeof(Record))) {
    const int number = errno;
    unlink(path_.c_str());
    errno = number;
    fail_writing(path_);
  }
}

/// False when the file was given its name, or removed, between being opened and being locked.
bool PartialFile::open() {
  file_ = File(retrying_open(path_.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW));
  if (file_.descriptor() < 0) fail_writing(path_);
  int result;
  do result = flock(file_.descriptor(), LOCK_EX | LOCK_NB);
  while (result != 0 && errno == EINTR);
  if (result != 0 && errno == EWOULDBLOCK)
    throw Error(code::busy, concat("another process is writing ", path_));
  // Some network file systems have no locks; there nothing guards against a second process.
  if (result != 0 && errno != ENOLCK && errno != EOPNOTSUPP && errno != ENOTSUP) fail_writing(path_);
  struct stat own, named;
  if (fstat(file_.descriptor(), &own) != 0) fail_writing(path_);
  return stat(path_.c_str(), &named) == 0 && own.st_ino == named.st_ino && own.st_dev == named.st_dev;
}

void PartialFile::write(uint64_t offset, const uint8_t* from, uint64_t bytes) const {
  while (bytes > 0) {
    const ssize_t count = pwrite(file_.descriptor(), from, std::min(bytes, largest_transfer), off_t(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail_writing(path_);
    from += count;
    offset += uint64_t(count);
    bytes -= uint64_t(count);
  }
}

void PartialFile::checkpoint(uint64_t mark) {
  if (mark == mark_) return;
  if (!sync(file_)) fail_writing(path_);
  Record record{};
  std::memcpy(record.magic, magic, sizeof magic);
  std::memcpy(record.fingerprint, fingerprint_.data(), sizeof record.fingerprint);
  record.mark = mark;
  record.check = check_of(record);
  slot_ = (slot_ + 1) % slots;
  write(bytes_ + slot_ * sizeof record, reinterpret_cast<const uint8_t*>(&record), sizeof record);
  mark_ = mark;
}

void PartialFile::complete(const std::string& path) {
  if (!truncate_to(file_, bytes_) || !sync(file_)) fail_writing(path);
  if (rename(path_.c_str(), path.c_str()) != 0) {
    const int number = errno;
    unlink(path_.c_str());
    errno = number;
    fail_writing(path);
  }
  // The name outlasts the machine once the folder does; where folders cannot be synced, it does so a little later.
  const size_t slash = path.rfind('/');
  const File folder(retrying_open(slash == std::string::npos ? "." : path.substr(0, slash + 1).c_str(), O_RDONLY));
  if (folder.descriptor() >= 0) sync(folder);
}

void PartialFile::remove() { unlink(path_.c_str()); }

}  // namespace upgc::pack
