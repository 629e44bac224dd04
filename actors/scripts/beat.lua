-- {run_id, pid, at}; pid 0 = unknown: what is known stays

local p = cmsgpack.unpack(ARGV[1])
call('SADD', 'beats', p[1])
call('HSET', 'beat:' .. p[1], 'at', p[3])
if p[2] ~= 0 then call('HSET', 'beat:' .. p[1], 'pid', p[2]) end
