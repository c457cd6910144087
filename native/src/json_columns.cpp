#include "json_columns.hpp"

#include <charconv>
#include <clocale>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>

#include "thread_pool.hpp"

namespace surprisal {
namespace {

// Lines of about this many bytes are one piece of work.
constexpr int64_t kPartBytes = 1 << 18;
constexpr int kMostDepth = 256;
constexpr int kMostExtents = 3;

constexpr double kPowersOfTen[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                   1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};

bool is_digit(char c) { return static_cast<unsigned char>(c - '0') < 10; }

// Whether eight bytes are digits, and their value (the first byte is the highest digit).
bool eight_digits(const char* text, uint64_t* value) {
  uint64_t word;
  std::memcpy(&word, text, 8);
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
  word = __builtin_bswap64(word);
#endif
  if ((((word + 0x4646464646464646u) | (word - 0x3030303030303030u)) & 0x8080808080808080u) != 0) return false;
  word -= 0x3030303030303030u;
  word = word * 10 + (word >> 8);
  *value = (((word & 0x000000FF000000FFu) * 0x000F424000000064u) +
            (((word >> 16) & 0x000000FF000000FFu) * 0x0000271000000001u)) >>
           32;
  return true;
}

// The nearest double of a number that the short way cannot give.
double nearest_double(const char* begin, const char* end) {
#if defined(__cpp_lib_to_chars) && __cpp_lib_to_chars >= 201611L
  double value = 0;
  const auto result = std::from_chars(begin, end, value);
  if (result.ec == std::errc() && result.ptr == end) return value;
#endif
  // Beyond the range of a double, or a library without from_chars: strtod, told of the decimal point of the locale.
  std::string text(begin, end);
  const char* point = std::localeconv()->decimal_point;
  const size_t at = text.find('.');
  if (at != std::string::npos) text.replace(at, 1, point);
  return std::strtod(text.c_str(), nullptr);
}

// A cursor over one line, which reports what it sees to a part.
class LineReader {
 public:
  LineReader(const uint8_t* block, int64_t start, int64_t end, JsonPart* part)
      : block_(reinterpret_cast<const char*>(block)), at_(block_ + start), end_(block_ + end), part_(part) {}

  JsonLineStatus read() {
    skip_space();
    if (at_ == end_) return kJsonLineBlank;
    const size_t fields = part_->fields.size();
    const size_t numbers = part_->numbers.size();
    if (object() && (skip_space(), at_ == end_)) return kJsonLineRead;
    part_->fields.resize(fields);
    part_->numbers.resize(numbers);
    return kJsonLineRefused;
  }

 private:
  int32_t offset(const char* place) const { return static_cast<int32_t>(place - block_); }

  void skip_space() {
    while (at_ < end_ && (*at_ == ' ' || *at_ == '\t' || *at_ == '\r')) ++at_;
  }

  bool take(char c) {
    if (at_ == end_ || *at_ != c) return false;
    ++at_;
    return true;
  }

  bool word(const char* text, size_t length) {
    if (static_cast<size_t>(end_ - at_) < length || std::memcmp(at_, text, length) != 0) return false;
    at_ += length;
    return true;
  }

  // {"key": value, ...} of the line itself.
  bool object() {
    if (!take('{')) return false;
    skip_space();
    if (take('}')) return true;
    for (;;) {
      skip_space();
      const char* key = at_ + 1;
      if (!string()) return false;
      JsonField field{};
      field.key_start = offset(key);
      field.key_end = offset(at_ - 1);
      field.first_number = static_cast<int32_t>(part_->numbers.size());
      field.extents[0] = field.extents[1] = field.extents[2] = -1;
      skip_space();
      if (!take(':')) return false;
      skip_space();
      field.value_start = offset(at_);
      if (!value(&field)) return false;
      field.value_end = offset(at_);
      part_->fields.push_back(field);
      skip_space();
      if (take('}')) return true;
      if (!take(',')) return false;
    }
  }

