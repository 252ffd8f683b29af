// A file system in memory that tells what is on the disk from what only the system's cache holds, fails or crashes at a
// chosen operation, and restarts with as much of the cache as the test decides.
#pragma once
#include <cerrno>
#include <filesystem>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/io/file_system.hpp"

namespace weft::test {

struct Crash : std::runtime_error {
  Crash() : std::runtime_error("simulated crash") {}
};

/// What of the unsynced state a crash leaves on the disk.
enum class Survives { nothing, everything, names_only };

class CrashFileSystem final : public FileSystem {
 public:
  bool can_exchange = true;

  /// The operation with this number (from 0) fails with the errno, or crashes; -1: none.
  void fail_at(int operation, int error_number) { arm(operation, error_number); }
  void crash_at(int operation) { arm(operation, 0); }
  int operations() const { return count_; }

  /// After a crash: the state that a restarted machine finds.
  void restart(Survives survives) {
    settle(root_, survives);
    arm(-1, 0);
  }

  /// Content of a file, or nullptr.
  const std::string* content(const std::filesystem::path& path) const {
    const auto node = find(path);
    return node && !node->folder ? &node->cached : nullptr;
  }

  int create(const std::filesystem::path& path) const override {
    step("create", path);
    if (find(path)) throw IoError("create", path, EEXIST);
    auto node = std::make_shared<Node>();
    if (!dead_) parent(path).cached_names[path.filename()] = node;
    open_.push_back(node);
    return static_cast<int>(open_.size()) - 1;
  }
  void write(int descriptor, const std::filesystem::path& path, std::span<const std::byte> bytes) const override {
    if (dead_) return;
    const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    std::string& cached = open_.at(static_cast<std::size_t>(descriptor))->cached;
    cached += text.substr(0, text.size() / 2);
    step("write", path);
    cached += text.substr(text.size() / 2);
  }
  void write_at(int descriptor, const std::filesystem::path& path, std::int64_t offset,
                std::span<const std::byte> bytes) const override {
    step("write", path);
    const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    if (!dead_)
      open_.at(static_cast<std::size_t>(descriptor))
          ->cached.replace(static_cast<std::size_t>(offset), text.size(), text);
  }
  void sync(int descriptor, const std::filesystem::path& path) const override {
    step("sync", path);
    Node& node = *open_.at(static_cast<std::size_t>(descriptor));
    if (!dead_) node.durable = node.cached;
  }
  void close(int, const std::filesystem::path& path) const override { step("close", path); }
  void rename(const std::filesystem::path& from, const std::filesystem::path& to) const override {
    step("rename", from);
    if (dead_) return;
    const auto node = find(from);
    if (!node) throw IoError("rename", from, ENOENT);
    const auto target = find(to);
    if (target && target->folder && !target->cached_names.empty()) throw IoError("rename", to, ENOTEMPTY);
    parent(from).cached_names.erase(from.filename());
    parent(to).cached_names[to.filename()] = node;
  }
  bool exchange(const std::filesystem::path& a, const std::filesystem::path& b) const override {
    if (!can_exchange) return false;
    step("exchange", a);
    if (!dead_) std::swap(parent(a).cached_names.at(a.filename()), parent(b).cached_names.at(b.filename()));
    return true;
  }
  void sync_folder(const std::filesystem::path& folder) const override {
    step("sync folder", folder);
    const auto node = find(folder);
    if (!dead_) node->durable_names = node->cached_names;
  }
  void make_folder(const std::filesystem::path& folder) const override {
    step("make folder", folder);
    if (find(folder)) throw IoError("make folder", folder, EEXIST);
    auto node = std::make_shared<Node>();
    node->folder = true;
    if (!dead_) parent(folder).cached_names[folder.filename()] = node;
  }
  /// One operation for each file in a folder, so that a crash can leave half of it.
  void remove(const std::filesystem::path& path) const override {
    const auto node = find(path);
    if (!node) return;
    if (node->folder)
      for (const std::string& name : list(path)) remove(path / name);
    step("remove", path);
    if (!dead_) parent(path).cached_names.erase(path.filename());
  }
  bool exists(const std::filesystem::path& path) const override { return find(path) != nullptr; }
  std::vector<std::string> list(const std::filesystem::path& folder) const override {
    std::vector<std::string> names;
    if (const auto node = find(folder))
      for (const auto& [name, child] : node->cached_names) names.push_back(name);
    return names;
  }

 private:
  struct Node {
    bool folder = false;
    std::string cached, durable;
    std::map<std::string, std::shared_ptr<Node>> cached_names, durable_names;
  };

  void arm(int operation, int error_number) {
    target_ = operation;
    error_number_ = error_number;
    count_ = 0;
    dead_ = false;
  }
  void step(std::string_view operation, const std::filesystem::path& path) const {
    if (dead_ || count_++ != target_) return;
    if (error_number_ != 0) throw IoError(operation, path, error_number_);
    dead_ = true;  // what destructors still try does not reach the disk
    throw Crash();
  }
  std::shared_ptr<Node> find(const std::filesystem::path& path) const {
    std::shared_ptr<Node> node = root_;
    for (const auto& part : path) {
      const auto child = node->cached_names.find(part);
      if (child == node->cached_names.end()) return nullptr;
      node = child->second;
    }
    return node;
  }
  Node& parent(const std::filesystem::path& path) const {
    const auto node = find(path.parent_path());
    if (!node) throw IoError("find", path, ENOENT);
    return *node;
  }
  static void settle(const std::shared_ptr<Node>& node, Survives survives) {
    if (survives == Survives::nothing) node->cached_names = node->durable_names;
    if (survives != Survives::everything) node->cached = node->durable;
    node->durable_names = node->cached_names;
    node->durable = node->cached;
    for (const auto& [name, child] : node->cached_names) settle(child, survives);
  }

  std::shared_ptr<Node> root_ = [] {
    auto node = std::make_shared<Node>();
    node->folder = true;
    return node;
  }();
  mutable std::vector<std::shared_ptr<Node>> open_;
  mutable int count_ = 0;
  mutable bool dead_ = false;
  int target_ = -1;
  int error_number_ = 0;
};

}  // namespace weft::test
