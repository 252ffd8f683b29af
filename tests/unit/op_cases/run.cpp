#include "tests/unit/op_cases/run.hpp"

#include <cstring>
#include <limits>

namespace weft::test {
namespace {

// Enough behind each buffer that a kernel which writes past its end is seen.
constexpr std::size_t guard_bytes = 64;
constexpr unsigned char guard_byte = 0xA5;

template <class T>
std::vector<char> encode_as(const std::vector<double>& values) {
  std::vector<char> bytes(values.size() * sizeof(T));
  for (std::size_t i = 0; i < values.size(); ++i) {
    T element;
    if constexpr (std::is_same_v<T, bf16>)
      element = bf16(static_cast<float>(values[i]));
    else
      element = static_cast<T>(values[i]);
    std::memcpy(bytes.data() + i * sizeof(T), &element, sizeof(T));
  }
  return bytes;
}

template <class T>
std::vector<double> decode_as(const std::vector<char>& bytes) {
  std::vector<double> values(bytes.size() / sizeof(T));
  for (std::size_t i = 0; i < values.size(); ++i) {
    T element;
    std::memcpy(&element, bytes.data() + i * sizeof(T), sizeof(T));
    if constexpr (std::is_same_v<T, bf16>)
      values[i] = static_cast<double>(static_cast<float>(element));
    else
      values[i] = static_cast<double>(element);
  }
  return values;
}

std::vector<char> encode(const std::vector<double>& values, DType dtype) {
  switch (dtype) {
    case DType::f32: return encode_as<float>(values);
    case DType::bf16: return encode_as<bf16>(values);
    case DType::f64: return encode_as<double>(values);
    case DType::i32: return encode_as<std::int32_t>(values);
    case DType::u8: return encode_as<std::uint8_t>(values);
    default: fail("no operand of {}", name_of(dtype));
  }
}

std::vector<double> decode(const std::vector<char>& bytes, DType dtype) {
  switch (dtype) {
    case DType::f32: return decode_as<float>(bytes);
    case DType::bf16: return decode_as<bf16>(bytes);
    case DType::f64: return decode_as<double>(bytes);
    case DType::i32: return decode_as<std::int32_t>(bytes);
    case DType::u8: return decode_as<std::uint8_t>(bytes);
    default: fail("no operand of {}", name_of(dtype));
  }
}

std::vector<double> normals(const std::string& name, std::int64_t count) {
  const PhiloxKey key = philox_key(42, name);
  std::vector<double> values(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = normal(key, i);
  return values;
}

}  // namespace

DType dtype_for(Stored stored, DType activation) {
  switch (stored) {
    case Stored::activation: return activation;
    case Stored::f32: return DType::f32;
    case Stored::f64: return DType::f64;
    case Stored::i32: return DType::i32;
    case Stored::bytes: return DType::u8;
  }
  return activation;
}

std::vector<double> rounded(std::vector<double> values, Stored stored, DType activation) {
  const DType dtype = dtype_for(stored, activation);
  return decode(encode(values, dtype), dtype);
}

std::vector<double> input_values(const OpCase& op, const Input& input, DType activation) {
  std::vector<double> values = input.values;
  if (values.empty()) {
    values = normals(op.name + "/" + input.name, input.shape.numel());
    for (double& value : values) value = value * input.scale + input.offset;
  }
  WEFT_CHECK(static_cast<std::int64_t>(values.size()) == input.shape.numel(), "{}: values of {}", op.name, input.name);
  return rounded(std::move(values), input.stored, activation);
}

std::vector<double> cotangent_values(const OpCase& op, const Output& output, DType activation) {
  const auto count = static_cast<std::size_t>(output.shape.numel());
  if (!output.differentiable) return std::vector<double>(count, 0.0);
  if (!output.cotangent.empty()) return output.cotangent;
  return rounded(normals(op.name + "/cotangent/" + output.name, output.shape.numel()), output.stored, activation);
}

std::vector<double> gradient_base(const OpCase& op, const Input& input) {
  return rounded(normals(op.name + "/base/" + input.name, input.shape.numel()), Stored::f32, DType::f32);
}

Run::Run(Machine& machine, const OpCase& op, DType activation) : machine_(machine), op_(op), activation_(activation) {
  const double unset = std::numeric_limits<double>::quiet_NaN();
  for (const Input& input : op.inputs) {
    const DType dtype = dtype_for(input.stored, activation);
    write(make("in:" + input.name, input.shape, dtype), input_values(op, input, activation));
    if (input.gradient == GradientMode::none) continue;
    const MutView gradient = make("gradient:" + input.name, input.shape, dtype);
    if (input.gradient == GradientMode::added)
      write(gradient, rounded(gradient_base(op, input), input.stored, activation));
    else
      write(gradient, std::vector<double>(static_cast<std::size_t>(gradient.numel()), unset));
  }
  for (const Output& output : op.outputs) {
    const DType dtype = dtype_for(output.stored, activation);
    if (!output.in_place_of.empty()) {
      buffers_["out:" + output.name] = buffer("in:" + output.in_place_of).reshaped(output.shape);
    } else {
      const MutView view = make("out:" + output.name, output.shape, dtype);
      if (dtype != DType::u8 && dtype != DType::i32)
        write(view, std::vector<double>(static_cast<std::size_t>(view.numel()), unset));
    }
    if (output.differentiable)
      write(make("cotangent:" + output.name, output.shape, dtype), cotangent_values(op, output, activation));
  }
}

Run::~Run() {
  for (const MutView& view : owned_)
    exec().memory().deallocate(view.data, view.bytes() + guard_bytes, MemoryUse::activation);
}

MutView Run::make(const std::string& key, Shape shape, DType dtype) {
  MutView view(nullptr, shape, dtype, exec().device());
  view.data = exec().memory().allocate(view.bytes() + guard_bytes, MemoryUse::activation);
  owned_.push_back(view);
  buffers_[key] = view;
  const std::vector<unsigned char> guard(guard_bytes, guard_byte);
  machine_.to_device(static_cast<char*>(view.data) + view.bytes(), guard.data(), guard.size());
  return view;
}

MutView Run::buffer(const std::string& key) {
  const auto found = buffers_.find(key);
  WEFT_CHECK(found != buffers_.end(), "case {} has no {}", op_.name, key);
  return found->second;
}

MutView Run::saved(const std::string& name, Shape shape, DType dtype) {
  const std::string key = "saved:" + name;
  return buffers_.contains(key) ? buffers_[key] : make(key, shape, dtype);
}

DropoutSpec Run::with_key(DropoutSpec spec) {
  const MutView key = saved("dropout key", {sizeof(PhiloxKey)}, DType::u8);
  machine_.to_device(key.data, &dropout_key, sizeof dropout_key);
  spec.key = static_cast<const PhiloxKey*>(key.data);
  return spec;
}

WeightRef Run::weight(const std::string& name, std::uint64_t version) {
  return {.value = in(name), .pack = &packs_[name], .version = version};
}

void Run::replace(const std::string& name, const std::vector<double>& values) { write(buffer("in:" + name), values); }

void Run::restore(const std::string& name) {
  for (const Input& input : op_.inputs)
    if (input.name == name) write(buffer("in:" + name), input_values(op_, input, activation_));
}

void Run::write(const MutView& view, const std::vector<double>& values) {
  const std::vector<char> bytes = encode(values, view.dtype);
  WEFT_CHECK(bytes.size() == view.bytes(), "{}: {} bytes for {}", op_.name, bytes.size(), view.bytes());
  machine_.to_device(view.data, bytes.data(), bytes.size());
}

std::vector<char> Run::read_bytes(View view) {
  std::vector<char> bytes(view.bytes()), guard(guard_bytes);
  machine_.to_host(bytes.data(), view.data, bytes.size());
  machine_.to_host(guard.data(), static_cast<const char*>(view.data) + view.bytes(), guard.size());
  for (const char byte : guard)
    WEFT_CHECK(static_cast<unsigned char>(byte) == guard_byte, "{}: a kernel wrote past the end of a buffer", op_.name);
  return bytes;
}

std::vector<double> Run::read(View view) { return decode(read_bytes(view), view.dtype); }

}  // namespace weft::test
