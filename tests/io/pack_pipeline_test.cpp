#include "io/pack_pipeline.h"

#include <atomic>
#include <chrono>

#include "tests/io/store_fixture.h"

namespace shoestring {
namespace {

PackWork work_of(const std::string& text) {
  PackWork work;
  work.items.push_back({.text = text, .ids = {}});
  work.text_bytes = text.size();
  return work;
}

TEST(PackPipeline, KeepsTheOrder) {
  TextEncoder encoder = byte_encoder();
  encoder.make = [] {
    return [](std::string_view text, bool continues, std::vector<int32_t>& ids) {
      if (text.size() % 5 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));
      encode_bytes(text, continues, ids);
    };
  };
  PackPipeline pipeline(encoder, {.threads = 4, .text_bytes = 500});
  pipeline.start([&] {
    for (size_t i = 1; i <= 300; ++i) pipeline.put(work_of(std::string(i, 'a')));
  });
  PackWork work;
  for (size_t i = 1; i <= 300; ++i) {
    ASSERT_TRUE(pipeline.take(work));
    ASSERT_EQ(work.items[0].ids.size(), 2 * (i + 1));  // u16 and the end mark
    pipeline.release(work.text_bytes);
  }
  EXPECT_FALSE(pipeline.take(work));
}

TEST(PackPipeline, TellsPiecesFromDocuments) {
  TextEncoder encoder = byte_encoder();
  encoder.make = [] {
    return [](std::string_view, bool continues, std::vector<int32_t>& ids) {
      ids.push_back(continues);
    };
  };
  PackPipeline pipeline(encoder, {.threads = 2, .text_bytes = 500});
  pipeline.start([&] {
    PackWork work = work_of("one");
    work.items[0].last = false;
    work.items.push_back({.text = "two", .first = false, .ids = {}});
    pipeline.put(std::move(work));
  });
  PackWork work;
  ASSERT_TRUE(pipeline.take(work));
  EXPECT_EQ(work.items[0].ids, (std::vector<uint8_t>{0, 0}));
  EXPECT_EQ(work.items[1].ids, (std::vector<uint8_t>{1, 0, 0, 1}));  // and the end mark
}

TEST(PackPipeline, HoldsBackTheReader) {
  const TextEncoder encoder = byte_encoder();
  PackPipeline pipeline(encoder, {.threads = 2, .text_bytes = 100});
  std::atomic<int> put{0};
  pipeline.start([&] {
    for (int i = 0; i < 10; ++i, ++put) pipeline.put(work_of(std::string(60, 'a')));
  });
  PackWork work;
  ASSERT_TRUE(pipeline.take(work));
  std::this_thread::sleep_for(std::chrono::milliseconds(30));
  EXPECT_EQ(put, 1);  // the second would be more than 100 bytes
  pipeline.release(60);
  ASSERT_TRUE(pipeline.take(work));
}

TEST(PackPipeline, ErrorsComeInOrderAndStopTheOthers) {
  TextEncoder encoder = byte_encoder();
  encoder.make = [] {
    return [](std::string_view text, bool continues, std::vector<int32_t>& ids) {
      if (text == "bad") fail_data("bad text");
      encode_bytes(text, continues, ids);
    };
  };
  PackPipeline pipeline(encoder, {.threads = 3, .text_bytes = 1000});
  pipeline.start([&] {
    pipeline.put(work_of("one"));
    pipeline.put(work_of("bad"));
    for (int i = 0; i < 10000; ++i) pipeline.put(work_of("more"));
  });
  PackWork work;
  ASSERT_TRUE(pipeline.take(work));
  expect_error(ExitCode::data, {"bad text"}, [&] { pipeline.take(work); });

  PackPipeline reading(encoder, {.threads = 1, .text_bytes = 1000});
  reading.start([&] {
    reading.put(work_of("one"));
    fail_data("unreadable");
  });
  ASSERT_TRUE(reading.take(work));
  expect_error(ExitCode::data, {"unreadable"}, [&] { reading.take(work); });
}

}  // namespace
}  // namespace shoestring
