-- {tenant, ids} or {tenant, false, after, limit} -> list of {dag_id, row pairs, definition, run count pairs}

local p = cmsgpack.unpack(ARGV[1])
local ids = p[2]
if not ids then
  ids = call('ZRANGEBYLEX', 'dags:' .. p[1], p[3] == '' and '-' or '(' .. p[3], '+', 'LIMIT', 0, p[4])
end
local found = {}
for _, d in ipairs(ids) do
  local at = p[1] .. ':' .. d
  local dag = call('HGETALL', 'dag:' .. at)
  if #dag > 0 then
    local version = call('HGET', 'dag:' .. at, 'version')
    found[#found + 1] = { d, dag, call('HGET', 'dagv:' .. at, version), call('HGETALL', 'rc:' .. at) }
  end
end
return found
