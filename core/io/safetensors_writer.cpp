#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>
#include <unordered_set>

#include "core/io/atomic_file.hpp"
#include "core/io/checksum.hpp"
#include "core/io/safetensors.hpp"
#include "core/io/safetensors_header.hpp"

namespace weft {
namespace {

constexpr std::size_t piece_bytes = std::size_t{1} << 20;
constexpr std::size_t data_alignment = 64;

std::size_t bytes_of(const SafetensorsSource& tensor) {
  return static_cast<std::size_t>(tensor.shape.numel()) * size_of(tensor.dtype);
}

std::vector<std::size_t> data_order(std::span<const SafetensorsSource> tensors) {
  std::vector<std::size_t> order(tensors.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return size_of(tensors[a].dtype) > size_of(tensors[b].dtype); });
  return order;
}

std::string header_text(std::span<const SafetensorsSource> tensors, const std::vector<std::size_t>& order,
                        const std::map<std::string, std::string>& metadata, const std::filesystem::path& path) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::unordered_set<std::string_view> names;
  std::size_t begin = 0;
  for (const std::size_t i : order) {
    const SafetensorsSource& tensor = tensors[i];
    WEFT_CHECK(tensor.name != "__metadata__" && names.insert(tensor.name).second, "'{}': tensor name '{}' is taken",
               path.string(), tensor.name);
    const std::size_t end = begin + bytes_of(tensor);
    // Appending keeps this linear: operator[] of an ordered object searches all earlier keys.
    header.get_ref<nlohmann::ordered_json::object_t&>().push_back(
        {tensor.name,
         {{"dtype", detail::safetensors_name(tensor.dtype)},
          {"shape", std::vector<std::int64_t>(tensor.shape.sizes().begin(), tensor.shape.sizes().end())},
          {"data_offsets", {begin, end}}}});
    begin = end;
  }
  std::string text = header.dump();
  text.append((data_alignment - (8 + text.size()) % data_alignment) % data_alignment, ' ');
  WEFT_CHECK(text.size() <= detail::safetensors_header_limit, "'{}': the header of {} tensors is too long",
             path.string(), tensors.size());
  return text;
}

std::uint64_t write_tensor(const SafetensorsSource& tensor, AtomicFile& file, std::vector<std::byte>& piece) {
  Checksum sum;
  const std::size_t bytes = bytes_of(tensor);
  const auto* data = static_cast<const std::byte*>(tensor.data.data);
  for (std::size_t offset = 0; offset < bytes; offset += piece_bytes) {
    const std::size_t count = std::min(piece_bytes, bytes - offset);
    std::span<const std::byte> part;
    if (tensor.fill) {
      piece.resize(count);
      tensor.fill(offset, piece);
      part = piece;
    } else {
      part = {data + offset, count};
    }
    sum.update(part);
    file.write(part);
  }
  return sum.value();
}

}  // namespace

SafetensorsSource::SafetensorsSource(std::string name_, View view)
    : name(std::move(name_)), dtype(view.dtype), shape(view.shape), data(view) {
  WEFT_CHECK(view.contiguous() && view.device.kind == DeviceKind::cpu, "tensor '{}' is not contiguous host memory",
             name);
}

SafetensorsSource::SafetensorsSource(std::string name_, DType dtype_, Shape shape_, Fill fill_)
    : name(std::move(name_)), dtype(dtype_), shape(shape_), fill(std::move(fill_)) {}

std::vector<SafetensorsWritten> write_safetensors(const std::filesystem::path& path,
                                                  std::span<const SafetensorsSource> tensors,
                                                  const std::map<std::string, std::string>& metadata,
                                                  const FileSystem& files) {
  const std::vector<std::size_t> order = data_order(tensors);
  const std::string header = header_text(tensors, order, metadata, path);
  const std::uint64_t length = header.size();
  AtomicFile file(path, files);
  file.write(std::as_bytes(std::span(&length, 1)));
  file.write(header);
  std::vector<SafetensorsWritten> written(tensors.size());
  std::vector<std::byte> piece;
  for (const std::size_t i : order) written[i] = {tensors[i].name, write_tensor(tensors[i], file, piece)};
  file.commit();
  return written;
}

}  // namespace weft
