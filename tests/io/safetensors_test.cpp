#include "io/safetensors.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cstring>
#include <random>

#include "tests/io/store_fixture.h"

namespace shoestring {
namespace {

const std::string data_folder = cat(SHOESTRING_SOURCE_DIR, "/tests/data/");

// A file of this header text (as given, its length in front) and so many bytes of data.
std::string file_of(const std::string& header, size_t data_bytes) {
  const uint64_t length = header.size();
  std::string text(8, '\0');
  std::memcpy(text.data(), &length, 8);
  text += header;
  for (size_t i = 0; i < data_bytes; ++i) text += static_cast<char>(i);
  return text;
}

std::string message_of(const std::string& bytes) {
  const ScratchFolder folder;
  write_file(folder / "x.safetensors", bytes);
  try {
    SafetensorsFile file(folder / "x.safetensors");
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::data);
    EXPECT_NE(std::string(e.what()).find("x.safetensors"), std::string::npos) << e.what();
    return e.what();
  }
  return "";
}

std::string refusal(const std::string& header, size_t data_bytes) {
  return message_of(file_of(header, data_bytes));
}

std::vector<float> floats(const SafetensorsFile& file, const std::string& name) {
  std::vector<float> values(static_cast<size_t>(file.entry(name).elements()));
  file.read(name, 0, file.entry(name).elements(), Dtype::f32,
            reinterpret_cast<std::byte*>(values.data()));
  return values;
}

TEST(Safetensors, ReadsEveryTypeOfTheReferenceLibrary) {
  const SafetensorsFile file(data_folder + "safetensors_types.safetensors");
  EXPECT_EQ(file.header().metadata.at("format"), "pt");
  EXPECT_EQ(file.header().tensors.size(), 14u);
  for (const char* name : {"z.f64", "z.f32", "z.bf16", "z.f16", "z.f8e4m3", "z.f8e5m2"}) {
    const std::vector<float> values = floats(file, name);
    EXPECT_EQ(file.entry(name).shape, (std::vector<int64_t>{3, 5}));
    for (size_t i = 0; i < 15; ++i) {
      EXPECT_EQ(values[i], static_cast<float>(i) - 7) << name << " " << i;
    }
  }
  int64_t longs[2];
  file.read("z.i64", 1, 3, Dtype::i64, reinterpret_cast<std::byte*>(longs));
  EXPECT_EQ(longs[0], -6);
  EXPECT_EQ(longs[1], -5);
  EXPECT_EQ(floats(file, "scalar"), std::vector<float>{-2.5f});
  EXPECT_EQ(floats(file, "empty"), std::vector<float>{});
  EXPECT_EQ(floats(file, "quote \" and ü"), (std::vector<float>{1.5f, -0.0f}));
  EXPECT_THROW(file.entry("nothing"), Error);
}

// Pages that were let go come back with the same values.
TEST(Safetensors, ReadsAgainWhatWasReleased) {
  const ScratchFolder folder;
  const std::string path = folder / "large.safetensors";
  constexpr int64_t n = 100'000;
  std::vector<float> values(n);
  for (int64_t i = 0; i < n; ++i) values[static_cast<size_t>(i)] = static_cast<float>(i);
  SafetensorsWriter writer(path, {{.name = "w", .dtype = Dtype::f32, .shape = {n}}});
  writer.write("w", 0, n, reinterpret_cast<const std::byte*>(values.data()));
  writer.finish();
  const SafetensorsFile file(path);
  EXPECT_EQ(floats(file, "w"), values);
  file.release(file.entry("w"), 0, n);
  EXPECT_EQ(floats(file, "w"), values);
  file.release(file.entry("w"), 5, 6);  // no whole page: nothing happens
  EXPECT_EQ(floats(file, "w"), values);
}

TEST(Safetensors, KnowsTypesItDoesNotRead) {
  const SafetensorsFile file(data_folder + "safetensors_bool.safetensors");
  const SafetensorsEntry& flag = file.entry("flag");
  EXPECT_EQ(flag.type, "BOOL");
  EXPECT_FALSE(flag.dtype);
  EXPECT_EQ(file.data(flag)[2], std::byte{1});
  std::byte out[3];
  EXPECT_THROW(file.read("flag", 0, 3, Dtype::u8, out), Error);
}

TEST(Safetensors, WritesWhatTheReferenceLibraryWrites) {
  const std::string golden = data_folder + "safetensors_types.safetensors";
  const SafetensorsFile file(golden);
  const ScratchFolder folder;
  std::vector<SafetensorsSpec> specs;
  for (const SafetensorsEntry& e : file.header().tensors) {
    specs.insert(specs.begin(), {.name = e.name, .dtype = *e.dtype, .shape = e.shape});
  }
  SafetensorsWriter writer(folder / "out.safetensors", specs);
  for (const SafetensorsEntry& e : file.header().tensors) {
    // In two parts, the second first.
    const int64_t half = e.elements() / 2;
    const size_t at = static_cast<size_t>(half) * size_of(*e.dtype);
    writer.write(e.name, half, e.elements() - half, file.data(e) + at);
    writer.write(e.name, 0, half, file.data(e));
  }
  EXPECT_FALSE(std::filesystem::exists(folder / "out.safetensors"));
  writer.finish();
  EXPECT_EQ(read_file(folder / "out.safetensors"), read_file(golden));
  EXPECT_FALSE(std::filesystem::exists(folder / "out.safetensors.part"));
}

TEST(Safetensors, MatchesThePublishedExample) {
  const ScratchFolder folder;
  SafetensorsWriter writer(folder / "w.safetensors",
                           {{.name = "w", .dtype = Dtype::f32, .shape = {2}}});
  const float values[] = {1, 2};
  writer.write("w", 0, 2, reinterpret_cast<const std::byte*>(values));
  writer.finish();
  const std::string header =
      R"({"__metadata__":{"format":"pt"},"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}   )";
  std::string want = file_of(header, 0);
  want += std::string("\x00\x00\x80\x3f\x00\x00\x00\x40", 8);
  EXPECT_EQ(header.size(), 88u);
  EXPECT_EQ(read_file(folder / "w.safetensors"), want);
}

