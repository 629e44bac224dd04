-- list of {metric field, increment}

local of = {}
for _, count in ipairs(cmsgpack.unpack(ARGV[1])) do
  of[count[1]] = (of[count[1]] or 0) + count[2]
end
count_all(of)
