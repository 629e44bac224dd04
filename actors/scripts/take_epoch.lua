-- owner -> its new epoch

local owner = cmsgpack.unpack(ARGV[1])
local epoch = call('HINCRBY', 'owner:' .. owner, 'epoch', 1)
call('HSET', 'owner:' .. owner, 'turn', 0, 'reply', '\144')
return epoch
