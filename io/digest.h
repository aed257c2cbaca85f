#pragma once
// XXH3 digests of 128 bits, as 32 hexadecimal digits: against damage, not against forgery.

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

namespace shoestring {

class Digest {
 public:
  Digest();
  ~Digest();
  Digest(Digest&&) noexcept;
  Digest& operator=(Digest&&) noexcept;

  void add(const void* data, size_t bytes);
  std::string text() const;  // of everything added so far

 private:
  struct State;
  std::unique_ptr<State> state_;
};

std::string digest_of(std::string_view bytes);

}  // namespace shoestring
