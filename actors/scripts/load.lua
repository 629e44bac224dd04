-- list of run ids -> list of {row, events of the stream}; unknown ids are left out

local found = {}
for _, id in ipairs(cmsgpack.unpack(ARGV[1])) do
  local r = read_row(id)
  if r then found[#found + 1] = { r, call('XRANGE', 'ev:' .. id, '-', '+') } end
end
return found
