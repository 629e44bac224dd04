-- {kind, keys and records in turn, keys of removed records, plane} -> 1, or 0: it is not in charge (no plane: anybody may)

local p = cmsgpack.unpack(ARGV[1])
local lease = p[4] and call('HMGET', 'plane', 'plane', 'term')
if lease and lease[2] and lease[1] ~= p[4] then
  return 0
end
many('HSET', 'rec:' .. p[1], p[2])
many('HDEL', 'rec:' .. p[1], p[3])
return 1