TEST(Safetensors, AnUnfinishedFileDoesNotAppear) {
  const ScratchFolder folder;
  {
    SafetensorsWriter writer(folder / "w.safetensors",
                             {{.name = "w", .dtype = Dtype::f32, .shape = {2}}});
    const float one = 1;
    writer.write("w", 0, 1, reinterpret_cast<const std::byte*>(&one));
    EXPECT_THROW(writer.write("w", 1, 2, reinterpret_cast<const std::byte*>(&one)), Error);
    EXPECT_THROW(writer.write("v", 0, 1, reinterpret_cast<const std::byte*>(&one)), Error);
    EXPECT_THROW(writer.finish(), Error);
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(Safetensors, RefusesEveryBrokenRule) {
  const std::string one = R"("a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]})";
  EXPECT_EQ(refusal("{" + one + "}", 4), "");
  EXPECT_EQ(refusal("{" + one + "}    ", 4), "");
  EXPECT_EQ(refusal("{}", 0), "");
  auto refused = [](const std::string& header, size_t bytes, const std::string& why) {
    const std::string message = refusal(header, bytes);
    EXPECT_NE(message.find(why), std::string::npos) << header << " gave: " << message;
  };
  refused(" {" + one + "}", 4, "does not begin with {");
  refused("{" + one + "}", 5, "5 bytes of data, but the tensors take 4");
  refused("{" + one + "}", 3, "tensor a");
  refused("{" + one + "," + one + "}", 4, "\"a\" twice");
  refused(R"({"a":{"dtype":"U8","dtype":"U8","shape":[4],"data_offsets":[0,4]}})", 4, "twice");
  refused("{" + one + R"(,"b":{"dtype":"U8","shape":[4],"data_offsets":[3,7]}})", 7, "tensor b");
  refused("{" + one + R"(,"b":{"dtype":"U8","shape":[4],"data_offsets":[5,9]}})", 9, "tensor b");
  refused(R"({"a":{"dtype":"F32","shape":[4],"data_offsets":[0,4]}})", 4, "takes 16 bytes");
  refused(R"({"a":{"dtype":"F99","shape":[4],"data_offsets":[0,4]}})", 4, "F99");
  refused(R"({"a":{"dtype":"U8","shape":[-4],"data_offsets":[0,4]}})", 4, "whole number");
  refused(R"({"a":{"dtype":"U8","shape":[4.0],"data_offsets":[0,4]}})", 4, "whole number");
  refused(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[4,0]}})", 4, "data_offsets");
  refused(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0]}})", 4, "data_offsets");
  refused(R"({"a":{"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0]}})", 0,
          "impossible shape");
  refused(R"({"a":{"dtype":"F4","shape":[1],"data_offsets":[0,0]}})", 0, "shape takes");
  refused(R"({"a":{"shape":[4],"data_offsets":[0,4]}})", 4, "no dtype");
  refused(R"({"a":[1]})", 0, "not an object");
  refused(R"({"__metadata__":{"x":1}})", 0, "__metadata__ x");
  refused(R"({"__metadata__":[]})", 0, "__metadata__");
  refused("{\"a", 0, "valid JSON");
  refused("{\"\xff\":1}", 0, "valid JSON");
  refused("{\"a\":" + std::string(100000, '['), 0, "nested deeper than 3");
}

