#include "launcher/new_folder.h"

#include <gtest/gtest.h>

#include <set>

#include "tests/io/store_fixture.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;

std::set<std::string> names_in(const std::string& folder) {
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) {
    names.insert(entry.path().filename().string());
  }
  return names;
}

TEST(NewFolder, AppearsWholeOrNotAtAll) {
  const ScratchFolder scratch;
  const std::string path = scratch / "a/b";
  {
    NewFolder folder(path, {});
    write_file(folder.temporary() + "/x", "1");
    EXPECT_FALSE(fs::exists(path));
  }
  EXPECT_TRUE(fs::is_empty(scratch / "a"));
  NewFolder folder(path + "/", {});
  write_file(folder.temporary() + "/x", "1");
  folder.commit();
  EXPECT_EQ(read_file(path + "/x"), "1");
  EXPECT_EQ(names_in(scratch / "a"), std::set<std::string>{"b"});
}

TEST(NewFolder, ReplacesOnlyWhenTold) {
  const ScratchFolder scratch;
  const std::string path = scratch / "a";
  write_file(path + "/old", "1");
  expect_error(ExitCode::usage, {path, "--force"}, [&] { NewFolder folder(path, {}); });
  {
    NewFolder folder(path, {.force = true});  // given up
    write_file(folder.temporary() + "/new", "2");
  }
  EXPECT_TRUE(fs::exists(path + "/old"));
  NewFolder folder(path, {.force = true});
  write_file(folder.temporary() + "/new", "2");
  folder.commit();
  EXPECT_EQ(read_file(path + "/new"), "2");
  EXPECT_EQ(names_in(path), std::set<std::string>{"new"});
  EXPECT_EQ(names_in(scratch.path()), std::set<std::string>{"a"});
}

TEST(NewFolder, KeepsWhatItsRuleHoldsOnTo) {
  const ScratchFolder scratch;
  const std::string path = scratch / "a";
  write_file(path + "/notes.txt", "1");
  const ReplaceRule rule{.force = true, .why_not = [](const std::string& folder) {
                           return fs::exists(folder + "/notes.txt") ? "holds notes.txt" : "";
                         }};
  expect_error(ExitCode::usage, {path, "holds notes.txt", "not even with --force", "another"},
               [&] { NewFolder folder(path, rule); });
  ReplaceRule gentle = rule;
  gentle.force = false;  // no advice that does not help
  const std::string text = expect_error(ExitCode::usage, {path, "holds notes.txt"},
                                        [&] { NewFolder folder(path, gentle); });
  EXPECT_EQ(text.find("--force"), std::string::npos) << text;
  EXPECT_EQ(read_file(path + "/notes.txt"), "1");
  // What comes while the new folder is being made is safe, too.
  fs::remove(path + "/notes.txt");
  NewFolder folder(path, rule);
  write_file(path + "/notes.txt", "2");
  expect_error(ExitCode::usage, {"holds notes.txt"}, [&] { folder.commit(); });
  EXPECT_EQ(read_file(path + "/notes.txt"), "2");
}

// Whatever the rule says of its contents, and under any name of the place.
TEST(NewFolder, KeepsWhatIsNeededAndWhatIsAroundIt) {
  const ScratchFolder scratch;
  const std::string model = scratch / "runs/mine/checkpoints";
  write_file(model + "/x", "1");
  fs::create_directory_symlink(scratch / "runs/mine", scratch / "link");
  const ReplaceRule rule{.force = true, .needed = {scratch / "runs/mine/checkpoints"}};
  for (const char* place : {"runs/mine/checkpoints", "runs/mine", "runs", "runs/mine/", "link",
                            "runs/other/../mine", "link/checkpoints"}) {
    expect_error(ExitCode::usage, {"the model that is read", model, "another folder"},
                 [&] { NewFolder folder(scratch / place, rule); });
  }
  EXPECT_EQ(read_file(model + "/x"), "1");
  fs::create_directory(scratch / "run");  // begins alike and is another place
  NewFolder(scratch / "run", rule).commit();
  NewFolder(scratch / "runs/mine/checkpoints/export", rule).commit();
}

TEST(NewFolder, TakesAnEmptyFolderAndWhatADeadCommandLeft) {
  const ScratchFolder scratch;
  const std::string path = scratch / "a";
  fs::create_directories(path);
  std::string temporary;
  {
    NewFolder folder(path, {});
    temporary = folder.temporary();
  }
  write_file(temporary + "/left", "1");
  write_file(scratch / "a.part/mine", "1");  // of other people
  write_file(scratch / "a.old/mine", "1");
  NewFolder folder(path, {});
  EXPECT_FALSE(fs::exists(temporary + "/left"));
  folder.commit();
  EXPECT_TRUE(fs::is_empty(path));
  EXPECT_EQ(names_in(scratch.path()), (std::set<std::string>{"a", "a.part", "a.old"}));
}

TEST(NewFolder, PutsBackWhatADeadCommandTookAway) {
  const ScratchFolder scratch;
  const std::string path = scratch / "a";
  write_file(scratch / ".a.shoestring-old/weights", "1");
  expect_error(ExitCode::usage, {path, "--force"}, [&] { NewFolder folder(path, {}); });
  EXPECT_EQ(read_file(path + "/weights"), "1");
}

TEST(NewFolder, RefusesPlacesThatAreNone) {
  const ScratchFolder scratch;
  for (const char* path : {"", "/", ".", ".."}) {
    expect_error(ExitCode::usage, {"name a new folder"},
                 [&] { NewFolder folder(path, {.force = true}); });
  }
  write_file(scratch / "file", "1");
  expect_error(ExitCode::usage, {"no folder"},
               [&] { NewFolder folder(scratch / "file", {.force = true}); });
  EXPECT_EQ(read_file(scratch / "file"), "1");
}

}  // namespace
}  // namespace shoestring
