-- list of {metric field, increment}

for _, count in ipairs(cmsgpack.unpack(ARGV[1])) do
  call('HINCRBY', 'metrics', count[1], count[2])
end
