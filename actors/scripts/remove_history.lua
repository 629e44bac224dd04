-- {run_id, version, event} -> 1 when it is the next event, and but for the first there are no others; 0 = nothing was done

local p = cmsgpack.unpack(ARGV[1])
local r = row(p[1])
if not r or r.v ~= p[2] or not TERMINAL[r.st] or not passes(r) then
  return 0
end
local first = call('XRANGE', 'ev:' .. r.id, '-', '+', 'COUNT', 1)[1][2]
call('UNLINK', 'ev:' .. r.id)
append_events(r.id, 1, first[4], first[2])
append_events(r.id, r.v + 1, p[3])
call('HSET', 'run:' .. r.id, 'v', r.v + 1, 'hr', r.v + 1)
ended(r, false)
feed[1] = { r.id, r.v + 1, r.st }
flush()
return 1
