"""Scripts of pipelines, and where their secrets could be found."""

from __future__ import annotations

from tests.live import Server

TABLE = '{ name = "Example", description = "d", inputs = { x = { type = "string" } }, stages = { STAGE } }'
STAGE = '{ name = "build", script = function() end }'
BUILDER = (
    'pipeline.builder():name("Example"):description("d"):input("x", {type = "string"})'
    f':tag({{key = "os", value = "linux"}}):plugin("docker"):stage({STAGE})'
)

STAGES = """\
return { name = "stages", inputs = { n = { type = "number", default = 2 } }, stages = {
  { name = "first", script = function()
      output.set("n", input.get("n")); log.warning("env " .. env.require("GREETING"))
      log.debug(tostring(os == nil)) end },
  { name = "skipped", condition = function() return false end, script = function() error("never") end },
  { name = "second", script = function()
      output.set("twice", 2 * tonumber(output.require("n"))); if input.get("n") == "7" then error("seven") end end } } }
"""

# ---------------------------------------------------------------- secrets


SECRETIVE = """\
return { name = "secretive", inputs = { password = { type = "string", secret = true, required = true } },
  stages = { { name = "leak", script = function()
    log.info("password " .. input.require("password") .. " token " .. env.require("TOKEN"))
    output.set("password", input.require("password")); output.set("list", { env.require("TOKEN") })
    if input.get("fail") then error("wrong token " .. env.require("TOKEN")) end end } } }
"""


def found_in(server: Server, texts: list[str]) -> dict[str, list[str]]:
    """Text -> files beneath the server's home that hold it."""
    found: dict[str, list[str]] = {each: [] for each in texts}
    for file in server.home.rglob("*"):
        if file.is_file() and not file.is_symlink():
            content = file.read_bytes()
            for text in texts:
                if text.encode() in content:
                    found[text].append(str(file.relative_to(server.home)))
    return found
