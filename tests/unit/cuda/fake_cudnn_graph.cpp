#include "tests/unit/cuda/fake_cudnn_graph.hpp"

#include <algorithm>
#include <cmath>
#include <functional>

#include "core/base/dtype.hpp"

namespace weft::test::fake {

namespace {

std::int64_t offset_of(const Dims& index, const Dims& strides) {
  return index[0] * strides[0] + index[1] * strides[1] + index[2] * strides[2] + index[3] * strides[3];
}

/// body(index, flat index) over a tensor.
void for_each(const Dims& dims, const std::function<void(const Dims&, std::size_t)>& body) {
  std::size_t flat = 0;
  Dims i;
  for (i[0] = 0; i[0] < dims[0]; ++i[0])
    for (i[1] = 0; i[1] < dims[1]; ++i[1])
      for (i[2] = 0; i[2] < dims[2]; ++i[2])
        for (i[3] = 0; i[3] < dims[3]; ++i[3]) body(i, flat++);
}

std::size_t flat_of(const Dims& index, const Dims& dims) {
  return static_cast<std::size_t>(((index[0] * dims[1] + index[1]) * dims[2] + index[2]) * dims[3] + index[3]);
}

double rounded(double value, cudnnDataType_t type) {
  if (type == CUDNN_DATA_BFLOAT16) return static_cast<double>(static_cast<float>(bf16(static_cast<float>(value))));
  return type == CUDNN_DATA_FLOAT ? static_cast<double>(static_cast<float>(value)) : value;
}

}  // namespace

void Machine::run(const Node& op) {
  switch (op.type) {
    case CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR: return matmul(op);
    case CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR: return reduce(op);
    case CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR: return reshape(op);
    default: return pointwise(op);
  }
}

Machine::Values Machine::read(const Node& tensor) const {
  const auto id = tensor.get<std::int64_t>(CUDNN_ATTR_TENSOR_UNIQUE_ID);
  if (tensor.has(CUDNN_ATTR_TENSOR_IS_VIRTUAL)) return virtual_.at(id);
  const Dims dims = dims_of(tensor), strides = dims_of(tensor, CUDNN_ATTR_TENSOR_STRIDES);
  Values values(static_cast<std::size_t>(count_of(dims)));
  const bool wide = tensor.get<cudnnDataType_t>(CUDNN_ATTR_TENSOR_DATA_TYPE) == CUDNN_DATA_FLOAT;
  const void* data = memory_.at(id);
  for_each(dims, [&](const Dims& index, std::size_t flat) {
    const std::int64_t at = offset_of(index, strides);
    values[flat] = static_cast<double>(wide ? static_cast<const float*>(data)[at]
                                            : static_cast<float>(static_cast<const bf16*>(data)[at]));
  });
  return values;
}

void Machine::write(const Node& tensor, Values values) {
  const auto id = tensor.get<std::int64_t>(CUDNN_ATTR_TENSOR_UNIQUE_ID);
  const auto type = tensor.get<cudnnDataType_t>(CUDNN_ATTR_TENSOR_DATA_TYPE);
  for (double& value : values) value = rounded(value, type);
  if (tensor.has(CUDNN_ATTR_TENSOR_IS_VIRTUAL)) {
    virtual_[id] = std::move(values);
    return;
  }
  const Dims strides = dims_of(tensor, CUDNN_ATTR_TENSOR_STRIDES);
  void* data = memory_.at(id);
  for_each(dims_of(tensor), [&](const Dims& index, std::size_t flat) {
    const std::int64_t at = offset_of(index, strides);
    if (type == CUDNN_DATA_FLOAT)
      static_cast<float*>(data)[at] = static_cast<float>(values[flat]);
    else
      static_cast<bf16*>(data)[at] = bf16(static_cast<float>(values[flat]));
  });
}

void Machine::matmul(const Node& op) {
  const Node &a = op.node(CUDNN_ATTR_OPERATION_MATMUL_ADESC), &b = op.node(CUDNN_ATTR_OPERATION_MATMUL_BDESC);
  const Node& c = op.node(CUDNN_ATTR_OPERATION_MATMUL_CDESC);
  const Dims ad = dims_of(a), bd = dims_of(b), cd = dims_of(c);
  const Values left = read(a), right = read(b);
  Values out(static_cast<std::size_t>(count_of(cd)));
  for_each(cd, [&](const Dims& i, std::size_t flat) {
    const std::int64_t head = i[1] / (cd[1] / bd[1]);
    for (std::int64_t k = 0; k < ad[3]; ++k)
      out[flat] += left[flat_of({i[0], i[1], i[2], k}, ad)] * right[flat_of({i[0], head, k, i[3]}, bd)];
  });
  write(c, std::move(out));
}

void Machine::reduce(const Node& op) {
  const Node &x = op.node(CUDNN_ATTR_OPERATION_REDUCTION_XDESC), &y = op.node(CUDNN_ATTR_OPERATION_REDUCTION_YDESC);
  const auto kind =
      op.node(CUDNN_ATTR_OPERATION_REDUCTION_DESC).get<cudnnReduceTensorOp_t>(CUDNN_ATTR_REDUCTION_OPERATOR);
  const bool most = kind == CUDNN_REDUCE_TENSOR_MAX;
  const Dims xd = dims_of(x), yd = dims_of(y);
  const Values in = read(x);
  Values out(static_cast<std::size_t>(count_of(yd)), most ? -INFINITY : 0);
  for_each(xd, [&](const Dims& i, std::size_t flat) {
    double& to = out[flat_of({i[0], i[1] / (xd[1] / yd[1]), i[2], yd[3] == 1 ? 0 : i[3]}, yd)];
    to = most ? std::max(to, in[flat]) : to + in[flat];
  });
  write(y, std::move(out));
}

// Another view of the same memory.
void Machine::reshape(const Node& op) {
  const Node &x = op.node(CUDNN_ATTR_OPERATION_RESHAPE_XDESC), &y = op.node(CUDNN_ATTR_OPERATION_RESHAPE_YDESC);
  const Dims from = dims_of(x, CUDNN_ATTR_TENSOR_STRIDES), to = dims_of(y, CUDNN_ATTR_TENSOR_STRIDES);
  const Values in = read(x);
  std::map<std::int64_t, double> places;
  for_each(dims_of(x), [&](const Dims& i, std::size_t flat) { places[offset_of(i, from)] = in[flat]; });
  Values out(in.size());
  for_each(dims_of(y), [&](const Dims& i, std::size_t flat) { out[flat] = places.at(offset_of(i, to)); });
  write(y, std::move(out));
}

void Machine::pointwise(const Node& op) {
  const Node& kind = op.node(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR);
  const auto mode = kind.get<cudnnPointwiseMode_t>(CUDNN_ATTR_POINTWISE_MODE);
  const auto axis = static_cast<std::size_t>(kind.get<std::int64_t>(CUDNN_ATTR_POINTWISE_AXIS));
  const Node& y = op.node(CUDNN_ATTR_OPERATION_POINTWISE_YDESC);
  const Dims dims = dims_of(y);
  const auto port = [&](int name) -> std::function<double(const Dims&)> {
    if (!op.has(name)) return [](const Dims&) { return 0.0; };
    const Dims own = dims_of(op.node(name));
    return [own, values = read(op.node(name))](Dims i) {
      for (std::size_t d = 0; d < 4; ++d) i[d] = own[d] == 1 ? 0 : i[d];
      return values[flat_of(i, own)];
    };
  };
  // The index of an element is made without looking at it.
  const auto x =
      mode == CUDNN_POINTWISE_GEN_INDEX ? [](const Dims&) { return 0.0; } : port(CUDNN_ATTR_OPERATION_POINTWISE_XDESC);
  const auto b = port(CUDNN_ATTR_OPERATION_POINTWISE_BDESC), t = port(CUDNN_ATTR_OPERATION_POINTWISE_TDESC);
  Values out(static_cast<std::size_t>(count_of(dims)));
  for_each(dims, [&](const Dims& i, std::size_t flat) {
    switch (mode) {
      case CUDNN_POINTWISE_MUL: out[flat] = x(i) * b(i); break;
      case CUDNN_POINTWISE_SUB: out[flat] = x(i) - b(i); break;
      case CUDNN_POINTWISE_ADD: out[flat] = x(i) + b(i); break;
      case CUDNN_POINTWISE_DIV: out[flat] = x(i) / b(i); break;
      case CUDNN_POINTWISE_EXP: out[flat] = std::exp(x(i)); break;
      case CUDNN_POINTWISE_LOG: out[flat] = std::log(x(i)); break;
      case CUDNN_POINTWISE_GEN_INDEX: out[flat] = static_cast<double>(i[axis]); break;
      case CUDNN_POINTWISE_CMP_GE: out[flat] = x(i) >= b(i); break;
      case CUDNN_POINTWISE_BINARY_SELECT: out[flat] = t(i) != 0 ? x(i) : b(i); break;
      default: out[flat] = NAN;
    }
  });
  write(y, std::move(out));
}

}  // namespace weft::test::fake
