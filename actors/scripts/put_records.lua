-- {kind, keys and records in turn, keys of removed records}

local p = cmsgpack.unpack(ARGV[1])
many('HSET', 'rec:' .. p[1], p[2])
many('HDEL', 'rec:' .. p[1], p[3])
