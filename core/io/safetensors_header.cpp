#include "core/io/safetensors_header.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <unordered_set>

namespace weft::detail {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors data is little-endian");

constexpr std::array<SafetensorsType, 17> types = {{
    {"F32", 4, DType::f32},
    {"BF16", 2, DType::bf16},
    {"F64", 8, DType::f64},
    {"I32", 4, DType::i32},
    {"I64", 8, DType::i64},
    {"U8", 1, DType::u8},
    {"U16", 2, DType::u16},
    {"F16", 2, std::nullopt},
    {"BOOL", 1, std::nullopt},
    {"I8", 1, std::nullopt},
    {"I16", 2, std::nullopt},
    {"U32", 4, std::nullopt},
    {"U64", 8, std::nullopt},
    {"F8_E4M3", 1, std::nullopt},
    {"F8_E5M2", 1, std::nullopt},
    {"F8_E8M0", 1, std::nullopt},
    {"C64", 8, std::nullopt},
}};

// Events of the JSON parser, so that duplicate keys are seen and no tree of a hostile header is built.
class HeaderEvents {
 public:
  HeaderEvents(const std::string& file, SafetensorsHeader& header) : file_(file), header_(header) {}

  bool null() { return unexpected("null"); }
  bool boolean(bool) { return unexpected("a boolean"); }
  bool number_integer(std::int64_t value) { return unexpected(fmt::format("{}", value)); }
  bool number_float(double, const std::string& text) { return unexpected(printable(text)); }
  bool binary(std::vector<std::uint8_t>&) { return unexpected("binary data"); }

  bool number_unsigned(std::uint64_t value) {
    if (place_ == Place::shape) {
      if (dims_.size() == Shape::max_rank) fail_here(fmt::format("has more than {} dims", Shape::max_rank));
      if (value > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()))
        fail_here("has a dim that overflows");
      dims_.push_back(static_cast<std::int64_t>(value));
      return true;
    }
    if (place_ == Place::offsets) {
      if (offsets_.size() == 2) fail_here("has more than two data_offsets");
      offsets_.push_back(value);
      return true;
    }
    return unexpected(fmt::format("{}", value));
  }

  bool string(std::string& value) {
    if (place_ == Place::metadata) {
      if (!header_.metadata.emplace(key_, value).second)
        fail_user("file '{}': __metadata__ has the key '{}' twice", file_, printable(key_));
      return true;
    }
    if (place_ != Place::tensor || key_ != "dtype") return unexpected("a string");
    if (find_safetensors_type(value) == nullptr) fail_here(fmt::format("has the unknown dtype '{}'", printable(value)));
    type_ = value;
    return true;
  }

  bool start_object(std::size_t) {
    if (place_ == Place::outside) {
      place_ = Place::root;
    } else if (place_ == Place::root) {
      if (name_ == "__metadata__") {
        if (metadata_seen_) fail_user("file '{}': __metadata__ appears twice", file_);
        metadata_seen_ = true;
        place_ = Place::metadata;
      } else {
        if (!names_.insert(name_).second) fail_here("appears twice");
        place_ = Place::tensor;
        type_.clear();
        dims_.clear();
        offsets_.clear();
        seen_.clear();
      }
    } else {
      return unexpected("an object");
    }
    return true;
  }

  bool key(std::string& value) {
    if (place_ == Place::root) {
      name_ = value;
    } else {
      if (place_ == Place::tensor) {
        if (value != "dtype" && value != "shape" && value != "data_offsets")
          fail_here(fmt::format("has the unknown field '{}'", printable(value)));
        if (std::find(seen_.begin(), seen_.end(), value) != seen_.end())
          fail_here(fmt::format("has '{}' twice", value));
        seen_.push_back(value);
      }
      key_ = value;
    }
    return true;
  }

  bool end_object() {
    if (place_ == Place::tensor) {
      finish_tensor();
      place_ = Place::root;
    } else if (place_ == Place::metadata) {
      place_ = Place::root;
    } else {
      place_ = Place::outside;
    }
    return true;
  }

  bool start_array(std::size_t) {
    if (place_ != Place::tensor || key_ == "dtype") return unexpected("an array");
    place_ = key_ == "shape" ? Place::shape : Place::offsets;
    return true;
  }

  bool end_array() {
    place_ = Place::tensor;
    return true;
  }

  bool parse_error(std::size_t position, const std::string&, const nlohmann::json::exception&) {
    fail_user("file '{}': the header is not valid JSON at its byte {}", file_, position);
  }

 private:
  enum class Place { outside, root, metadata, tensor, shape, offsets };

  [[noreturn]] void fail_here(const std::string& what) const {
    fail_user("file '{}': tensor '{}' {}", file_, printable(name_), what);
  }

