#include "io/byte_stream.h"

#include <zlib.h>
#include <zstd.h>

#include "tests/io/store_fixture.h"

namespace shoestring {
namespace {

std::string read_through(const std::string& path, size_t step = 1000) {
  const auto stream = open_byte_stream(path);
  std::string text, part(step, '\0');
  while (const size_t got = stream->read(part.data(), part.size())) text.append(part, 0, got);
  EXPECT_EQ(stream->read(part.data(), part.size()), 0u);
  EXPECT_EQ(stream->raw().bytes, std::filesystem::file_size(path));
  return text;
}

std::string gzip(const std::string& text) {
  z_stream state{};
  deflateInit2(&state, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
  std::string out(deflateBound(&state, text.size()), '\0');
  state.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  state.avail_in = static_cast<uInt>(text.size());
  state.next_out = reinterpret_cast<Bytef*>(out.data());
  state.avail_out = static_cast<uInt>(out.size());
  deflate(&state, Z_FINISH);
  out.resize(state.total_out);
  deflateEnd(&state);
  return out;
}

std::string zstd(const std::string& text) {
  std::string out(ZSTD_compressBound(text.size()), '\0');
  out.resize(ZSTD_compress(out.data(), out.size(), text.data(), text.size(), 3));
  return out;
}

std::string varied_text(size_t bytes) {
  std::string text;
  for (uint64_t i = 0; text.size() < bytes; ++i) append(text, i * 2654435761u % 100003, " ");
  return text;
}

TEST(ByteStream, ReadsPlainAndCompressedFiles) {
  ScratchFolder folder;
  const std::string text = varied_text(1500000);
  write_file(folder / "plain", text);
  write_file(folder / "gzip", gzip(text));
  write_file(folder / "zstd", zstd(text));
  for (const char* name : {"plain", "gzip", "zstd"}) {
    EXPECT_TRUE(read_through(folder / name) == text) << name;
    EXPECT_TRUE(read_through(folder / name, 1 << 20) == text) << name;
  }
  // Several members or frames, an empty one among them.
  write_file(folder / "members", gzip(text) + gzip("") + gzip("tail"));
  EXPECT_TRUE(read_through(folder / "members") == text + "tail");
  write_file(folder / "frames", zstd(text) + zstd("") + zstd("tail"));
  EXPECT_TRUE(read_through(folder / "frames") == text + "tail");
  for (const char* small : {"", "x", "\x1f", "\x28\xb5"}) {
    write_file(folder / "small", small);
    EXPECT_EQ(read_through(folder / "small"), small);
  }
}

TEST(ByteStream, NamesTruncatedAndDamagedFiles) {
  ScratchFolder folder;
  const std::string text = varied_text(300000);
  const std::string packed = gzip(text), framed = zstd(text);
  const std::string path = folder / "file";
  const auto attempt = [&](const std::string& bytes) {
    write_file(path, bytes);
    read_through(path);
  };
  for (size_t cut : {size_t{5}, packed.size() / 2, packed.size() - 1}) {
    expect_error(ExitCode::data, {path, "truncated", "gzip"},
                 [&] { attempt(packed.substr(0, cut)); });
  }
  for (size_t cut : {size_t{5}, framed.size() / 2, framed.size() - 1}) {
    expect_error(ExitCode::data, {path, "truncated", "zstd"},
                 [&] { attempt(framed.substr(0, cut)); });
  }
  std::string bad = packed;
  bad[bad.size() - 6] ^= 1;  // the check sum
  expect_error(ExitCode::data, {path, "damaged", "byte"}, [&] { attempt(bad); });
  expect_error(ExitCode::data, {path, "damaged"}, [&] { attempt(framed + "rubbish"); });
  expect_error(ExitCode::data, {"missing"}, [&] { open_byte_stream(folder / "missing"); });
}

// Two blocks of zstd in one frame, the second one damaged.
TEST(ByteStream, SaysWhereDamagedBlocksAreAndHowMuchWasRead) {
  ScratchFolder folder;
  const std::string parts[] = {varied_text(100000), varied_text(90000)};
  std::string packed(1 << 20, '\0');
  ZSTD_outBuffer out{packed.data(), packed.size(), 0};
  ZSTD_CStream* stream = ZSTD_createCStream();
  size_t second = 0;  // where the second block begins
  for (const std::string& part : parts) {
    second = out.pos;
    ZSTD_inBuffer in{part.data(), part.size(), 0};
    ASSERT_EQ(ZSTD_compressStream2(stream, &out, &in, ZSTD_e_flush), 0u);
  }
  const size_t end = out.pos;
  ZSTD_inBuffer none{nullptr, 0, 0};
  ASSERT_EQ(ZSTD_compressStream2(stream, &out, &none, ZSTD_e_end), 0u);
  ZSTD_freeCStream(stream);
  packed.resize(out.pos);
  const std::string path = folder / "file.zst";
  write_file(path, packed);
  EXPECT_TRUE(read_through(path) == parts[0] + parts[1]);
  // Behind the block's header of 3 bytes: more literals than a block may have.
  std::fill_n(packed.begin() + static_cast<std::ptrdiff_t>(second) + 3, 5, '\xff');
  write_file(path, packed);
  const std::string message = expect_error(ExitCode::data, {path, "bad zstd data", "read well"},
                                           [&] { read_through(path); });
  unsigned long long first_bad = 0, end_bad = 0, made = 0;
  ASSERT_EQ(std::sscanf(message.c_str() + message.find("the bytes "), "the bytes %llu to %llu of",
                        &first_bad, &end_bad),
            2)
      << message;
  ASSERT_EQ(
      std::sscanf(message.c_str() + message.find("the first "), "the first %llu bytes", &made), 1)
      << message;
  EXPECT_EQ(made, parts[0].size()) << message;
  EXPECT_GE(first_bad, second) << message;
  EXPECT_LE(first_bad, second + 3) << message;  // the header may have been read ahead
  EXPECT_LE(end_bad, end + 3) << message;
}

TEST(ByteStream, SaysHowMuchOfATruncatedFileWasRead) {
  ScratchFolder folder;
  const std::string text = varied_text(300000), path = folder / "file";
  const std::string packed = gzip(text);
  write_file(path, packed + gzip(text).substr(0, 12));
  expect_error(
      ExitCode::data,
      {path, cat("ends at byte ", packed.size() + 12), cat("the first ", text.size(), " bytes")},
      [&] { read_through(path); });
}

}  // namespace
}  // namespace shoestring
