// Lines of JSON with long lists of numbers: lists become doubles, everything else is left where it stands.
#pragma once
#include <cstdint>
#include <vector>

namespace surprisal {

enum JsonKind : int32_t {
  kJsonNull = 0,
  kJsonFalse = 1,
  kJsonTrue = 2,
  kJsonNumber = 3,
  kJsonString = 4,
  // A list of numbers, or of such lists of one length: at most three deep.
  kJsonNumbers = 5,
  // Any other list, and objects.
  kJsonOther = 6,
};

enum JsonLineStatus : int32_t { kJsonLineRead = 0, kJsonLineBlank = 1, kJsonLineRefused = 2 };

// Offsets are bytes of the block. A key stands without its quotes, a string with them.
struct JsonField {
  int32_t key_start;
  int32_t key_end;
  int32_t kind;
  int32_t value_start;
  int32_t value_end;
  int32_t first_number;
  // Extents, slowest first; -1 beyond the depth.
  int32_t extents[3];
};

constexpr int kJsonFieldIntegers = 9;
static_assert(sizeof(JsonField) == kJsonFieldIntegers * sizeof(int32_t));

struct JsonLine {
  int32_t start;
  int32_t end;
  int32_t first_field;
  int32_t status;
};

constexpr int kJsonLineIntegers = 4;

// Consecutive lines; `first_number` and `first_field` count from the beginning of the part.
struct JsonPart {
  std::vector<JsonLine> lines;
  std::vector<JsonField> fields;
  std::vector<double> numbers;
};

// Reads the lines of `bytes` [length], separated by \n, as one JSON object each. Numbers are the nearest doubles; in lists true,
// false, null count as 1, 0, NaN. NaN, Infinity and -Infinity stand for numbers, as Python writes them. A line that is not such an
// object, or deeper than the scanner goes, has the status kJsonLineRefused and no fields. The parts are those of the same lines
// whatever the number of threads.
std::vector<JsonPart> scan_json_lines(const uint8_t* bytes, int64_t length, int threads);

}  // namespace surprisal