  // A value of the line's object.
  bool value(JsonField* field) {
    if (at_ == end_) return false;
    switch (*at_) {
      case '"':
        field->kind = kJsonString;
        return string();
      case '{':
        field->kind = kJsonOther;
        return skip_value(0);
      case '[': {
        const char* start = at_;
        const size_t numbers = part_->numbers.size();
        field->kind = kJsonNumbers;
        depth_ = 0;
        for (int32_t& extent : extents_) extent = -1;
        if (numeric_list(0)) {
          for (int d = 0; d < kMostExtents; d++) field->extents[d] = extents_[d];
          return true;
        }
        part_->numbers.resize(numbers);
        at_ = start;
        field->kind = kJsonOther;
        return skip_value(0);
      }
      case 't':
        field->kind = kJsonTrue;
        return word("true", 4);
      case 'f':
        field->kind = kJsonFalse;
        return word("false", 5);
      case 'n':
        field->kind = kJsonNull;
        return word("null", 4);
      default: {
        double number;
        field->kind = kJsonNumber;
        if (!numeric(&number)) return false;
        part_->numbers.push_back(number);
        return true;
      }
    }
  }

  // A list of numbers, or of lists of one length and depth.
  bool numeric_list(int depth) {
    if (depth >= kMostExtents || !take('[')) return false;
    skip_space();
    int32_t count = 0;
    if (!take(']')) {
      for (;;) {
        skip_space();
        if (at_ == end_) return false;
        if (*at_ == '[') {
          if ((count > 0 || depth_ > 0) && depth_ <= depth + 1) return false;
          if (!numeric_list(depth + 1)) return false;
        } else {
          if (depth_ == 0) depth_ = depth + 1;
          if (depth_ != depth + 1) return false;
          double number;
          if (!entry(&number)) return false;
          part_->numbers.push_back(number);
        }
        count++;
        skip_space();
        if (take(']')) break;
        if (!take(',')) return false;
      }
    }
    // An empty list ends the depth where it stands.
    if (depth_ == 0) depth_ = depth + 1;
    if (count == 0 && depth_ != depth + 1) return false;
    if (extents_[depth] >= 0 && extents_[depth] != count) return false;
    extents_[depth] = count;
    return true;
  }

  // A number, or a word that stands for one.
  bool entry(double* number) {
    switch (*at_) {
      case 't':
        *number = 1;
        return word("true", 4);
      case 'f':
        *number = 0;
        return word("false", 5);
      case 'n':
        *number = std::numeric_limits<double>::quiet_NaN();
        return word("null", 4);
      default:
        return numeric(number);
    }
  }

  bool numeric(double* number) {
    const char* start = at_;
    const bool negative = *at_ == '-';
    if (negative) ++at_;
    if (at_ == end_) return false;
    if (*at_ == 'I') {
      *number = negative ? -std::numeric_limits<double>::infinity() : std::numeric_limits<double>::infinity();
      return word("Infinity", 8);
    }
    if (*at_ == 'N' && !negative) {
      *number = std::numeric_limits<double>::quiet_NaN();
      return word("NaN", 3);
    }
    if (!is_digit(*at_)) return false;
    uint64_t mantissa = 0;
    const char* digits = at_;
    if (*at_ == '0') {
      ++at_;
      digits = at_;
      if (at_ < end_ && is_digit(*at_)) return false;
    } else {
      read_digits(&mantissa);
    }
    int64_t significant = at_ - digits;
    int64_t exponent = 0;
    if (at_ < end_ && *at_ == '.') {
      ++at_;
      const char* fraction = at_;
      // Zeros behind "0." are no significant digits.
      if (mantissa == 0) while (at_ < end_ && *at_ == '0') ++at_;
      const char* first = at_;
      read_digits(&mantissa);
      if (at_ == fraction) return false;
      significant += at_ - first;
      exponent -= at_ - fraction;
    }
    if (at_ < end_ && (*at_ == 'e' || *at_ == 'E')) {
      ++at_;
      bool minus = false;
      if (at_ < end_ && (*at_ == '+' || *at_ == '-')) minus = *at_++ == '-';
      if (at_ == end_ || !is_digit(*at_)) return false;
      int64_t written = 0;
      for (; at_ < end_ && is_digit(*at_); ++at_) if (written < 100000) written = written * 10 + (*at_ - '0');
      exponent += minus ? -written : written;
    }
    // Both are exact doubles, so that one rounding gives the nearest (Clinger 1990).
    constexpr uint64_t kExact = uint64_t{1} << 53;
    if (significant <= 19 && mantissa <= kExact && exponent >= -22 && exponent <= 22) {
      double value = static_cast<double>(mantissa);
      if (exponent < 0) value /= kPowersOfTen[-exponent];
      else value *= kPowersOfTen[exponent];
      *number = negative ? -value : value;
      return true;
    }
    *number = nearest_double(start, at_);
    return true;
  }

