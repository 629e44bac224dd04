-- {run_id, lines} -> how many lines the run has then; 0 = there is no such run

local p = cmsgpack.unpack(ARGV[1])
local r = row(p[1])
if not r then
  return 0
end
many('RPUSH', 'ln:' .. r.id, p[2])
feed[1] = { r.id, r.v, r.st }
flush()
return call('LLEN', 'ln:' .. r.id)
