#include "launcher/new_folder.h"

#include <gtest/gtest.h>

#include "tests/io/store_fixture.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;

TEST(NewFolder, AppearsWholeOrNotAtAll) {
  const ScratchFolder scratch;
  const std::string path = scratch / "a/b";
  {
    NewFolder folder(path, false);
    write_file(folder.temporary() + "/x", "1");
    EXPECT_FALSE(fs::exists(path));
  }
  EXPECT_FALSE(fs::exists(path));
  EXPECT_FALSE(fs::exists(path + ".part"));
  NewFolder folder(path + "/", false);
  write_file(folder.temporary() + "/x", "1");
  folder.commit();
  EXPECT_EQ(read_file(path + "/x"), "1");
  EXPECT_FALSE(fs::exists(path + ".part"));
}

TEST(NewFolder, ReplacesOnlyWhenTold) {
  const ScratchFolder scratch;
  const std::string path = scratch / "a";
  write_file(path + "/old", "1");
  expect_error(ExitCode::usage, {path, "--force"}, [&] { NewFolder folder(path, false); });
  {
    NewFolder folder(path, true);  // given up
    write_file(folder.temporary() + "/new", "2");
  }
  EXPECT_TRUE(fs::exists(path + "/old"));
  NewFolder folder(path, true);
  write_file(folder.temporary() + "/new", "2");
  folder.commit();
  EXPECT_EQ(read_file(path + "/new"), "2");
  EXPECT_FALSE(fs::exists(path + "/old"));
  EXPECT_FALSE(fs::exists(path + ".old"));
}

TEST(NewFolder, TakesAnEmptyFolderAndWhatADeadCommandLeft) {
  const ScratchFolder scratch;
  const std::string path = scratch / "a";
  fs::create_directories(path);
  write_file(path + ".part/left", "1");
  NewFolder folder(path, false);
  EXPECT_FALSE(fs::exists(path + ".part/left"));
  folder.commit();
  EXPECT_TRUE(fs::is_empty(path));
}

TEST(NewFolder, RefusesPlacesThatAreNone) {
  const ScratchFolder scratch;
  for (const char* path : {"", "/", ".", ".."}) {
    expect_error(ExitCode::usage, {"name a new folder"}, [&] { NewFolder folder(path, true); });
  }
  write_file(scratch / "file", "1");
  expect_error(ExitCode::usage, {"no folder"}, [&] { NewFolder folder(scratch / "file", true); });
  EXPECT_EQ(read_file(scratch / "file"), "1");
}

}  // namespace
}  // namespace shoestring
