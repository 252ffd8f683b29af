#include "fiber_device.hpp"

#include <algorithm>
#include <csignal>
#include <fstream>
#include <nlohmann/json.hpp>

namespace weft::test {

FiberDevice::FiberDevice() {
  std::string text;
  for (int i = 0; text.size() < 3000; ++i) text += "line " + std::to_string(i * i % 29) + " of warp and weft\n";
  data_ = folder_.write("text", text);
}

namespace {

Words on_fibers(const Words& environment, const Words& command) {
  Words all = {"env", "WEFT_CUDA_MODULE=" WEFT_FIBER_MODULE};
  all.insert(all.end(), environment.begin(), environment.end());
  all.insert(all.end(), command.begin(), command.end());
  return all;
}

}  // namespace

Outcome FiberDevice::weft(const Words& words, const Words& environment) const {
  Words command = {weft_path()};
  command.insert(command.end(), words.begin(), words.end());
  return run_program(on_fibers(environment, command), 300);
}

Outcome FiberDevice::signal_rank_1(const Training& run, int signal, const Words& environment) const {
  constexpr int after = 4;  // steps
  Background job(on_fibers(environment, run.command(2, {"--steps", "100000"})), run.folder());
  EXPECT_TRUE(wait_until([&] { return run.last_step() >= after || !job.running(); }));
  EXPECT_TRUE(job.running()) << job.err();
  if (job.running()) ::kill(run.ranks().at(1), signal);
  return job.wait();
}

Outcome FiberDevice::train(const std::string& out, const std::string& device, const Words& more, int ranks,
                           const Words& environment) const {
  Words words = {"train", "--data", data_, "--out", folder_ / out, "--device", device, "--quiet"};
  for (const auto& [option, value] : std::map<std::string, std::string>{{"steps", std::to_string(steps)},
                                                                        {"layers", "1"},
                                                                        {"d-model", "16"},
                                                                        {"heads", "2"},
                                                                        {"seq", "12"},
                                                                        {"batch", "4"},
                                                                        {"micro-batch", "2"},
                                                                        {"dropout", "0.1"},
                                                                        {"lr", "3e-3"},
                                                                        {"schedule", "constant"},
                                                                        {"warmup", "0"},
                                                                        {"threads", "1"},
                                                                        {"valid-tokens", "40"}})
    if (std::ranges::find(more, "--" + option) == more.end()) words.insert(words.end(), {"--" + option, value});
  words.insert(words.end(), more.begin(), more.end());
  if (ranks > 0) {
    const Words launch = {"launch", "-n", std::to_string(ranks), "--"};
    words.insert(words.begin(), launch.begin(), launch.end());
  }
  return weft(words, environment);
}

std::map<int, std::string> FiberDevice::column(const std::string& out, const std::string& name) const {
  std::map<int, std::string> values;
  std::ifstream file(folder_ / (out + "/metrics.jsonl"));
  for (std::string line; std::getline(file, line);) {
    const auto row = nlohmann::json::parse(line);
    if (row.contains(name)) values[row.at("step").get<int>()] = row.at(name).dump();
  }
  return values;
}

void expect_near(const std::map<int, std::string>& expected, const std::map<int, std::string>& found,
                 double tolerance) {
  ASSERT_FALSE(expected.empty());
  ASSERT_EQ(expected.size(), found.size());
  for (const auto& [step, value] : expected)
    EXPECT_NEAR(std::stod(found.at(step)) / std::stod(value), 1, tolerance) << "step " << step;
}

}  // namespace weft::test
