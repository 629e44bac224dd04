-- list of run ids -> list of rows, false for an unknown one

local found = {}
for n, id in ipairs(cmsgpack.unpack(ARGV[1])) do
  found[n] = read_row(id)
end
return found
