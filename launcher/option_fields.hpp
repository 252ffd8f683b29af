// How a row of the option table reads and writes a field of Options. Each maker takes a function from (const) Options to it.
#pragma once
#include <algorithm>
#include <string>
#include <type_traits>
#include <vector>

#include "launcher/option_values.hpp"
#include "launcher/options_table.hpp"

#define WEFT_FIELD(member) \
  [](auto& o) -> auto& { return o.member; }

namespace weft::option_fields {

using Texts = std::vector<std::string>;

template <class Field>
void integer(OptionRow& row, IntegerRange range, Field field) {
  row.read = [=](Options& o, const Texts& t) { field(o) = read_integer(t.front(), range); };
  row.write = [=](const Options& o) { return Texts{std::to_string(field(o))}; };
}
template <class Field>
void real(OptionRow& row, RealRange range, Field field) {
  row.read = [=](Options& o, const Texts& t) { field(o) = read_real(t.front(), range); };
  row.write = [=](const Options& o) { return Texts{write_real(field(o))}; };
}
template <class Field>
void seconds(OptionRow& row, Field field) {
  row.read = [=](Options& o, const Texts& t) { field(o) = read_seconds(t.front()); };
  row.write = [=](const Options& o) { return Texts{write_real(field(o))}; };
}
template <class Field>
void text(OptionRow& row, Field field) {
  row.read = [=](Options& o, const Texts& t) { field(o) = t.front(); };
  row.write = [=](const Options& o) { return Texts{field(o)}; };
}
template <class Field>
void texts(OptionRow& row, Field field) {
  row.kind = OptionKind::list;
  row.read = [=](Options& o, const Texts& t) { field(o) = t; };
  row.write = [=](const Options& o) { return field(o); };
}
template <class Field>
void integers(OptionRow& row, IntegerRange range, Field field) {
  row.kind = OptionKind::list;
  row.read = [=](Options& o, const Texts& t) {
    field(o).clear();
    for (const std::string& one : t) field(o).push_back(read_integer(one, range));
    std::ranges::sort(field(o));
  };
  row.write = [=](const Options& o) {
    Texts words;
    for (const std::int64_t one : field(o)) words.push_back(std::to_string(one));
    return words;
  };
}
template <class Field>
void yes_no(OptionRow& row, Field field) {
  row.kind = OptionKind::flag;
  row.read = [=](Options& o, const Texts& t) { field(o) = read_yes_no(t.front()); };
  row.write = [=](const Options& o) { return Texts{field(o) ? "yes" : "no"}; };
}
template <class Names, class Field>
void choice(OptionRow& row, const Names& names, Field field) {
  row.read = [=, &names](Options& o, const Texts& t) {
    using Enum = std::remove_reference_t<decltype(field(o))>;
    field(o) = static_cast<Enum>(read_choice(t.front(), names));
  };
  row.write = [=, &names](const Options& o) { return Texts{std::string(names[static_cast<std::size_t>(field(o))])}; };
}

}  // namespace weft::option_fields
