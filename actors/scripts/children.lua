-- {backfill, first, last} -> list of {run_id, window_key, state, version, kept, dag_version}, in date order

local p = cmsgpack.unpack(ARGV[1])
local found = {}
for n, id in ipairs(call('LRANGE', 'bf:' .. p[1], p[2], p[3])) do
  local r = call('HMGET', 'run:' .. id, 'wk', 'st', 'v', 'dv')
  found[n] = { id, r[1], r[2], tonumber(r[3]), call('SISMEMBER', 'bfk:' .. p[1], id), tonumber(r[4]) }
end
return found