// In time that grows with the header: each of these tensors once cost a walk over all before it.
TEST(Safetensors, ReadsHeadersOfManyTensors) {
  constexpr size_t count = 200'000;
  std::string json = "{";
  for (size_t i = 0; i < count; ++i) {
    append(json, i == 0 ? "" : ",", "\"layers.", i, R"(.weight":{"dtype":"U8","shape":[1],)",
           R"("data_offsets":[)", i, ",", i + 1, "]}");
  }
  json += "}";
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(parse_safetensors_header(json, count, "many").tensors.size(), count);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  EXPECT_LT(took.count(), 30) << "seconds";
}

TEST(Safetensors, RefusesImpossibleLengths) {
  EXPECT_NE(message_of("1234567"), "");
  EXPECT_NE(message_of(""), "");
  for (uint64_t length : {uint64_t{3}, uint64_t{100'000'001}, UINT64_MAX, UINT64_MAX - 7}) {
    std::string bytes = file_of("{}", 0);
    std::memcpy(bytes.data(), &length, 8);
    EXPECT_NE(message_of(bytes), "") << length;
  }
}

// Any change to a header is read or refused; what is read lies within the file.
TEST(Safetensors, SurvivesMutatedHeaders) {
  const std::string golden = read_file(data_folder + "safetensors_types.safetensors");
  uint64_t length = 0;
  std::memcpy(&length, golden.data(), 8);
  std::mt19937_64 random(1);
  constexpr std::string_view alphabet = "{}[],:\"0123456789-.eaFU \\\xc3\xff";
  int accepted = 0;
  for (int round = 0; round < 4000; ++round) {
    std::string header = golden.substr(8, length);
    for (uint64_t edits = random() % 3 + 1; edits > 0; --edits) {
      const size_t at = random() % header.size();
      const char c = alphabet[random() % alphabet.size()];
      switch (random() % 4) {
        case 0:
          header[at] = c;
          break;
        case 1:
          header.insert(at, 1, c);
          break;
        case 2:
          header.erase(at, random() % 8 + 1);
          break;
        default:
          header.insert(at, header.substr(random() % header.size(), random() % 40));
      }
    }
    try {
      const auto parsed = parse_safetensors_header(header, golden.size() - 8 - length, "x");
      for (const SafetensorsEntry& e : parsed.tensors) {
        ASSERT_LE(e.end, golden.size() - 8 - length);
        ASSERT_LE(e.begin, e.end);
      }
      ++accepted;
    } catch (const Error& e) {
      ASSERT_EQ(e.code(), ExitCode::data);
    }
  }
  EXPECT_GT(accepted, 0);  // a changed name, a blank: the test reaches the end of the reader
}

}  // namespace
}  // namespace shoestring
