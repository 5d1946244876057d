// SPDX-License-Identifier: Apache-2.0
#include "datapath/datapath.hpp"

namespace tapgate::datapath {

std::string_view drop_reason_name(tg_drop_reason reason) {
    switch (reason) {
#define X(number, name, word, text)                                                                          \
    case TG_DROP_##name:                                                                                     \
        return word;
        TG_DROP_REASONS(X)
#undef X
    case TG_DROP_NONE:
    case TG_DROP_REASON_MAX:
        break;
    }
    return "unknown";
}

std::string_view drop_reason_text(tg_drop_reason reason) {
    switch (reason) {
#define X(number, name, word, text)                                                                          \
    case TG_DROP_##name:                                                                                     \
        return text;
        TG_DROP_REASONS(X)
#undef X
    case TG_DROP_NONE:
    case TG_DROP_REASON_MAX:
        break;
    }
    return "a reason that this version does not know";
}

} // namespace tapgate::datapath
