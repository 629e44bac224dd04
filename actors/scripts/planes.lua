-- The lease of a journal as in orchestrator/planes.py: hash `plane`, whose numbers are whole

local PLANE = { 'plane', 'term', 'since_ms', 'until_ms', 'span_ms', 'seat', 'url', 'wanted' }
local KEPT_MS = 10000

local function clock_ms()
  local time = call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function read_lease()
  local found, lease = call('HMGET', 'plane', unpack(PLANE)), {}
  for n, name in ipairs(PLANE) do
    local number = n >= 2 and n <= 5
    lease[name] = number and tonumber(found[n] or '0') or not number and (found[n] or '')
  end
  return lease
end

-- stores what is not as it was
local function write_lease(before, lease)
  local set = {}
  for _, name in ipairs(PLANE) do
    if lease[name] ~= before[name] then
      set[#set + 1] = name
      set[#set + 1] = type(lease[name]) == 'number' and string.format('%d', lease[name]) or lease[name]
    end
  end
  if #set > 0 then call('HSET', 'plane', unpack(set)) end
end

local function copied(lease, changes)
  local out = {}
  for _, name in ipairs(PLANE) do
    out[name] = lease[name]
    if changes[name] ~= nil then out[name] = changes[name] end
  end
  return out
end

local function told(lease)
  local out = {}
  for n, name in ipairs(PLANE) do
    out[n] = lease[name]
  end
  out[#PLANE + 1] = clock_ms()
  return cmsgpack.pack(out)
end
