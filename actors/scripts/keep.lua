-- {run_id, version}; a version of false forgets the instance

local p = cmsgpack.unpack(ARGV[1])
if not p[2] then
  call('SREM', 'beats', p[1])
  call('DEL', 'beat:' .. p[1])
elseif call('SISMEMBER', 'beats', p[1]) == 1 then
  call('HSET', 'beat:' .. p[1], 'kept', p[2])
end
