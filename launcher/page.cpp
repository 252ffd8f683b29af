#include "launcher/page.hpp"

#include <fmt/format.h>

#include "launcher/html.hpp"
#include "launcher/plot.hpp"

namespace weft {
namespace {

constexpr std::string_view page_style = R"(
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
main{max-width:1320px;margin:0 auto;padding:28px 24px 60px}
h1{font-size:24px;margin:0 0 4px}h2{font-size:17px;margin:36px 0 12px}
.where{color:var(--soft);margin:0 0 22px;overflow-wrap:anywhere}
dl{display:grid;grid-template-columns:repeat(auto-fill,minmax(250px,1fr));
border:1px solid var(--rule);border-radius:8px;overflow:hidden;margin:0}
dl div{box-shadow:0 0 0 .5px var(--rule);padding:9px 14px}
dt{color:var(--soft);font-size:12.5px}dd{margin:0;font-variant-numeric:tabular-nums}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,520px),1fr));gap:18px}
figure{margin:0;border:1px solid var(--rule);border-radius:8px;padding:8px}
figcaption{color:var(--soft);font-size:13.5px;padding:4px 10px 6px}
svg{display:block;width:100%;height:auto}
pre{border:1px solid var(--rule);border-radius:8px;padding:14px;overflow:auto;
font:13px/1.45 ui-monospace,monospace;margin:0}
summary{cursor:pointer;color:var(--soft);margin:30px 0 10px}
)";

}  // namespace

std::string html_page(std::string_view title, std::string_view body) {
  return fmt::format(
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><meta name=\"color-scheme\" "
      "content=\"light dark\">\n<title>{}</title>\n<style>{}{}</style></head>\n<body><main>\n{}</main></body></html>\n",
      escape_html(title), plot_style(), page_style, body);
}

}  // namespace weft
