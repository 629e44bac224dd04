-- {instant, limit, skip, index} -> list of rows of runs that ended before then, the first to end first

local p = cmsgpack.unpack(ARGV[1])
local found = {}
for _, id in ipairs(call('ZRANGEBYSCORE', p[4], '-inf', '(' .. string.format('%d', p[1]), 'LIMIT', p[3], p[2])) do
  found[#found + 1] = read_row(id)
end
return found
