// Reading and writing at positions of files, from several threads.
#pragma once

#include <cstdint>
#include <string>

namespace upgc::pack {

/// Closes itself.
class File {
 public:
  explicit File(int descriptor = -1) : descriptor_(descriptor) {}
  File(File&& other) noexcept : descriptor_(other.descriptor_) { other.descriptor_ = -1; }
  File& operator=(File&& other) noexcept;
  ~File();
  int descriptor() const { return descriptor_; }

 private:
  int descriptor_;
};

/// A regular file to read. Not mapped: a file that becomes shorter while it is read is an error then, and no signal;
/// memory is bounded by the buffers, whatever the file's size; and large reads cost no more than page faults do.
class SourceFile {
 public:
  explicit SourceFile(std::string path);
  void read(uint64_t offset, uint64_t bytes, uint8_t* to) const;

 private:
  std::string path_;
  File file_;
};

/// A file that is locked against other processes and remembers how far it has come, so that a later process can go on.
/// What it remembers lies behind its last byte until it is complete.
class PartialFile {
 public:
  /// Opens and locks it; UPGC_BUSY when another process has. What another job left is removed.
  PartialFile(std::string path, uint64_t bytes, std::string fingerprint);

  /// What was marked last; 0 at first.
  uint64_t mark() const { return mark_; }
  void write(uint64_t offset, const uint8_t* from, uint64_t bytes) const;
  /// Makes what has been written so far outlast the machine, then marks it. One call at a time.
  void checkpoint(uint64_t mark);
  /// Gives the file its name.
  void complete(const std::string& path);
  void remove();

 private:
  bool open();

  std::string path_;
  uint64_t bytes_;
  std::string fingerprint_;
  File file_;
  uint64_t mark_ = 0;
  unsigned slot_ = 0;
};

}  // namespace upgc::pack
