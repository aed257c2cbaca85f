// Saving: in the background, within a memory limit, through failures and killed processes.

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <random>

#include "io/checkpoint.h"
#include "tests/io/checkpoint_fixture.h"
#include "tests/io/store_fixture.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> names_in(const std::string& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) {
    names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

void save_step(CheckpointWriter& writer, int64_t step) {
  writer.save(content_at(step, make_state(step)));
  writer.finish();
}

TEST(CheckpointWriter, KeepsTheLastOnesAndTheMultiples) {
  const ScratchFolder folder;
  CheckpointWriter writer({.directory = folder.path(), .keep = 2, .keep_every = 30});
  for (int64_t step = 10; step <= 80; step += 10) save_step(writer, step);
  EXPECT_EQ(names_in(folder.path()), (std::vector<std::string>{"step_00000030", "step_00000060",
                                                               "step_00000070", "step_00000080"}));
  EXPECT_EQ(writer.stats().saves, 8);
  for (int64_t step : {30, 60, 70, 80}) {
    const Checkpoint loaded = Checkpoint::open(folder / cat("step_000000", step));
    EXPECT_EQ(difference(loaded, make_state(step)), "");
  }
}

// The one before a state that nothing was computed with yet stays, whatever `keep` says.
TEST(CheckpointWriter, AnUnprovenOneReplacesNone) {
  const ScratchFolder folder;
  CheckpointWriter writer({.directory = folder.path(), .keep = 1});
  for (int64_t step : {10, 20, 30}) {
    save_step(writer, step);
    std::vector<std::string> wanted = {cat("step_000000", step)};
    if (step > 10) wanted.insert(wanted.begin(), cat("step_000000", step - 10));
    EXPECT_EQ(names_in(folder.path()), wanted);
  }
  const auto tensors = make_state(40);
  CheckpointContent content = content_at(40, tensors);
  content.proven = true;
  writer.save(content);
  writer.finish();
  EXPECT_EQ(names_in(folder.path()), (std::vector<std::string>{"step_00000040"}));
}

TEST(CheckpointWriter, TheOneJustWrittenStaysBesideNewerBrokenOnes) {
  const ScratchFolder folder;
  {
    CheckpointWriter writer({.directory = folder.path(), .keep = 3});
    for (int64_t step : {10, 20, 30}) save_step(writer, step);
  }
  fs::resize_file(folder / "step_00000020/rank_00000.h5", 100);
  fs::resize_file(folder / "step_00000030/rank_00000.h5", 100);
  CheckpointWriter writer({.directory = folder.path(), .keep = 1});
  save_step(writer, 15);  // resumed from 10
  const auto loaded = Checkpoint::latest(folder.path(), [](const std::string&) {});
  ASSERT_TRUE(loaded);
  EXPECT_EQ(difference(*loaded, make_state(15)), "");
}

TEST(CheckpointWriter, ReplacesTheSameStep) {
  const ScratchFolder folder;
  CheckpointWriter writer({.directory = folder.path()});
  auto tensors = make_state(5);
  for (int round = 0; round < 3; ++round) {
    tensors[0].bytes[7] = static_cast<std::byte>(round);
    writer.save(content_at(5, tensors));
  }
  writer.finish();
  EXPECT_EQ(difference(Checkpoint::open(folder.path()), tensors), "");
  EXPECT_EQ(names_in(folder.path()), std::vector<std::string>{"step_00000005"});
}

TEST(CheckpointWriter, SavesWhatItWasGivenWhateverChangesLater) {
  const ScratchFolder folder;
  CheckpointWriter writer({.directory = folder.path(), .keep = 5});
  for (int64_t step = 1; step <= 5; ++step) {
    auto tensors = make_state(step);
    writer.save(content_at(step, tensors));
    for (SavedTensor& t : tensors) std::fill(t.bytes.begin(), t.bytes.end(), std::byte{0});
  }
  writer.finish();
  for (int64_t step = 1; step <= 5; ++step) {
    const Checkpoint loaded = Checkpoint::open(folder / cat("step_0000000", step));
    EXPECT_EQ(difference(loaded, make_state(step)), "");
  }
  EXPECT_GT(writer.stats().write_seconds, 0);
}

