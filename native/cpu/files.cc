#include "files.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "../error.h"

namespace upgc {

namespace fs = std::filesystem;

bool read_file(const std::string& path, std::string& content) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream out;
  if (!file || !(out << file.rdbuf())) return false;
  content = out.str();
  return true;
}

void write_file(const std::string& path, const std::string& content) {
  std::ofstream file(path, std::ios::binary);
  if (!(file << content) || !file.flush())
    throw Error(code::io, concat("cannot write ", path, ": ", std::strerror(errno)));
}

std::vector<HeaderFile> read_headers(const std::string& folder) {
  std::vector<fs::path> paths;
  std::error_code error;
  for (const auto& file : fs::directory_iterator(folder, error))
    if (!file.is_directory()) paths.push_back(file.path());
  if (error) throw Error(code::io, concat("cannot read the headers in ", folder, ": ", error.message()));
  std::sort(paths.begin(), paths.end());
  std::vector<HeaderFile> headers;
  for (const fs::path& path : paths) {
    std::string content;
    if (!read_file(path.string(), content)) throw Error(code::io, concat("cannot read ", path.string()));
    headers.push_back({path.filename().string(), std::move(content)});
  }
  return headers;
}

std::string first_lines(const std::string& text, int lines) {
  size_t end = 0;
  for (int i = 0; i < lines && end != std::string::npos; i++) end = text.find('\n', end == 0 ? 0 : end + 1);
  return end == std::string::npos ? text : text.substr(0, end) + "\n...";
}

bool check_private(const std::string& path) {
  struct stat status;
  if (lstat(path.c_str(), &status) != 0) {
    if (errno == ENOENT) return false;
    throw Error(code::io, concat("cannot read ", path, ": ", std::strerror(errno)));
  }
  if (S_ISLNK(status.st_mode))
    throw Error(code::io, concat(path, " is a link; compiled kernels are read from real folders only"));
  if (status.st_uid != geteuid() || (status.st_mode & (S_IWGRP | S_IWOTH)) != 0)
    throw Error(code::io, concat(path, " can be written by other users; compiled kernels are code, so give another "
                                       "folder or take that right away"));
  return true;
}

void prepare_private_folder(const std::string& folder) {
  std::error_code error;
  const fs::path path(folder);
  if (path.has_parent_path()) fs::create_directories(path.parent_path(), error);
  if (mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST)
    throw Error(code::io, concat("cannot create the cache folder ", folder, ": ", std::strerror(errno)));
  if (!check_private(folder) || !fs::is_directory(folder, error))
    throw Error(code::io, concat("the cache ", folder, " is not a folder"));
}

TemporaryFolder::TemporaryFolder(const std::string& parent) : path(parent + "/tmp-XXXXXX") {
  if (mkdtemp(path.data()) == nullptr)
    throw Error(code::io, concat("cannot write to the cache folder ", parent, ": ", std::strerror(errno)));
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  fs::remove_all(path, ignored);
}

}  // namespace upgc
