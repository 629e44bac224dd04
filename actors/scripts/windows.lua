-- {tenant, dag_id, window keys, of backfills} -> list of rows, false for a window without a run

local p = cmsgpack.unpack(ARGV[1])
local key = (p[4] and 'bfw:' or 'win:') .. p[1] .. ':' .. p[2]
local found = {}
for first = 1, #p[3], CHUNK do
  local ids = call('HMGET', key, unpack(p[3], first, math.min(first + CHUNK - 1, #p[3])))
  for offset, id in ipairs(ids) do
    found[first + offset - 1] = id and read_row(id)
  end
end
return found
