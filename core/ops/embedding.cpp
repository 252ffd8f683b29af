#include "core/ops/embedding.hpp"

namespace weft::ops {

Tensor embedding(OpContext& cx, const Tensor& tokens, Parameter& table, Parameter* positions,
                 const EmbeddingOptions& options) {
  const std::int64_t b = tokens.shape()[0], t = tokens.shape()[1], d = table.shape()[1];
  const DropoutSpec spec = cx.dropout(options.dropout, options.dropout_site, d);
  Tensor y = cx.empty({b, t, d}, cx.compute);
  const View flat = tokens.view().reshaped({b * t});
  {
    const ParameterUse use_table(&table, Pass::forward), use_positions(positions, Pass::forward);
    cx.kernels().embedding.forward(cx.exec, flat, table.value().view(), options.shard,
                                   positions && options.adds_positions ? positions->value().view() : View{}, cx.tokens,
                                   spec, y.mut().reshaped({b * t, d}));
  }
  if (!cx.recording()) return y;
  const Cost cost = embedding_cost(b * t, d, y.dtype());
  cx.tape->record({"embedding", {}, {&y}, {&table, positions}, cost, cost},
                  [tokens, spec, &table, positions, shard = options.shard, map = cx.tokens](BackwardPass& pass) {
                    ExecContext& exec = pass.exec();
                    const Tensor& dy = pass.grad(0);
                    for (Parameter* parameter : {&table, positions})
                      if (parameter && parameter->next_grad_write() == Write::overwrite)
                        exec.kernels().elementwise.fill(exec, 0.0f, parameter->grad().mut());
                    exec.kernels().embedding.backward(exec, dy.view().reshaped({dy.view().rows(), dy.view().cols()}),
                                                      tokens.view().reshaped({tokens.numel()}), shard, map, spec,
                                                      table.grad().mut(),
                                                      positions ? positions->grad().mut() : MutView{});
                  });
  return y;
}

}  // namespace weft::ops