TEST(CheckpointWriter, AnyMemoryLimitAndTheForegroundSaveTheSame) {
  const auto tensors = make_state(5);
  std::string files[6];
  const int64_t limits[] = {0, 1, 7000, 20000, 1 << 30};
  for (int i = 0; i < 6; ++i) {
    const ScratchFolder folder;
    CheckpointWriter writer({.directory = folder.path(),
                             .background = i < 5,
                             .memory_limit_bytes = i < 5 ? limits[i] : 0});
    auto content_state = tensors;
    writer.save(content_at(5, content_state));
    for (SavedTensor& t : content_state) t.bytes.assign(t.bytes.size(), std::byte{1});
    writer.finish();
    EXPECT_EQ(difference(Checkpoint::open(folder.path()), tensors), "") << i;
    files[i] = read_file(folder / "step_00000005/rank_00000.h5");
    EXPECT_EQ(files[i], files[0]) << i;
  }
}

// The copy is memory of the run from its first use to the writer's end.
TEST(CheckpointWriter, TheLedgerCountsTheCopy) {
  const auto tensors = make_state(5);
  int64_t bytes = 0;
  for (const SavedTensor& t : tensors) bytes += static_cast<int64_t>(t.bytes.size());
  for (int64_t limit : {int64_t{0}, int64_t{20000}}) {
    Ledger ledger;
    {
      const ScratchFolder folder;
      const CheckpointOptions options{
          .directory = folder.path(), .memory_limit_bytes = limit, .ledger = &ledger};
      const CheckpointContent content = content_at(5, tensors);
      const int64_t wanted = copied_bytes(content, options);
      if (limit == 0) {
        EXPECT_EQ(wanted, bytes);
      } else {
        EXPECT_GT(wanted, 0);
        EXPECT_LE(wanted, limit);
      }
      CheckpointWriter writer(options);
      EXPECT_EQ(ledger.current_total(), 0);
      writer.save(content);
      EXPECT_EQ(ledger.current(MemoryKind::other), wanted);
      save_step(writer, 6);
      EXPECT_EQ(ledger.current(MemoryKind::other), wanted);
    }
    EXPECT_EQ(ledger.current_total(), 0);
  }
}

TEST(CheckpointWriter, TheLastSaveNeedsNoCopy) {
  const ScratchFolder folder;
  Ledger ledger;
  CheckpointWriter writer({.directory = folder.path(), .ledger = &ledger});
  const auto tensors = make_state(5);
  CheckpointContent content = content_at(5, tensors);
  content.last = true;
  writer.save(content);
  writer.finish();
  EXPECT_EQ(ledger.peak_total(), 0);
  EXPECT_EQ(difference(Checkpoint::open(folder.path()), tensors), "");
  EXPECT_EQ(copied_bytes(content_at(5, tensors), {.directory = folder.path(), .background = false}),
            0);
}

TEST(CheckpointWriter, AcceptsEmptyPartsAndEmptyTensors) {
  const ScratchFolder folder;
  CheckpointWriter writer({.directory = folder.path()});
  auto tensors = make_state(5);
  tensors.push_back(make_tensor("none", {0, 4}, Dtype::f32, 5));
  CheckpointContent content = content_at(5, tensors);
  content.pieces.push_back({.name = "none",
                            .shape = {0, 4},
                            .begin = 0,
                            .end = 0,
                            .dtype = Dtype::f32,
                            .data = nullptr});
  content.pieces.push_back(
      {.name = "scalar", .shape = {}, .begin = 1, .end = 1, .dtype = Dtype::f64, .data = nullptr});
  writer.save(content);
  writer.finish();
  EXPECT_EQ(difference(Checkpoint::open(folder.path()), tensors), "");
}