  // Adds the digits at the cursor to the mantissa, which is meaningless after more than 19 of them.
  void read_digits(uint64_t* mantissa) {
    uint64_t value = *mantissa;
    uint64_t eight;
    while (end_ - at_ >= 8 && eight_digits(at_, &eight)) {
      value = value * 100000000 + eight;
      at_ += 8;
    }
    for (; at_ < end_ && is_digit(*at_); ++at_) value = value * 10 + static_cast<uint64_t>(*at_ - '0');
    *mantissa = value;
  }

  // A string from its opening quote; escapes are checked, not translated.
  bool string() {
    if (!take('"')) return false;
    for (;;) {
      // Eight bytes at a time while none is a quote, a backslash or a control character.
      while (end_ - at_ >= 8) {
        uint64_t bytes;
        std::memcpy(&bytes, at_, 8);
        constexpr uint64_t kOnes = 0x0101010101010101u;
        constexpr uint64_t kHigh = 0x8080808080808080u;
        const uint64_t quote = bytes ^ (kOnes * '"');
        const uint64_t slash = bytes ^ (kOnes * '\\');
        const uint64_t found = ((quote - kOnes) & ~quote) | ((slash - kOnes) & ~slash) | ((bytes - kOnes * 0x20) & ~bytes);
        if ((found & kHigh) != 0) break;
        at_ += 8;
      }
      if (at_ == end_) return false;
      const unsigned char c = static_cast<unsigned char>(*at_++);
      if (c == '"') return true;
      if (c < 0x20) return false;
      if (c != '\\') continue;
      if (at_ == end_) return false;
      switch (*at_++) {
        case '"': case '\\': case '/': case 'b': case 'f': case 'n': case 'r': case 't':
          break;
        case 'u':
          for (int i = 0; i < 4; i++, ++at_) {
            if (at_ == end_ || !std::strchr("0123456789abcdefABCDEF", *at_) || *at_ == '\0') return false;
          }
          break;
        default:
          return false;
      }
    }
  }

  // Checks a value that is left where it stands.
  bool skip_value(int depth) {
    if (depth > kMostDepth || at_ == end_) return false;
    if (*at_ == '"') return string();
    if (*at_ != '{' && *at_ != '[') {
      double number;
      return entry(&number);
    }
    const bool is_object = *at_++ == '{';
    const char close = is_object ? '}' : ']';
    skip_space();
    if (take(close)) return true;
    for (;;) {
      skip_space();
      if (is_object) {
        if (!string()) return false;
        skip_space();
        if (!take(':')) return false;
        skip_space();
      }
      if (!skip_value(depth + 1)) return false;
      skip_space();
      if (take(close)) return true;
      if (!take(',')) return false;
    }
  }

  const char* block_;
  const char* at_;
  const char* end_;
  JsonPart* part_;
  int depth_ = 0;
  int32_t extents_[kMostExtents] = {-1, -1, -1};
};

}  // namespace

std::vector<JsonPart> scan_json_lines(const uint8_t* bytes, int64_t length, int threads) {
  // Lines of every part, by their starts; a last line need not be ended.
  std::vector<std::vector<int64_t>> starts;
  int64_t part_start = 0;
  for (int64_t at = 0; at < length;) {
    if (starts.empty() || at - part_start >= kPartBytes) {
      starts.emplace_back();
      part_start = at;
    }
    starts.back().push_back(at);
    const void* found = std::memchr(bytes + at, '\n', static_cast<size_t>(length - at));
    at = found == nullptr ? length : static_cast<const uint8_t*>(found) - bytes + 1;
  }
  std::vector<JsonPart> parts(starts.size());
  const int64_t count = static_cast<int64_t>(parts.size());
  parallel_for(count, 1, threads, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; p++) {
      const std::vector<int64_t>& lines = starts[p];
      const int64_t stop = p + 1 < count ? starts[p + 1][0] : length;
      JsonPart& part = parts[p];
      part.numbers.reserve(static_cast<size_t>((stop - lines[0]) / 8));
      for (size_t l = 0; l < lines.size(); l++) {
        const int64_t next = l + 1 < lines.size() ? lines[l + 1] : stop;
        const int64_t line_end = next > lines[l] && bytes[next - 1] == '\n' ? next - 1 : next;
        JsonLine line{static_cast<int32_t>(lines[l]), static_cast<int32_t>(line_end),
                      static_cast<int32_t>(part.fields.size()), 0};
        line.status = LineReader(bytes, lines[l], line_end, &part).read();
        part.lines.push_back(line);
      }
    }
  });
  return parts;
}

}  // namespace surprisal
