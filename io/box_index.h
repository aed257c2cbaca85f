#pragma once
// The pieces of one tensor that a checkpoint holds: whether they are the whole of it, each element
// once, and from which of them any other part is put together.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "io/tensor_box.h"

namespace shoestring {

class BoxIndex {
 public:
  // Parts of a tensor of this shape, each without a complaint_of().
  BoxIndex(const Shape& shape, const std::vector<BoxRange>& pieces);

  // Elements [begin, end) of the tensor that two pieces hold, or none (`first` and `second` are
  // those pieces' numbers, or negative).
  struct Flaw {
    int64_t begin = 0, end = 0;
    int first = -1, second = -1;
    bool twice() const { return second >= 0; }
  };
  // The first one; none when every element is in just one piece. Takes n log n time for n runs.
  std::optional<Flaw> flaw() const;

  // `rows` rows of `columns` elements: in the piece from its element `from` on, in the wanted part
  // from `to` on; rows begin so many elements after one another.
  struct Copy {
    size_t piece = 0;
    int64_t rows = 0, columns = 0;
    int64_t from = 0, from_stride = 0, to = 0, to_stride = 0;
  };
  // The copies that make up a part without a complaint_of().
  void for_each_copy(const BoxRange& wanted, const std::function<void(const Copy&)>& copy) const;

 private:
  struct Held {
    BoxRectangle area;
    size_t piece = 0;
  };
  Shape shape_;
  std::vector<Held> held_;         // by their first row
  std::vector<int64_t> last_row_;  // behind all of held_[0] to held_[i]
};

}  // namespace shoestring
