-- backfill -> {state counts as pairs, number of kept windows}

local id = cmsgpack.unpack(ARGV[1])
return { call('HGETALL', 'bfc:' .. id), call('SCARD', 'bfk:' .. id) }