TEST(CheckpointWriter, RefusesImpossiblePiecesAndOptions) {
  const ScratchFolder folder;
  CheckpointWriter writer({.directory = folder.path()});
  const auto tensors = make_state(5);
  auto with = [&](auto change) {
    CheckpointContent content = content_at(5, tensors);
    change(content.pieces[0]);
    return content;
  };
  EXPECT_THROW(writer.save(with([](TensorPiece& p) { p.end += 1; })), Error);
  EXPECT_THROW(writer.save(with([](TensorPiece& p) { p.begin = -1; })), Error);
  EXPECT_THROW(writer.save(with([](TensorPiece& p) { p.data = nullptr; })), Error);
  EXPECT_THROW(writer.save(with([](TensorPiece& p) { p.name = ""; })), Error);
  // A hole in a tensor shows when the ranks' parts are put together.
  writer.save(with([](TensorPiece& p) { p.end -= 1; }));
  EXPECT_THROW(writer.finish(), Error);
  EXPECT_FALSE(Checkpoint::latest(folder.path(), nullptr));
  EXPECT_THROW(CheckpointWriter({.directory = folder.path(), .keep = 0}), Error);
  EXPECT_THROW(CheckpointWriter({.directory = ""}), Error);
}

TEST(CheckpointWriter, RemovesWhatADeadRunLeft) {
  const ScratchFolder folder;
  { save_step(*make_writers({.directory = folder.path()})[0], 10); }
  fs::create_directories(folder / ".step_00000020.3.tmp");
  write_file(folder / ".step_00000020.3.tmp/rank_00000.h5", "half");
  fs::create_directories(folder / ".step_00000005.deleted");
  fs::rename(folder / "step_00000010", folder / ".step_00000010.old");
  write_file(folder / "notes.txt", "the user's");
  const CheckpointWriter writer({.directory = folder.path()});
  EXPECT_EQ(names_in(folder.path()), (std::vector<std::string>{"notes.txt", "step_00000010"}));
  EXPECT_EQ(difference(Checkpoint::open(folder.path()), make_state(10)), "");
}

