-- owner, or {owner, plane} -> its new epoch, or 0: another plane is in charge, or none

local p = cmsgpack.unpack(ARGV[1])
local owner = type(p) == 'table' and p[1] or p
local lease = call('HMGET', 'plane', 'plane', 'term')
if type(p) == 'table' and lease[2] and lease[1] ~= p[2] then
  return 0
end
local epoch = call('HINCRBY', 'owner:' .. owner, 'epoch', 1)
call('HSET', 'owner:' .. owner, 'turn', 0, 'reply', '\144', 'term', lease[2] or '0')
return epoch
