#include "launcher/logits_command.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>

#include "core/check.h"
#include "core/text.h"
#include "io/checkpoint.h"
#include "io/durable_file.h"
#include "io/safetensors.h"
#include "launcher/config.h"

namespace shoestring {
namespace {

// A tiny model with random weights, saved as a run's checkpoint.
class LogitsCommand : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (std::filesystem::temp_directory_path() / "logits-XXXXXX").string();
    folder_ = ::mkdtemp(pattern.data());
    config_.run.directory = folder_;
    config_.model = {.layers = 2,
                     .hidden = 32,
                     .ffn = 48,
                     .heads = 4,
                     .kv_heads = 2,
                     .vocabulary = 50,
                     .max_positions = 16};
    Device device;
    ParamStore store(device, parameters_of(config_.model, whole_model(config_.model)), Dtype::f32);
    store.initialise(7);
    CheckpointContent content{
        .step = 3, .config = dump_config(config_), .state = "{}", .pieces = {}};
    for (const Param& p : store.params()) {
      content.pieces.push_back({.name = cat("model/", p.info.name),
                                .shape = p.info.shape,
                                .begin = 0,
                                .end = p.elements,
                                .dtype = Dtype::f32,
                                .data = store.master(p).raw()});
    }
    CheckpointWriter writer({.directory = folder_ + "/checkpoints"});
    writer.save(content);
    writer.finish();
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  LogitsOptions options(const std::string& ids) const {
    std::ofstream(folder_ + "/ids.json") << ids;
    return {.model = {.path = folder_, .tokenizer = "", .dtype = "f32", .threads = 1},
            .ids = folder_ + "/ids.json",
            .out = folder_ + "/out.safetensors"};
  }
  std::string refusal(const std::string& ids) const {
    try {
      run_logits(options(ids));
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  }
  std::vector<float> written() const {
    const SafetensorsFile file(folder_ + "/out.safetensors");
    std::vector<float> values(static_cast<size_t>(file.entry("logits").elements()));
    file.read("logits", 0, file.entry("logits").elements(), Dtype::f32,
              reinterpret_cast<std::byte*>(values.data()));
    return values;
  }
  // Both rows in one batch, all logits at once.
  std::vector<float> directly(const std::vector<int32_t>& ids, int64_t batch) const {
    LoadedModel loaded({.path = folder_, .tokenizer = "", .dtype = "f32", .threads = 1});
    const int64_t length = static_cast<int64_t>(ids.size()) / batch;
    MicroBatch micro{.sequences = batch, .length = length, .tokens = ids};
    std::vector<int64_t> rows;
    for (int64_t i = 0; i < batch * length; ++i) {
      micro.labels.push_back(-1);
      micro.positions.push_back(static_cast<int32_t>(i % length));
      micro.first_key.push_back(0);
      rows.push_back(i);
    }
    const BatchTensors tensors = to_device(loaded.device, micro);
    Tape tape(loaded.stream, *loaded.source, Tape::Mode::inference);
    LayerContext context{.tape = tape, .batch = tensors};
    const Residual x = loaded.model->run_blocks(context, loaded.model->embed(context));
    const Tensor logits = loaded.model->logits(context, x, rows);
    return {logits.span<float>().begin(), logits.span<float>().end()};
  }

  RunConfig config_;
  std::string folder_;
};

TEST_F(LogitsCommand, WritesTheModelsLogits) {
  LogitsOptions o = options("[[1, 2, 3, 4, 49], [9, 8, 7, 6, 0]]");
  run_logits(o);
  const SafetensorsFile file(o.out);
  EXPECT_EQ(file.entry("logits").type, "F32");
  EXPECT_EQ(file.entry("logits").shape, (std::vector<int64_t>{2, 5, 50}));
  const std::vector<float> got = written();
  const std::vector<float> want = directly({1, 2, 3, 4, 49, 9, 8, 7, 6, 0}, 2);
  ASSERT_EQ(got.size(), want.size());
  float largest = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    EXPECT_NEAR(got[i], want[i], 1e-5) << i;
    largest = std::max(largest, std::abs(got[i]));
  }
  EXPECT_GT(largest, 0.01f);
  // The size of the blocks changes nothing but the memory.
  for (int64_t rows : {1, 2, 3}) {
    o.chunk_bytes = rows * 50 * 4;
    run_logits(o);
    const std::vector<float> blocks = written();
    for (size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(blocks[i], got[i], 1e-5) << i;
  }
}

TEST_F(LogitsCommand, ReplacesOnlyFiles) {
  LogitsOptions o = options("[[1, 2]]");
  o.out = "/dev/null";
  try {
    run_logits(o);
    ADD_FAILURE() << "accepted a device";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::usage);
  }
  EXPECT_TRUE(std::filesystem::is_character_file("/dev/null"));
}

// Logits can be made again; any other file may be somebody's only copy.
TEST_F(LogitsCommand, ReplacesForeignFilesOnlyWhenAskedTo) {
  LogitsOptions o = options("[[1, 2]]");
  std::ofstream(o.out) << "mine";
  for (const std::string& foreign : {o.out, o.ids, folder_ + "/model.safetensors"}) {
    if (foreign.ends_with("model.safetensors")) {
      SafetensorsWriter writer(foreign, {{.name = "a", .dtype = Dtype::f32, .shape = {1}}});
      const float one = 1;
      writer.write("a", 0, 1, reinterpret_cast<const std::byte*>(&one));
      writer.finish();
    }
    const std::string before = read_small_file(foreign, 1000);
    o.out = foreign;
    try {
      run_logits(o);
      ADD_FAILURE() << "replaced " << foreign;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::usage);
      EXPECT_NE(std::string(error.what()).find("--overwrite"), std::string::npos) << error.what();
    }
    EXPECT_EQ(read_small_file(foreign, 1000), before);
  }
  o.out = folder_ + "/out.safetensors";
  o.overwrite = true;
  run_logits(o);
  o.overwrite = false;
  run_logits(o);  // its own
  EXPECT_EQ(written().size(), 100u);
  std::ofstream(o.out).close();  // empty, as mktemp makes it
  run_logits(o);
  EXPECT_EQ(written().size(), 100u);
}

TEST_F(LogitsCommand, RefusesWhatIsNotATableOfIds) {
  for (const char* text : {"", "[]", "[[]]", "{\"a\": 1}", "[1, 2]", "[[1], 2]", "[[1, 2]"}) {
    EXPECT_NE(refusal(text).find("ids.json"), std::string::npos) << text;
  }
  EXPECT_NE(refusal("[[1, 2], [3]]").find("row 1"), std::string::npos);
  EXPECT_NE(refusal("[[1, 50]]").find("row 0, position 1: 50"), std::string::npos);
  EXPECT_NE(refusal("[[1, -1]]").find("-1"), std::string::npos);
  EXPECT_NE(refusal("[[1, 2.5]]").find("2.5"), std::string::npos);
  EXPECT_NE(refusal("[[1, 18446744073709551615]]").find("not an id"), std::string::npos);
  EXPECT_NE(refusal("[[1, \"a\"]]").find("not an id"), std::string::npos);
  EXPECT_NE(refusal("[[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0]]").find("16 positions"),
            std::string::npos);
  EXPECT_FALSE(std::filesystem::exists(folder_ + "/out.safetensors"));
}

}  // namespace
}  // namespace shoestring
