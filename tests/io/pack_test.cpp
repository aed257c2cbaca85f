#include "io/pack.h"

#include <sys/resource.h>
#include <sys/wait.h>

#include <algorithm>
#include <csignal>
#include <functional>
#include <memory>
#include <random>
#include <thread>

#include "tests/io/store_fixture.h"

namespace shoestring {
namespace {

PackOptions options_for(const ScratchFolder& folder, std::vector<std::string> inputs) {
  PackOptions options;
  options.inputs = std::move(inputs);
  options.out = folder / "out.h5";
  options.threads = 3;
  options.created = 1;
  return options;
}

std::string json_lines(int count, int salt) {
  std::mt19937 random(static_cast<unsigned>(salt));
  std::string text;
  for (int i = 0; i < count; ++i) {
    append(text, "{\"id\": ", i, ", \"text\": \"document ", i, " of ", salt);
    for (unsigned w = random() % 60; w > 0; --w) append(text, " w", random() % 1000);
    text += "\"}\n";
  }
  return text;
}

// Runs `work` in a child process, kills it as soon as `until` holds; returns its wait status.
template <class F>
int in_child(
    F&& work, const std::function<bool()>& until = [] { return false; }) {
  const pid_t child = ::fork();
  if (child == 0) {
    try {
      work();
    } catch (const Error& error) {
      ::_exit(static_cast<int>(error.code()));
    }
    ::_exit(0);
  }
  int status = 0;
  while (::waitpid(child, &status, WNOHANG) == 0) {
    if (until()) ::kill(child, SIGKILL);
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return status;
}

TEST(Pack, KeepsDocumentsInOrder) {
  ScratchFolder folder;
  write_file(folder / "in/a.txt", "hello");
  write_file(folder / "in/b.jsonl", "{\"text\":\"x\\ny\"}\n{\"text\":\"  \"}\n{\"text\":\"z\"}\n");
  write_file(folder / "in/ignored.png", "no");
  int reports = 0;
  const PackResult result =
      pack(options_for(folder, {folder / "in"}), byte_encoder(), [&](const PackProgress& p) {
        ++reports;
        EXPECT_EQ(p.bytes_read, p.bytes_total);
        EXPECT_EQ(p.seconds_left, 0);
      });
  EXPECT_GE(reports, 1);
  EXPECT_EQ(result.documents, 3);
  EXPECT_EQ(result.empty, 1);
  EXPECT_EQ(result.passed_over, 1);
  EXPECT_EQ(result.text_bytes, 9);
  const auto store = TokenStore::open(folder / "out.h5");
  EXPECT_EQ(store_tokens(*store),
            (std::vector<int32_t>{'h', 'e', 'l', 'l', 'o', 256, 'x', '\n', 'y', 256, 'z', 256}));
  EXPECT_EQ(store->document_bytes(1), 3);
  EXPECT_NE(store->facts().provenance.find("b.jsonl"), std::string::npos);
  EXPECT_FALSE(std::filesystem::exists(folder / "out.h5.packing"));
}

TEST(Pack, ThreadsAndPiecesDoNotMatter) {
  ScratchFolder folder;
  write_file(folder / "a.jsonl", json_lines(3000, 1));
  write_file(folder / "b.txt", json_lines(2000, 2));
  std::string first;
  for (int threads : {1, 2, 5}) {
    PackOptions options = options_for(folder, {folder / "a.jsonl", folder / "b.txt"});
    options.threads = threads;
    options.overwrite = true;
    pack(options, byte_encoder());
    const std::string bytes = read_file(folder / "out.h5");
    if (first.empty()) first = bytes;
    EXPECT_TRUE(bytes == first) << threads;
  }
  PackOptions options = options_for(folder, {folder / "a.jsonl", folder / "b.txt"});
  options.text.piece_bytes = 64;
  options.overwrite = true;
  EXPECT_GT(pack(options, byte_encoder()).cut, 1000);
  const auto cut = TokenStore::open(folder / "out.h5");
  write_file(folder / "first.h5", first);
  const auto whole = TokenStore::open(folder / "first.h5");
  EXPECT_TRUE(store_tokens(*cut) == store_tokens(*whole));
  for (int64_t d = 0; d < whole->documents(); ++d) {
    ASSERT_EQ(cut->document_hash(d), whole->document_hash(d));
    ASSERT_EQ(cut->document_start(d), whole->document_start(d));
  }
}

TEST(Pack, GoesOnAfterAKillAtAnyMoment) {
  ScratchFolder folder;
  std::vector<std::string> inputs;
  for (int i = 0; i < 6; ++i) {
    inputs.push_back(folder / cat("in", i, i % 2 == 0 ? ".jsonl" : ".txt"));
    write_file(inputs.back(), json_lines(1500, i));
  }
  PackOptions options = options_for(folder, inputs);
  options.commit_bytes = 20000;
  pack(options, byte_encoder());
  const std::string whole = read_file(options.out);
  TextEncoder slow = byte_encoder();
  slow.make = [] {
    return [](std::string_view text, bool continues, std::vector<int32_t>& ids) {
      encode_bytes(text, continues, ids);
      if (text.size() % 16 == 0) std::this_thread::sleep_for(std::chrono::microseconds(100));
    };
  };
  std::mt19937 random(7);
  int killed = 0;
  for (int round = 0; round < 4; ++round) {
    std::filesystem::remove(options.out);
    const std::string journal = options.out + ".packing/journal";
    for (int kill = 0; kill < 3; ++kill) {
      // At a random moment behind one to three more commits.
      const auto commits = [&] {
        const std::string text = read_file(journal);
        return std::count(text.begin(), text.end(), '\n');
      };
      const auto enough = commits() + 1 + static_cast<long>(random() % 3);
      const auto pause = std::chrono::microseconds(random() % 20000);
      const int status = in_child([&] { pack(options, slow); },
                                  [&] {
                                    if (commits() <= enough) return false;
                                    std::this_thread::sleep_for(pause);
                                    return true;
                                  });
      killed += WIFSIGNALED(status);
      if (!WIFSIGNALED(status)) break;
    }
    if (!std::filesystem::exists(options.out)) {  // a kill behind the rename leaves it whole
      EXPECT_GT(pack(options, byte_encoder()).resumed_documents, 0);
    }
    EXPECT_TRUE(read_file(options.out) == whole) << "round " << round;
    std::filesystem::remove_all(options.out + ".packing");
  }
  EXPECT_GE(killed, 4);
}

// What a kill leaves of a single document that is longer than what passes between two commits.
TEST(Pack, GoesOnInsideALongDocument) {
  ScratchFolder folder;
  const std::string text = json_lines(12000, 1);
  write_file(folder / "long.txt", text);
  PackOptions options = options_for(folder, {folder / "long.txt"});
  options.threads = 1;
  options.text.piece_bytes = 4096;
  options.commit_bytes = 10000;
  options.commit_seconds = 1000;
  pack(options, byte_encoder());
  const std::string whole = read_file(options.out);
  std::filesystem::remove(options.out);
  const auto counting = [](std::shared_ptr<int> calls, int last) {
    TextEncoder encoder = byte_encoder();
    encoder.make = [calls, last] {
      return [calls, last](std::string_view piece, bool continues, std::vector<int32_t>& ids) {
        if (++*calls == last) {
          std::this_thread::sleep_for(std::chrono::milliseconds(500));  // until all is written
          ::_exit(9);
        }
        encode_bytes(piece, continues, ids);
      };
    };
    return encoder;
  };
  const auto pieces = static_cast<int>(text.size() / 4096);
  const int status = in_child([&] { pack(options, counting(std::make_shared<int>(), pieces)); });
  ASSERT_TRUE(WIFEXITED(status));
  ASSERT_EQ(WEXITSTATUS(status), 9);
  const auto calls = std::make_shared<int>();
  testing::internal::CaptureStderr();
  const PackResult result = pack(options, counting(calls, -1));
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_NE(said.find("going on with the unfinished packing"), std::string::npos) << said;
  EXPECT_NE(said.find("from document 0 of " + (folder / "long.txt")), std::string::npos) << said;
  EXPECT_EQ(result.documents, 1);
  EXPECT_GT(*calls, 0);
  EXPECT_LT(*calls, pieces / 3);
  EXPECT_TRUE(read_file(options.out) == whole);
}

// The part of a document that is packed must still be its beginning.
TEST(Pack, RefusesToGoOnInsideAnotherDocument) {
  ScratchFolder folder;
  const std::string text = json_lines(8000, 1);
  PackOptions options = options_for(folder, {folder / "long.txt"});
  options.text.piece_bytes = 4096;
  for (const std::string& now : {"X" + text.substr(1), text.substr(0, 5000), std::string("x")}) {
    write_file(folder / "long.txt", text + "\xff");
    expect_error(ExitCode::data, {"bad UTF-8"}, [&] { pack(options, byte_encoder()); });
    write_file(folder / "long.txt", now);
    expect_error(ExitCode::data, {"long.txt has changed since (document 0)", "--restart"},
                 [&] { pack(options, byte_encoder()); });
    std::filesystem::remove_all(options.out + ".packing");
  }
}

TEST(Pack, RefusesToGoOnWithSomethingElse) {
  ScratchFolder folder;
  write_file(folder / "a.jsonl", json_lines(50, 1));
  write_file(folder / "b.jsonl", json_lines(50, 2) + "{broken\n");
  PackOptions options = options_for(folder, {folder / "a.jsonl", folder / "b.jsonl"});
  const auto run = [&](const TextEncoder& encoder) { return pack(options, encoder); };
  expect_error(ExitCode::data, {"b.jsonl:51: byte"}, [&] { run(byte_encoder()); });
  EXPECT_FALSE(std::filesystem::exists(options.out));
  TextEncoder other = byte_encoder();
  other.hash = "other";
  expect_error(ExitCode::data, {"started with", "other", "--restart"}, [&] { run(other); });
  const std::string kept = read_file(folder / "a.jsonl");
  write_file(folder / "a.jsonl", kept + json_lines(1, 5));
  expect_error(ExitCode::data, {"a.jsonl has changed", "--restart"}, [&] { run(byte_encoder()); });
  options.restart = true;
  write_file(folder / "b.jsonl", json_lines(50, 2));
  EXPECT_EQ(run(byte_encoder()).documents, 101);
}

TEST(Pack, GoesOnBehindARepairedError) {
  ScratchFolder folder;
  write_file(folder / "a.jsonl", json_lines(50, 1));
  write_file(folder / "b.txt", "good \xff bad");
  PackOptions options = options_for(folder, {folder / "a.jsonl", folder / "b.txt"});
  expect_error(ExitCode::data, {"b.txt: bad UTF-8 at byte 5: 0xff", "--bad-utf8 replace"},
               [&] { pack(options, byte_encoder()); });
  options.text.bad_utf8 = BadUtf8::replace;
  const PackResult result = pack(options, byte_encoder());
  EXPECT_EQ(result.resumed_documents, 50);
  EXPECT_EQ(result.documents, 51);
  EXPECT_EQ(result.replaced, 1);
}

TEST(Pack, LeavesNothingBehindWhereThereWasNothingToPack) {
  ScratchFolder folder;
  write_file(folder / "empty.txt", " \n\n");
  write_file(folder / "zero.txt", "");
  write_file(folder / "bad.txt", "\xff");
  for (const char* name : {"empty.txt", "zero.txt", "bad.txt"}) {
    const PackOptions options = options_for(folder, {folder / name});
    expect_error(ExitCode::data, {}, [&] { pack(options, byte_encoder()); });
    EXPECT_FALSE(std::filesystem::exists(options.out)) << name;
    EXPECT_FALSE(std::filesystem::exists(options.out + ".packing")) << name;
  }
}

TEST(Pack, AFullDiskLeavesNothingHalfWritten) {
  ScratchFolder folder;
  write_file(folder / "a.jsonl", json_lines(4000, 1));
  PackOptions options = options_for(folder, {folder / "a.jsonl"});
  pack(options, byte_encoder());
  const std::string whole = read_file(options.out);
  std::filesystem::remove(options.out);
  // A limit on the size of files stands for the full disk: the raw file meets it first, with a
  // higher limit the closing does.
  const rlim_t raw = std::filesystem::file_size(folder / "a.jsonl");
  for (const rlim_t limit : {raw / 2, static_cast<rlim_t>(whole.size() - 20000)}) {
    const int status = in_child([&] {
      std::signal(SIGXFSZ, SIG_IGN);
      const rlimit size{limit, limit};
      ::setrlimit(RLIMIT_FSIZE, &size);
      expect_error(ExitCode::data, {"cannot write", "run the same command again"},
                   [&] { pack(options, byte_encoder()); });
      ::_exit(::testing::Test::HasFailure() ? 1 : 0);
    });
    ASSERT_TRUE(WIFEXITED(status));
    EXPECT_EQ(WEXITSTATUS(status), 0);
    EXPECT_FALSE(std::filesystem::exists(options.out));
    EXPECT_FALSE(std::filesystem::exists(options.out + ".tmp"));
  }
  pack(options, byte_encoder());  // space again: it goes on
  EXPECT_TRUE(read_file(options.out) == whole);
}

TEST(Pack, RefusesImpossibleOptions) {
  ScratchFolder folder;
  write_file(folder / "a.txt", "x");
  write_file(folder / "empty.txt", " \n");
  PackOptions options = options_for(folder, {folder / "a.txt"});
  const auto expect = [&](ExitCode code, std::vector<std::string> parts, auto change) {
    PackOptions changed = options;
    change(changed);
    expect_error(code, parts, [&] { pack(changed, byte_encoder()); });
  };
  expect(ExitCode::usage, {"no input"}, [](PackOptions& o) { o.inputs.clear(); });
  expect(ExitCode::usage, {"--out"}, [](PackOptions& o) { o.out.clear(); });
  expect(ExitCode::usage, {"a.txt", "no token store"}, [&](PackOptions& o) {
    o.out = folder / "a.txt";  // by mistake, an input
    o.overwrite = true;
  });
  EXPECT_EQ(read_small_file(folder / "a.txt", 10), "x");
  expect(ExitCode::usage, {"0 threads"}, [](PackOptions& o) { o.threads = 0; });
  expect(ExitCode::usage, {"--memory must be at least", "M but is 1000 bytes"},
         [](PackOptions& o) { o.memory_bytes = 1000; });
  expect(ExitCode::data, {"missing.txt"},
         [&](PackOptions& o) { o.inputs = {folder / "missing.txt"}; });
  expect(ExitCode::data, {"no documents"},
         [&](PackOptions& o) { o.inputs = {folder / "empty.txt"}; });
  TextEncoder wrong = byte_encoder();
  wrong.vocabulary = 100;
  wrong.end_of_document = -1;
  options.restart = true;
  expect_error(ExitCode::data, {"id 120", "only 100"}, [&] { pack(options, wrong); });
  pack(options, byte_encoder());
  expect(ExitCode::usage, {"out.h5 exists", "--overwrite"}, [](PackOptions&) {});
}

TEST(Pack, StaysWithinItsMemory) {
  ScratchFolder folder;
  {
    // One document, one line, 150 MB.
    std::ofstream file(folder / "big.jsonl", std::ios::binary);
    file << "{\"text\":\"";
    const std::string words = cat(std::string(9999, 'w'), " ");
    for (int i = 0; i < 15000; ++i) file << words;
    file << "\"}\n";
  }
  PackOptions options = options_for(folder, {folder / "big.jsonl"});
  options.memory_bytes = 32 << 20;
  const int status = in_child([&] {
    rusage before{}, after{};
    ::getrusage(RUSAGE_SELF, &before);
    TextEncoder few = byte_encoder();
    few.make = [] {
      return [](std::string_view text, bool, std::vector<int32_t>& ids) {
        for (size_t i = 0; i < text.size(); i += 2) ids.push_back('w');  // 150 MB of them
      };
    };
    const PackResult result = pack(options, few);
    ::getrusage(RUSAGE_SELF, &after);
    const int64_t grown = (after.ru_maxrss - before.ru_maxrss) * 1024;
    const bool small = !SHOESTRING_MEMORY_LIMITS || grown < options.memory_bytes;
    ::_exit(small && result.documents == 1 && result.cut == 1 ? 0 : 1);
  });
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

}  // namespace
}  // namespace shoestring
