-- {instant, limit} -> list of rows of runs that ended before then, the first to end first

local p = cmsgpack.unpack(ARGV[1])
local found = {}
for _, id in ipairs(call('ZRANGEBYSCORE', 'ended', '-inf', '(' .. string.format('%d', p[1]), 'LIMIT', 0, p[2])) do
  found[#found + 1] = read_row(id)
end
return found