// In a child process, which may change its own limits and die.
template <class F>
int exit_code_of(F&& work) {
  const pid_t child = ::fork();
  if (child == 0) {
    int code = 1;
    try {
      code = work();
    } catch (const std::exception& e) {
      std::fprintf(stderr, "%s\n", e.what());
    }
    ::_exit(code);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

void limit_files(rlim_t bytes) {
  std::signal(SIGXFSZ, SIG_IGN);
  const rlimit limit{bytes, RLIM_INFINITY};
  ::setrlimit(RLIMIT_FSIZE, &limit);
}

// A file size limit fails writes as a full disk does: part of the bytes, then an error.
TEST(CheckpointWriter, SurvivesAFullDisk) {
  for (bool background : {true, false}) {
    // In the file itself, or, with a long config, in the manifest.
    for (rlim_t bytes : {rlim_t{100}, rlim_t{40000}, rlim_t{250000}}) {
      const ScratchFolder folder;
      const int code = exit_code_of([&] {
        CheckpointWriter writer({.directory = folder.path(), .background = background});
        save_step(writer, 10);
        limit_files(bytes);
        const auto tensors = make_state(20);
        CheckpointContent content = content_at(20, tensors);
        content.config.assign(300000, '#');
        writer.save(content);
        if (writer.settled()) return 5;
        bool thrown = false;
        try {
          writer.finish();
        } catch (const Error& e) {
          thrown = e.code() == ExitCode::data;
        }
        if (!thrown) return 2;
        if (names_in(folder.path()) != std::vector<std::string>{"step_00000010"}) return 3;
        limit_files(RLIM_INFINITY);
        save_step(writer, 30);  // there is space again
        if (!writer.settled()) return 6;
        return writer.stats().saves == 2 ? 0 : 4;
      });
      EXPECT_EQ(code, 0) << bytes;
      for (int64_t step : {10, 30}) {
        const Checkpoint loaded = Checkpoint::open(folder / cat("step_000000", step));
        EXPECT_EQ(difference(loaded, make_state(step)), "");
      }
    }
  }
}

// After the last save nothing goes on: one message, by finish(), instead of a warning before it.
TEST(CheckpointWriter, TellsOfTheLastFailureOnce) {
  for (bool last : {true, false}) {
    const int code = exit_code_of([&] {
      const ScratchFolder folder;
      CheckpointWriter writer({.directory = folder.path()});
      limit_files(100);
      const auto tensors = make_state(20);
      CheckpointContent content = content_at(20, tensors);
      content.last = last;
      testing::internal::CaptureStderr();
      writer.save(content);
      std::string told;
      try {
        writer.finish();
      } catch (const Error& e) {
        told = e.what();
      }
      const bool warned = !testing::internal::GetCapturedStderr().empty();
      if (told.find("step 20 was not saved") == std::string::npos) return 2;
      return warned == last ? 3 : 0;
    });
    EXPECT_EQ(code, 0) << last;
  }
}

TEST(CheckpointWriter, AFailureOfOneRankFailsTheSaveOnAllAndTheNextWorks) {
  const ScratchFolder folder;
  const auto writers =
      make_writers({.directory = folder.path(), .ranks = 3, .deadline_seconds = 20});
  for (int broken = 0; broken < 3; ++broken) {
    on_ranks(3, [&](int rank) {
      for (int64_t step : {10 + broken * 10, 15 + broken * 10}) {
        const auto tensors = make_state(step);
        CheckpointContent content = content_at(step, tensors);
        content.pieces = shard(tensors, rank, 3);
        // The same part twice cannot be laid out.
        const bool breaks = rank == broken && step % 10 == 0;
        if (breaks) content.pieces.push_back(content.pieces[0]);
        if (breaks) content.pieces.push_back(content.pieces[0]);
        CheckpointWriter& writer = *writers[static_cast<size_t>(rank)];
        writer.save(content);
        if (step % 10 == 0) {
          EXPECT_THROW(writer.finish(), Error) << rank;
        } else {
          EXPECT_NO_THROW(writer.finish()) << rank;
        }
      }
    });
    const Checkpoint loaded = Checkpoint::open(folder.path());
    EXPECT_EQ(difference(loaded, make_state(15 + broken * 10)), "");
    for (const std::string& name : names_in(folder.path())) EXPECT_NE(name[0], '.') << name;
  }
}

TEST(CheckpointWriter, WaitsForMissingRanksOnlyUntilTheDeadline) {
  const ScratchFolder folder;
  CheckpointWriter leader(
      {.directory = folder.path(), .rank = 0, .ranks = 2, .deadline_seconds = 0.2});
  leader.save(content_at(10, make_state(10)));
  try {
    leader.finish();
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("rank 1 did not write its part"), std::string::npos);
  }
  EXPECT_FALSE(Checkpoint::latest(folder.path(), nullptr));
}

// SIGKILL at a random moment of a process that does nothing but save, again and again.
TEST(CheckpointWriter, AKilledProcessLeavesTheLastGoodOne) {
  const ScratchFolder folder;
  std::mt19937_64 random(11);
  int64_t last = 0;
  for (int round = 0; round < 25; ++round) {
    const pid_t child = ::fork();
    if (child == 0) {
      const auto writers = make_writers({.directory = folder.path(), .ranks = 2});
      on_ranks(2, [&](int rank) {
        for (int64_t step = last + 1;; ++step) {
          const auto tensors = make_state(step);
          CheckpointContent content = content_at(step, tensors);
          content.pieces = shard(tensors, rank, 2);
          writers[static_cast<size_t>(rank)]->save(content);
        }
      });
    }
    ::usleep(static_cast<useconds_t>(random() % 120000));
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    const auto loaded =
        Checkpoint::latest(folder.path(), [](const std::string& text) { ADD_FAILURE() << text; });
    ASSERT_TRUE(loaded || last == 0);
    if (!loaded) continue;
    EXPECT_GE(loaded->step(), last);
    last = loaded->step();
    EXPECT_EQ(difference(*loaded, make_state(last)), "");
  }
  EXPECT_GT(last, 10);
}

}  // namespace
}  // namespace shoestring
