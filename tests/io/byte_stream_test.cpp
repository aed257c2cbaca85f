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

}  // namespace
}  // namespace shoestring
