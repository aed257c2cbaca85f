#include "io/durable_file.h"

#include <sys/resource.h>

#include <csignal>

#include "tests/io/store_fixture.h"

namespace shoestring {
namespace {

TEST(DurableFile, WritesAppendsAndTruncates) {
  ScratchFolder folder;
  {
    DurableFile file(folder / "a", DurableFile::Mode::create);
    file.append("hello ");
    file.append("world");
    file.write_at(0, "J", 1);
    file.sync();
    EXPECT_EQ(file.size(), 11u);
    EXPECT_EQ(file.read_all(), "Jello world");
    file.truncate(5);
    file.append("!");
    file.close();
  }
  EXPECT_EQ(read_file(folder / "a"), "Jello!");
  DurableFile again(folder / "a", DurableFile::Mode::keep);
  EXPECT_EQ(again.size(), 6u);
  EXPECT_EQ(DurableFile(folder / "a", DurableFile::Mode::create).size(), 0u);
}

TEST(DurableFile, ReservesSpace) {
  ScratchFolder folder;
  DurableFile file(folder / "a", DurableFile::Mode::create);
  file.reserve(10000);
  EXPECT_EQ(std::filesystem::file_size(folder / "a"), 10000u);
}

TEST(DurableFile, OneProcessAtATime) {
  ScratchFolder folder;
  DurableFile first(folder / "a", DurableFile::Mode::keep);
  EXPECT_TRUE(first.lock());
  {
    DurableFile second(folder / "a", DurableFile::Mode::keep);
    EXPECT_FALSE(second.lock());
  }
  first.close();
  DurableFile third(folder / "a", DurableFile::Mode::keep);
  EXPECT_TRUE(third.lock());
}

TEST(DurableFile, SaysWhereWritingFailed) {
  ScratchFolder folder;
  expect_error(ExitCode::data, {"cannot create", "missing/a"},
               [&] { DurableFile(folder / "missing/a", DurableFile::Mode::create); });
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit old{};
  ::getrlimit(RLIMIT_FSIZE, &old);
  const rlimit small{100, old.rlim_max};
  ::setrlimit(RLIMIT_FSIZE, &small);
  expect_error(ExitCode::data, {"cannot write", "/a at byte 100", "run the same command again"},
               [&] {
                 DurableFile file(folder / "a", DurableFile::Mode::create);
                 file.append(std::string(200, 'x'));
               });
  ::setrlimit(RLIMIT_FSIZE, &old);
}

// Reading on would end the process by a bus error.
TEST(MappedFile, SaysThatItsFileWasCutOff) {
  ScratchFolder folder;
  write_file(folder / "a", std::string(10000, 'x'));
  const MappedFile file(folder / "a");
  EXPECT_NO_THROW(file.require_whole());
  std::filesystem::resize_file(folder / "a", 4096);
  expect_error(ExitCode::data, {"/a had 10000 bytes", "has 4096 now", "make it again"},
               [&] { file.require_whole(); });
}

TEST(DurableFile, RenamesAndRemoves) {
  ScratchFolder folder;
  write_file(folder / "a", "x");
  rename_durably(folder / "a", folder / "b");
  EXPECT_EQ(read_file(folder / "b"), "x");
  expect_error(ExitCode::data, {"cannot rename"},
               [&] { rename_durably(folder / "a", folder / "b"); });
  {
    RemoveOnExit kept(folder / "b");
    kept.keep();
  }
  EXPECT_TRUE(std::filesystem::exists(folder / "b"));
  { RemoveOnExit removed(folder / "b"); }
  EXPECT_FALSE(std::filesystem::exists(folder / "b"));
}

TEST(DurableFile, MapsFiles) {
  ScratchFolder folder;
  write_file(folder / "a", "abc");
  write_file(folder / "empty", "");
  const MappedFile file(folder / "a");
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(file.data()), file.size()), "abc");
  file.prefetch(1, 100);
  file.release(0, 3);
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(file.data()), file.size()), "abc");
  EXPECT_EQ(MappedFile(folder / "empty").size(), 0u);
  MappedFile(folder / "empty").release(0, 100);
  expect_error(ExitCode::data, {"nothing"}, [&] { MappedFile(folder / "nothing"); });
}

}  // namespace
}  // namespace shoestring
