-- run id -> {row, tasks as HGETALL gives them}, read at one instant; false for an unknown one

local id = cmsgpack.unpack(ARGV[1])
local r = read_row(id)
if not r then return false end
return { r, call('HGETALL', 'tk:' .. id) }
