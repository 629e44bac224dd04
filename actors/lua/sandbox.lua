-- What a pipeline's script can see and do: the whitelist of section 5, the stage modules, and nothing else.
--
--   chunk(host, facts) -> validate, run      called once by actors/lua_child.py
--
-- `host` is nil while a script is only validated. Its functions never raise (what Python raises would be an object of
-- Python in the script's hands) and are only called from here; scripts hold closures of this file. The script's globals
-- are a table of its own; what this file uses itself is captured in locals, out of a script's reach.

local host, facts = ...

local error, getmetatable, ipairs, load, next, pairs = error, getmetatable, ipairs, load, next, pairs
local pcall, rawget, rawlen, setmetatable = pcall, rawget, rawlen, setmetatable
local tostring, type, xpcall = tostring, type, xpcall
local concat, pack, sort, unpack = table.concat, table.pack, table.sort, table.unpack
local huge, sub = math.huge, string.sub

local MESSAGE_MAX = 4000
local DEPTH_MAX = 32

-- ── the whitelist ───────────────────────────────────────────────────────────────────────────────

local function copy_of(library)
  local copy = {}
  for name, value in pairs(library) do copy[name] = value end
  return copy
end

string.dump = nil

local env = {
  assert = assert, error = error, getmetatable = getmetatable, ipairs = ipairs, next = next, pairs = pairs,
  pcall = pcall, rawequal = rawequal, rawget = rawget, rawlen = rawlen, rawset = rawset, select = select,
  setmetatable = setmetatable, tonumber = tonumber, tostring = tostring, type = type, xpcall = xpcall,
  _VERSION = _VERSION,
  coroutine = copy_of(coroutine), math = copy_of(math), string = copy_of(string), table = copy_of(table),
  utf8 = copy_of(utf8),
}
env._G = env

-- Methods of strings are looked up in a table that no script can name, and their metatable is not handed out.
local of_strings = getmetatable("")
of_strings.__index = copy_of(string)
of_strings.__metatable = false

for _, name in ipairs({
  "collectgarbage", "debug", "dofile", "io", "load", "loadfile", "os", "package", "print", "python", "require", "warn",
}) do
  _G[name] = nil
end

-- ── errors ──────────────────────────────────────────────────────────────────────────────────────

-- Text of whatever was raised; only strings may come out, whatever a script's __tostring does.
local function describe(raised)
  if type(raised) == "string" or type(raised) == "number" then
    return sub(tostring(raised), 1, MESSAGE_MAX)
  end
  local meta = type(raised) == "table" and getmetatable(raised)
  if type(meta) == "table" and rawget(meta, "__tostring") then
    local fine, text = pcall(tostring, raised)
    if fine and type(text) == "string" then return sub(text, 1, MESSAGE_MAX) end
  end
  return "(error object is a " .. type(raised) .. " value)"
end

-- Like pcall, but the second value of a failure is always a text.
local function attempt(fn, ...)
  local outcome = pack(xpcall(fn, describe, ...))
  if not outcome[1] and type(outcome[2]) ~= "string" then outcome[2] = "error in error handling" end
  return unpack(outcome, 1, outcome.n)
end

local function expect(value, kind, what)
  if type(value) ~= kind then error(what .. " must be a " .. kind .. ", not " .. type(value), 3) end
  return value
end

local function sorted_keys(values)
  local keys = {}
  for name in next, values do keys[#keys + 1] = name end
  sort(keys)
  return keys
end

-- ── modules ─────────────────────────────────────────────────────────────────────────────────────

local function only_in_stages(what)
  if not host then error(what .. " can only be called inside a stage", 3) end
end

local function writer(level)
  return function(message)
    message = tostring(message)
    if host then host.log(level, message) end
  end
end

env.log = { debug = writer("Debug"), info = writer("Info"), warning = writer("Warning"), error = writer("Error") }

local print_line = writer("Info")
env.print = function(...)
  local words = pack(...)
  for i = 1, words.n do words[i] = tostring(words[i]) end
  print_line(concat(words, "\t"))
end

-- A script that asks for its inputs while it is only validated gets its defaults, and "" for what it requires.
local function reader(values, what)
  return {
    get = function(name, default)
      local value = values[expect(name, "string", "the name")]
      if value == nil then return default end
      return value
    end,
    require = function(name)
      local value = values[expect(name, "string", "the name")]
      if value == nil and not host then return "" end
      if value == nil then error("required " .. what .. " '" .. name .. "' is not set", 2) end
      return value
    end,
    has = function(name) return values[expect(name, "string", "the name")] ~= nil end,
    all = function() return copy_of(values) end,
    keys = function() return sorted_keys(values) end,
  }
end

env.input = reader(facts.input, "input")
env.env = reader(facts.env, "variable")

-- A value as JSON can hold it, detached from the script's own tables.
local function detached(value, depth)
  local kind = type(value)
  if kind == "string" or kind == "boolean" then return value end
  if kind == "number" then
    if value ~= value or value == huge or value == -huge then error("output values must be finite numbers", 0) end
    return value
  end
  if kind ~= "table" then error("output values must be strings, numbers, booleans or tables, not " .. kind, 0) end
  if depth == DEPTH_MAX then error("output values are nested too deeply", 0) end
  local copy = {}
  for key, each in next, value do
    if type(key) ~= "string" and type(key) ~= "number" then
      error("keys of output values must be strings or numbers, not " .. type(key), 0)
    end
    copy[key] = detached(each, depth + 1)
  end
  return copy
end

local outputs = {}
env.output = reader(outputs, "output")
env.output.set = function(name, value)
  expect(name, "string", "the name")
  if value == nil then
    outputs[name] = nil
    return
  end
  local fine, copy = attempt(detached, value, 0)
  if not fine then error(copy, 2) end
  outputs[name] = copy
end
env.output.clear = function(name) outputs[expect(name, "string", "the name")] = nil end
env.output.clear_all = function()
  for name in next, outputs do outputs[name] = nil end
end

-- Images that `container.with` is inside of; the last one counts.
local images = {}

local function inside(image, fn, ...)
  images[#images + 1] = image
  local depth = #images
  local outcome = pack(pcall(fn, ...))
  for i = #images, depth, -1 do images[i] = nil end
  if not outcome[1] then error(outcome[2], 0) end
  return unpack(outcome, 2, outcome.n)
end

env.container = {
  with = function(image, fn)
    only_in_stages("container.with")
    expect(image, "string", "the image")
    expect(fn, "function", "what runs in the container")
    local refused = host.refuses_containers()
    if refused then error(refused, 2) end
    return inside(image, fn)
  end,
}

local LEVELS = { debug = "Debug", info = "Info", warning = "Warning", error = "Error" }

local function level_of(options, name, default)
  local level = LEVELS[options[name] or default]
  if not level then error("process.run: " .. name .. " must be debug, info, warning or error", 3) end
  return level
end

local function text(value, what)
  local kind = type(value)
  if kind ~= "string" and kind ~= "number" and kind ~= "boolean" then
    error("process.run: " .. what .. " must be strings, not " .. kind, 4)
  end
  return tostring(value)
end

local function arguments(values)
  local copy = {}
  for i = 1, rawlen(values) do copy[i] = text(rawget(values, i), "args") end
  return copy
end

local function variables(values)
  local copy = {}
  for name, value in next, values do copy[text(name, "names in env")] = text(value, "env") end
  return copy
end

env.process = {
  run = function(options)
    only_in_stages("process.run")
    expect(options, "table", "the argument of process.run")
    if type(options.cmd) ~= "string" or options.cmd == "" then error("process.run: cmd must be a string", 2) end
    for _, name in ipairs({ "args", "env" }) do
      if options[name] ~= nil then expect(options[name], "table", "process.run: " .. name) end
    end
    if options.cwd ~= nil then expect(options.cwd, "string", "process.run: cwd") end
    local exit_code, stdout, stderr = host.run(
      options.cmd, arguments(options.args or {}), variables(options.env or {}), options.cwd, images[#images],
      options.capture_stdout ~= false, options.capture_stderr ~= false,
      level_of(options, "stdout_level", "info"), level_of(options, "stderr_level", "error"))
    if exit_code == nil then error(stdout, 2) end
    return { exit_code = exit_code, stdout = stdout, stderr = stderr }
  end,
}

-- ── authoring ───────────────────────────────────────────────────────────────────────────────────

-- Definition of a builder; weak, so that it lives as long as its builder.
local definitions = setmetatable({}, { __mode = "k" })

local function added(list, value)
  list[#list + 1] = value
end

local builder_methods = {
  name = function(self, name) definitions[self].name = name return self end,
  description = function(self, text) definitions[self].description = text return self end,
  input = function(self, name, about) definitions[self].inputs[name] = about or {} return self end,
  tag = function(self, tag) added(definitions[self].tags, tag) return self end,
  plugin = function(self, name) added(definitions[self].plugins, name) return self end,
  stage = function(self, stage) added(definitions[self].stages, stage) return self end,
  build = function(self) return definitions[self] end,
}
local builder_meta = { __index = builder_methods, __metatable = false, __name = "pipeline builder" }

env.pipeline = {
  define = function(definition)
    return expect(definition, "table", "the argument of pipeline.define")
  end,
  builder = function()
    local builder = setmetatable({}, builder_meta)
    definitions[builder] = { inputs = {}, tags = {}, plugins = {}, stages = {} }
    return builder
  end,
}

-- ── the two things to do with a script ──────────────────────────────────────────────────────────

-- The table that the script returns, or nil and what is wrong with it.
local function definition_of(source)
  local chunk, refused = load(source, "=pipeline", "t", env)
  if not chunk then return nil, "Invalid Lua script: " .. sub(refused, 1, MESSAGE_MAX) end
  local fine, returned = attempt(chunk)
  if not fine then return nil, "Invalid Lua script: " .. returned end
  returned = definitions[returned] or returned
  if type(returned) ~= "table" then
    return nil, "Invalid pipeline definition: the script must return a table, not " .. type(returned)
  end
  return returned
end

local function skips(stage)
  local condition = rawget(stage, "condition")
  return condition and not condition()
end

local function run_stage(stage)
  local image = rawget(stage, "container")
  if image then
    inside(image, rawget(stage, "script"))
  else
    rawget(stage, "script")()
  end
end

-- nil when all went well, else what the job's error message is.
local function run(source)
  local definition, refused = definition_of(source)
  if not definition then return refused end
  local stages = rawget(definition, "stages")
  for i = 1, type(stages) == "table" and rawlen(stages) or 0 do
    local stage = rawget(stages, i)
    local name = tostring(rawget(stage, "name"))
    local fine, told = attempt(skips, stage)
    if fine and told then
      host.log("Info", "Skipping stage: " .. name)
    else
      host.log("Info", "Starting stage: " .. name)
      if fine then fine, told = attempt(run_stage, stage) end
      if not fine then return "Stage '" .. name .. "' failed: " .. told end
    end
  end
  return nil
end

return definition_of, run, outputs
