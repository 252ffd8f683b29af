#include <algorithm>
#include <cstring>
#include <mutex>
#include <optional>
#include <unordered_map>

#include "core/io/mapped_file.hpp"
#include "core/io/safetensors.hpp"
#include "core/io/safetensors_header.hpp"

namespace weft {

struct SafetensorsReader::Impl {
  std::string file;
  std::optional<MappedFile> map;
  std::span<const std::byte> bytes;
  detail::SafetensorsHeader header;
  std::unordered_map<std::string_view, std::size_t> index;
  std::mutex mutex;
  std::unordered_map<std::size_t, std::unique_ptr<std::max_align_t[]>> aligned;  ///< by position in header.entries

  void parse() {
    header = detail::parse_safetensors(file, bytes);
    for (std::size_t i = 0; i < header.entries.size(); ++i) index.emplace(header.entries[i].name, i);
  }
};

SafetensorsReader::SafetensorsReader(const std::filesystem::path& path) : impl_(std::make_unique<Impl>()) {
  impl_->file = path.string();
  impl_->map.emplace(path);
  impl_->bytes = impl_->map->bytes();
  impl_->parse();
}

SafetensorsReader::SafetensorsReader(std::string name, std::span<const std::byte> bytes)
    : impl_(std::make_unique<Impl>()) {
  impl_->file = std::move(name);
  impl_->bytes = bytes;
  impl_->parse();
}

SafetensorsReader::~SafetensorsReader() = default;
SafetensorsReader::SafetensorsReader(SafetensorsReader&&) noexcept = default;
SafetensorsReader& SafetensorsReader::operator=(SafetensorsReader&&) noexcept = default;

const std::vector<SafetensorsEntry>& SafetensorsReader::entries() const { return impl_->header.entries; }
const std::map<std::string, std::string>& SafetensorsReader::metadata() const { return impl_->header.metadata; }

const SafetensorsEntry* SafetensorsReader::find(std::string_view name) const {
  const auto found = impl_->index.find(name);
  return found == impl_->index.end() ? nullptr : &impl_->header.entries[found->second];
}

const SafetensorsEntry& SafetensorsReader::entry(std::string_view name) const {
  const SafetensorsEntry* found = find(name);
  if (found == nullptr) fail_user("file '{}' has no tensor '{}'", impl_->file, name);
  return *found;
}

std::span<const std::byte> SafetensorsReader::bytes(const SafetensorsEntry& entry) const {
  return impl_->bytes.subspan(impl_->header.data_begin + entry.begin, entry.end - entry.begin);
}

View SafetensorsReader::view(std::string_view name) const {
  const SafetensorsEntry& found = entry(name);
  const std::optional<DType> dtype = detail::find_safetensors_type(found.type)->dtype;
  if (!dtype)
    fail_user("file '{}': tensor '{}' is {}; convert it to F32, BF16, F64, I32, I64, U8 or U16", impl_->file,
              detail::printable(name), found.type);
  const std::span<const std::byte> data = bytes(found);
  const void* pointer = data.data();
  if (reinterpret_cast<std::uintptr_t>(pointer) % size_of(*dtype) != 0) {
    const std::lock_guard lock(impl_->mutex);
    auto& copy = impl_->aligned[impl_->index.at(name)];
    if (copy == nullptr) {
      copy = std::make_unique<std::max_align_t[]>(data.size() / sizeof(std::max_align_t) + 1);
      std::memcpy(copy.get(), data.data(), data.size());
    }
    pointer = copy.get();
  }
  return View(pointer, found.shape, *dtype);
}

}  // namespace weft
