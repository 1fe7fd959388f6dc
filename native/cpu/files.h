#pragma once

#include <string>
#include <vector>

namespace upgc {

/// The whole file; false when it cannot be read.
bool read_file(const std::string& path, std::string& content);

/// UPGC_IO when it cannot be written.
void write_file(const std::string& path, const std::string& content);

struct HeaderFile {
  std::string name;
  std::string content;
};

/// The files of a folder by name, without those of folders in it. UPGC_IO when one cannot be read.
std::vector<HeaderFile> read_headers(const std::string& folder);

/// The first lines of a compiler's output.
std::string first_lines(const std::string& text, int lines);

/// Makes a folder that only the user can write, with what lies above it: who can write there can run code as the user.
/// UPGC_IO when it is there and another user may write it, or when it is a link, which may come to lead elsewhere.
void prepare_private_folder(const std::string& folder);

/// Refuses what `prepare_private_folder` refuses, of a folder or file inside such a folder. False when it is not there.
bool check_private(const std::string& path);

/// A folder that only the user can see, removed with everything in it.
struct TemporaryFolder {
  explicit TemporaryFolder(const std::string& parent);
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  ~TemporaryFolder();
  std::string path;
};

}  // namespace upgc
