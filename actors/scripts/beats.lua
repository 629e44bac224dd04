-- -> list of {run_id, pid, at, kept} of every instance that has not been forgotten

local ids = call('SMEMBERS', 'beats')
table.sort(ids)
local found = {}
for n, id in ipairs(ids) do
  local r = call('HMGET', 'beat:' .. id, 'pid', 'at', 'kept')
  found[n] = { id, tonumber(r[1] or '0'), tonumber(r[2] or '0'), tonumber(r[3] or '0') }
end
return found