  bool unexpected(const std::string& what) const {
    switch (place_) {
      case Place::outside:
        fail_user("file '{}': the header is {}, not a JSON object", file_, what);
      case Place::root:
        if (name_ == "__metadata__") fail_user("file '{}': __metadata__ is {}, not an object", file_, what);
        fail_here(fmt::format("is {}, not an object", what));
      case Place::metadata:
        fail_user("file '{}': __metadata__ key '{}' is {}, not a string", file_, printable(key_), what);
      case Place::tensor:
        fail_here(fmt::format("has {} as its {}", what, key_));
      case Place::shape:
        fail_here(fmt::format("has {} in its shape", what));
      case Place::offsets:
        fail_here(fmt::format("has {} in its data_offsets", what));
    }
    return false;
  }

  void finish_tensor() {
    for (const char* field : {"dtype", "shape", "data_offsets"})
      if (std::find(seen_.begin(), seen_.end(), field) == seen_.end()) fail_here(fmt::format("has no '{}'", field));
    if (offsets_.size() != 2) fail_here(fmt::format("has {} data_offsets instead of two", offsets_.size()));
    const std::size_t element = find_safetensors_type(type_)->bytes;
    // Strides of an empty tensor are products of its other dims, so those must not overflow either.
    std::int64_t extent = static_cast<std::int64_t>(element);
    bool empty = false;
    for (const std::int64_t dim : dims_) {
      empty = empty || dim == 0;
      if (__builtin_mul_overflow(extent, std::max<std::int64_t>(dim, 1), &extent))
        fail_here(fmt::format("has a shape whose bytes overflow: {}", to_string(Shape(dims_))));
    }
    const std::uint64_t bytes = empty ? 0 : static_cast<std::uint64_t>(extent);
    if (offsets_[0] > offsets_[1] || offsets_[1] - offsets_[0] != bytes)
      fail_here(fmt::format("is {} {} = {} bytes, but its data_offsets are [{}, {}]", type_, to_string(Shape(dims_)),
                            bytes, offsets_[0], offsets_[1]));
    header_.entries.push_back({name_, type_, Shape(dims_), offsets_[0], offsets_[1]});
  }

  const std::string& file_;
  SafetensorsHeader& header_;
  Place place_ = Place::outside;
  std::unordered_set<std::string> names_;
  bool metadata_seen_ = false;
  std::string name_;
  std::string key_;
  std::string type_;
  std::vector<std::int64_t> dims_;
  std::vector<std::uint64_t> offsets_;
  std::vector<std::string> seen_;
};

void check_layout(const std::string& file, const SafetensorsHeader& header, std::size_t data_bytes) {
  std::size_t expected = 0;
  const SafetensorsEntry* previous = nullptr;
  for (const SafetensorsEntry& entry : header.entries) {
    if (entry.end > data_bytes)
      fail_user("file '{}': tensor '{}' ends at byte {} of {} bytes of data: the file is cut short or damaged", file,
                printable(entry.name), entry.end, data_bytes);
    if (entry.begin < expected)
      fail_user("file '{}': tensors '{}' and '{}' overlap at byte {}", file, printable(previous->name),
                printable(entry.name), entry.begin);
    if (entry.begin > expected)
      fail_user("file '{}': bytes {} to {} before tensor '{}' belong to no tensor", file, expected, entry.begin,
                printable(entry.name));
    expected = entry.end;
    previous = &entry;
  }
  if (expected != data_bytes)
    fail_user("file '{}': {} bytes after the last tensor belong to no tensor", file, data_bytes - expected);
}

}  // namespace

const SafetensorsType* find_safetensors_type(std::string_view name) {
  for (const SafetensorsType& type : types)
    if (type.name == name) return &type;
  return nullptr;
}

std::string_view safetensors_name(DType dtype) {
  for (const SafetensorsType& type : types)
    if (type.dtype == dtype) return type.name;
  fail("safetensors has no name for {}", name_of(dtype));
}

std::string printable(std::string_view name) {
  constexpr std::size_t longest = 120;
  std::string text;
  for (const char c : name.substr(0, longest)) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f)
      text += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    else
      text += c;
  }
  return name.size() > longest ? text + "…" : text;
}

SafetensorsHeader parse_safetensors(const std::string& file, std::span<const std::byte> bytes) {
  if (bytes.size() < 8) fail_user("file '{}': {} bytes are too short for a safetensors file", file, bytes.size());
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), 8);
  if (length > safetensors_header_limit)
    fail_user("file '{}': a header of {} bytes is above the format's limit of {}: not a safetensors file?", file,
              length, safetensors_header_limit);
  if (length > bytes.size() - 8)
    fail_user("file '{}': a header of {} bytes does not fit into the file's {} bytes", file, length, bytes.size());
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()) + 8, length);
  if (!text.starts_with('{')) fail_user("file '{}': the header does not begin with '{{'", file);

  SafetensorsHeader header;
  header.data_begin = 8 + static_cast<std::size_t>(length);
  HeaderEvents events(file, header);
  nlohmann::json::sax_parse(text.begin(), text.end(), &events);
  std::sort(header.entries.begin(), header.entries.end(), [](const SafetensorsEntry& a, const SafetensorsEntry& b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  });
  check_layout(file, header, bytes.size() - header.data_begin);
  return header;
}

}  // namespace weft::detail
