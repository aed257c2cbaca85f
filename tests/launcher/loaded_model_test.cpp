#include "launcher/loaded_model.h"

#include "tests/launcher/text_model_fixture.h"

namespace shoestring {
namespace {

TEST(LoadedModel, ARunsFolderIsAModelWithItsTokenizer) {
  const ScratchFolder folder;
  const std::string run = train_text_model(folder);
  LoadedModel model({.path = run, .threads = 1});
  EXPECT_EQ(model.step, 3);
  EXPECT_EQ(model.store->compute(), Dtype::f32);
  EXPECT_EQ(model.need_tokenizer().vocabulary_size(),
            Tokenizer::load(test_data("tokenizer/trained_gpt2.json")).vocabulary_size());
  const Checkpoint checkpoint = Checkpoint::open(run);
  const Param& p = model.store->param("layers.1.mlp.down.weight");
  std::vector<float> saved(static_cast<size_t>(p.elements));
  checkpoint.read("model/" + p.info.name, 0, p.elements, Dtype::f32,
                  reinterpret_cast<std::byte*>(saved.data()));
  EXPECT_TRUE(std::equal(saved.begin(), saved.end(), model.store->master(p).data<float>()));
}

TEST(LoadedModel, OneCheckpointInAnotherTypeWithAnotherTokenizer) {
  const ScratchFolder folder;
  const std::string run = train_text_model(folder);
  LoadedModel model({.path = run + "/checkpoints/step_00000003",
                     .tokenizer = test_data("tokenizer/gpt2.json"),
                     .dtype = "bf16",
                     .threads = 1});
  EXPECT_EQ(model.store->compute(), Dtype::bf16);
  EXPECT_EQ(model.need_tokenizer().vocabulary_size(),
            Tokenizer::load(test_data("tokenizer/gpt2.json")).vocabulary_size());
}

TEST(LoadedModel, MissingThingsAreNamed) {
  const ScratchFolder folder;
  EXPECT_THROW(LoadedModel({.path = folder / "nothing"}), Error);
  const RunConfig c = small_config(folder);  // no tokenizer
  train_small(c);
  LoadedModel model({.path = c.run.directory, .threads = 1});
  try {
    model.need_tokenizer();
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::usage);
    EXPECT_NE(std::string(e.what()).find("--tokenizer"), std::string::npos);
  }
}

}  // namespace
}  // namespace shoestring
