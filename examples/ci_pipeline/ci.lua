-- Tests, builds and tries a Python package from its source tree. Nothing is downloaded.
local function run(cmd, args, env)
  local done = process.run({ cmd = cmd, args = args, env = env, stderr_level = "info" })
  if done.exit_code ~= 0 then error(cmd .. " ended with exit code " .. done.exit_code, 0) end
  return done.stdout
end

local python = input.get("python", "python3")

return pipeline.define({
  name = "romans",
  description = "test and build a Python package",
  requires = { "process" },
  inputs = {
    source = { description = "folder with the package", required = true },
    python = { description = "interpreter", default = "python3" },
    release = { type = "bool", description = "build an archive too", default = true },
  },
  stages = {
    { name = "checkout", script = function() run("cp", { "-r", input.require("source") .. "/.", "." }) end },
    {
      name = "test",
      script = function()
        run(python, { "-W", "error", "-m", "unittest", "discover", "-v", "tests" }, { PYTHONPATH = "src" })
      end,
    },
    {
      name = "build",
      condition = function() return input.get("release") == "true" end,
      script = function()
        run("mkdir", { "dist" })
        run(python, { "-m", "zipapp", "src", "-m", "romans.__main__:main", "-o", "dist/romans.pyz" })
        output.set("archive", "romans.pyz")
      end,
    },
    {
      name = "try",
      condition = function() return output.has("archive") end,
      script = function()
        local told = run(python, { "dist/romans.pyz", "2026", "MCMXCIV" })
        if told ~= "MMXXVI\n1994\n" then error("the archive says " .. told, 0) end
        output.set("checked", { 2026, 1994 })
      end,
    },
  },
})
